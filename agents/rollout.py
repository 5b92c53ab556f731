"""What happened in T steps of N environments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from agents.core_policy import Observations, Outputs, map_obs, stack
from agents.networks import State


class Inputs(NamedTuple):
    """What `CorePolicy.unroll` takes."""

    observations: Observations  # (T, N, ...) each
    first_state: State
    episode_starts: NDArray[np.bool_]  # (T, N)

    def of(self, envs: NDArray) -> Inputs:
        """The same of some environments."""
        observations = map_obs(lambda part: part[:, envs], self.observations)
        return Inputs(observations, tuple(part[envs] for part in self.first_state), self.episode_starts[:, envs])


@dataclass
class Rollout:
    """T steps, as they come in."""

    first_state: State | None = None  # Before the first step.
    observations: list[Observations] = field(default_factory=list)  # T of (N, ...)
    episode_starts: list[NDArray] = field(default_factory=list)  # T of (N,)
    outputs: list[Outputs] = field(default_factory=list)  # T of (N, ...), with their graph where that is kept
    actions: list[tuple[Tensor, ...]] = field(default_factory=list)  # T of (N, ...) for each part, as sampled: not clipped
    rewards: list[NDArray] = field(default_factory=list)  # T of (N,)
    dones: list[NDArray] = field(default_factory=list)  # T of (N,)
    labels: list[list[int]] = field(default_factory=list)  # T of N, where they are learned from
    last_values: NDArray | None = None  # (N,), the baseline after the last step

    def __len__(self) -> int:
        return len(self.rewards)

    def inputs(self) -> Inputs:
        """What the network was given."""
        assert self.first_state is not None
        return Inputs(stack(self.observations), self.first_state, np.stack(self.episode_starts))

    def stacked_outputs(self) -> Any:
        """The outputs of all steps, without the states: (T, N, ...)."""
        return stack([output._replace(state=()) for output in self.outputs])  # type: ignore[attr-defined]


@dataclass
class Batch:
    """What the losses need of a rollout beside the model's outputs: (T, N, ...) each."""

    actions: tuple[Tensor, ...]
    advantages: Tensor
    returns: Tensor
    looked_at: Tensor  # 0 where an episode ended: nobody looks at the location that its last step names
    labels: Tensor | None
    old_log_probs: Tensor | None  # (T, N, P), of each part of the actions when they were drawn; None: once is enough

    def of(self, envs: NDArray) -> Batch:
        """The same of some environments."""
        parts: dict[str, Any] = {name: _pick(part, envs) for name, part in vars(self).items()}
        return Batch(**parts)


def _pick(part: Any, envs: NDArray) -> Any:
    if part is None:
        return None
    return tuple(one[:, envs] for one in part) if isinstance(part, tuple) else part[:, envs]
