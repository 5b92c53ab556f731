"""Images bent a little, each in its own way, so that a pass over a data set never shows the same picture twice.

A grid of 3x3 nodes lies over the image, each node is moved by a random amount, and what lies between follows (Simard et al. 2003
move every pixel and smooth; a coarse grid does both at once). Moved together the nodes shift, turn, stretch and slant the image.

Between pixels the image is cubic: linear interpolation blurs, and what learns from blurred images errs on sharp ones.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

NODES = 3  # To a side.
EDGE = 4  # Nothing lies around an image for so many pixels: enough for the 4x4 around any place.
DRAWS = 2 * NODES * NODES  # For an image: x and y of each node.


def warp(images: NDArray, index: NDArray[np.int64], draws: NDArray[np.floating], reach: float) -> NDArray:
    """Bend each of the images index (m,): (M, C, H, W) -> (m, C, H, W).

    Args:
        images: uint8 or float32; beyond their edges there is nothing (0).
        index: which to bend.
        draws: (m, `DRAWS`) in [0, 1), where the nodes go.
        reach: the farthest that a node is moved along each axis, in pixels.
    """
    bent = np.empty((len(index), *images.shape[1:]), images.dtype)
    moves = ((2 * draws - 1) * reach).reshape(-1, 2, NODES, NODES).astype(np.float32)
    _warp(images, index, moves, bent, 0.5 if images.dtype == np.uint8 else 0.0)
    return bent


@njit(cache=True)
def _warp(images, index, moves, bent, rounding):
    """Fill bent (m, C, H, W); moves (m, 2, n, n) are the nodes' in pixels, x first."""
    _, num_channels, height, width = images.shape
    around = np.zeros((num_channels, height + 2 * EDGE, width + 2 * EDGE), np.float32)
    cells = moves.shape[-1] - 1
    highest = np.float32(255 if rounding > 0 else 1)
    for i in range(len(index)):
        around[:, EDGE:-EDGE, EDGE:-EDGE] = images[index[i]]
        for row in range(height):
            v = np.float32(row * cells) / np.float32(max(height - 1, 1))
            r = min(int(v), cells - 1)
            v -= np.float32(r)
            for column in range(width):
                u = np.float32(column * cells) / np.float32(max(width - 1, 1))
                c = min(int(u), cells - 1)
                u -= np.float32(c)
                x = np.float32(column) + _between(moves[i, 0], r, c, v, u)
                y = np.float32(row) + _between(moves[i, 1], r, c, v, u)
                left, top = int(np.floor(x)), int(np.floor(y))
                across, down = _cubic(x - np.float32(left)), _cubic(y - np.float32(top))
                top, left = min(max(top - 1 + EDGE, 0), height + EDGE), min(max(left - 1 + EDGE, 0), width + EDGE)
                for channel in range(num_channels):
                    value = _blend(around[channel], top, left, across, down)
                    bent[i, channel, row, column] = min(max(value, np.float32(0)), highest) + rounding


@njit(cache=True)
def _between(nodes, r, c, v, u):
    """What lies between four nodes (n, n)."""
    upper = nodes[r, c] * (1 - u) + nodes[r, c + 1] * u
    lower = nodes[r + 1, c] * (1 - u) + nodes[r + 1, c + 1] * u
    return upper * (1 - v) + lower * v


@njit(cache=True)
def _cubic(t):
    """The weights of the four pixels around a place that lies t (0 to 1) beyond the second (Catmull and Rom 1974)."""
    half, two, three, four, five = np.float32(0.5), np.float32(2), np.float32(3), np.float32(4), np.float32(5)
    a, b = t * t, t * t * t
    return half * (two * a - t - b), half * (two - five * a + three * b), half * (t + four * a - three * b), half * (b - a)


@njit(cache=True)
def _blend(image, top, left, across, down):
    """The weighted sum of 4x4 pixels."""
    value = np.float32(0)
    for j in range(4):
        line = np.float32(0)
        for k in range(4):
            line += across[k] * image[top + j, left + k]
        value += down[j] * line
    return value
