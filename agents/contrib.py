"""RAM's cores, and your own, as the recurrent part of sb3-contrib's RecurrentPPO."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from .cores import State
from .extractor import default_extractor
from .glimpse_networks import find_class
from .policy import CORES

try:
    from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
except ModuleNotFoundError as error:
    raise ImportError("ram_envs.agents.contrib needs the package sb3_contrib: pip install 'ram-envs[contrib]'") from error


class CoreAsLSTM(nn.Module):
    """A `cores.Core` with the interface of `torch.nn.LSTM`, as far as RecurrentPPO uses it.

    It carries two states at most, because RecurrentPPO stores two, h and c; ValueError where it carries more. Those that it has
    no use for come out as they went in.
    """

    num_layers = 1

    def __init__(self, core_class: type, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.core = core_class(input_size, hidden_size)
        if self.core.num_states not in (0, 1, 2):
            has = f"{core_class.__name__} has num_states={self.core.num_states!r}"
            raise ValueError(f"core must carry 0, 1 or 2 states, as many as RecurrentPPO stores: {has}")

    def forward(self, inputs: Tensor, states: State) -> tuple[Tensor, State]:
        """All of h_t (T, N, H) and the last states, for inputs (T, N, F) and the states (1, N, H) before them."""
        num_states = self.core.num_states
        carried: State = tuple(state.squeeze(0) for state in states[:num_states])  # (N, H) each
        if len(inputs) > 1 and hasattr(self.core, "unroll"):
            hiddens, carried = self.core.unroll(inputs, carried)
        else:
            steps = []
            for step_inputs in inputs:
                hidden, carried = self.core(step_inputs, carried)
                steps.append(hidden)
            hiddens = torch.stack(steps)
        return hiddens, (*(state.unsqueeze(0) for state in carried), *states[num_states:])


class RecurrentCorePolicy(RecurrentActorCriticPolicy):
    """`RecurrentPPO(RecurrentCorePolicy, env, policy_kwargs={"core": "gru"})`.

    sb3-contrib's recurrent policy with another core in place of its LSTM, and of the critic's own where there is one.

    Args:
        observation_space, action_space, lr_schedule: see RecurrentPPO.
        core, features_extractor_class: see `episode_ppo.RecurrentPolicyOptions`.
        lstm_hidden_size: units of h_t.
        **kwargs: the other arguments of sb3-contrib's `RecurrentActorCriticPolicy`, such as `net_arch`, `shared_lstm`,
            `enable_critic_lstm`; not `n_lstm_layers` and `lstm_kwargs`, which only an LSTM of torch has.

    Raises:
        ValueError: an argument is out of range; the message names it.
    """

    lstm_actor: Any
    lstm_critic: Any

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        core: str | type = "relu",
        lstm_hidden_size: int = 256,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        **kwargs: Any,
    ) -> None:
        core_class = find_class("core", core, CORES)
        for name in ("n_lstm_layers", "lstm_kwargs"):
            if name in kwargs:
                raise ValueError(f"{name} is for the LSTM of torch alone, got {kwargs[name]!r}: make it part of a core class")
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            lstm_hidden_size=lstm_hidden_size,
            features_extractor_class=features_extractor_class or default_extractor(observation_space),
            **kwargs,
        )
        self.core_name = core
        self.lstm_actor = CoreAsLSTM(core_class, self.features_dim, lstm_hidden_size)
        if self.lstm_critic is not None:
            self.lstm_critic = CoreAsLSTM(core_class, self.features_dim, lstm_hidden_size)
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = {"core": self.core_name, "lstm_hidden_size": self.lstm_output_dim}
        names = ("shared_lstm", "enable_critic_lstm", "share_features_extractor")
        return {**super()._get_constructor_parameters(), **own, **{name: getattr(self, name) for name in names}}
