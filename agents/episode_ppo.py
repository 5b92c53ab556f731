"""PPO and A2C with a recurrent policy, over whole episodes, for any environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.distributions import make_proba_distribution
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from torch import Tensor, nn

from .cores import State
from .extractor import default_extractor
from .glimpse_networks import find_class, init_linear
from .losses import baseline_loss, policy_loss
from .on_policy import Batch, EpisodeAlgorithm, OnPolicyHyperparams, Rollout
from .optimizers import default_optimizer_kwargs
from .policy import CORES
from .recurrent import CorePolicy, Observations

ACTION_GAIN = 0.01  # As in SB3: the first actions are nearly alike everywhere.


class RecurrentOutputs(NamedTuple):
    """What the policy makes of observations: of one for each environment (N, ...), or of T for each (T, N, ...)."""

    params: Tensor  # (..., D), of the actions' distribution
    value: Tensor  # (...), the baseline b_t
    state: State  # for the next step


class RecurrentPolicy(CorePolicy):
    """Features extractor, recurrent core, and linear action and value heads that both train all below them.

    Args:
        observation_space: any that SB3's features extractors take.
        action_space: Box, Discrete, MultiDiscrete or MultiBinary.
        lr_schedule: the learning rate by remaining progress (1 to 0).
        core: "relu", "lstm", "gru", "none" (no memory), or a class of your own, see `cores.Core`.
        core_size: units of h_t.
        log_std_init: of a Gaussian for Box actions, learned from there.
        features_extractor_class: an SB3 features extractor. None: RAM's glimpse network where there is a "glimpse", else SB3's
            own default.
        features_extractor_kwargs: its arguments.
        optimizer_class: a torch optimizer.
        optimizer_kwargs: its arguments but the learning rate; by default the fused variant where there is one.

    Raises:
        ValueError: an argument is out of range; the message names it.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        core: str | type = "lstm",
        core_size: int = 256,
        log_std_init: float = 0.0,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        core_class = find_class("core", core, CORES)
        super().__init__(
            observation_space,
            action_space,
            optimizer_class=optimizer_class,
            optimizer_kwargs=default_optimizer_kwargs(optimizer_class) if optimizer_kwargs is None else optimizer_kwargs,
            features_extractor_class=features_extractor_class or default_extractor(observation_space),
            features_extractor_kwargs=features_extractor_kwargs,
        )
        self.core_name, self.core_size, self.log_std_init = core, core_size, log_std_init
        self.features_extractor = self.make_features_extractor()
        self.core = core_class(self.features_extractor.features_dim, core_size)
        self.distribution: Any = make_proba_distribution(action_space)
        heads: Any = self.distribution.proba_distribution_net
        self.log_std: nn.Parameter | None = None
        if isinstance(action_space, spaces.Box):
            self.action_head, self.log_std = heads(core_size, log_std_init)
        else:
            self.action_head = heads(core_size)
        self.value_head = nn.Linear(core_size, 1)
        init_linear(ACTION_GAIN, self.action_head)
        init_linear(1.0, self.value_head)
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    def encode(self, obs: Observations) -> Tensor:
        """The features (N, F)."""
        return self.extract_features(obs, self.features_extractor)

    def read_out(self, hidden: Tensor, obs: Observations, step: Tensor, state: State) -> RecurrentOutputs:
        """Both heads' outputs for h_t (..., H)."""
        return RecurrentOutputs(self.action_head(hidden), self.value_head(hidden).squeeze(-1), state)

    def act(
        self, output: RecurrentOutputs, deterministic: bool = False, greedy_choice: bool = False
    ) -> tuple[tuple[Tensor, ...], NDArray]:
        """Actions (N, ...), samples, or with `deterministic` the most likely ones; and, in a Box, clipped to its bounds."""
        with torch.no_grad():
            actions = self._distribution(output.params).get_actions(deterministic)
        sent = actions.cpu().numpy()
        if isinstance(self.action_space, spaces.Box):
            sent = sent.clip(self.action_space.low, self.action_space.high)
        return (actions,), sent

    def log_probs(self, outputs: RecurrentOutputs, actions: tuple[Tensor, ...]) -> Tensor:
        """Log-probabilities (T, N, 1) of actions (T, N, ...)."""
        steps = outputs.value.shape
        log_probs = self._distribution(outputs.params.flatten(0, 1)).log_prob(actions[0].flatten(0, 1))
        return log_probs.unflatten(0, steps).unsqueeze(-1)

    def entropy(self, outputs: RecurrentOutputs) -> Tensor:
        """The mean entropy of the actions in nats."""
        return self._distribution(outputs.params.flatten(0, 1)).entropy().mean()

    def _distribution(self, params: Tensor) -> Any:
        if self.log_std is None:
            return self.distribution.proba_distribution(params)
        return self.distribution.proba_distribution(params, self.log_std)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,  # A loaded policy is there to act.
            "core": self.core_name,
            "core_size": self.core_size,
            "log_std_init": self.log_std_init,
            "features_extractor_class": self.features_extractor_class,
            "features_extractor_kwargs": self.features_extractor_kwargs,
            "optimizer_class": self.optimizer_class,
            "optimizer_kwargs": self.optimizer_kwargs,
        }


@dataclass(frozen=True)
class EpisodePPOHyperparams(OnPolicyHyperparams):
    """What `EpisodePPO` can be told; its defaults."""

    learning_rate: float | Schedule = 3e-4
    n_epochs: int = 4
    n_minibatches: int = 4
    gamma: float = 0.99
    gae_lambda: float = 0.95
    normalize_advantage: bool = True
    max_grad_norm: float = 0.5


class EpisodePPO(EpisodeAlgorithm):
    """PPO (Schulman et al. 2017) with a recurrent policy: minibatches hold all steps of some environments, and the gradient flows
    back through all of them.

    Where sb3-contrib's RecurrentPPO knows LSTMs, `policy_kwargs={"core": ...}` takes "relu", "lstm", "gru" or a class of yours.

    Args:
        policy: "RecurrentPolicy" or a subclass of it.
        env: an environment, its id, an SB3 `VecEnv` or a Gymnasium vector environment.
        **others: the fields of `EpisodePPOHyperparams`, and SB3's own, see `on_policy.EpisodeAlgorithm`.

    Raises:
        ValueError: an argument is out of range; the message names it.
        TypeError: an argument that there is not.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"RecurrentPolicy": RecurrentPolicy}
    hyperparams_class: ClassVar[type[OnPolicyHyperparams]] = EpisodePPOHyperparams
    policy: RecurrentPolicy

    def __init__(
        self,
        policy: str | type[RecurrentPolicy] = "RecurrentPolicy",
        env: GymEnv | VectorEnv | str | None = None,
        **others: Any,
    ) -> None:
        super().__init__(policy, env, **others)

    def train(self) -> None:
        """Learn from the rollout: one gradient step for each minibatch of each epoch."""
        self._update_learning_rate(self.policy.optimizer)
        rollout: Rollout = self.rollout_buffer  # type: ignore[assignment]
        outputs: RecurrentOutputs = rollout.stacked_outputs()  # (T, N, ...)
        batch = self.batch_of(outputs, np.stack(rollout.rewards), outputs.value)
        self.end_update([self.gradient_step(self.losses(part, seen)) for part, seen in self.minibatches(batch, outputs)])

    def losses(self, batch: Batch, outputs: RecurrentOutputs) -> dict[str, Tensor]:
        """The terms of the loss, weighted."""
        log_probs = self.policy.log_probs(outputs, batch.actions)  # (T, N, 1)
        everywhere = torch.ones_like(batch.looked_at)
        return {
            "policy_loss": policy_loss(log_probs[..., 0], batch.old(0), batch.advantages, everywhere, self.clip_range),
            "value_loss": self.vf_coef * baseline_loss(outputs.value, batch.returns),
            "entropy_loss": -self.entropy_weight() * self.policy.entropy(outputs),
        }

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "EpisodePPO",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> EpisodePPO:
        """Learn for `total_timesteps` steps of the environment (N at a time); see SB3's `learn`."""
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)


@dataclass(frozen=True)
class EpisodeA2CHyperparams(EpisodePPOHyperparams):
    """What `EpisodeA2C` can be told; its defaults."""

    learning_rate: float | Schedule = 7e-4
    n_epochs: int = 1
    n_minibatches: int = 1
    gae_lambda: float = 1.0
    normalize_advantage: bool = False


class EpisodeA2C(EpisodePPO):
    """A2C (Mnih et al. 2016) with a recurrent policy: each rollout is learned from once. See `EpisodePPO`."""

    hyperparams_class = EpisodeA2CHyperparams
