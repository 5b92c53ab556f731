"""RAM, the recurrent attention model's learning algorithm, as a Stable-Baselines3 on-policy algorithm."""

from __future__ import annotations

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
from agents.losses import advantages_and_returns, baseline_loss, classification_loss, clipped_loss, reinforce_loss
from agents.networks import State
from agents.policy import Outputs, RAMPolicy
from agents.rollout import Batch, Rollout
from agents.vec_env import BoxAction, GymnasiumVecEnv, is_location_and_choice


class RAM(OnPolicyAlgorithm):
    """The recurrent attention model of Mnih et al. 2014.

    The location is learned by REINFORCE with a learned baseline. The class is learned from the labels by cross-entropy (the
    paper's hybrid loss) or, as game moves are, by REINFORCE too. `RAMPolicy` says which gradient flows where.

    With `n_epochs` or `n_minibatches` above 1 the same rollout is learned from several times, and REINFORCE becomes PPO: its
    clipped surrogate, for each part of the action on its own, of which REINFORCE is the first step. Minibatches hold whole
    rollouts of some environments, so that the gradient flows through all steps.

    Args:
        policy: "RAMPolicy" or a subclass of it.
        env: an environment with the observations "glimpse" and "location", its id, an SB3 `VecEnv` or a Gymnasium vector
            environment. A Dict action of location and choice is offered as a Box, see `agents.vec_env`.
        learning_rate: a number, or a function of the remaining progress (1 to 0).
        n_steps: steps of each environment to an update. None: until every environment has ended an episode, so whole episodes
            where they have one length.
        n_epochs: how often a rollout is learned from.
        n_minibatches: the parts into which its environments are split each time.
        clip_range: how far PPO lets the probability of each part of an action go: 1 - clip_range to 1 + clip_range times.
        gamma: the discount.
        gae_lambda: 1: advantages are R_t - b_t; below, they lean on the baseline of later steps.
        normalize_advantage: whether the advantages of a rollout are brought to mean 0 and deviation 1.
        class_loss: "cross_entropy", with `info["label"]` and greedy choices while learning, or "reinforce", with sampled choices.
        class_loss_steps: "last" takes the cross-entropy at the end of the episode alone, as the paper does; "all" at every step.
        location_coef: the weight of the location's REINFORCE term in units of `location_std` squared. The gradient of
            log N(l | mean, std^2) grows as 1/std; in these units it is (l - mean) times the advantage for any std.
        vf_coef: the weight of the baseline's squared error.
        ent_coef: the weight of the entropy of what is chosen by REINFORCE; a number, or a function of the remaining progress.
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
        n_epochs: int = 1,
        n_minibatches: int = 1,
        clip_range: float = 0.2,
        gamma: float = 1.0,
        gae_lambda: float = 1.0,
        normalize_advantage: bool = False,
        class_loss: str = "cross_entropy",
        class_loss_steps: str = "all",
        location_coef: float = 1.0,
        vf_coef: float = 0.5,
        ent_coef: float | Schedule = 0.0,
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
        for name, value in (("n_epochs", n_epochs), ("n_minibatches", n_minibatches)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value!r}")
        if not 0 < clip_range < 1:
            raise ValueError(f"clip_range must lie between 0 and 1, got {clip_range!r}")
        if isinstance(env, str):
            env = gym.make(env)  # SB3 would insist on a render mode.
        self.class_loss, self.class_loss_steps = class_loss, class_loss_steps
        self.location_coef = location_coef
        self.n_epochs, self.n_minibatches, self.clip_range = n_epochs, n_minibatches, clip_range
        self.normalize_advantage = normalize_advantage
        self._state: State | None = None
        super().__init__(
            policy=policy,  # type: ignore[arg-type]
            env=env,  # type: ignore[arg-type]
            learning_rate=learning_rate,
            n_steps=n_steps,  # type: ignore[arg-type]
            gamma=gamma,
            gae_lambda=gae_lambda,
            ent_coef=ent_coef,  # type: ignore[arg-type]
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
            with torch.set_grad_enabled(self._keeps_graph):
                output = self.policy(obs, self.policy.mask_state(self._state, self._last_episode_starts))
            locations, choices = self.policy.act(output, greedy_choice=self.class_loss == "cross_entropy")
            new_obs, rewards, dones, infos = env.step(self.policy.to_box(locations, choices))
            self.num_timesteps += env.num_envs
            callback.update_locals(locals())
            if not callback.on_step():
                self._last_obs = self._state = None
                return False
            self._update_info_buffer(infos, dones)
            if not self._keeps_graph:
                rollout.observations.append(obs)
                rollout.episode_starts.append(self._last_episode_starts)
            rollout.outputs.append(output)
            rollout.locations.append(locations)
            rollout.choices.append(choices)
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

    def _update(self, batch: Batch, outputs: Outputs) -> dict[str, float]:
        """One gradient step; returns what to log."""
        losses = self._losses(batch, outputs)
        loss = sum(losses.values(), torch.zeros((), device=self.device))
        self.policy.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        self.policy.optimizer.step()
        return {**{name: part.item() for name, part in losses.items()}, "loss": loss.item(), "grad_norm": norm.item()}

    def _batch(self, rollout: Rollout, outputs: Outputs) -> Batch:
        assert rollout.last_values is not None
        dones = np.stack(rollout.dones)  # (T, N)
        values = outputs.value.detach().cpu().numpy()  # (T, N), b_t
        advantages, returns = advantages_and_returns(
            np.stack(rollout.rewards), values, dones, rollout.last_values, self.gamma, self.gae_lambda
        )
        if self.normalize_advantage:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        locations, choices = torch.stack(rollout.locations), torch.stack(rollout.choices)
        labels = self._tensor(np.array(rollout.labels)) if rollout.labels else None
        looked_at = self._tensor(~dones).float()
        old_log_probs = None
        if not self._keeps_graph:
            parts = range(1 + choices.shape[-1])
            old_log_probs = torch.stack([self._log_prob(outputs, locations, choices, part) for part in parts], dim=-1)
        return Batch(locations, choices, self._tensor(advantages), self._tensor(returns), looked_at, labels, old_log_probs)

    def _log_prob(self, outputs: Outputs, locations: Tensor, choices: Tensor, part: int) -> Tensor:
        """(T, N): log-probabilities of the locations (part 0) or of a choice (part 1, 2, ...)."""
        if part == 0:
            return location_log_prob(locations, outputs.location_mean, self.policy.location_std)
        return choice_log_prob(choices[..., part - 1], outputs.logits[part - 1])

    def _losses(self, batch: Batch, outputs: Outputs) -> dict[str, Tensor]:
        """The terms of the loss, weighted."""

        def policy_loss(part: int, weights: Tensor) -> Tensor:
            log_prob = self._log_prob(outputs, batch.locations, batch.choices, part)
            if batch.old_log_probs is None:
                return reinforce_loss(log_prob, batch.advantages, weights)
            return clipped_loss(log_prob, batch.old_log_probs[..., part], batch.advantages, weights, self.clip_range)

        everywhere = torch.ones_like(batch.looked_at)
        losses = {
            "location_loss": self.location_coef * self.policy.location_std**2 * policy_loss(0, batch.looked_at),
            "baseline_loss": self.vf_coef * baseline_loss(outputs.value, batch.returns),
        }
        names, chosen_by_reward = list(self.policy.choices), outputs.logits
        if self.class_loss == "cross_entropy":
            assert batch.labels is not None
            counts = everywhere if self.class_loss_steps == "all" else 1 - batch.looked_at
            losses["class_loss"] = classification_loss(outputs.logits[0], batch.labels, counts)
            chosen_by_reward = outputs.logits[1:]
        else:
            losses["class_loss"] = policy_loss(1, everywhere)
        for part, name in enumerate(names[1:], start=2):
            losses[f"{name}_loss"] = policy_loss(part, everywhere if name == "stop" else batch.looked_at)
        if chosen_by_reward:
            entropy = torch.stack([choice_entropy(logits).mean() for logits in chosen_by_reward]).sum()
            losses["entropy_loss"] = -self._entropy_weight() * entropy
        return losses

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
