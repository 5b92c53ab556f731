"""What glimpse networks are given, and those beside the paper's own, whose arguments (`policy.GlimpseNetwork`) all take.

One sees shapes wherever in a patch they lie. The others see a whole scene at one glimpse and leave out where it was taken: what
the paper compares its model with (section 4.1), and a modern one.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

RELU_GAIN = 2**0.5  # Of the weights before rectified units.
Shape = tuple[int, ...]
PerScale = float | list[float]  # One number for all scales of the retina, or one for each.


class GlimpseInput(nn.Module):
    """What a glimpse network is given of a Dict observation: the glimpse brought to a common size, and where it was taken.

    Args:
        space: a Dict of "glimpse" (k, g, g), or (k, C, g, g), "location" (2,) and perhaps "zoom" (Z,); stacked frames may make
            the last axes longer.
        glimpse_mean, glimpse_std: glimpses become (glimpse - mean) / std; a number each, or one for each scale.

    Raises:
        ValueError: something is missing or out of range; the message names it.
    """

    def __init__(self, space: spaces.Space, glimpse_mean: PerScale = 0.0, glimpse_std: PerScale = 1.0) -> None:
        super().__init__()
        if not isinstance(space, spaces.Dict) or not {"glimpse", "location"} <= set(space.spaces):
            raise ValueError(f'a Dict observation with "glimpse" (k, g, g) and "location" (2,) is needed, got {space}')
        if unknown := sorted(set(space.spaces) - {"glimpse", "location", "zoom"}):
            raise ValueError(f'observations may hold "glimpse", "location" and "zoom", got {unknown} too: leave them out')
        if not np.min(glimpse_std) > 0:
            raise ValueError(f"glimpse_std must be above 0, got {glimpse_std!r}")
        self.glimpse_shape: Shape = space["glimpse"].shape  # type: ignore[assignment]
        self.names = [name for name in ("location", "zoom") if name in space.spaces]
        self.where_size = sum(spaces.flatdim(space[name]) for name in self.names)
        self.is_plain = (glimpse_mean, glimpse_std) == (0, 1)
        self.mean = nn.Buffer(_per_scale("glimpse_mean", glimpse_mean, self.glimpse_shape), persistent=False)
        self.std = nn.Buffer(_per_scale("glimpse_std", glimpse_std, self.glimpse_shape), persistent=False)

    def forward(self, obs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Glimpses (..., k, g, g) and where they were taken (..., W)."""
        glimpse = obs["glimpse"] if self.is_plain else (obs["glimpse"] - self.mean) / self.std
        where = [obs[name] for name in self.names]
        return glimpse, torch.cat(where, dim=-1) if len(where) > 1 else where[0]


class ConvGlimpseNetwork(nn.Module):
    """Two small convolutions over each patch of the retina, the same for all scales, then as in the paper.

    h_g = Rect(Linear(conv(rho))), h_l = Rect(Linear(l)), g = Rect(Linear(h_g) + Linear(h_l)). The convolutions have an eighth and
    a quarter of `hidden_size` filters.
    """

    def __init__(self, glimpse_shape: Shape, where_size: int = 2, hidden_size: int = 128, output_size: int = 256) -> None:
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
        init_linear(RELU_GAIN, self.what, self.where, self.both)
        for filters in (self.strokes, self.parts):
            nn.init.kaiming_normal_(filters.weight)
            nn.init.zeros_(filters.bias)  # type: ignore[arg-type]
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # Two to three times as fast on CPUs.

    def forward(self, glimpse: Tensor, location: Tensor) -> Tensor:
        parts = self.parts(self.strokes(as_patches(glimpse, self.channels)).relu()).relu()  # (N k, F, s, s)
        what = self.what(parts.permute(0, 2, 3, 1).reshape(len(glimpse), -1))  # (N, hidden)
        where = self.where(location)  # (N, 2) -> (N, hidden)
        return self.both(torch.cat([what, where], dim=1).relu()).relu()  # (N, output)


class FullyConnected(nn.Module):
    """Two layers of `hidden_size` and `output_size` rectified units."""

    def __init__(self, glimpse_shape: Shape, where_size: int, hidden_size: int, output_size: int) -> None:
        super().__init__()
        self.first = nn.Linear(math.prod(glimpse_shape), hidden_size)
        self.second = nn.Linear(hidden_size, output_size)
        init_linear(RELU_GAIN, self.first, self.second)

    def forward(self, glimpse: Tensor, where: Tensor) -> Tensor:
        return self.second(self.first(glimpse.flatten(1)).relu()).relu()  # (N, k, g, g) -> (N, output)


class Convolutional(nn.Module):
    """The paper's: `hidden_size` filters of 10x10 at stride 5, then `output_size` rectified units."""

    def __init__(self, glimpse_shape: Shape, where_size: int, hidden_size: int, output_size: int) -> None:
        super().__init__()
        self.filters = nn.Conv2d(math.prod(glimpse_shape[:-2]), hidden_size, kernel_size=10, stride=5)
        side = (glimpse_shape[-1] - 10) // 5 + 1
        if side < 1:
            raise ValueError(f"the filters are 10x10, got glimpses of {glimpse_shape[-1]}x{glimpse_shape[-1]}")
        self.units = nn.Linear(hidden_size * side * side, output_size)
        init_linear(RELU_GAIN, self.units)

    def forward(self, glimpse: Tensor, where: Tensor) -> Tensor:
        features = self.filters(glimpse.flatten(1, -3)).relu()  # (N, k, [C,] g, g) -> (N, hidden, s, s)
        return self.units(features.flatten(1)).relu()  # (N, output)


class ResidualCNN(nn.Module):
    """Three stages of `hidden_size`, twice and four times as many channels, each at half the size of the one before."""

    def __init__(self, glimpse_shape: Shape, where_size: int, hidden_size: int, output_size: int) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        channels = math.prod(glimpse_shape[:-2])
        for width in (hidden_size, 2 * hidden_size, 4 * hidden_size):
            stages += [_convolution(channels, width, stride=2), nn.ReLU(), _Residual(width)]
            channels = width
        self.stages = nn.Sequential(*stages)
        self.units = nn.Linear(2 * channels, output_size)
        init_linear(RELU_GAIN, self.units)

    def forward(self, glimpse: Tensor, where: Tensor) -> Tensor:
        features = self.stages(glimpse.flatten(1, -3))  # (N, k, [C,] g, g) -> (N, 4 hidden, s, s)
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


def as_patches(glimpse: Tensor, channels: int) -> Tensor:
    """The patch of each scale as an image of its own: (..., k, [C,] g, g) -> (N k, C, g, g), channels last."""
    return glimpse.reshape(-1, channels, *glimpse.shape[-2:]).contiguous(memory_format=torch.channels_last)


def _per_scale(name: str, given: PerScale, glimpse_shape: Shape) -> Tensor:
    """One number for each scale (k, 1, ...), or one for all."""
    values = torch.as_tensor(given, dtype=torch.float32)
    if values.shape not in ((), glimpse_shape[:1]):
        raise ValueError(f"{name} must be a number or one for each of the {glimpse_shape[0]} scales, got {given!r}")
    return values.reshape(-1, *(1,) * (len(glimpse_shape) - 1))


def find_class(name: str, given: str | type, known: dict[str, Any]) -> Any:
    """The class that an argument names, as one of those known or as "module:Class", or is.

    Raises:
        ValueError: it is neither, or no class of torch modules.
        ImportError: there is no such module.
    """
    if isinstance(given, str) and given in known:
        return known[given]
    module, colon, class_name = given.partition(":") if isinstance(given, str) else ("", "", "")
    found = getattr(importlib.import_module(module), class_name, None) if module and colon else given
    if isinstance(found, type) and issubclass(found, nn.Module):
        return found
    raise ValueError(f'{name} must be one of {tuple(known)}, "module:Class" or a class of torch modules, got {given!r}')


def init_linear(gain: float, *layers: nn.Linear) -> None:
    """Orthogonal weights, no bias."""
    for layer in layers:
        nn.init.orthogonal_(layer.weight, gain)
        nn.init.zeros_(layer.bias)


OTHER_GLIMPSE_NETWORKS = {"retina": ConvGlimpseNetwork, "fc": FullyConnected, "conv": Convolutional, "cnn": ResidualCNN}
