"""The parts of the recurrent attention model (Mnih et al. 2014, sections 3.1 and 4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

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
    """

    def __init__(self, num_pixels: int, where_size: int = 2, hidden_size: int = 128, output_size: int = 256) -> None:
        super().__init__()
        self.what = nn.Linear(num_pixels, hidden_size)
        self.where = nn.Linear(where_size, hidden_size)
        # One matrix for both: Linear(h_g) + Linear(h_l) = Linear([h_g, h_l]).
        self.both = nn.Linear(2 * hidden_size, output_size)
        for layer in (self.what, self.where, self.both):
            init_linear(layer, RELU_GAIN)

    def forward(self, glimpse: Tensor, location: Tensor) -> Tensor:
        what = self.what(glimpse.flatten(1))  # (N, k, g, g) -> (N, hidden)
        where = self.where(location)  # (N, 2) -> (N, hidden)
        return self.both(torch.cat([what, where], dim=1).relu()).relu()  # (N, output)


class ReLUCore(nn.Module):
    """f_h for classification: h_t = Rect(Linear(h_{t-1}) + Linear(g_t))."""

    num_states = 1

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
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
        self.hidden_size = hidden_size
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


CORES: dict[str, type[ReLUCore] | type[LSTMCore]] = {"relu": ReLUCore, "lstm": LSTMCore}
