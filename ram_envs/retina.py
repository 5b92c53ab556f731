"""The retina rho(x, l): what the agent sees of an image (Mnih et al. 2014, section 3.1).

k square patches are cut around one location. The first is g x g pixels, each next one twice as wide; all are averaged
down to g x g. Outside the image there is nothing: zeros. Patches start at the nearest whole pixel, nothing is interpolated.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

MAX_RELATIVE_WIDTH = 4  # The widest patch may be this many times as wide as the longer side of the image, no more.


def glimpses(images: NDArray, locations: NDArray, *, glimpse_size: int = 8, num_scales: int = 1) -> NDArray[np.float32]:
    """Look at each image once.

    Args:
        images: (N, H, W), uint8 in [0, 255] or float32 in [0, 1].
        locations: (N, 2), x to the right and y downwards in [-1, 1]: (-1, -1) is the image's top-left corner, (0, 0) its
            centre. Locations out of range are clipped.
        glimpse_size: g, the side of a glimpse in pixels.
        num_scales: k, the number of patches.

    Returns:
        (N, k, g, g) float32 in [0, 1], the narrowest patch first.

    Raises:
        ValueError: an argument has the wrong shape or type, or a location is not finite.
    """
    if images.ndim != 3 or images.dtype not in (np.uint8, np.float32):
        raise ValueError(f"images must be (N, H, W) of uint8 or float32, got shape {images.shape} of {images.dtype}")
    if locations.shape != (len(images), 2):
        raise ValueError(f"locations must have the shape {(len(images), 2)}, got {locations.shape}")
    if glimpse_size < 1 or num_scales < 1:
        raise ValueError(f"glimpse_size and num_scales must be at least 1, got {glimpse_size} and {num_scales}")
    patches = np.empty((len(images), num_scales, glimpse_size, glimpse_size), np.float32)
    unit = np.float32(1 / 255 if images.dtype == np.uint8 else 1)
    if not _cut_patches(images, locations, unit, patches):
        raise ValueError("locations must be finite, got a NaN or an infinity")
    return patches


def patch_corners(
    locations: NDArray, image_shape: tuple[int, int], *, glimpse_size: int = 8, num_scales: int = 1
) -> NDArray[np.int64]:
    """Where the patches lie: (N, k, 2), the column and the row of each patch's top-left pixel (negative: outside)."""
    corners = np.empty((len(locations), num_scales, 2), np.int64)
    _find_corners(locations, image_shape, glimpse_size, corners)
    return corners


def check_retina(glimpse_size: int, num_scales: int, image_shape: tuple[int, int]) -> None:
    """Raise a ValueError that names the argument if no useful retina of this size exists for such images."""
    for name, value in (("glimpse_size", glimpse_size), ("num_scales", num_scales)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    widest = glimpse_size * 2 ** (num_scales - 1)
    limit = MAX_RELATIVE_WIDTH * max(image_shape)
    if widest > limit:
        raise ValueError(
            f"glimpse_size={glimpse_size} with num_scales={num_scales} makes a widest patch of {widest} pixels; on images "
            f"of {image_shape[0]}x{image_shape[1]} it may be at most {limit}: use fewer scales or a smaller glimpse"
        )


@njit(cache=True)
def _corner(coordinate, length, width):
    """The first pixel of a patch `width` wide, centred at `coordinate` of an axis with `length` pixels."""
    centre = (min(max(coordinate, -1.0), 1.0) + 1.0) / 2.0 * length
    return int(np.floor(centre - width / 2.0 + 0.5))


@njit(cache=True)
def _find_corners(locations, image_shape, glimpse_size, corners):
    for n in range(corners.shape[0]):
        for scale in range(corners.shape[1]):
            width = glimpse_size << scale
            corners[n, scale, 0] = _corner(np.float64(locations[n, 0]), image_shape[1], width)
            corners[n, scale, 1] = _corner(np.float64(locations[n, 1]), image_shape[0], width)


@njit(cache=True)
def _cut_patches(images, locations, unit, patches):
    """Fill `patches` (N, k, g, g); False if a location is not finite.

    Each row of a patch is first summed downwards over the pixel rows that it covers, then sideways by halving: both loops
    run along contiguous memory, so that the compiler vectorises them.
    """
    height, width = images.shape[1:]
    num_scales, size = patches.shape[1:3]
    row = np.empty(size << (num_scales - 1), np.float32)
    for n in range(images.shape[0]):
        x, y = np.float64(locations[n, 0]), np.float64(locations[n, 1])
        if not (np.isfinite(x) and np.isfinite(y)):
            return False
        for scale in range(num_scales):
            factor = 1 << scale  # Pixels to a side of one cell of the glimpse.
            span = size << scale
            left, top = _corner(x, width, span), _corner(y, height, span)
            first, last = max(left, 0), min(left + span, width)
            mean = unit / np.float32(factor * factor)
            for i in range(size):
                above, below = max(top + i * factor, 0), min(top + (i + 1) * factor, height)
                cells = patches[n, scale, i]
                if first >= last or above >= below:
                    cells[:] = 0.0
                    continue
                if last - first < span:
                    row[:span] = 0.0
                sums = row[first - left : last - left]
                pixels = images[n, above, first:last]
                for c in range(last - first):
                    sums[c] = pixels[c]
                for r in range(above + 1, below):
                    pixels = images[n, r, first:last]
                    for c in range(last - first):
                        sums[c] += pixels[c]
                length = span
                while length > size:
                    length >>= 1
                    for j in range(length):
                        row[j] = row[2 * j] + row[2 * j + 1]
                for j in range(size):
                    cells[j] = row[j] * mean
    return True
