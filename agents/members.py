"""Several networks side by side that see the same glimpses: each reads them in its own way, and together they decide.

Each errs on images of its own, so that the mean of what they say is right more often than any of them. They share what is looked
at: one path of the eye, one glimpse at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from agents.networks import State


class Members(nn.ModuleList):
    """M networks.

    Raises:
        ValueError: there is none.
    """

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        super().__init__(networks)
        if not len(self):
            raise ValueError("networks must hold at least one, got none")

    def split(self, joint: Tensor) -> tuple[Tensor, ...]:
        """What each of them has of (..., M F): M of (..., F)."""
        return joint.chunk(len(self), dim=-1)


class GlimpseMembers(Members):
    """Glimpse networks of which each makes its own part of g_t."""

    def forward(self, glimpse: Tensor, location: Tensor) -> Tensor:
        """(N, k, g, g) and (N, W) to (N, M F)."""
        return torch.cat([network(glimpse, location) for network in self], dim=-1)


class CoreMembers(Members):
    """Cores of which each has its own part of g_t, h_t and what is carried, see `networks.Core`."""

    @property
    def num_states(self) -> int:
        """How many (N, M H) tensors the state holds."""
        cores: Any = self
        return cores[0].num_states

    def forward(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: inputs (N, M F) and the state before it to h_t (N, M H) and the state after it."""
        states = zip(*map(self.split, state), strict=True) if state else [()] * len(self)
        steps = [core(part, own) for core, part, own in zip(self, self.split(inputs), states, strict=True)]
        hidden = torch.cat([hidden for hidden, _ in steps], dim=-1)
        return hidden, tuple(torch.cat(parts, dim=-1) for parts in zip(*(own for _, own in steps), strict=True))


class HeadMembers(Members):
    """Heads of which each reads its own part of h_t."""

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., M H) to (..., M, K)."""
        return torch.stack([head(part) for head, part in zip(self, self.split(hidden), strict=True)], dim=-2)


def joint_scores(votes: Tensor) -> Tensor:
    """Scores whose softmax is the mean of the members': (..., M, K) -> (..., K)."""
    return votes.log_softmax(-1).logsumexp(-2)
