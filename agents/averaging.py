"""The average of the weights that a network has had while it learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors = tuple[Tensor, ...] | list[Tensor]


def start_average(network: nn.Module, share: float) -> AveragedModel:
    """A copy (`module`) that takes part in nothing but the averaging: call `update_parameters(network)` after each update.

    The window grows with the number t of updates: with e = 1 / share the newest weights enter with e / (t + e - 1), so that
    about the last `share` of all updates counts (polynomial-decay averaging, Shamir and Zhang 2013). The first are forgotten.

    Raises:
        ValueError: `share` is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, got {share!r}")

    def lean(averages: Tensors, newest: Tensors, num_averaged: Tensor | int) -> None:
        torch._foreach_lerp_(averages, newest, 1 / (share * float(num_averaged) + 1))

    average = AveragedModel(network, multi_avg_fn=lean)
    return average.requires_grad_(False)
