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
    """The recurrent part, with the gates i, f, g, o side by side as in `torch.nn.LSTMCell`.

    A step of a small batch takes microseconds, so that what counts is the number of calls: views of all steps are made at once,
    and most results are written in place.
    """

    @staticmethod
    def forward(ctx: Any, from_inputs: Tensor, hidden: Tensor, memory: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """from_inputs (T, N, 4 H), h_0 and c_0 (N, H), weight (4 H, H)."""
        size, transposed = weight.shape[1], weight.t()
        gates = from_inputs.clone()  # (T, N, 4 H), overwritten step by step
        hiddens = gates.new_empty(len(gates) + 1, *hidden.shape)
        memories, squashed = torch.empty_like(hiddens), torch.empty_like(hiddens[1:])
        hiddens[0], memories[0] = hidden, memory
        i_and_f, g, o = (part.unbind(0) for part in gates.split((2 * size, size, size), dim=2))
        i, f, _, _ = (part.unbind(0) for part in gates.split(size, dim=2))
        all_gates, h, c, tanh_c = (part.unbind(0) for part in (gates, hiddens, memories, squashed))
        for t in range(len(gates)):
            all_gates[t].addmm_(h[t], transposed)
            i_and_f[t].sigmoid_(), g[t].tanh_(), o[t].sigmoid_()
            torch.mul(f[t], c[t], out=c[t + 1]).addcmul_(i[t], g[t])
            torch.mul(o[t], torch.tanh(c[t + 1], out=tanh_c[t]), out=h[t + 1])
        ctx.save_for_backward(gates, hiddens, memories, squashed, weight)
        return hiddens[1:], memories[-1].clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """From the gradients of h_1 ... h_T (T, N, H) and c_T (N, H)."""
        gates, hiddens, memories, squashed, weight = ctx.saved_tensors
        size = weight.shape[1]
        i, f, g, o = gates.split(size, dim=2)
        # At first the factors with which gradients of c_t (i, f, g) and h_t (o) reach the gates' inputs, then the gradients.
        d_gates = torch.empty_like(gates)
        d_i, d_f, d_g, d_o = d_gates.split(size, dim=2)
        torch.mul(g * i, 1 - i, out=d_i)
        torch.mul(memories[:-1] * f, 1 - f, out=d_f)
        torch.addcmul(i, i * g, g, value=-1, out=d_g)
        torch.mul(squashed * o, 1 - o, out=d_o)
        to_memory = torch.addcmul(o, o * squashed, squashed, value=-1).unbind(0)  # From h_t to c_t.
        grad_hiddens, f, d_o, d = grads[0].unbind(0), f.unbind(0), d_o.unbind(0), d_gates.unbind(0)
        by_memory = d_gates.unflatten(2, (4, size))[:, :, :3].unbind(0)  # (N, 3, H) each
        d_hidden, d_memory = grad_hiddens[-1], grads[1]
        for t in reversed(range(len(gates))):
            d_memory = torch.addcmul(d_memory, d_hidden, to_memory[t])
            by_memory[t].mul_(d_memory.unsqueeze(1))
            d_o[t].mul_(d_hidden)
            d_hidden = torch.addmm(grad_hiddens[t - 1], d[t], weight) if t else d[0] @ weight
            d_memory = d_memory * f[t]
        d_weight = d_gates.flatten(0, 1).t() @ hiddens[:-1].flatten(0, 1)
        return d_gates, d_hidden, d_memory, d_weight
