"""PPO in one flat loop, in the style of CleanRL, on one native batch of environments, without Stable-Baselines3.

The agent is a GRU; its actions are those of action_format="multidiscrete".

python docs/examples/cleanrl_style.py
python docs/examples/cleanrl_style.py --num-steps 4 --env-kwargs "num_glimpses:4 glimpse_size:12"
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical

from ram_envs import parse_pairs


@dataclass
class Args:
    """The options of the command line."""

    env_id: str = "GlimpseMNIST-v0"
    env_kwargs: str = ""  # Options of the environment: "location_grid:7 num_glimpses:4"
    seed: int = 0
    total_timesteps: int = 2_000_000
    num_envs: int = 256
    num_steps: int = 7  # Of each environment in a rollout; an episode's length, or a multiple of it, cuts no episode.
    learning_rate: float = 1e-3  # Falls to 0.
    gamma: float = 0.99
    gae_lambda: float = 0.95
    num_minibatches: int = 4  # Of whole sequences.
    update_epochs: int = 4
    clip_coef: float = 0.2
    ent_coef: float = 0.01
    vf_coef: float = 0.5
    max_grad_norm: float = 0.5
    hidden_size: int = 128


class Agent(nn.Module):
    """Logits of each part of the action and the value, from the observations so far."""

    def __init__(self, envs: gym.vector.VectorEnv, hidden_size: int) -> None:
        super().__init__()
        assert isinstance(envs.single_action_space, gym.spaces.MultiDiscrete)
        self.choices = envs.single_action_space.nvec.tolist()  # Columns, rows, classes.
        self.sensor = nn.Sequential(nn.Linear(gym.spaces.flatdim(envs.single_observation_space), hidden_size), nn.ReLU())
        self.memory = nn.GRUCell(hidden_size, hidden_size)
        self.actor = nn.Linear(hidden_size, sum(self.choices))
        self.critic = nn.Linear(hidden_size, 1)
        nn.init.orthogonal_(self.actor.weight, 0.01)

    def forward(
        self, obs: torch.Tensor, began: torch.Tensor, state: torch.Tensor
    ) -> tuple[list[Categorical], torch.Tensor, torch.Tensor]:
        """Policy, value (T, N) and last state (N, H) for observations (T, N, F); where `began` (T, N) is 1 the state is 0."""
        hidden = []
        for inputs, new in zip(self.sensor(obs), began, strict=True):
            state = self.memory(inputs, state * (1 - new[:, None]))
            hidden.append(state)
        features = torch.stack(hidden)
        policy = [Categorical(logits=logits) for logits in self.actor(features).split(self.choices, dim=-1)]
        return policy, self.critic(features).squeeze(-1), state


def flatten(obs: dict[str, np.ndarray]) -> torch.Tensor:
    """The observations (N, ...) side by side: (N, F)."""
    return torch.cat([torch.as_tensor(part).flatten(1) for part in obs.values()], dim=1)


def main(arguments: list[str] | None = None) -> list[float]:
    """Train, and return the mean return of the episodes that ended in each rollout."""
    args = parse_arguments(arguments)
    torch.manual_seed(args.seed)
    options = parse_pairs(args.env_kwargs.split())
    envs = gym.make_vec(args.env_id, args.num_envs, action_format="multidiscrete", autoreset_mode="SameStep", **options)
    agent = Agent(envs, args.hidden_size)
    optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)
    num_updates = max(args.total_timesteps // (args.num_envs * args.num_steps), 1)

    shape = (args.num_steps, args.num_envs)
    rewards, dones = torch.zeros(shape), torch.zeros(shape)
    next_obs, next_began = flatten(envs.reset(seed=args.seed)[0]), torch.ones(args.num_envs)
    state = torch.zeros(args.num_envs, args.hidden_size)
    mean_returns = []
    for update in range(num_updates):
        optimizer.param_groups[0]["lr"] = (1 - update / num_updates) * args.learning_rate
        first_state, steps = state, []
        for t in range(args.num_steps):
            obs, began = next_obs, next_began
            with torch.no_grad():
                policy, value, state = agent(obs[None], began[None], state)
            action = torch.stack([part.sample()[0] for part in policy], dim=-1)  # (N, 4)
            log_prob = sum(part.log_prob(action[:, i])[0] for i, part in enumerate(policy))
            steps.append((obs, began, action, log_prob, value[0]))
            next_obs, reward, terminated, truncated, _ = envs.step(action.numpy())
            next_obs, next_began = flatten(next_obs), torch.as_tensor(terminated | truncated).float()
            rewards[t], dones[t] = torch.as_tensor(reward), next_began
        obs, began, actions, log_probs, values = (torch.stack(parts) for parts in zip(*steps, strict=True))
        mean_returns.append(float(rewards.sum() / dones.sum().clamp(min=1)))

        # Generalised advantage estimates. Episodes always end by themselves: nothing is bootstrapped over an end.
        with torch.no_grad():
            next_value = agent(next_obs[None], next_began[None], state)[1][0]
        advantages, last = torch.zeros(shape), torch.zeros(args.num_envs)
        for t in reversed(range(args.num_steps)):
            error = rewards[t] + args.gamma * next_value * (1 - dones[t]) - values[t]
            last = error + args.gamma * args.gae_lambda * (1 - dones[t]) * last
            advantages[t], next_value = last, values[t]
        returns = advantages + values

        for chosen in (
            part for _ in range(args.update_epochs) for part in torch.randperm(args.num_envs).chunk(args.num_minibatches)
        ):
            policy, value, _ = agent(obs[:, chosen], began[:, chosen], first_state[chosen])
            log_prob = sum(part.log_prob(actions[:, chosen, i]) for i, part in enumerate(policy))
            ratio = (log_prob - log_probs[:, chosen]).exp()
            advantage = advantages[:, chosen]
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
            clipped = ratio.clamp(1 - args.clip_coef, 1 + args.clip_coef)
            policy_loss = -torch.min(advantage * ratio, advantage * clipped).mean()
            value_loss = 0.5 * ((value - returns[:, chosen]) ** 2).mean()
            entropy = sum(part.entropy() for part in policy).mean()
            optimizer.zero_grad()
            (policy_loss + args.vf_coef * value_loss - args.ent_coef * entropy).backward()
            nn.utils.clip_grad_norm_(agent.parameters(), args.max_grad_norm)
            optimizer.step()
        if update % max(num_updates // 20, 1) == 0 or update == num_updates - 1:
            print(f"{(update + 1) * args.num_envs * args.num_steps:9d} steps: mean return {mean_returns[-1]:.3f}")
    envs.close()
    return mean_returns


def parse_arguments(arguments: list[str] | None) -> Args:
    """The command line: one option for each field of `Args`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in fields(Args):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    return Args(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
