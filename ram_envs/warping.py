"""Images bent a little, each in its own way, so that a pass over a data set never shows the same picture twice.

A grid of 3x3 nodes lies over the image, each node is moved by a random amount, and what lies between follows (Simard et al. 2003
move every pixel and smooth; a coarse grid does both at once). All nodes together can follow a random linear map besides: it
turns, stretches and slants the image as a whole.

Between pixels the image is cubic: linear interpolation blurs, and what learns from blurred images errs on sharp ones.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

NODES = 3  # To a side.
EDGE = 4  # Nothing lies around an image for so many pixels: enough for the 4x4 around any place.
NODE_DRAWS = 2 * NODES * NODES  # For an image: x and y of each node,
DRAWS = NODE_DRAWS + 4  # then the linear map.


def warp(images: NDArray, index: NDArray[np.int64], draws: NDArray[np.floating], reach: float, slope: float = 0.0) -> NDArray:
    """Bend each of the images index (m,): (M, C, H, W) -> (m, C, H, W).

    Args:
        images: uint8 or float32; beyond their edges there is nothing (0).
        index: which to bend.
        draws: (m, `DRAWS`) in [0, 1), where the nodes go.
        reach: the farthest that a node is moved along each axis, in pixels.
        slope: beside it each node is moved by a linear map of its place (x, y) from the image's middle, the same for all nodes of
            an image, whose four entries are at most this.
    """
    bent = np.empty((len(index), *images.shape[1:]), images.dtype)
    draws = 2 * draws - 1
    moves = reach * draws[:, :NODE_DRAWS].reshape(-1, 2, NODES, NODES)
    if slope:
        moves += slope * np.einsum("mij,jrc->mirc", draws[:, NODE_DRAWS:].reshape(-1, 2, 2), _places(*images.shape[-2:]))
    _warp(images, index, moves.astype(np.float32), bent, 0.5 if images.dtype == np.uint8 else 0.0)
    return bent


def _places(height: int, width: int) -> NDArray[np.float64]:
    """Where the nodes lie, from the image's middle, in pixels, x first: (2, n, n)."""
    down, across = (np.linspace(-1, 1, NODES) * (side - 1) / 2 for side in (height, width))
    y, x = np.meshgrid(down, across, indexing="ij")
    return np.stack([x, y])


@njit(cache=True)
def _warp(images, index, moves, bent, rounding):
    """Fill bent (m, C, H, W); moves (m, 2, n, n) are the nodes' in pixels, x first."""
    _, num_channels, height, width = images.shape
    around = np.zeros((num_channels, height + 2 * EDGE, width + 2 * EDGE), np.float32)
    cells = moves.shape[-1] - 1
    highest = np.float32(255 if rounding > 0 else 1)
    across_cells, down_cells = _cells(width, cells), _cells(height, cells)
    for i in range(len(index)):
        around[:, EDGE:-EDGE, EDGE:-EDGE] = images[index[i]]
        for row in range(height):
            r, v = down_cells[row]
            nodes = moves[i, :, r] * (1 - v) + moves[i, :, r + 1] * v  # (2, n), on this row
            for column in range(width):
                c, u = across_cells[column]
                x = np.float32(column) + (nodes[0, c] * (1 - u) + nodes[0, c + 1] * u)
                y = np.float32(row) + (nodes[1, c] * (1 - u) + nodes[1, c + 1] * u)
                left, top = np.floor(x), np.floor(y)
                across, down = _cubic(x - left), _cubic(y - top)
                j, k = min(max(int(top) - 1 + EDGE, 0), height + EDGE), min(max(int(left) - 1 + EDGE, 0), width + EDGE)
                for channel in range(num_channels):
                    value = _blend(around[channel], j, k, across, down)
                    bent[i, channel, row, column] = min(max(value, np.float32(0)), highest) + rounding


@njit(cache=True)
def _cells(side, cells):
    """For each pixel of a side the cell of the grid in which it lies, and how far in it (0 to 1)."""
    places = []
    for pixel in range(side):
        place = np.float32(pixel * cells) / np.float32(max(side - 1, 1))
        cell = min(int(place), cells - 1)
        places.append((cell, place - np.float32(cell)))
    return places


@njit(cache=True)
def _cubic(t):
    """The weights of the four pixels around a place that lies t (0 to 1) beyond the second (Catmull and Rom 1974)."""
    half, two, three, four, five = np.float32(0.5), np.float32(2), np.float32(3), np.float32(4), np.float32(5)
    a, b = t * t, t * t * t
    return half * (two * a - t - b), half * (two - five * a + three * b), half * (t + four * a - three * b), half * (b - a)


@njit(cache=True)
def _blend(image, top, left, across, down):
    """The weighted sum of 4x4 pixels; a loop over them takes half as long again."""
    upper = down[0] * _line(image, top, left, across) + down[1] * _line(image, top + 1, left, across)
    return upper + down[2] * _line(image, top + 2, left, across) + down[3] * _line(image, top + 3, left, across)


@njit(cache=True)
def _line(image, row, left, across):
    """The weighted sum of 4 pixels of a row."""
    first = across[0] * image[row, left] + across[1] * image[row, left + 1]
    return first + across[2] * image[row, left + 2] + across[3] * image[row, left + 3]
