"""PPO and A2C with a recurrent policy, over whole episodes, for any environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.distributions import make_proba_distribution
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from .cores import State
from .extractor import default_extractor
from .glimpse_networks import find_class, init_linear
from .losses import Batch, baseline_loss, policy_loss
from .on_policy import EpisodeAlgorithm, OnPolicyHyperparams
from .policy import CORES
from .recurrent import Actions, CorePolicy, Observations, Options

ACTION_GAIN = 0.01  # As in SB3: the first actions are nearly alike everywhere.


class RecurrentOutputs(NamedTuple):
    """What the policy makes of observations: of one for each environment (N, ...), or of T for each (T, N, ...)."""

    params: Tensor  # (..., D), of the actions' distribution
    value: Tensor  # (...), the baseline b_t
    state: State  # for the next step


@dataclass(frozen=True)
class RecurrentPolicyOptions(Options):
    """What `policy_kwargs` may hold for a `RecurrentPolicy`."""

    core: str | type = "lstm"  # "relu", "lstm", "gru", "none" (no memory), or a class of your own, see `cores.Core`.
    core_size: int = 256  # Units of h_t.
    log_std_init: float = 0.0  # Of a Gaussian for Box actions, learned from there.
    features_extractor_class: type[BaseFeaturesExtractor] | None = None  # SB3's; None: see `extractor.default_extractor`.
    features_extractor_kwargs: dict[str, Any] | None = None
    normalize_images: bool = True  # Images of uint8 enter the features extractor divided by 255, as in SB3.
    optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam
    optimizer_kwargs: dict[str, Any] | None = None  # But the learning rate; None: the fused variant where there is one.


class RecurrentPolicy(CorePolicy):
    """Features extractor, recurrent core, and linear action and value heads that both train all below them.

    Args:
        observation_space: any that SB3's features extractors take.
        action_space: Box, Discrete, MultiDiscrete or MultiBinary.
        lr_schedule: the learning rate by remaining progress (1 to 0).
        **options: see `RecurrentPolicyOptions`.

    Raises:
        ValueError: an argument is out of range; the message names it.
        TypeError: an option that there is not.
    """

    def __init__(
        self, observation_space: spaces.Space, action_space: spaces.Space, lr_schedule: Schedule, **options: Any
    ) -> None:
        o = self.options = RecurrentPolicyOptions.of(options)
        core_class = find_class("core", o.core, CORES)
        super().__init__(
            observation_space,
            action_space,
            features_extractor_class=o.features_extractor_class or default_extractor(observation_space),
            features_extractor_kwargs=o.features_extractor_kwargs,
            normalize_images=o.normalize_images,
            optimizer_class=o.optimizer_class,
            optimizer_kwargs=o.optimizer_kwargs,
        )
        self.core_name, self.core_size, self.log_std_init = o.core, o.core_size, o.log_std_init
        self.features_extractor = self.make_features_extractor()
        self.core = core_class(self.features_extractor.features_dim, o.core_size)
        self.distribution: Any = make_proba_distribution(action_space)
        heads: Any = self.distribution.proba_distribution_net
        self.log_std: nn.Parameter | None = None
        if isinstance(action_space, spaces.Box):
            self.action_head, self.log_std = heads(o.core_size, o.log_std_init)
        else:
            self.action_head = heads(o.core_size)
        self.value_head = nn.Linear(o.core_size, 1)
        init_linear(ACTION_GAIN, self.action_head)
        init_linear(1.0, self.value_head)
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    def encode(self, obs: Observations) -> Tensor:
        return self.extract_features(obs, self.features_extractor)

    def read_out(self, hidden: Tensor, obs: Observations, step: Tensor, state: State) -> RecurrentOutputs:
        return RecurrentOutputs(self.action_head(hidden), self.value_head(hidden).squeeze(-1), state)

    def act(self, output: Any, deterministic: bool = False, greedy_choice: bool = False) -> tuple[Actions, NDArray]:
        """See `CorePolicy.act`; actions in a Box are sent clipped to its bounds."""
        with torch.no_grad():
            actions = self._distribution(output.params).get_actions(deterministic)
        sent = actions.cpu().numpy().reshape(-1, *(self.action_space.shape or ()))  # SB3's distributions know flat actions.
        if isinstance(self.action_space, spaces.Box):
            sent = sent.clip(self.action_space.low, self.action_space.high)
        return (actions,), sent + getattr(self.action_space, "start", 0)  # Numbers need not count from 0.

    def log_probs(self, outputs: RecurrentOutputs, actions: Actions) -> Tensor:
        steps = outputs.value.shape
        log_probs = self._distribution(outputs.params.flatten(0, 1)).log_prob(actions[0].flatten(0, 1))
        return log_probs.unflatten(0, steps).unsqueeze(-1)

    def entropy(self, outputs: RecurrentOutputs) -> Tensor:
        """The mean entropy of the actions in nats."""
        return self._distribution(outputs.params.flatten(0, 1)).entropy().mean()

    def _distribution(self, params: Tensor) -> Any:
        try:
            return self.distribution.proba_distribution(params, *(() if self.log_std is None else (self.log_std,)))
        except ValueError as error:  # Outputs that are not finite, or a deviation of 0 or infinity.
            raise FloatingPointError(
                "the training has diverged: the policy's outputs are not finite or their deviation is 0"
            ) from error


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
        env: see `on_policy.EpisodeAlgorithm`, which also has the other arguments.
        **hyperparams: the fields of `EpisodePPOHyperparams`.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"RecurrentPolicy": RecurrentPolicy}
    hyperparams_class: ClassVar[type[OnPolicyHyperparams]] = EpisodePPOHyperparams
    log_name = "EpisodePPO"
    policy: RecurrentPolicy

    def _setup_model(self) -> None:
        super()._setup_model()
        self._has_modes = any(isinstance(part, (_BatchNorm, _DropoutNd)) for part in self.policy.modules())

    @property
    def _keeps_graph(self) -> bool:
        """Not where layers behave otherwise while learning: the policy acts in evaluation mode, as in SB3."""
        return super()._keeps_graph and not getattr(self, "_has_modes", False)

    def train(self) -> None:
        """Learn from the rollout: one gradient step for each minibatch of each epoch."""
        self._update_learning_rate(self.policy.optimizer)
        rollout = self.rollout_buffer
        outputs: RecurrentOutputs = rollout.stacked_outputs()  # (T, N, ...)
        batch = self.batch_of(outputs, np.stack(rollout.rewards), outputs.value)
        self.end_update([self.gradient_step(self.losses(part, seen)) for part, seen in self.minibatches(batch, outputs)])

    def losses(self, batch: Batch, outputs: RecurrentOutputs) -> dict[str, Tensor]:
        """The terms of the loss, weighted."""
        log_probs = self.policy.log_probs(outputs, batch.actions)  # (T, N, 1)
        everywhere = torch.ones_like(batch.looked_at)
        old = None if super()._keeps_graph else batch.old(0)  # A2C's loss where it is learned once.
        return {
            "policy_loss": policy_loss(log_probs[..., 0], old, batch.advantages, everywhere, batch.clip_range),
            "value_loss": self.vf_coef * baseline_loss(outputs.value, batch.returns),
            "entropy_loss": -self.now(self.ent_coef) * self.policy.entropy(outputs),
        }


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
    log_name = "EpisodeA2C"
