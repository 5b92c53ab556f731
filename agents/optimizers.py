"""Muon for the matrices of hidden layers, beside another optimizer for all else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Muon, Optimizer


class MuonBeside(Optimizer):
    """Moves matrices by Muon (Jordan et al. 2024), all other parameters by the optimizer that it is given.

    Muon's step is the nearest orthogonal matrix to the momentum: all directions are moved alike, the weak ones too. Its length
    follows the other's learning rate, so that schedules work as they do with one optimizer.

    Args:
        rest: an optimizer of all other parameters.
        matrices: weights (m, n) of hidden layers.
        gain: a step's root mean square over a matrix is 0.2 times this, in learning rates (Adam's is about 0.2).

    Raises:
        ValueError: one of `matrices` is none.
    """

    def __init__(self, rest: Optimizer, matrices: Iterable[Tensor], gain: float = 1.0) -> None:
        self._rest, self._gain = rest, gain
        # lr is set anew before each step.
        self._muon = Muon(matrices, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
        super().__init__([*rest.param_groups, *self._muon.param_groups], {})
        self.param_groups = rest.param_groups  # Whoever sets a learning rate sets the rest's.

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        self._rest.zero_grad(set_to_none)
        self._muon.zero_grad(set_to_none)

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of both, with the gradients that are there, or that the closure makes."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self._muon.param_groups:
            group["lr"] = self._gain * self.param_groups[0]["lr"]
        self._muon.step()
        self._rest.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The state of both."""
        return {"rest": self._rest.state_dict(), "muon": self._muon.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The state of both, as `state_dict` gave it."""
        self._rest.load_state_dict(state_dict["rest"])
        self._muon.load_state_dict(state_dict["muon"])
        self.param_groups = self._rest.param_groups
