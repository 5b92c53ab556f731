"""A glimpse network that sees shapes wherever in a patch they lie, beside the paper's `networks.GlimpseNetwork`."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from agents.networks import RELU_GAIN, init_linear


class ConvGlimpseNetwork(nn.Module):
    """Two small convolutions over each patch of the retina, the same for all scales, then as in the paper.

    h_g = Rect(Linear(conv(rho))), h_l = Rect(Linear(l)), g = Rect(Linear(h_g) + Linear(h_l)).

    Args:
        glimpse_shape: (k, g, g), or (k, C, g, g).
        where_size: the numbers that say where it was taken: 2 of the location, and those of the zoom.
        hidden_size: units of h_g and h_l each; the convolutions have an eighth and a quarter as many filters.
        output_size: units of g_t.
    """

    def __init__(
        self, glimpse_shape: tuple[int, ...], where_size: int = 2, hidden_size: int = 128, output_size: int = 256
    ) -> None:
        super().__init__()
        num_scales, side = glimpse_shape[0], glimpse_shape[-1]
        self.channels = math.prod(glimpse_shape[1:-2])
        few, many = max(hidden_size // 8, 1), max(hidden_size // 4, 1)
        self.strokes = nn.Conv2d(self.channels, few, kernel_size=4, stride=2, padding=1)
        self.parts = nn.Conv2d(few, many, kernel_size=3, stride=2, padding=1)
        cells = (side // 2 + 1) // 2
        if cells < 1:
            raise ValueError(f"the convolutions need glimpses of at least 2x2, got {side}x{side}")
        self.what = nn.Linear(num_scales * cells * cells * many, hidden_size)
        self.where = nn.Linear(where_size, hidden_size)
        self.both = nn.Linear(2 * hidden_size, output_size)
        for layer in (self.what, self.where, self.both):
            init_linear(layer, RELU_GAIN)
        for filters in (self.strokes, self.parts):
            nn.init.kaiming_normal_(filters.weight)
            nn.init.zeros_(filters.bias)  # type: ignore[arg-type]
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # Two to three times as fast on CPUs.

    def forward(self, glimpse: Tensor, location: Tensor) -> Tensor:
        patches = as_patches(glimpse, self.channels)
        parts = self.parts(self.strokes(patches).relu()).relu()  # (N k, F, s, s)
        what = self.what(parts.permute(0, 2, 3, 1).reshape(len(glimpse), -1))  # (N, hidden)
        where = self.where(location)  # (N, 2) -> (N, hidden)
        return self.both(torch.cat([what, where], dim=1).relu()).relu()  # (N, output)


def as_patches(glimpse: Tensor, channels: int) -> Tensor:
    """The patch of each scale as an image of its own: (..., k, [C,] g, g) -> (N k, C, g, g), channels last."""
    patches = glimpse.reshape(-1, channels, *glimpse.shape[-2:])
    return patches.contiguous(memory_format=torch.channels_last)
