"""Scenes out of images: centred, translated, cluttered (Mnih et al. 2014, section 4.1), N at once.

Translated: the image lies at a uniformly random place on a larger blank canvas. Cluttered: then square pieces, cut at random
places out of other random images, are added at random places, and what gets brighter than white is white.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ram_envs.sampling import compiled, draw_uniform

MAX_CANVAS, MAX_CLUTTER = 2**14, 2**12
_DRAWS_PER_CLUTTER = 5  # Which image, its column and row, the canvas's column and row.
_AHEAD = 4  # Scenes.
NODES = 3  # To a side.
EDGE = 4  # Pixels of nothing around an image: enough for the 4x4 around any place.
NODE_DRAWS = 2 * NODES * NODES  # For an image: x and y of each node,
WARP_DRAWS = NODE_DRAWS + 4  # then the linear map.


class SceneMaker:
    """Makes scenes of images.

    Args:
        images: (M, [C,] H, W) of uint8 or float32.
        canvas_size: the side of the canvas; None: the image is the scene.
        num_clutter: pieces of other images.
        clutter_size: the side of such a piece.
        reach: each image is bent at random, by up to this number of pixels, see `warp`; the pieces are cut out of images as
            they are.
        slope: each image is turned, stretched and slanted at random besides, see `warp`.

    Attributes:
        shape: ([C,] H, W) of a scene.

    Raises:
        ValueError: an argument is out of range; the message names it.
    """

    def __init__(
        self,
        images: NDArray,
        canvas_size: int | None = None,
        num_clutter: int = 0,
        clutter_size: int = 8,
        reach: float = 0.0,
        slope: float = 0.0,
    ) -> None:
        height, width = images.shape[-2:]
        if not 0 <= num_clutter <= MAX_CLUTTER:
            raise ValueError(f"num_clutter must be from 0 to {MAX_CLUTTER}, got {num_clutter!r}")
        if canvas_size is not None and not max(height, width) <= canvas_size <= MAX_CANVAS:
            raise ValueError(f"canvas_size must be from {max(height, width)} to {MAX_CANVAS} pixels, got {canvas_size!r}")
        sides = (height, width) if canvas_size is None else (canvas_size, canvas_size)
        if clutter_size < 1 or (num_clutter and clutter_size > min(height, width)):
            raise ValueError(f"clutter_size must be from 1 to {min(height, width)}, a side of the images, got {clutter_size!r}")
        if num_clutter and len(images) < 2:
            raise ValueError(f"num_clutter={num_clutter} needs other images to cut clutter from, but there is only one")
        self.shape = (*images.shape[1:-2], *sides)
        self.num_clutter, self.clutter_size = num_clutter, clutter_size
        self.reach, self.slope = reach, slope
        self._images = images.reshape(len(images), -1, height, width)

    def make(self, index: NDArray[np.int64], streams: NDArray[np.uint64], scenes: NDArray, envs: NDArray, margin: int) -> None:
        """Make scenes[envs] of the images index (m,), each from its own stream (m,).

        scenes are (N, [C,] margin + H, margin + W), see `ram_envs.retina.Retina`.
        """
        num_draws = 2 + _DRAWS_PER_CLUTTER * self.num_clutter
        bends = self.reach > 0 or self.slope > 0
        draws, _ = draw_uniform(streams, num_draws + (WARP_DRAWS if bends else 0))
        pictures, which = self._images, index
        if bends:
            pictures, which = warp(self._images, index, draws[:, num_draws:], self.reach, self.slope), np.arange(len(index))
        scenes = scenes.reshape(len(scenes), -1, *scenes.shape[-2:])
        brightest = 255 if scenes.dtype == np.uint8 else 1
        pieces = (self.num_clutter, self.clutter_size)
        _compose(self._images, index, pictures, which, draws, scenes, envs, margin, *pieces, brightest)

    def places(self, streams: NDArray[np.uint64]) -> NDArray[np.float64]:
        """Where the middle of the image lies in each scene that `make` makes of streams (m,): (m, 2) in [-1, 1], x first."""
        draws, _ = draw_uniform(streams, 2)
        scene, image = (np.array(shape[:-3:-1]) for shape in (self.shape, self._images.shape))  # Width, height.
        corners = np.floor(draws * (scene - image + 1))  # (m, 2), of the image, in pixels
        return (2 * corners + image) / scene - 1


@compiled
def _compose(images, index, pictures, which, draws, scenes, envs, margin, num_clutter, clutter_size, brightest):
    """Each of the pictures `which` (m,) at its place on its canvas, then clutter out of other images than index (m,).

    draws are (m, 2 + 5 num_clutter or more) in [0, 1).
    """
    _, num_channels, height, width = images.shape
    full_height, full_width = scenes.shape[2:]
    canvas_height, canvas_width = full_height - margin, full_width - margin
    sources, shown, targets, plane = images.reshape(-1), pictures.reshape(-1), scenes.reshape(-1), height * width
    starts = _first_pixels(images.shape, index, which, draws, num_clutter, clutter_size)
    touched = 0
    for i in range(len(index)):
        if i + _AHEAD < len(index):
            touched += _touch(shown, starts[i + _AHEAD, :1], width, height)
            touched += _touch(sources, starts[i + _AHEAD, 1:], width, clutter_size)
        top = margin + int(draws[i, 1] * (canvas_height - height + 1))
        left = margin + int(draws[i, 0] * (canvas_width - width + 1))
        for channel in range(num_channels):
            first_row = (envs[i] * num_channels + channel) * full_height
            if canvas_height > height or canvas_width > width:
                targets[(first_row + margin) * full_width : (first_row + margin + canvas_height) * full_width] = 0
            target = (first_row + top) * full_width + left
            _copy(shown, starts[i, 0] + channel * plane, width, targets, target, full_width, height, width)
        for piece in range(num_clutter):
            left = margin + int(draws[i, 5 * piece + 5] * (canvas_width - clutter_size + 1))
            top = margin + int(draws[i, 5 * piece + 6] * (canvas_height - clutter_size + 1))
            for channel in range(num_channels):
                source = starts[i, 1 + piece] + channel * plane
                target = ((envs[i] * num_channels + channel) * full_height + top) * full_width + left
                _add(sources, source, width, targets, target, full_width, clutter_size, brightest)
    return touched


@compiled
def _first_pixels(shape, index, which, draws, num_clutter, clutter_size):
    """Where the picture begins among all pictures' pixels, and the pieces among all images': (m, 1 + num_clutter)."""
    num_images, num_channels, height, width = shape
    starts = np.empty((len(index), 1 + num_clutter), np.int64)
    for i in range(len(index)):
        starts[i, 0] = which[i] * num_channels * height * width
        for piece in range(num_clutter):
            draw = draws[i, 2 + 5 * piece : 7 + 5 * piece]
            other = int(draw[0] * (num_images - 1))
            other += other >= index[i]  # Any image but this one.
            x, y = int(draw[1] * (width - clutter_size + 1)), int(draw[2] * (height - clutter_size + 1))
            starts[i, 1 + piece] = (other * num_channels * height + y) * width + x
    return starts


@compiled
def _touch(sources, starts, width, height):
    """Read a pixel of every other row that will be needed: memory fetches them while the scenes before are made."""
    touched = 0
    for part in range(len(starts)):
        for row in range(0, height, 2):
            touched += sources[starts[part] + row * width]
    return touched


@compiled
def _copy(sources, source, source_step, targets, target, target_step, height, width):
    for row in range(height):
        here, there = np.uint64(source + row * source_step), np.uint64(target + row * target_step)
        for c in range(width):
            targets[there + np.uint64(c)] = sources[here + np.uint64(c)]


@compiled
def _add(sources, source, source_step, targets, target, target_step, size, brightest):
    number = targets.dtype.type
    for row in range(size):
        here, there = np.uint64(source + row * source_step), np.uint64(target + row * target_step)
        for c in range(size):
            added, at = sources[here + np.uint64(c)], there + np.uint64(c)
            total = number(targets[at] + added)
            targets[at] = number(brightest) if total > brightest or total < added else total  # A byte's sum may have wrapped.


def warp(images: NDArray, index: NDArray[np.int64], draws: NDArray[np.floating], reach: float, slope: float = 0.0) -> NDArray:
    """Bend each of the images index (m,): (M, C, H, W) -> (m, C, H, W).

    Args:
        images: uint8 or float32; beyond their edges there is nothing (0).
        index: which to bend.
        draws: (m, `WARP_DRAWS`) in [0, 1), where the nodes go.
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


@compiled
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


@compiled
def _cells(side, cells):
    """For each pixel of a side the cell of the grid in which it lies, and how far in it (0 to 1)."""
    places = []
    for pixel in range(side):
        place = np.float32(pixel * cells) / np.float32(max(side - 1, 1))
        cell = min(int(place), cells - 1)
        places.append((cell, place - np.float32(cell)))
    return places


@compiled
def _cubic(t):
    """The weights of the four pixels around a place that lies t (0 to 1) beyond the second (Catmull and Rom 1974)."""
    half, two, three, four, five = np.float32(0.5), np.float32(2), np.float32(3), np.float32(4), np.float32(5)
    a, b = t * t, t * t * t
    return half * (two * a - t - b), half * (two - five * a + three * b), half * (t + four * a - three * b), half * (b - a)


@compiled
def _blend(image, top, left, across, down):
    """The weighted sum of 4x4 pixels; a loop over them takes half as long again."""
    upper = down[0] * _line(image, top, left, across) + down[1] * _line(image, top + 1, left, across)
    return upper + down[2] * _line(image, top + 2, left, across) + down[3] * _line(image, top + 3, left, across)


@compiled
def _line(image, row, left, across):
    """The weighted sum of 4 pixels of a row."""
    first = across[0] * image[row, left] + across[1] * image[row, left + 1]
    return first + across[2] * image[row, left + 2] + across[3] * image[row, left + 3]
