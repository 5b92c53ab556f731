"""What happened in T steps of N environments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.networks import State
from agents.policy import Outputs


class Inputs(NamedTuple):
    """What `RAMPolicy.unroll` takes."""

    observations: dict[str, Tensor]  # (T, N, ...) each
    first_state: State
    episode_starts: NDArray[np.bool_]  # (T, N)

    def of(self, envs: NDArray) -> Inputs:
        """The same of some environments."""
        observations = {name: part[:, envs] for name, part in self.observations.items()}
        return Inputs(observations, tuple(part[envs] for part in self.first_state), self.episode_starts[:, envs])


@dataclass
class Rollout:
    """T steps, as they come in."""

    first_state: State | None = None  # Before the first step.
    observations: list[dict[str, Tensor]] = field(default_factory=list)  # T of (N, ...)
    episode_starts: list[NDArray] = field(default_factory=list)  # T of (N,)
    outputs: list[Outputs] = field(default_factory=list)  # T of (N, ...), with their graph where that is kept
    locations: list[Tensor] = field(default_factory=list)  # T of (N, 2), as sampled: not clipped
    choices: list[Tensor] = field(default_factory=list)  # T of (N, P)
    rewards: list[NDArray] = field(default_factory=list)  # T of (N,)
    dones: list[NDArray] = field(default_factory=list)  # T of (N,)
    labels: list[list[int]] = field(default_factory=list)  # T of N
    last_values: NDArray | None = None  # (N,), the baseline after the last step

    def __len__(self) -> int:
        return len(self.rewards)

    def inputs(self) -> Inputs:
        """What the network was given."""
        assert self.first_state is not None
        observations = {name: torch.stack([step[name] for step in self.observations]) for name in self.observations[0]}
        return Inputs(observations, self.first_state, np.stack(self.episode_starts))

    def stacked_outputs(self) -> Outputs:
        """The outputs of all steps: (T, N, ...)."""
        means, logits, values, _ = zip(*self.outputs, strict=True)
        return Outputs(torch.stack(means), tuple(map(torch.stack, zip(*logits, strict=True))), torch.stack(values), ())


@dataclass
class Batch:
    """What the losses need of a rollout beside the model's outputs: (T, N, ...) each."""

    locations: Tensor  # (T, N, 2)
    choices: Tensor  # (T, N, P)
    advantages: Tensor
    returns: Tensor
    looked_at: Tensor  # 0 where an episode ended: nobody looks at the location that its last step names
    labels: Tensor | None
    old_log_probs: Tensor | None  # (T, N, 1 + P), of the location and of each choice when they were drawn; None: once is enough

    def of(self, envs: NDArray) -> Batch:
        """The same of some environments."""
        parts: dict[str, Any] = {name: None if part is None else part[:, envs] for name, part in vars(self).items()}
        return Batch(**parts)
