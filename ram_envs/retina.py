"""The retina rho(x, l): what the agent sees of an image (Mnih et al. 2014, section 3.1).

k square patches are cut around one location. The first is g x g pixels, each next one twice as wide; all are averaged
down to g x g. Outside the image there is nothing: zeros. Patches start at the nearest whole pixel, nothing is interpolated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ram_envs.checks import check_whole

MAX_RELATIVE_WIDTH = 4  # The widest patch may be this many times as wide as the longer side of the image, no more.
_U = np.uint64  # Unsigned indices need no check for negative ones, so that the loops over pixels are vectorised.


class Retina:
    """A retina of one size for images of one shape.

    Scenes are kept with a margin of zeros, as wide as any patch can reach out: no patch needs clipping, and all loops over pixels
    have a length that the compiler knows. The margin lies above and to the left; what reaches out to the right meets the left
    margin of the next row, what reaches out below the upper margin of the next scene, so that more scenes fit into the cache.

    Args:
        image_shape: (H, W) or (C, H, W).
        glimpse_size: g, the side of a glimpse in pixels.
        num_scales: k, the number of patches, each twice as wide as the one before.
        num_zooms: Z; at zoom z in 0..Z-1 all patches are 2^z times as wide.
        dtype: of the scenes: uint8 in [0, 255] or float32 in [0, 1].

    Raises:
        ValueError: no useful retina of this size exists for such images; the message names the argument.
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        glimpse_size: int = 8,
        num_scales: int = 1,
        num_zooms: int = 1,
        dtype: Any = np.uint8,
    ) -> None:
        _check_sizes(image_shape[-2:], glimpse_size, num_scales, num_zooms)
        self.image_shape, self.num_zooms = image_shape, num_zooms
        self.glimpse_size, self.num_scales = int(glimpse_size), int(num_scales)
        self.margin = ((self.glimpse_size << (self.num_scales + num_zooms - 2)) + 1) // 2
        self.dtype = np.dtype(dtype)
        channels = image_shape[:-2]
        self.glimpse_shape = (self.num_scales, *channels, self.glimpse_size, self.glimpse_size)
        self._cut = _patch_cutter(self.glimpse_size, self.num_scales + num_zooms - 1, self.dtype.name)

    def blank_scenes(self, num_scenes: int) -> NDArray:
        """Empty scenes with their margin: (N, [C,] margin + H, margin + W)."""
        shape = (num_scenes, *self.image_shape[:-2], *(self.margin + side for side in self.image_shape[-2:]))
        size = math.prod(shape)
        pixels = np.zeros(size + (self.margin + 1) * shape[-1], self.dtype)  # Behind the last scene a margin below it.
        return pixels[:size].reshape(shape)

    def inner(self, scenes: NDArray) -> NDArray:
        """What is not margin: a view (..., H, W)."""
        return scenes[..., self.margin :, self.margin :]

    def look(self, scenes: NDArray, locations: NDArray, zooms: NDArray | None = None) -> NDArray[np.float32]:
        """Look once at each of the scenes, which `blank_scenes` has made; see `glimpses`. zooms is (N,), None where Z is 1.

        Raises:
            ValueError: scenes from elsewhere, or a location that is not finite.
        """
        if scenes.base is None or scenes.dtype != self.dtype or scenes.shape[-1] != self.margin + self.image_shape[-1]:
            raise ValueError("scenes must be made by this retina's blank_scenes: they need their margin")
        patches = np.empty((len(scenes), *self.glimpse_shape), np.float32)
        if zooms is None:
            zooms = np.zeros(len(scenes), np.int64)
        channels = (len(scenes), -1, *scenes.shape[-2:])
        cells = (len(scenes), self.num_scales, -1, self.glimpse_size**2)
        if not self._cut(scenes.reshape(channels), locations, zooms, patches.reshape(cells), self.margin):
            raise ValueError("locations must be finite, got a NaN or an infinity")
        return patches

    def corners(self, locations: NDArray, zooms: NDArray | None = None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the patches lie: columns and rows (N, k, 2) of their top-left pixels (negative: outside), widths (N, k)."""
        levels = np.arange(self.num_scales) + (np.zeros((len(locations), 1), int) if zooms is None else zooms[:, None])
        widths = self.glimpse_size << levels
        corners = np.empty((*widths.shape, 2), np.int64)
        _find_corners(locations, self.image_shape[:-3:-1], widths, corners)
        return corners, widths


def glimpses(images: NDArray, locations: NDArray, *, glimpse_size: int = 8, num_scales: int = 1) -> NDArray[np.float32]:
    """Look at each image once.

    Args:
        images: (N, H, W), or (N, C, H, W) with channels; uint8 in [0, 255] or float32 in [0, 1].
        locations: (N, 2), x to the right and y downwards in [-1, 1]: (-1, -1) is the image's top-left corner, (0, 0) its
            centre. Locations out of range are clipped.
        glimpse_size: g, the side of a glimpse in pixels.
        num_scales: k, the number of patches.

    Returns:
        (N, k, g, g), with channels (N, k, C, g, g), float32 in [0, 1], the narrowest patch first.

    Raises:
        ValueError: an argument has the wrong shape or type, or a location is not finite.
    """
    if images.ndim not in (3, 4) or images.dtype not in (np.uint8, np.float32):
        raise ValueError(
            f"images must be (N, H, W) or (N, C, H, W) of uint8 or float32, got shape {images.shape} of {images.dtype}"
        )
    if locations.shape != (len(images), 2):
        raise ValueError(f"locations must have the shape {(len(images), 2)}, got {locations.shape}")
    retina = Retina(images.shape[1:], glimpse_size, num_scales, dtype=images.dtype)
    scenes = retina.blank_scenes(len(images))
    retina.inner(scenes)[...] = images
    return retina.look(scenes, locations)


def _check_sizes(image_shape: tuple[int, ...], glimpse_size: Any, num_scales: Any, num_zooms: Any) -> None:
    for name, value in (("glimpse_size", glimpse_size), ("num_scales", num_scales), ("num_zooms", num_zooms)):
        check_whole(name, value, 1)
    widest = glimpse_size * 2 ** (num_scales + num_zooms - 2)
    limit = MAX_RELATIVE_WIDTH * max(image_shape)
    if widest > limit:
        zoomed = f" and num_zooms={num_zooms}" if num_zooms > 1 else ""
        raise ValueError(
            f"glimpse_size={glimpse_size} with num_scales={num_scales}{zoomed} makes a widest patch of {widest} pixels; on "
            f"images of {image_shape[0]}x{image_shape[1]} it may be at most {limit}: use fewer scales or a smaller glimpse"
        )


@njit(cache=True)
def _corner(coordinate, length, width):
    """The first pixel of a patch `width` wide, centred at `coordinate` of an axis with `length` pixels."""
    centre = (min(max(coordinate, -1.0), 1.0) + 1.0) / 2.0 * length
    return int(np.floor(centre - width / 2.0 + 0.5))


@njit(cache=True)
def _find_corners(locations, sides, widths, corners):
    for n in range(corners.shape[0]):
        for scale in range(corners.shape[1]):
            for axis in range(2):
                corners[n, scale, axis] = _corner(np.float64(locations[n, axis]), sides[axis], widths[n, scale])


@lru_cache(maxsize=64)
def _patch_cutter(size: int, num_levels: int, dtype: str) -> Callable[..., bool]:
    """Compile the loops for glimpses of one size and patches of size, 2 size, ... 2^(num_levels - 1) size pixels.

    Where the compiler knows all lengths it leaves no scalar rests; for the first five levels they are written as constants.
    """
    # 16 bits hold the sum of 16 x 16 bytes, and twice as many fit into a register as of 32 bits.
    number = np.float32 if dtype == "float32" else np.uint16 if num_levels <= 5 else np.uint32
    brightest = 1.0 if dtype == "float32" else 255.0

    @njit(cache=True)
    def cut(scenes, locations, zooms, patches, margin):
        """Fill patches (N, k, C, g * g) from scenes (N, C, H, W) with their margin; False if a location is not finite."""
        num_channels, height, width = scenes.shape[1:]
        pixels, below = scenes.reshape(-1), _U(width)
        sums = np.empty((size * size) << (num_levels - 1), number)

        def average(n, scale, factor, x, y):
            """Each row of cells is first summed downwards over the pixel rows that it covers, then all sideways."""
            span = size * factor
            mean = np.float32(1.0 / (brightest * factor * factor))
            left, top = _corner(x, width - margin, span) + margin, _corner(y, height - margin, span) + margin
            for channel in range(num_channels):
                first = _U(((n * num_channels + channel) * height + top) * width + left)
                for i in range(size):
                    above, row = first + _U(i * factor) * below, _U(i * span)
                    for c in range(span):
                        total = number(0)
                        for r in range(factor):
                            total += number(pixels[above + _U(r) * below + _U(c)])
                        sums[row + _U(c)] = total
                for j in range(size * size):
                    total = number(0)
                    for c in range(factor):
                        total += sums[_U(j * factor + c)]
                    patches[n, scale, channel, j] = np.float32(total) * mean

        for n in range(scenes.shape[0]):
            x, y = np.float64(locations[n, 0]), np.float64(locations[n, 1])
            if not (np.isfinite(x) and np.isfinite(y)):
                return False
            for scale in range(patches.shape[1] - 1, -1, -1):  # The widest brings the others' pixels into the cache.
                level = scale + zooms[n]
                if level == 0:
                    average(n, scale, 1, x, y)
                elif num_levels > 1 and level == 1:
                    average(n, scale, 2, x, y)
                elif num_levels > 2 and level == 2:
                    average(n, scale, 4, x, y)
                elif num_levels > 3 and level == 3:
                    average(n, scale, 8, x, y)
                elif num_levels > 4 and level == 4:
                    average(n, scale, 16, x, y)
                elif num_levels > 5:
                    average(n, scale, 1 << level, x, y)
        return True

    return cut
