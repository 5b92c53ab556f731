"""Learning from whole rollouts of recurrent policies, as a Stable-Baselines3 on-policy algorithm."""

from __future__ import annotations

from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from torch import Tensor

from agents.averaging import start_average
from agents.core_policy import CorePolicy, map_obs, stack
from agents.losses import advantages_and_returns, clipped_loss, reinforce_loss
from agents.networks import State
from agents.rollout import Batch, Rollout
from agents.step_graphs import StepGraphs
from agents.vec_env import BoxAction, GymnasiumVecEnv, is_location_and_choice


class EpisodeLearner(OnPolicyAlgorithm):
    """Acts for whole episodes of N environments and learns from them once (REINFORCE, A2C) or several times (PPO).

    With `n_epochs` and `n_minibatches` of 1 the graph that was built while acting is run backwards once. Else the rollout is
    stored and the network run again over all steps of some of the environments at a time: the gradient flows through all steps.

    Subclasses say what the loss is.

    Args:
        policy: a `CorePolicy` or its name.
        env, learning_rate, n_steps, n_epochs, n_minibatches, clip_range, normalize_advantage, ent_coef: see `EpisodePPO`.
        weight_average: above 0, `predict` acts with the average of the weights over about this share of all updates so far, the
            last ones, see `averaging`; what is acted with while learning stays as it is. 0: no average.
        cuda_graphs: whether on a GPU the steps of what is learned from once are recorded and replayed, see `step_graphs`.
        **kwargs: SB3's `gamma`, `gae_lambda`, `vf_coef`, `max_grad_norm`, `stats_window_size`, `tensorboard_log`,
            `policy_kwargs`, `verbose`, `seed`, `device`.

    Raises:
        ValueError: an argument is out of range, or the environment's spaces do not fit; the message names it.
    """

    policy: CorePolicy  # type: ignore[assignment]

    def __init__(
        self,
        policy: str | type[CorePolicy],
        env: GymEnv | VectorEnv | str | None,
        learning_rate: float | Schedule,
        n_steps: int | None,
        n_epochs: int,
        n_minibatches: int,
        clip_range: float,
        normalize_advantage: bool,
        ent_coef: float | Schedule,
        weight_average: float = 0.0,
        cuda_graphs: bool = True,
        **kwargs: Any,
    ) -> None:
        if not 0 <= weight_average <= 1:
            raise ValueError(f"weight_average must lie between 0 and 1, got {weight_average!r}")
        if n_steps is not None and n_steps < 1:
            raise ValueError(f"n_steps must be at least 1 or None, got {n_steps!r}")
        for name, value in (("n_epochs", n_epochs), ("n_minibatches", n_minibatches)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value!r}")
        if not 0 < clip_range < 1:
            raise ValueError(f"clip_range must lie between 0 and 1, got {clip_range!r}")
        if isinstance(env, str):
            env = gym.make(env)  # SB3 would insist on a render mode.
        self.n_epochs, self.n_minibatches, self.clip_range = n_epochs, n_minibatches, clip_range
        self.normalize_advantage, self.weight_average = normalize_advantage, weight_average
        self.cuda_graphs = cuda_graphs
        self._state: State | None = None
        super().__init__(
            policy=policy,  # type: ignore[arg-type]
            env=env,  # type: ignore[arg-type]
            learning_rate=learning_rate,
            n_steps=n_steps,  # type: ignore[arg-type]
            ent_coef=ent_coef,  # type: ignore[arg-type]
            use_sde=False,
            sde_sample_freq=-1,
            **kwargs,
        )

    def _act(self, output: Any) -> tuple[Tensor, ...]:
        """The parts of the actions while learning."""
        return self.policy.act(output)

    def _losses(self, batch: Batch, outputs: Any) -> dict[str, Tensor]:
        """The terms of the loss, weighted."""
        raise NotImplementedError

    def _labels(self, infos: list[dict[str, Any]]) -> list[int] | None:
        """The true classes (N,), where the loss needs them."""
        return None

    @staticmethod
    def _wrap_env(env: Any, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        """SB3's own wrapping, and before it what makes Gymnasium's vector environments and Dict actions known to SB3."""
        if isinstance(env, VectorEnv):
            env = GymnasiumVecEnv(env)
            env = VecMonitor(env) if monitor_wrapper else env
        elif isinstance(env, gym.Env) and is_location_and_choice(env.action_space):
            env = BoxAction(env)
        return OnPolicyAlgorithm._wrap_env(env, verbose, monitor_wrapper)

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self.rollout_buffer = Rollout()  # type: ignore[assignment]
        self.policy = self.policy_class(  # type: ignore[assignment]
            self.observation_space, self.action_space, self.lr_schedule, **self._policy_arguments()
        ).to(self.device)
        self.average = start_average(self.policy, self.weight_average) if self.weight_average else None
        records = self.cuda_graphs and self._keeps_graph and self.device.type == "cuda"
        self._graphs = StepGraphs(self.policy) if records else None

    @property
    def acting_policy(self) -> CorePolicy:
        """What `predict` acts with: the policy, or with a `weight_average` its average."""
        return self.policy if self.average is None else cast("CorePolicy", self.average.module)

    def predict(
        self,
        observation: NDArray | dict[str, NDArray],
        state: tuple[NDArray, ...] | None = None,
        episode_start: NDArray | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray, tuple[NDArray, ...] | None]:
        """See `CorePolicy.predict`, and `acting_policy`."""
        return self.acting_policy.predict(observation, state, episode_start, deterministic)

    def _policy_arguments(self) -> dict[str, Any]:
        return self.policy_kwargs

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: Any,
        n_rollout_steps: int | None,
    ) -> bool:
        """Act for `n_rollout_steps` steps (None: until every environment has ended an episode).

        Returns:
            False where a callback stopped it; the episodes under way are then forgotten.
        """
        assert self._last_obs is not None and self._last_episode_starts is not None
        self.policy.set_training_mode(True)
        rollout = self.rollout_buffer = Rollout()  # type: ignore[assignment]
        rollout.first_state = self.policy.mask_state(self._state, self._last_episode_starts)
        has_ended = np.zeros(env.num_envs, np.bool_)
        callback.on_rollout_start()
        while not (has_ended.all() if n_rollout_steps is None else len(rollout) == n_rollout_steps):
            obs: Any = obs_as_tensor(self._last_obs, self.device)  # type: ignore[arg-type]
            output = self._step(len(rollout), obs)
            actions = self._act(output)
            new_obs, rewards, dones, infos = env.step(self.policy.to_env(*actions))
            self.num_timesteps += env.num_envs
            callback.update_locals(locals())
            if not callback.on_step():
                self._last_obs = self._state = None
                return False
            if not self.policy.training:
                self.policy.set_training_mode(True)  # A callback has evaluated it.
            self._update_info_buffer(infos, dones)
            if not self._keeps_graph:
                rollout.observations.append(obs)
                rollout.episode_starts.append(self._last_episode_starts)
            rollout.outputs.append(output)
            rollout.actions.append(actions)
            rollout.rewards.append(self._beyond_time_limits(rewards, dones, infos, output.state))
            rollout.dones.append(dones)
            if (labels := self._labels(infos)) is not None:
                rollout.labels.append(labels)
            has_ended |= dones
            self._last_obs = new_obs  # type: ignore[assignment]
            self._last_episode_starts, self._state = dones, output.state
        rollout.last_values = self._last_values()
        self._state = tuple(part.detach() for part in self._state or ())
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _step(self, index: int, obs: Any) -> Any:
        """What the policy makes of observations (N, ...) at step `index` of the rollout."""
        assert self._last_episode_starts is not None
        state = self.policy.mask_state(self._state, self._last_episode_starts)
        if self._graphs is not None:
            return self._graphs(index, obs, state)
        with torch.set_grad_enabled(self._keeps_graph):
            return self.policy(obs, state)

    def _beyond_time_limits(self, rewards: NDArray, dones: NDArray, infos: list[dict[str, Any]], state: State) -> NDArray:
        """The rewards (N,), with what was still to be expected where a time limit cut an episode short."""
        cut = [int(env) for env in np.flatnonzero(dones) if infos[env].get("TimeLimit.truncated", False)]
        if not cut:
            return rewards
        last = stack([self.policy.obs_to_tensor(infos[env]["terminal_observation"])[0] for env in cut])  # (m, 1, ...)
        with torch.no_grad():
            output = self.policy(map_obs(lambda part: part.squeeze(1), last), tuple(part[cut] for part in state))
        rewards = rewards.copy()
        rewards[cut] += self.gamma * output.value.cpu().numpy()
        return rewards

    @property
    def _keeps_graph(self) -> bool:
        """Whether a rollout is learned from once only: then what was computed while acting serves for learning too."""
        return self.n_epochs * self.n_minibatches == 1

    def train(self) -> None:
        """Learn from the rollout: one gradient step for each minibatch of each epoch."""
        rollout: Rollout = self.rollout_buffer  # type: ignore[assignment]
        self._update_learning_rate(self.policy.optimizer)
        outputs = rollout.stacked_outputs()
        batch = self._batch(rollout, outputs)
        if self._keeps_graph:
            logs = [self._update(batch, outputs)]
        else:
            inputs, num_envs, logs = rollout.inputs(), batch.returns.shape[1], []
            for _ in range(self.n_epochs):
                for envs in np.array_split(torch.randperm(num_envs).numpy(), min(self.n_minibatches, num_envs)):
                    logs.append(self._update(batch.of(envs), self.policy.unroll(*inputs.of(envs))))
        self._n_updates += len(logs)
        self.rollout_buffer = Rollout()  # type: ignore[assignment]
        for name in logs[0]:
            self.logger.record(f"train/{name}", float(np.mean([log[name] for log in logs])))
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _update(self, batch: Batch, outputs: Any) -> dict[str, float]:
        """One gradient step; returns what to log."""
        losses = self._losses(batch, outputs)
        loss = sum(losses.values(), torch.zeros((), device=self.device))
        self.policy.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        self.policy.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.policy)
        return {**{name: part.item() for name, part in losses.items()}, "loss": loss.item(), "grad_norm": norm.item()}

    def _batch(self, rollout: Rollout, outputs: Any) -> Batch:
        assert rollout.last_values is not None
        dones = np.stack(rollout.dones)  # (T, N)
        labels = self._tensor(np.array(rollout.labels)) if rollout.labels else None
        values = self._values(outputs, labels).detach().cpu().numpy()  # (T, N), b_t
        advantages, returns = advantages_and_returns(
            self._rewards(rollout, outputs, labels), values, dones, rollout.last_values, self.gamma, self.gae_lambda
        )
        if self.normalize_advantage:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        actions = stack(rollout.actions)
        looked_at = self._tensor(~dones).float()
        old_log_probs = None if self._keeps_graph else self.policy.log_probs(outputs, actions).detach()
        return Batch(actions, self._tensor(advantages), self._tensor(returns), looked_at, labels, old_log_probs)

    def _values(self, outputs: Any, labels: Tensor | None) -> Tensor:
        """The baseline b_t (T, N), for labels (T, N) where there are such."""
        return outputs.value

    def _rewards(self, rollout: Rollout, outputs: Any, labels: Tensor | None) -> NDArray:
        """What followed each step (T, N), for labels (T, N) where there are such."""
        return np.stack(rollout.rewards)

    def _policy_loss(self, batch: Batch, log_probs: Tensor, part: int, weights: Tensor) -> Tensor:
        """REINFORCE's or PPO's loss for a part of the actions, out of log_probs (T, N, P)."""
        if batch.old_log_probs is None:
            return reinforce_loss(log_probs[..., part], batch.advantages, weights)
        old = batch.old_log_probs[..., part]
        return clipped_loss(log_probs[..., part], old, batch.advantages, weights, self.clip_range)

    def _entropy_weight(self) -> float:
        weight: Any = self.ent_coef
        return weight(self._current_progress_remaining) if callable(weight) else weight

    def _update_info_buffer(self, infos: list[dict[str, Any]], dones: NDArray | None = None) -> None:
        if dones is None or dones.any():  # Between, there is nothing to be found.
            super()._update_info_buffer(infos, dones)

    def _last_values(self) -> NDArray:
        """The baseline (N,) of what follows the rollout, 0 where an episode has just ended."""
        assert self._last_obs is not None and self._last_episode_starts is not None
        if self._last_episode_starts.all():
            return np.zeros(len(self._last_episode_starts), np.float32)
        with torch.no_grad():
            obs: Any = obs_as_tensor(self._last_obs, self.device)
            output = self.policy(obs, self.policy.mask_state(self._state, self._last_episode_starts))
        return output.value.cpu().numpy()

    def _tensor(self, values: NDArray) -> Tensor:
        return torch.as_tensor(values, device=self.device)

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        if reset_num_timesteps or self._last_obs is None:
            self._state = None
        return super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        modules, variables = super()._get_torch_save_params()
        return (modules if self.average is None else [*modules, "average"]), variables

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_state", "_graphs"]
