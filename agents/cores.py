"""What carries the state from step to step: the interface of cores, and those beside the paper's `policy.ReLUCore`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

State = Sequence[Tensor]  # What is carried from step to step, each (N, ...).


class Core(Protocol):
    """What carries the state from step to step; any `torch.nn.Module` with these will do as `core`.

    A method `unroll(inputs (T, N, F), state)` that returns h_1 ... h_T (T, N, H) and the state after them may be there too: it is
    used for whole sequences, where it can be faster than step after step.
    """

    num_states: ClassVar[int]  # How many (N, H) tensors the state holds.

    def __init__(self, input_size: int, hidden_size: int) -> None: ...

    def __call__(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: inputs (N, F) and the state before it to h_t (N, H) and the state after it."""
        ...


class LSTMCore(nn.Module):
    """f_h for games: an LSTM cell."""

    num_states = 2

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(input_size, hidden_size)
        _init_cell(self.cell)
        nn.init.ones_(self.cell.bias_ih[hidden_size : 2 * hidden_size])  # The forget gates start open.

    def forward(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        hidden, memory = self.cell(inputs, (state[0], state[1]))  # (N, H) each
        return hidden, (hidden, memory)

    def unroll(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        hiddens, memory = lstm_sequence(inputs, (state[0], state[1]), self.cell)
        return hiddens, (hiddens[-1], memory)


class GRUCore(nn.Module):
    """A gated recurrent unit."""

    num_states = 1

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.cell = nn.GRUCell(input_size, hidden_size)
        _init_cell(self.cell)

    def forward(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        hidden = self.cell(inputs, state[0])  # (N, H)
        return hidden, (hidden,)

    def unroll(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        weights = [self.cell.weight_ih, self.cell.weight_hh, self.cell.bias_ih, self.cell.bias_hh]
        hiddens, last = torch.gru(inputs, state[0].unsqueeze(0), weights, True, 1, 0.0, self.training, False, False)
        return hiddens, (last[0],)


class NoCore(nn.Module):
    """No memory: h_t = g_t."""

    num_states = 0

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        if input_size != hidden_size:
            raise ValueError(f'core="none" passes its {input_size} inputs on, it can\'t make {hidden_size} of them')

    def forward(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        return inputs, ()


def _init_cell(cell: nn.RNNCellBase) -> None:
    """Orthogonal weights, no bias."""
    for weight, bias in ((cell.weight_ih, cell.bias_ih), (cell.weight_hh, cell.bias_hh)):
        nn.init.orthogonal_(weight)
        nn.init.zeros_(bias)


OTHER_CORES: dict[str, type[nn.Module]] = {"lstm": LSTMCore, "gru": GRUCore, "none": NoCore}


def lstm_sequence(inputs: Tensor, state: tuple[Tensor, Tensor], cell: torch.nn.LSTMCell) -> tuple[Tensor, Tensor]:
    """T steps of a cell: inputs (T, N, F), h_0 and c_0 (N, H) -> h_1 ... h_T (T, N, H) and c_T (N, H)."""
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
