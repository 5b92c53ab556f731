"""RAM, the recurrent attention model's learning algorithm, as a Stable-Baselines3 on-policy algorithm."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from torch import Tensor

from agents.distributions import choice_entropy, choice_log_prob, location_log_prob
from agents.losses import baseline_loss, classification_loss, discounted_returns, reinforce_loss
from agents.networks import State
from agents.policy import RAMPolicy
from agents.vec_env import BoxAction, GymnasiumVecEnv, is_location_and_choice


@dataclass
class Rollout:
    """What happened in T steps of N environments. The model's outputs keep their graph: learning runs it backwards, once."""

    locations: list[Tensor] = field(default_factory=list)  # T of (N, 2), as sampled: not clipped
    location_means: list[Tensor] = field(default_factory=list)  # T of (N, 2)
    logits: list[Tensor] = field(default_factory=list)  # T of (N, K)
    choices: list[Tensor] = field(default_factory=list)  # T of (N,)
    values: list[Tensor] = field(default_factory=list)  # T of (N,)
    rewards: list[NDArray] = field(default_factory=list)  # T of (N,)
    dones: list[NDArray] = field(default_factory=list)  # T of (N,)
    labels: list[list[int]] = field(default_factory=list)  # T of N
    last_values: NDArray | None = None  # (N,), the baseline after the last step

    def __len__(self) -> int:
        return len(self.rewards)


class RAM(OnPolicyAlgorithm):
    """The recurrent attention model of Mnih et al. 2014.

    The location is learned by REINFORCE with a learned baseline. The class is learned from the labels by cross-entropy (the
    paper's hybrid loss) or, as game moves are, by REINFORCE too. `RAMPolicy` says which gradient flows where.

    Args:
        policy: "RAMPolicy" or a subclass of it.
        env: an environment with the observations "glimpse" and "location", its id, an SB3 `VecEnv` or a Gymnasium vector
            environment. A Dict action of location and choice is offered as a Box, see `agents.vec_env`.
        learning_rate: a number, or a function of the remaining progress (1 to 0).
        n_steps: steps of each environment to an update. None: until every environment has ended an episode, so whole episodes
            where they have one length.
        gamma: the discount.
        class_loss: "cross_entropy", with `info["label"]` and greedy choices while learning, or "reinforce", with sampled choices.
        class_loss_steps: "last" takes the cross-entropy at the end of the episode alone, as the paper does; "all" at every step.
        location_coef: the weight of the location's REINFORCE term in units of `location_std` squared. The gradient of
            log N(l | mean, std^2) grows as 1/std; in these units it is (l - mean) times the advantage for any std.
        vf_coef: the weight of the baseline's squared error.
        ent_coef: the weight of the choice's entropy, for `class_loss="reinforce"`.
        max_grad_norm: gradients are scaled down to at most this norm.
        stats_window_size, tensorboard_log, policy_kwargs, verbose, seed, device: as in Stable-Baselines3.

    Raises:
        ValueError: an argument is out of range, or the environment's spaces do not fit; the message names it.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"RAMPolicy": RAMPolicy}
    policy: RAMPolicy  # type: ignore[assignment]

    def __init__(
        self,
        policy: str | type[RAMPolicy] = "RAMPolicy",
        env: GymEnv | VectorEnv | str | None = None,
        learning_rate: float | Schedule = 1e-3,
        n_steps: int | None = None,
        gamma: float = 1.0,
        class_loss: str = "cross_entropy",
        class_loss_steps: str = "all",
        location_coef: float = 1.0,
        vf_coef: float = 0.5,
        ent_coef: float = 0.0,
        max_grad_norm: float = 5.0,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        if class_loss not in ("cross_entropy", "reinforce"):
            raise ValueError(f'class_loss must be "cross_entropy" or "reinforce", got {class_loss!r}')
        if class_loss_steps not in ("all", "last"):
            raise ValueError(f'class_loss_steps must be "all" or "last", got {class_loss_steps!r}')
        if n_steps is not None and n_steps < 1:
            raise ValueError(f"n_steps must be at least 1 or None, got {n_steps!r}")
        if isinstance(env, str):
            env = gym.make(env)  # SB3 would insist on a render mode.
        self.class_loss, self.class_loss_steps = class_loss, class_loss_steps
        self.location_coef = location_coef
        self._state: State | None = None
        super().__init__(
            policy=policy,  # type: ignore[arg-type]
            env=env,  # type: ignore[arg-type]
            learning_rate=learning_rate,
            n_steps=n_steps,  # type: ignore[arg-type]
            gamma=gamma,
            gae_lambda=1.0,
            ent_coef=ent_coef,
            vf_coef=vf_coef,
            max_grad_norm=max_grad_norm,
            use_sde=False,
            sde_sample_freq=-1,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=_init_setup_model,
        )

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
            self.observation_space, self.action_space, self.lr_schedule, **self.policy_kwargs
        ).to(self.device)

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "RAM",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> RAM:
        """Learn for `total_timesteps` steps of the environment (N at a time); see SB3's `learn`."""
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: Any,
        n_rollout_steps: int | None,
    ) -> bool:
        """Act for `n_rollout_steps` steps (None: until every environment has ended an episode) and keep the graph.

        Returns:
            False where a callback stopped it; the episodes under way are then forgotten.
        """
        assert self._last_obs is not None and self._last_episode_starts is not None
        self.policy.set_training_mode(True)
        rollout = self.rollout_buffer = Rollout()  # type: ignore[assignment]
        has_ended = np.zeros(env.num_envs, np.bool_)
        callback.on_rollout_start()
        while not (has_ended.all() if n_rollout_steps is None else len(rollout) == n_rollout_steps):
            obs = obs_as_tensor(self._last_obs, self.device)  # type: ignore[arg-type]
            output = self.policy(obs, self.policy.mask_state(self._state, self._last_episode_starts))
            greedy = self.class_loss == "cross_entropy"
            locations, choices = self.policy.act(output, greedy_choice=greedy)
            actions = self.policy.to_box(locations, choices)
            new_obs, rewards, dones, infos = env.step(actions)
            self.num_timesteps += env.num_envs
            callback.update_locals(locals())
            if not callback.on_step():
                self._last_obs = self._state = None
                return False
            self._update_info_buffer(infos, dones)
            rollout.locations.append(locations)
            rollout.location_means.append(output.location_mean)
            rollout.logits.append(output.logits)
            rollout.choices.append(choices)
            rollout.values.append(output.value)
            rollout.rewards.append(rewards)
            rollout.dones.append(dones)
            if self.class_loss == "cross_entropy":
                rollout.labels.append(_labels(infos))
            has_ended |= dones
            self._last_obs = new_obs  # type: ignore[assignment]
            self._last_episode_starts, self._state = dones, output.state
        rollout.last_values = self._last_values()
        self._state = tuple(part.detach() for part in self._state or ())
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def train(self) -> None:
        """One gradient step on the rollout."""
        rollout: Rollout = self.rollout_buffer  # type: ignore[assignment]
        self._update_learning_rate(self.policy.optimizer)
        losses = self._losses(rollout)
        loss = sum(losses.values(), torch.zeros((), device=self.device))
        self.policy.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        self.policy.optimizer.step()
        self._n_updates += 1
        self.rollout_buffer = Rollout()  # type: ignore[assignment]
        for name, part in losses.items():
            self.logger.record(f"train/{name}", part.item())
        self.logger.record("train/loss", loss.item())
        self.logger.record("train/grad_norm", norm.item())
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _losses(self, rollout: Rollout) -> dict[str, Tensor]:
        """The terms of the loss, weighted."""
        dones = np.stack(rollout.dones)  # (T, N)
        assert rollout.last_values is not None
        returns = self._tensor(discounted_returns(np.stack(rollout.rewards), dones, rollout.last_values, self.gamma))  # (T, N)
        values = torch.stack(rollout.values)  # (T, N), b_t
        logits = torch.stack(rollout.logits)  # (T, N, K)
        advantages = returns - values.detach()
        # Nobody looks at the location that the last step of an episode names: only noise could be learned from it.
        looked_at = self._tensor(~dones).float()
        std = self.policy.location_std
        location_log_probs = location_log_prob(torch.stack(rollout.locations), torch.stack(rollout.location_means), std)  # (T, N)
        location_loss = reinforce_loss(location_log_probs, advantages, looked_at)
        losses = {
            "location_loss": self.location_coef * std**2 * location_loss,
            "baseline_loss": self.vf_coef * baseline_loss(values, returns),
        }
        if self.class_loss == "cross_entropy":
            counts = torch.ones_like(looked_at) if self.class_loss_steps == "all" else 1 - looked_at
            labels = self._tensor(np.array(rollout.labels))
            losses["class_loss"] = classification_loss(logits, labels, counts)
        else:
            everywhere = torch.ones_like(looked_at)
            log_probs = choice_log_prob(torch.stack(rollout.choices), logits)
            losses["class_loss"] = reinforce_loss(log_probs, advantages, everywhere)
            losses["entropy_loss"] = -self.ent_coef * choice_entropy(logits).mean()
        return losses

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

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_state"]


def _labels(infos: list[dict[str, Any]]) -> list[int]:
    try:
        return [info["label"] for info in infos]
    except KeyError as error:
        raise ValueError(
            'class_loss="cross_entropy" needs the true class in info["label"] at every step, which this environment does not '
            'give: use class_loss="reinforce"'
        ) from error
