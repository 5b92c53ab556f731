"""Glimpse networks that see a whole scene at one glimpse: what the paper compares its model with (section 4.1), and a modern one.

All take the arguments of `GlimpseNetwork` and leave out where the glimpse was taken.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from agents.glimpse_networks import ConvGlimpseNetwork
from agents.networks import RELU_GAIN, GlimpseNetwork, init_linear


class FullyConnected(nn.Module):
    """Two layers of `hidden_size` and `output_size` rectified units."""

    def __init__(self, glimpse_shape: tuple[int, ...], where_size: int, hidden_size: int, output_size: int) -> None:
        super().__init__()
        self.first = nn.Linear(math.prod(glimpse_shape), hidden_size)
        self.second = nn.Linear(hidden_size, output_size)
        for layer in (self.first, self.second):
            init_linear(layer, RELU_GAIN)

    def forward(self, glimpse: Tensor, where: Tensor) -> Tensor:
        return self.second(self.first(glimpse.flatten(1)).relu()).relu()  # (N, k, g, g) -> (N, output)


class Convolutional(nn.Module):
    """The paper's: `hidden_size` filters of 10x10 at stride 5, then `output_size` rectified units."""

    def __init__(self, glimpse_shape: tuple[int, ...], where_size: int, hidden_size: int, output_size: int) -> None:
        super().__init__()
        channels = _channels(glimpse_shape)
        self.filters = nn.Conv2d(channels, hidden_size, kernel_size=10, stride=5)
        side = (glimpse_shape[-1] - 10) // 5 + 1
        if side < 1:
            raise ValueError(f"the filters are 10x10, got glimpses of {glimpse_shape[-1]}x{glimpse_shape[-1]}")
        self.units = nn.Linear(hidden_size * side * side, output_size)
        init_linear(self.units, RELU_GAIN)

    def forward(self, glimpse: Tensor, where: Tensor) -> Tensor:
        features = self.filters(_as_image(glimpse)).relu()  # (N, hidden, s, s)
        return self.units(features.flatten(1)).relu()  # (N, output)


class ResidualCNN(nn.Module):
    """Three stages of `hidden_size`, twice and four times as many channels, each at half the size of the one before."""

    def __init__(self, glimpse_shape: tuple[int, ...], where_size: int, hidden_size: int, output_size: int) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        channels = _channels(glimpse_shape)
        for width in (hidden_size, 2 * hidden_size, 4 * hidden_size):
            stages += [_convolution(channels, width, stride=2), nn.ReLU(), _Residual(width)]
            channels = width
        self.stages = nn.Sequential(*stages)
        self.units = nn.Linear(2 * channels, output_size)
        init_linear(self.units, RELU_GAIN)

    def forward(self, glimpse: Tensor, where: Tensor) -> Tensor:
        features = self.stages(_as_image(glimpse))  # (N, 4 hidden, s, s)
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1)
        return self.units(pooled).relu()  # (N, output)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.change = nn.Sequential(_convolution(width, width), nn.ReLU(), _convolution(width, width))

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs + self.change(inputs)).relu()


def _convolution(channels: int, width: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width))


def _channels(glimpse_shape: tuple[int, ...]) -> int:
    return math.prod(glimpse_shape[:-2])


def _as_image(glimpse: Tensor) -> Tensor:
    """(N, k, [C,] g, g) -> (N, k C, g, g)."""
    return glimpse.flatten(1, -3)


GLIMPSE_NETWORKS: dict[str, type[nn.Module]] = {
    "paper": GlimpseNetwork,
    "retina": ConvGlimpseNetwork,
    "fc": FullyConnected,
    "conv": Convolutional,
    "cnn": ResidualCNN,
}
