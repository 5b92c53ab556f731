"""What happened in T steps of N environments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.networks import State
from agents.policy import Outputs


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


def observations_of(rollout: Rollout, envs: NDArray) -> tuple[dict[str, Tensor], State, NDArray[np.bool_]]:
    """What `RAMPolicy.unroll` takes, for some environments."""
    assert rollout.first_state is not None
    names = rollout.observations[0]
    obs = {name: torch.stack([step[name][envs] for step in rollout.observations]) for name in names}
    return obs, tuple(part[envs] for part in rollout.first_state), np.stack(rollout.episode_starts)[:, envs]
