"""How weights move: Muon beside another optimizer, averages of the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Muon, Optimizer
from torch.optim.swa_utils import AveragedModel

Tensors = tuple[Tensor, ...] | list[Tensor]
HAS_FAST_BFLOAT16 = torch.backends.cpu.get_cpu_capability().startswith("AVX512")


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
            if HAS_FAST_BFLOAT16 or group["params"][0].is_cuda:
                self._muon.step()
            else:
                self._step_in_float32(group)
        self._rest.step()
        return loss

    @torch.no_grad()
    def _step_in_float32(self, group: dict[str, Any]) -> None:
        """The same as torch's Muon, whose matrix products in bfloat16 take 25 times as long where the CPU has none."""
        momentum = group["momentum"]
        for matrix in (one for one in group["params"] if one.grad is not None):
            average = self._muon.state[matrix].setdefault("momentum_buffer", torch.zeros_like(matrix))
            average.lerp_(matrix.grad, 1 - momentum)
            update = orthogonal(matrix.grad.lerp(average, momentum), group["ns_coefficients"], group["ns_steps"])
            matrix.add_(update, alpha=-group["lr"] * 0.2 * max(matrix.shape) ** 0.5)

    def state_dict(self) -> dict[str, Any]:
        return {"rest": self._rest.state_dict(), "muon": self._muon.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._rest.load_state_dict(state_dict["rest"])
        self._muon.load_state_dict(state_dict["muon"])
        self.param_groups = self._rest.param_groups


def orthogonal(matrix: Tensor, coefficients: tuple[float, float, float], num_iterations: int) -> Tensor:
    """About the nearest orthogonal matrix (m, n), by the Newton-Schulz iteration of Muon."""
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonal(matrix.T, coefficients, num_iterations).T
    linear, cubic, quintic = coefficients
    matrix = matrix / matrix.norm().clamp(min=1e-7)
    for _ in range(num_iterations):
        gram = matrix @ matrix.T
        matrix = torch.addmm(matrix, torch.addmm(gram, gram, gram, beta=cubic, alpha=quintic), matrix, beta=linear)
    return matrix
