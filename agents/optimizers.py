"""How weights move: Muon beside another optimizer, averages of the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Muon, Optimizer
from torch.optim.swa_utils import AveragedModel

Tensors = tuple[Tensor, ...] | list[Tensor]


def start_average(network: nn.Module, share: float) -> AveragedModel:
    """A copy (`module`) that takes part in nothing but the averaging: call `update_parameters(network)` after each update.

    The window grows with the number t of updates: with e = 1 / share the newest weights enter with e / (t + e - 1), so that
    about the last `share` (above 0, at most 1) of all updates counts (polynomial-decay averaging, Shamir and Zhang 2013).
    """

    def lean(averages: Tensors, newest: Tensors, num_averaged: Tensor | int) -> None:
        torch._foreach_lerp_(averages, newest, 1 / (share * float(num_averaged) + 1))

    return AveragedModel(network, multi_avg_fn=lean).requires_grad_(False)


class MuonBeside(Optimizer):
    """Moves matrices by Muon (Jordan et al. 2024), all other parameters by the optimizer that it is given.

    Muon's step is the nearest orthogonal matrix to the momentum: all directions move alike, the weak ones too. Its length follows
    the other's learning rate, so that schedules work as they do with one optimizer.

    Args:
        rest: an optimizer of all other parameters.
        matrices: weights (m, n) of hidden layers.
        scale: a step's root mean square over a matrix is 0.2 times this, in learning rates (Adam's is about 0.2).

    Raises:
        ValueError: one of `matrices` is not a matrix.
    """

    def __init__(self, rest: Optimizer, matrices: Iterable[Tensor], scale: float = 1.0) -> None:
        self._rest, self._scale = rest, scale
        self._muon = Muon(matrices, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")  # Its lr is set anew before each step.
        super().__init__([*rest.param_groups, *self._muon.param_groups], {})
        self.param_groups = rest.param_groups  # Whoever sets a learning rate sets the rest's.

    def zero_grad(self, set_to_none: bool = True) -> None:
        self._rest.zero_grad(set_to_none)
        self._muon.zero_grad(set_to_none)

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of both, with the gradients that are there, or that the closure makes."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self._muon.param_groups:
            group["lr"] = self._scale * self.param_groups[0]["lr"]
        self._muon.step()
        self._rest.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"rest": self._rest.state_dict(), "muon": self._muon.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._rest.load_state_dict(state_dict["rest"])
        self._muon.load_state_dict(state_dict["muon"])
        self.param_groups = self._rest.param_groups
