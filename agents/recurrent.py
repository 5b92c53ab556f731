"""What recurrent policies share: a state carried from step to step, rollouts of whole episodes, SB3's `predict` with a state."""

from __future__ import annotations

import inspect
import math
import sys
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.utils import LinearSchedule
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from .cores import State

Observations = Any  # A tensor (N, ...), or a dict of such.
Actions = tuple[Tensor, ...]  # Their parts, (N, ...) each, as they were sampled.
_Options = TypeVar("_Options", bound="Options")


@dataclass(frozen=True)
class Options:
    """Named arguments, each of its kind and in its range or one of its choices: where it is not, a ValueError names it."""

    ranges: ClassVar[dict[str, tuple[float, float]]] = {}  # Of numbers, the ends allowed.
    above_zero: ClassVar[tuple[str, ...]] = ()
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {}

    def __post_init__(self) -> None:
        kinds = typing.get_type_hints(type(self))
        for name, value in vars(self).items():
            self._check(name, value, set(typing.get_args(kinds[name]) or (kinds[name],)))

    def _check(self, name: str, value: Any, kinds: set[Any]) -> None:
        if name in self.choices and value not in self.choices[name]:
            raise ValueError(f"{name} must be one of {self.choices[name]}, got {value!r}")
        if bool in kinds and not isinstance(value, (bool, np.bool_)):
            raise ValueError(f"{name} must be True or False, got {value!r}")
        if not {int, float} & kinds or (value is None and type(None) in kinds):
            return
        if len(kinds) > 1 and isinstance(value, (list, tuple)):
            return  # A number for each scale.
        if len(kinds) > 1 and callable(value):
            value = value(1.0)  # Where a schedule begins.
        low, high = self.ranges.get(name, (-math.inf, math.inf))
        is_number = isinstance(value, Real if float in kinds else (int, np.integer)) and not isinstance(value, bool)
        in_range = is_number and math.isfinite(value) and low <= value <= high and not (name in self.above_zero and value <= 0)
        if not in_range:
            kind = "whole number" if float not in kinds else "number" if math.isfinite(high) else "finite number"
            bounds = (
                f" from {low:g} to {high:.10g}" if math.isfinite(high) else f" of at least {low:g}" if math.isfinite(low) else ""
            )
            bounds = " above 0" if name in self.above_zero else bounds
            raise ValueError(f"{name} must be a {kind}{bounds}, got {value!r}")

    @classmethod
    def of(cls: type[_Options], given: dict[str, Any]) -> _Options:
        """The options with the values given, the others with their defaults; TypeError where there is no option of a name.

        A schedule may be written as rl_zoo3 writes it, such as "lin_0.001".
        """
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(given) - set(known)):
            raise TypeError(f"{', '.join(unknown)} is not among the {cls.__name__}: {', '.join(known)}")
        return cls(**{name: parse_schedule(value) for name, value in given.items()})


def parse_schedule(value: Any) -> Any:
    """rl_zoo3's "lin_0.001" as a schedule that falls to 0; anything else as it is.

    Raises:
        ValueError: what stands behind "lin_" is no number.
    """
    if not isinstance(value, str) or not value.startswith("lin_"):
        return value
    try:
        return LinearSchedule(float(value.removeprefix("lin_")), 0.0, 1.0)
    except ValueError as error:
        raise ValueError(
            f'a schedule must be "lin_" and the number that it falls from, such as "lin_0.001", got {value!r}'
        ) from error


@contextmanager
def old_names() -> Iterator[None]:
    """In here models can be loaded whose zip says `agents.policy`, as this package was called before version 0.2."""
    others = {name: sys.modules.pop(name) for name in [*sys.modules] if name.partition(".")[0] == "agents"}
    package = __name__.rpartition(".")[0]
    ours = {name.replace(package, "agents", 1): module for name, module in sys.modules.items() if name.startswith(package)}
    try:
        sys.modules.update(ours)
        yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "agents"]:
            del sys.modules[name]
        sys.modules.update(others)


class Outputs(Protocol):
    """What a policy makes of observations: a NamedTuple of tensors, or of tuples of tensors, (N, ...) or (T, N, ...) each."""

    value: Tensor  # (...), the baseline b_t
    state: State  # for the next step


@dataclass
class Rollout:
    """T steps of N environments, as they come in."""

    first_state: State = ()  # Before the first step.
    observations: list[Observations] = field(default_factory=list)  # T of (N, ...), where the network is run again
    episode_starts: list[NDArray] = field(default_factory=list)  # T of (N,)
    outputs: list[Outputs] = field(default_factory=list)  # T of (N, ...), with their graph where that is kept
    actions: list[Actions] = field(default_factory=list)  # T of (N, ...) for each part, as sampled: not clipped
    rewards: list[NDArray] = field(default_factory=list)  # T of (N,)
    dones: list[NDArray] = field(default_factory=list)  # T of (N,)
    infos: list[Any] = field(default_factory=list)  # T of N dicts
    last_values: NDArray | None = None  # (N,), the baseline after the last step

    def __len__(self) -> int:
        return len(self.rewards)

    def stacked_outputs(self) -> Any:
        """The outputs of all steps, without the states: (T, N, ...)."""
        return stack([output._replace(state=()) for output in self.outputs])  # type: ignore[attr-defined]


class CorePolicy(BasePolicy):
    """A policy with a recurrent core. Subclasses say what goes into the core, and what is made of what comes out of it."""

    core: Any  # A `cores.Core`.
    core_size: int  # Units of h_t.
    options: Options

    def __init__(
        self,
        *args: Any,
        optimizer_class: type[Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if optimizer_kwargs is None:  # The fused variant where there is one.
            optimizer_kwargs = {"fused": True} if "fused" in inspect.signature(optimizer_class).parameters else {}
        super().__init__(*args, optimizer_class=optimizer_class, optimizer_kwargs=optimizer_kwargs, **kwargs)

    def encode(self, obs: Observations) -> Tensor:
        """The core's inputs (N, F) for observations (N, ...)."""
        raise NotImplementedError

    def read_out(self, hidden: Tensor, obs: Observations, step: Tensor, state: State) -> Any:
        """The `Outputs` for h_t (..., H), observations (..., ...), the number (...) of the step, and the state after it."""
        raise NotImplementedError

    def act(self, output: Any, deterministic: bool = False, greedy_choice: bool = False) -> tuple[Actions, NDArray]:
        """Samples, and the actions (N, ...) as the environment takes them.

        `deterministic`: the most likely ones; `greedy_choice`: the most likely class where there is one.
        """
        raise NotImplementedError

    def log_probs(self, outputs: Any, actions: Actions) -> Tensor:
        """Log-probabilities (T, N, P) of the parts of actions (T, N, ...)."""
        raise NotImplementedError

    def forward(self, obs: Observations, state: State) -> Any:
        """One step: observations (N, ...), state of (N, H) tensors and the number (N, 1) of the step."""
        *core_state, step = state
        hidden, core_state = self.core(self.encode(obs), core_state)  # (N, H), h_t
        return self.read_out(hidden, obs, step.squeeze(1), (*core_state, step + 1))

    def unroll(self, obs: Observations, state: State, episode_starts: NDArray[np.bool_]) -> Any:
        """T steps at once, with the gradient through all of them: obs of (T, N, ...), episode_starts (T, N)."""
        inputs = self.encode(map_obs(lambda part: part.flatten(0, 1), obs)).unflatten(0, episode_starts.shape)  # (T, N, F), g_t
        if hasattr(self.core, "unroll") and not episode_starts[1:].any():
            *core_state, step = self.mask_state(state, episode_starts[0])
            hiddens, core_state = self.core.unroll(inputs, core_state)
            steps = step.squeeze(1) + torch.arange(len(inputs), device=step.device).unsqueeze(1)  # (T, N)
            return self.read_out(hiddens, obs, steps, (*core_state, step + len(inputs)))
        all_hidden, all_steps = [], []
        for step_inputs, starts in zip(inputs, episode_starts, strict=True):
            *core_state, step = self.mask_state(state, starts)
            hidden, core_state = self.core(step_inputs, core_state)
            all_hidden.append(hidden)
            all_steps.append(step.squeeze(1))
            state = (*core_state, step + 1)
        return self.read_out(torch.stack(all_hidden), obs, torch.stack(all_steps), state)

    def initial_state(self, num_envs: int) -> State:
        """h_0 = 0 as tensors (num_envs, H), and the number of the step in the episode (num_envs, 1)."""
        zeros = torch.zeros(num_envs, self.core_size, device=self.device)
        step = torch.zeros(num_envs, 1, dtype=torch.long, device=self.device)
        return (*(zeros,) * self.core.num_states, step)

    def mask_state(self, state: State | None, episode_start: NDArray[np.bool_]) -> State:
        """The state with h_0 where an episode starts: episode_start is (N,)."""
        if state is None or episode_start.all():
            return self.initial_state(len(episode_start))
        if not episode_start.any():
            return state
        goes_on = torch.as_tensor(~episode_start, device=self.device).unsqueeze(1)
        return tuple(part * goes_on for part in state)

    def predict(
        self,
        observation: NDArray | dict[str, NDArray],
        state: tuple[NDArray, ...] | None = None,
        episode_start: NDArray | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray, tuple[NDArray, ...] | None]:
        """The actions for a batch of observations (or for one), and the state to hand in at the next step.

        Args:
            observation: with or without a batch axis.
            state: what the last call returned; None at the start.
            episode_start: (N,), whether each observation is the first of its episode; None: only where `state` is None.
            deterministic: the most likely actions, instead of samples.

        Raises:
            ValueError: the observation is not of the space.
        """
        parts = getattr(self.observation_space, "spaces", None)
        if isinstance(observation, tuple) or (parts and not (isinstance(observation, dict) and set(parts) <= set(observation))):
            what = "an array" if parts is None else f"a dict of {', '.join(parts)}"
            got = f"a dict of {', '.join(observation)}" if isinstance(observation, dict) else type(observation).__name__
            raise ValueError(f"observation must be {what}, got {got}; env.reset() returns (observation, info)")
        self.set_training_mode(False)
        obs, is_batch = self.obs_to_tensor(observation)
        starts = np.broadcast_to(np.asarray(False if episode_start is None else episode_start, np.bool_), num_rows(obs))
        tensors = None if state is None else tuple(torch.as_tensor(part, device=self.device) for part in state)
        with torch.no_grad():
            output = self(obs, self.mask_state(tensors, starts))
            actions = self._actions(output, deterministic)
        return (actions if is_batch else actions.squeeze(0)), tuple(part.cpu().numpy() for part in output.state)

    def _actions(self, output: Any, deterministic: bool) -> NDArray:
        return self.act(output, deterministic)[1]

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        output = self(observation, self.initial_state(num_rows(observation)))
        return torch.as_tensor(self._actions(output, deterministic), device=self.device)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,  # A loaded policy is there to act.
            **vars(self.options),
            "optimizer_kwargs": self.optimizer_kwargs,
        }


def map_obs(function: Callable[[Tensor], Tensor], obs: Observations) -> Observations:
    """The function of each part of the observations."""
    return {name: function(part) for name, part in obs.items()} if isinstance(obs, dict) else function(obs)


def num_rows(obs: Observations) -> int:
    """N."""
    return len(next(iter(obs.values())) if isinstance(obs, dict) else obs)


def stack(items: list[Any]) -> Any:
    """T observations or outputs of (N, ...) as one of (T, N, ...): tensors, and dicts and tuples of them."""
    return tree_map(lambda *parts: torch.stack(parts), *items)
