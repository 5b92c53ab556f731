"""The parts of the recurrent attention model (Mnih et al. 2014, sections 3.1 and 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from agents.lstm import lstm_sequence

State = Sequence[Tensor]  # What is carried from step to step, each (N, ...).


RELU_GAIN = 2**0.5
RECURRENT_START = 0.5


def init_linear(layer: nn.Linear, gain: float) -> None:
    """Orthogonal weights, no bias."""
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)


class GlimpseNetwork(nn.Module):
    """f_g: what was seen and where, as one vector g_t.

    h_g = Rect(Linear(rho)), h_l = Rect(Linear(l)), g = Rect(Linear(h_g) + Linear(h_l)).

    Args:
        glimpse_shape: (k, g, g), or (k, C, g, g).
        where_size: the numbers that say where it was taken: 2 of the location, and those of the zoom.
        hidden_size: units of h_g and h_l each.
        output_size: units of g_t.
    """

    def __init__(
        self, glimpse_shape: tuple[int, ...], where_size: int = 2, hidden_size: int = 128, output_size: int = 256
    ) -> None:
        super().__init__()
        self.what = nn.Linear(math.prod(glimpse_shape), hidden_size)
        self.where = nn.Linear(where_size, hidden_size)
        # One matrix for both: Linear(h_g) + Linear(h_l) = Linear([h_g, h_l]).
        self.both = nn.Linear(2 * hidden_size, output_size)
        for layer in (self.what, self.where, self.both):
            init_linear(layer, RELU_GAIN)

    def forward(self, glimpse: Tensor, location: Tensor) -> Tensor:
        what = self.what(glimpse.flatten(1))  # (N, k, g, g) -> (N, hidden)
        where = self.where(location)  # (N, 2) -> (N, hidden)
        return self.both(torch.cat([what, where], dim=1).relu()).relu()  # (N, output)


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


class ReLUCore(nn.Module):
    """f_h for classification: h_t = Rect(Linear(h_{t-1}) + Linear(g_t))."""

    num_states = 1

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        # One matrix for both: Linear(h) + Linear(g) = Linear([h, g]).
        self.both = nn.Linear(hidden_size + input_size, hidden_size)
        init_linear(self.both, 1.0)
        with torch.no_grad():
            # A recurrent start that forgets slowly and mixes nothing (Le, Jaitly and Hinton 2015, at half their scale).
            self.both.weight[:, :hidden_size] = RECURRENT_START * torch.eye(hidden_size)
            nn.init.orthogonal_(self.both.weight[:, hidden_size:])

    def forward(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        hidden = self.both(torch.cat([state[0], inputs], dim=1)).relu()  # (N, H)
        return hidden, (hidden,)


class LSTMCore(nn.Module):
    """f_h for games: an LSTM cell."""

    num_states = 2

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(input_size, hidden_size)
        nn.init.orthogonal_(self.cell.weight_ih)
        nn.init.orthogonal_(self.cell.weight_hh)
        with torch.no_grad():
            self.cell.bias_ih.zero_()
            self.cell.bias_hh.zero_()
            self.cell.bias_ih[hidden_size : 2 * hidden_size] = 1.0  # The forget gates start open.

    def forward(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        hidden, memory = self.cell(inputs, (state[0], state[1]))  # (N, H) each
        return hidden, (hidden, memory)

    def unroll(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """T steps without a new start: (T, N, F) -> (T, N, H)."""
        hiddens, memory = lstm_sequence(inputs, (state[0], state[1]), self.cell)
        return hiddens, (hiddens[-1], memory)


class GRUCore(nn.Module):
    """A gated recurrent unit."""

    num_states = 1

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.cell = nn.GRUCell(input_size, hidden_size)
        nn.init.orthogonal_(self.cell.weight_ih)
        nn.init.orthogonal_(self.cell.weight_hh)
        nn.init.zeros_(self.cell.bias_ih)
        nn.init.zeros_(self.cell.bias_hh)

    def forward(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        hidden = self.cell(inputs, state[0])  # (N, H)
        return hidden, (hidden,)

    def unroll(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """T steps without a new start: (T, N, F) -> (T, N, H)."""
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


CORES: dict[str, type[nn.Module]] = {"relu": ReLUCore, "lstm": LSTMCore, "gru": GRUCore, "none": NoCore}


def find_class(name: str, given: str | type, known: dict[str, Any]) -> Any:
    """The class that an argument names, or is.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(given, str) and given in known:
        return known[given]
    if isinstance(given, type) and issubclass(given, nn.Module):
        return given
    raise ValueError(f"{name} must be one of {tuple(known)} or a class of torch modules, got {given!r}")
