"""An LSTM over whole sequences, with one product for all steps' gradients of its recurrent weights.

`torch.nn.LSTM` does the same; in 16-bit products (`torch.set_float32_matmul_precision("medium")`), which it takes no notice of on
CPUs, this one is faster, and a loop over `torch.nn.LSTMCell`, which adds up a gradient at each step, is slower in any precision.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def lstm_sequence(inputs: Tensor, state: tuple[Tensor, Tensor], cell: torch.nn.LSTMCell) -> tuple[Tensor, Tensor]:
    """T steps of a cell.

    Args:
        inputs: (T, N, F).
        state: h_0 and c_0, (N, H) each.
        cell: whose weights to use.

    Returns:
        h_1 ... h_T (T, N, H), and c_T (N, H).
    """
    from_inputs = torch.addmm(cell.bias_ih + cell.bias_hh, inputs.flatten(0, 1), cell.weight_ih.t())
    return _Sequence.apply(from_inputs.unflatten(0, inputs.shape[:2]), *state, cell.weight_hh)


class _Sequence(torch.autograd.Function):
    """The recurrent part: gates i, f, g, o, side by side as in `torch.nn.LSTMCell`."""

    @staticmethod
    def forward(ctx: Any, from_inputs: Tensor, hidden: Tensor, memory: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """from_inputs (T, N, 4 H), h_0 and c_0 (N, H), weight (4 H, H)."""
        num_steps, size = len(from_inputs), weight.shape[1]
        gates = torch.empty_like(from_inputs)
        hiddens = from_inputs.new_empty(num_steps + 1, *hidden.shape)
        memories = torch.empty_like(hiddens)
        hiddens[0], memories[0] = hidden, memory
        for t in range(num_steps):
            before = torch.addmm(from_inputs[t], hiddens[t], weight.t())  # (N, 4 H)
            i, f, g, o = gates[t].split(size, dim=1)
            torch.sigmoid(before[:, : 2 * size], out=gates[t][:, : 2 * size])
            torch.tanh(before[:, 2 * size : 3 * size], out=g)
            torch.sigmoid(before[:, 3 * size :], out=o)
            torch.addcmul(f * memories[t], i, g, out=memories[t + 1])
            torch.mul(o, memories[t + 1].tanh(), out=hiddens[t + 1])
        ctx.save_for_backward(gates, hiddens, memories, weight)
        return hiddens[1:].clone(), memories[-1].clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """From the gradients of h_1 ... h_T (T, N, H) and c_T (N, H)."""
        grad_hiddens, d_memory = grads
        gates, hiddens, memories, weight = ctx.saved_tensors
        size = weight.shape[1]
        i, f, g, o = gates.split(size, dim=2)
        squashed = memories[1:].tanh()
        # What each gate's input takes of the gradient of c_t, and the last one's of h_t: (T, N, H).
        per_gate = (g * i * (1 - i), memories[:-1] * f * (1 - f), i * (1 - g * g))
        of_output, of_memory = squashed * o * (1 - o), o * (1 - squashed * squashed)
        d_gates = torch.empty_like(gates)
        d_hidden = torch.zeros_like(hiddens[0])
        for t in reversed(range(len(gates))):
            d_hidden = grad_hiddens[t] + d_hidden
            d_memory = torch.addcmul(d_memory, d_hidden, of_memory[t])
            *from_memory, from_hidden = d_gates[t].split(size, dim=1)
            for part, factor in zip(from_memory, per_gate, strict=True):
                torch.mul(d_memory, factor[t], out=part)
            torch.mul(d_hidden, of_output[t], out=from_hidden)
            d_hidden = d_gates[t] @ weight
            d_memory = d_memory * f[t]
        d_weight = d_gates.flatten(0, 1).t() @ hiddens[:-1].flatten(0, 1)
        return d_gates, d_hidden, d_memory, d_weight
