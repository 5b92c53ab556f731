"""Acting for whole episodes with a recurrent policy and learning from them, as a Stable-Baselines3 on-policy algorithm."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar, cast

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor
from torch.utils._pytree import tree_leaves

from .cores import State
from .cuda_graphs import StepGraphs
from .losses import Batch, advantages_and_returns
from .optimizers import start_average
from .recurrent import CorePolicy, Options, Rollout, map_obs, old_names, stack
from .vec_env import Infos, info_array, wrap_env

_Algorithm = TypeVar("_Algorithm", bound="EpisodeAlgorithm")


@dataclass(frozen=True)
class OnPolicyHyperparams(Options):
    """What all algorithms over whole episodes can be told."""

    learning_rate: float | Schedule = 1e-3  # A number, or a function of the remaining progress (1 to 0).
    n_steps: int | None = None  # Steps of each environment to an update; None: until every environment has ended an episode.
    n_epochs: int = 1  # How often a rollout is learned from.
    n_minibatches: int = 1  # The parts into which the environments of a rollout are split each time, at most one for each.
    clip_range: float | Schedule = 0.2
    """How far PPO lets an action's probability go: 1 - clip_range to 1 + clip_range times; a number, or a function as above."""

    gamma: float = 1.0  # The discount.
    gae_lambda: float = 1.0  # 1: advantages are R_t - b_t; below, they lean on the baseline of later steps.
    normalize_advantage: bool = False  # Whether the advantages of a rollout of more than a step have mean 0 and deviation 1.
    vf_coef: float = 0.5  # The weight of the baseline's squared error.
    ent_coef: float | Schedule = 0.0  # That of the entropy of what REINFORCE chooses; a number, or a function as above.
    max_grad_norm: float = 5.0  # Gradients are scaled down to at most this norm.

    weight_average: float = 0.0
    """Above 0, `predict` acts with the average of the weights over about this share of all updates so far, the last ones
    (0.1: the last tenth); learning continues with the weights as they are."""

    cuda_graphs: bool = True
    """Whether on a GPU each step of a rollout is recorded as a CUDA graph and replayed, which is about twice as fast, where a
    rollout is learned from once. False: for a core or glimpse network that can't be recorded."""

    ranges: ClassVar[dict[str, tuple[float, float]]] = {
        **dict.fromkeys(("gamma", "gae_lambda", "weight_average"), (0, 1)),
        **dict.fromkeys(("vf_coef", "ent_coef", "learning_rate"), (0, math.inf)),
        **dict.fromkeys(("n_steps", "n_epochs", "n_minibatches"), (1, 2**31)),
        "clip_range": (1e-6, 1 - 1e-6),
    }
    above_zero: ClassVar[tuple[str, ...]] = ("max_grad_norm",)


class EpisodeAlgorithm(OnPolicyAlgorithm):
    """Acts for whole episodes of N environments and learns from them once (REINFORCE, A2C) or several times (PPO).

    With `n_epochs` and `n_minibatches` of 1 the graph that was built while acting is run backwards once. Else the rollout is
    stored and the network run again over all steps of some of the environments at a time: the gradient flows through all steps.
    Subclasses write `train`.

    Args:
        policy: a `CorePolicy` or its name; None: the first of `policy_aliases`.
        env: an environment, its id, an SB3 `VecEnv` or a Gymnasium vector environment. Dict actions of location and choices are
            offered as a Box, see `ram_envs.agents.vec_env`.
        stats_window_size, tensorboard_log, policy_kwargs, verbose, seed, device: as in Stable-Baselines3.
        **hyperparams: the fields of the class's `hyperparams_class`. They are attributes of the model, as in Stable-Baselines3.

    Raises:
        ValueError: a hyperparameter is out of range, or the environment's spaces do not fit; the message names it.
        TypeError: a hyperparameter that there is not.
    """

    hyperparams_class: ClassVar[type[OnPolicyHyperparams]] = OnPolicyHyperparams
    log_name: ClassVar[str] = "EpisodeAlgorithm"  # Of the run in TensorBoard.
    greedy_choice = False  # Whether the class is the likeliest one while learning: it is not learned by trying.
    policy: CorePolicy  # type: ignore[assignment]
    rollout_buffer: Rollout  # type: ignore[assignment]
    n_epochs: int
    n_minibatches: int
    clip_range: float | Schedule
    normalize_advantage: bool
    weight_average: float
    cuda_graphs: bool

    def __init__(
        self,
        policy: str | type[CorePolicy] | None = None,
        env: GymEnv | VectorEnv | str | None = None,
        *,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
        **hyperparams: Any,
    ) -> None:
        checked = vars(self.hyperparams_class.of(hyperparams))
        vars(self).update(checked)
        of_sb3 = ("learning_rate", "n_steps", "gamma", "gae_lambda", "ent_coef", "vf_coef", "max_grad_norm")
        self._state: State | None = None
        self._new_state: State | None = None  # Of N new episodes.
        self._largest_reward = 1.0  # Of all so far, and at least 1.
        super().__init__(
            policy=policy or next(iter(self.policy_aliases)),  # type: ignore[arg-type]
            env=gym.make(env) if isinstance(env, str) else env,  # type: ignore[arg-type]  # SB3 would insist on a render mode.
            use_sde=False,
            sde_sample_freq=-1,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=_init_setup_model,
            **{name: checked[name] for name in of_sb3},
        )

    @staticmethod
    def _wrap_env(env: Any, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        """SB3's own wrapping, and what makes Gymnasium's vector environments and Dict actions known to SB3."""
        return wrap_env(env, lambda other: OnPolicyAlgorithm._wrap_env(other, verbose, monitor_wrapper))

    def _setup_model(self) -> None:
        # A loaded model's may have been changed.
        self.hyperparams_class(**{field.name: getattr(self, field.name) for field in fields(self.hyperparams_class)})
        if self.env is not None and self.normalize_advantage and self.n_steps == self.n_envs == 1:
            raise ValueError("normalize_advantage needs more than one step of one environment to an update, got n_steps=1")
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self.rollout_buffer = Rollout()
        policy: Any = self.policy_class(self.observation_space, self.action_space, self.lr_schedule, **self.policy_kwargs)
        self.policy = policy.to(self.device)
        self.average = start_average(self.policy, self.weight_average) if self.weight_average else None
        records = self.cuda_graphs and self._keeps_graph and self.device.type == "cuda"
        self._graphs = StepGraphs(self.policy) if records else None

    @property
    def acting_policy(self) -> CorePolicy:
        """What `predict` acts with: the policy, or with a `weight_average` its average."""
        return self.policy if self.average is None else cast("CorePolicy", self.average.module)

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False) -> Any:
        """See `CorePolicy.predict`, and `acting_policy`."""
        return self.acting_policy.predict(observation, state, episode_start, deterministic)

    def learn(
        self: _Algorithm,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> _Algorithm:
        """Learn for `total_timesteps` steps of the environment (N at a time); see SB3's `learn`."""
        if reset_num_timesteps or self._last_obs is None:
            self._state = None
        if self.n_envs < self.n_minibatches != self.hyperparams_class.n_minibatches:
            parts = f"a rollout is split by environments, of which there are {self.n_envs}, and not into more parts"
            warnings.warn(f"{parts}: n_minibatches={self.n_minibatches} counts as {self.n_envs}", stacklevel=2)
        others = (tb_log_name or self.log_name, reset_num_timesteps, progress_bar)
        return super().learn(total_timesteps, callback, log_interval, *others)

    def collect_rollouts(self, env: VecEnv, callback: BaseCallback, rollout_buffer: Any, n_rollout_steps: int | None) -> bool:
        """Act for `n_rollout_steps` steps (None: until every environment has ended an episode).

        Returns False where a callback stopped it; the episodes under way are then forgotten.
        """
        assert self._last_obs is not None and self._last_episode_starts is not None
        self.policy.set_training_mode(self._keeps_graph)  # Else, as in SB3, only `minibatches` learns.
        rollout = self.rollout_buffer = Rollout(self._first_state(self._last_episode_starts))
        has_ended, greedy_choice = np.zeros(env.num_envs, np.bool_), self.greedy_choice
        callback.on_rollout_start()
        while not (has_ended.all() if n_rollout_steps is None else len(rollout) == n_rollout_steps):
            obs: Any = obs_as_tensor(self._last_obs, self.device)  # type: ignore[arg-type]
            output = self._step(len(rollout), obs, rollout.first_state)
            try:
                actions, sent = self.policy.act(output, greedy_choice=greedy_choice)
                new_obs, rewards, dones, infos = env.step(sent)
            except (ValueError, RuntimeError) as error:
                if all(part.isfinite().all() for part in tree_leaves(output)):
                    raise
                raise self._diverged("the policy's outputs are not finite") from error
            self.num_timesteps += env.num_envs
            callback.update_locals(locals())
            if not callback.on_step():
                self._last_obs = self._state = None
                return False
            if self.policy.training != self._keeps_graph:
                self.policy.set_training_mode(self._keeps_graph)  # A callback has evaluated it.
            if dones.any():
                self._update_info_buffer(infos, dones)
                rewards = self._beyond_time_limits(rewards, dones, infos, output.state)
            if not self._keeps_graph:
                rollout.observations.append(obs)
                rollout.episode_starts.append(self._last_episode_starts)
            rollout.outputs.append(output)
            rollout.actions.append(actions)
            rollout.rewards.append(rewards)
            rollout.dones.append(dones)
            rollout.infos.append(infos)
            has_ended |= dones
            self._last_obs = new_obs  # type: ignore[assignment]
            self._last_episode_starts, self._state = dones, output.state
        rollout.last_values = self._last_values()
        self._state = tuple(part.detach() for part in self._state or ())
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _first_state(self, starts: NDArray[np.bool_]) -> State:
        """The state before the next step: where all episodes begin (N,), always the same."""
        if not starts.all():
            return self.policy.mask_state(self._state, starts)
        if self._new_state is None or len(self._new_state[-1]) != len(starts):
            self._new_state = self.policy.initial_state(len(starts))
        return self._new_state

    def _step(self, index: int, obs: Any, state: State) -> Any:
        """What the policy makes of observations (N, ...) at step `index` of the rollout, whose first state is given."""
        starts = self._last_episode_starts
        assert starts is not None
        if index > 0:
            assert self._state is not None
            state = self.policy.mask_state(self._state, starts) if starts.any() else self._state
        if self._graphs is not None:
            return self._graphs(index, obs, state)
        with torch.set_grad_enabled(self._keeps_graph):
            return self.policy(obs, state)

    def _beyond_time_limits(self, rewards: NDArray, dones: NDArray, infos: Any, state: State) -> NDArray:
        """The rewards (N,), with what was still to be expected where a time limit cut an episode short."""
        truncated = infos.truncated if isinstance(infos, Infos) else info_array(infos, "TimeLimit.truncated", False)
        cut = np.flatnonzero(dones & np.asarray(truncated, np.bool_)).tolist()
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

    def batch_of(self, outputs: Any, rewards: NDArray, values: Tensor, labels: Tensor | None = None) -> Batch:
        """The rollout as what the losses need: outputs (T, N, ...), rewards, values b_t and labels (T, N)."""
        rollout = self.rollout_buffer
        assert rollout.last_values is not None
        dones = np.stack(rollout.dones)  # (T, N)
        expected = values.detach().cpu().numpy()
        advantages, returns = advantages_and_returns(rewards, expected, dones, rollout.last_values, self.gamma, self.gae_lambda)
        self._check_baseline(expected, rewards)
        if self.normalize_advantage and advantages.size > 1:  # Of one, nothing would be left.
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        actions, looked_at = stack(rollout.actions), self._tensor(~dones).float()
        old_log_probs = None if self._keeps_graph else self.policy.log_probs(outputs, actions).detach()
        of_steps = (self._tensor(advantages), self._tensor(returns), looked_at, labels, old_log_probs)
        return Batch(actions, *of_steps, clip_range=self.now(self.clip_range))

    def _check_baseline(self, values: NDArray, rewards: NDArray) -> None:
        """A baseline (T, N) a thousand times beyond what rewards (T, N) can sum up to: finite, but it will not come back."""
        self._largest_reward = max(self._largest_reward, float(abs(rewards).max()))
        possible = self._largest_reward * max(len(rewards), 1 / max(1 - self.gamma, 1e-4))
        expected = float(abs(values).max())
        if expected > 1000 * possible:
            raise self._diverged(f"the baseline expects {expected:.3g} where rewards sum up to at most {possible:.3g}")

    def minibatches(self, batch: Batch, outputs: Any) -> Iterator[tuple[Batch, Any]]:
        """What to take gradient steps for, with the model's outputs: all of the batch once, or its parts `n_epochs` times."""
        if self._keeps_graph:
            yield batch, outputs
            return
        self.policy.set_training_mode(True)
        rollout = self.rollout_buffer
        observations, starts, num_envs = stack(rollout.observations), np.stack(rollout.episode_starts), batch.returns.shape[1]
        for _ in range(self.n_epochs):
            for envs in np.array_split(torch.randperm(num_envs).numpy(), min(self.n_minibatches, num_envs)):
                seen = map_obs(lambda part, envs=envs: part[:, envs], observations)  # type: ignore[misc]
                state = tuple(part[envs] for part in rollout.first_state)
                yield batch.of(envs), self.policy.unroll(seen, state, starts[:, envs])

    def gradient_step(self, losses: dict[str, Tensor]) -> dict[str, float]:
        """One step against the sum of the losses; returns what to log.

        Raises:
            FloatingPointError: a loss or the gradient is not finite; the weights are then as before.
        """
        loss = sum(losses.values(), torch.zeros((), device=self.device))
        self.policy.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        log = {**{name: part.item() for name, part in losses.items()}, "loss": loss.item(), "grad_norm": norm.item()}
        if not all(map(math.isfinite, log.values())):
            raise self._diverged(", ".join(f"{name} is {value}" for name, value in log.items() if not math.isfinite(value)))
        self.policy.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.policy)
        return log

    def _diverged(self, what: str) -> FloatingPointError:
        return FloatingPointError(
            f"the training has diverged after {self.num_timesteps} steps: {what}; learning_rate may be too high"
        )

    def end_update(self, logs: list[dict[str, float]]) -> None:
        """Forget the rollout and log the means over the gradient steps."""
        self._n_updates += len(logs)
        self.rollout_buffer = Rollout()
        for name in logs[0]:
            self.logger.record(f"train/{name}", float(np.mean([log[name] for log in logs])))
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def now(self, value: float | Schedule) -> float:
        """A number, or what a function makes of the remaining progress."""
        return value(self._current_progress_remaining) if callable(value) else value

    def _update_info_buffer(self, infos: Any, dones: NDArray | None = None) -> None:
        if not isinstance(infos, Infos) or dones is None:
            return super()._update_info_buffer(infos, dones)
        assert self.ep_info_buffer is not None and self.ep_success_buffer is not None
        episodes, successes = infos.ended(most=self._stats_window_size)
        self.ep_info_buffer.extend(episodes)
        self.ep_success_buffer.extend(successes)

    def _last_values(self) -> NDArray:
        """The baseline (N,) of what follows the rollout, 0 where an episode has just ended."""
        obs, starts = self._last_obs, self._last_episode_starts
        assert obs is not None and starts is not None
        if starts.all():
            return np.zeros(len(starts), np.float32)
        with torch.no_grad():
            output = self.policy(obs_as_tensor(obs, self.device), self.policy.mask_state(self._state, starts))
        return output.value.cpu().numpy()

    def _tensor(self, values: NDArray) -> Tensor:
        return torch.as_tensor(values, device=self.device)

    @classmethod
    def load(cls, *args: Any, **kwargs: Any) -> Any:
        """SB3's `load`, of models of earlier versions too."""
        with old_names():
            return super().load(*args, **kwargs)

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        modules, variables = super()._get_torch_save_params()
        return (modules if self.average is None else [*modules, "average"]), variables

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_state", "_new_state", "_graphs"]
