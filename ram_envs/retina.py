"""The retina rho(x, l): what the agent sees of an image (Mnih et al. 2014, section 3.1).

k square patches are cut around one location. The first is g x g pixels, each next one twice as wide; all are averaged
down to g x g. Outside the image there is nothing: zeros. Patches start at the nearest whole pixel, nothing is interpolated.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from gymnasium import spaces
from numba import literally
from numpy.typing import NDArray

from ram_envs.sampling import compiled

MAX_RELATIVE_WIDTH = 4  # The widest patch may be this many times as wide as the longer side of the image, no more.
_MOST_DOUBLINGS = 60  # Of a patch's width, which is an int64.
_STATISTICS = (100, 10)  # Batches, and scenes in each: large scenes need not all be held at once.
_NUM_KNOWN = 5  # Levels of width, each twice as wide as the one before, of which the compiler knows all lengths.
_LANES = 8  # Rows of sums are whole registers.
_U = np.uint64  # Unsigned indices need no check for negative ones, so that the loops over pixels are vectorised.


class Retina:
    """A retina of one size for images of one shape.

    Scenes are kept with a margin of zeros, as wide as any patch can reach out: no patch needs clipping, and all loops over pixels
    have a length that the compiler knows. The margin lies above and to the left; what reaches out to the right meets the left
    margin of the next row, what reaches out below the upper margin of the next scene, so that more scenes fit into the cache.

    Args:
        image_shape: (H, W) or (C, H, W).
        glimpse_size: g, the side of a glimpse in pixels; "scene": the longer side of the image.
        num_scales: k, the number of patches, each twice as wide as the one before.
        num_zooms: Z; at zoom z in 0..Z-1 all patches are 2^z times as wide.
        dtype: of the scenes: uint8 in [0, 255] or float32 in [0, 1].

    Raises:
        ValueError: no useful retina of this size exists for such images; the message names the argument.
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        glimpse_size: int | str = 8,
        num_scales: int = 1,
        num_zooms: int = 1,
        dtype: Any = np.uint8,
    ) -> None:
        self.image_shape = tuple(map(int, image_shape))
        size = max(self.image_shape[-2:]) if glimpse_size == "scene" else glimpse_size
        self.glimpse_size, self.num_scales, self.num_zooms = _check_sizes(self.image_shape[-2:], size, num_scales, num_zooms)
        self.margin = ((self.glimpse_size << (self.num_scales + self.num_zooms - 2)) + 1) // 2
        self.dtype = np.dtype(dtype)
        channels = self.image_shape[:-2]
        self.glimpse_shape = (self.num_scales, *channels, self.glimpse_size, self.glimpse_size)
        self._scenes_shape = (*channels, *(self.margin + side for side in self.image_shape[-2:]))
        self._checked: NDArray | None = None  # The scenes last looked at,
        self._pixels = np.empty(0, self.dtype)  # and all their pixels in a row, with what is read behind the last scene.
        num_levels = self.num_scales + self.num_zooms - 1
        self._columns = -(-(self.glimpse_size << np.arange(num_levels)) // _LANES) * _LANES
        self._cut = _patch_cutter(self.glimpse_size, num_levels, self.dtype.name)

    def __reduce__(self) -> Any:
        """A copy compiles its loops anew."""
        return Retina, (self.image_shape, self.glimpse_size, self.num_scales, self.num_zooms, self.dtype)

    def blank_scenes(self, num_scenes: int) -> NDArray:
        """Empty scenes with their margin: (N, [C,] margin + H, margin + W)."""
        shape = (num_scenes, *self._scenes_shape)
        size = math.prod(shape)
        return np.zeros(size + self._pixels_behind(), self.dtype)[:size].reshape(shape)

    def inner(self, scenes: NDArray) -> NDArray:
        """What is not margin: a view (..., H, W)."""
        return scenes[..., self.margin :, self.margin :]

    def look(self, scenes: NDArray, locations: NDArray, zooms: NDArray | None = None) -> NDArray[np.float32]:
        """Look once at each of the scenes, which `blank_scenes` has made; see `glimpses`. zooms is (N,), None where Z is 1.

        Raises:
            ValueError: scenes from elsewhere; locations that are not (N, 2) or not finite; zooms that are not (N,) in 0..Z-1.
        """
        if scenes is not self._checked:
            self._check_scenes(scenes)
        if locations.shape != (len(scenes), 2) or locations.dtype.kind not in "fiu":
            raise ValueError(f"locations must be {(len(scenes), 2)} numbers, got {locations.shape} of {locations.dtype}")
        locations = np.require(locations, np.float32 if locations.dtype == np.float32 else np.float64, ["C", "A"])
        if zooms is None:
            zooms = np.zeros(len(scenes), np.int64)
        elif zooms.shape != (len(scenes),) or zooms.dtype.kind not in "iu" or zooms.min() < 0 or zooms.max() >= self.num_zooms:
            raise ValueError(f"zooms must be {len(scenes)} whole numbers in 0..{self.num_zooms - 1}, got {zooms!r}")
        patches = np.empty((len(scenes), *self.glimpse_shape), np.float32)
        cells = patches.reshape(len(scenes), self.num_scales, -1, self.glimpse_size**2)
        if not self._cut(self._pixels, scenes.shape[-2:], locations, zooms, cells, self.margin, self._columns):
            raise ValueError("locations must be finite, got a NaN or an infinity")
        return patches

    def corners(self, locations: NDArray, zooms: NDArray | None = None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the patches lie: columns and rows (N, k, 2) of their top-left pixels (negative: outside), widths (N, k)."""
        levels = np.arange(self.num_scales) + (np.zeros((len(locations), 1), int) if zooms is None else zooms[:, None])
        widths = self.glimpse_size << levels
        corners = np.empty((*widths.shape, 2), np.int64)
        _find_corners(locations, self.image_shape[:-3:-1], widths, corners)
        return corners, widths

    def statistics(self, fill: Callable[[NDArray, np.random.Generator], None]) -> tuple[float, list[float]]:
        """The mean of glimpses at random places of 1,000 scenes, and their standard deviation at each scale.

        Args:
            fill: called with blank scenes and a source of random numbers, draws the scenes.
        """
        rng, patches = np.random.default_rng(0), []
        for _ in range(_STATISTICS[0]):
            scenes = self.blank_scenes(_STATISTICS[1])
            fill(scenes, rng)
            patches.append(self.look(scenes, rng.uniform(-1, 1, (len(scenes), 2)).astype(np.float32)))
        values = np.concatenate(patches).swapaxes(0, 1).reshape(self.num_scales, -1)
        return float(values.mean()), values.std(axis=1).tolist()

    def _pixels_behind(self) -> int:
        """The pixels behind the last scene: a margin below it, and what a register reads beside the last row."""
        return (self.margin + 1) * self._scenes_shape[-1] + _LANES

    def _check_scenes(self, scenes: NDArray) -> None:
        """See that the scenes have their margin, and that what is read behind the last one belongs to them."""
        owner = scenes
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        fits = scenes.dtype == owner.dtype == self.dtype and scenes.shape[1:] == self._scenes_shape and scenes.flags.c_contiguous
        start = (_address(scenes) - _address(owner)) // self.dtype.itemsize
        end = start + scenes.size + self._pixels_behind()
        if not fits or not owner.flags.forc or end > owner.size:
            raise ValueError(
                f"scenes must be made by this retina's blank_scenes, (N, {', '.join(map(str, self._scenes_shape))}) of "
                f"{self.dtype} with their margin, got {scenes.shape} of {scenes.dtype}"
            )
        self._checked, self._pixels = scenes, owner.ravel("K")[start:end]


def glimpses(images: NDArray, locations: NDArray, *, glimpse_size: int | str = 8, num_scales: int = 1) -> NDArray[np.float32]:
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
    for name, array, form in (
        ("images", images, "(N, H, W) or (N, C, H, W) of uint8 or float32"),
        ("locations", locations, "(N, 2)"),
    ):
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{name} must be an array {form}, got {type(array).__name__}")
    if images.ndim not in (3, 4) or images.dtype not in (np.uint8, np.float32) or 0 in images.shape:
        raise ValueError(
            f"images must be (N, H, W) or (N, C, H, W) of uint8 or float32, got shape {images.shape} of {images.dtype}"
        )
    if images.ndim == 4 and images.shape[3] <= 4 < images.shape[1]:
        doubt = f"images are taken as (N, C, H, W), got shape {images.shape}: if channels come last, np.moveaxis(images, 3, 1)"
        warnings.warn(doubt, stacklevel=2)
    retina = Retina(images.shape[1:], glimpse_size, num_scales, dtype=images.dtype)
    scenes = retina.blank_scenes(len(images))
    retina.inner(scenes)[...] = images
    return retina.look(scenes, locations)


class Gaze:
    """The gaze of N agents at N scenes, through one kind of retina.

    Args:
        num_envs: N.
        initial_location: where the first glimpse is taken: "random" (uniform over the scene), "center", or a pair (x, y) in
            [-1, 1].
        *retina: the arguments of `Retina`.

    Attributes:
        retina: what they look through.
        scenes: (N, [C,] H, W) with the retina's margin, blank at first.
        locations: (N, 2), where the current glimpse is taken, l.
        zooms: (N,), how wide the retina looks.
        space: the observations of a single agent.

    Raises:
        ValueError: `initial_location` is something else, or there is no such retina.
    """

    state_names = ("gaze.locations", "gaze.zooms")

    def __init__(self, num_envs: int, initial_location: Any, *retina: Any) -> None:
        self.retina = Retina(*retina)
        self.scenes = self.retina.blank_scenes(num_envs)
        self.initial_location = _check_initial_location(initial_location)
        self.locations = np.zeros((num_envs, 2), np.float32)
        self.zooms = np.zeros(num_envs, np.int64)
        parts: dict[str, spaces.Space] = {
            "glimpse": spaces.Box(0.0, 1.0, self.retina.glimpse_shape, np.float32),
            "location": spaces.Box(-1.0, 1.0, (2,), np.float32),
        }
        if self.retina.num_zooms > 1:
            parts["zoom"] = spaces.Box(0.0, 1.0, (self.retina.num_zooms,), np.float32)
        self.space = GlimpseSpace(parts, self.retina.image_shape)

    def begin(self, where: NDArray[np.bool_], draws: NDArray) -> None:
        """Place the first glimpses of the mask `where` (N,) at zoom 0; draws (m, 2) in [0, 1) are for those at random."""
        self.locations[where] = 2 * draws - 1 if self.initial_location is None else self.initial_location
        self.zooms[where] = 0

    def look(self, locations: NDArray, zooms: NDArray | None, where: NDArray[np.bool_] | None) -> None:
        """Look at locations (N, 2) with zooms (N,) from now on, in the environments of the mask `where` (None: all)."""
        if where is None:
            self.locations[...] = locations
        else:
            self.locations[where] = locations[where]
        if zooms is not None:
            np.copyto(self.zooms, zooms, where=True if where is None else where)

    def state_bounds(self) -> dict[str, tuple[Any, Any]]:
        """See `Task.state_bounds`."""
        return {"gaze.locations": (-1.0, 1.0), "gaze.zooms": (0, self.retina.num_zooms - 1)}

    def observe(self) -> dict[str, NDArray[np.float32]]:
        """What the agents see.

        "glimpse" (N, k, g, g) in [0, 1] (with channels (N, k, C, g, g)), "location" (N, 2) in [-1, 1] and, where there is more
        than one zoom, "zoom" (N, Z), 1 at the current one.
        """
        if self.retina.num_zooms == 1:
            return {"glimpse": self.retina.look(self.scenes, self.locations), "location": self.locations.copy()}
        glimpse = self.retina.look(self.scenes, self.locations, self.zooms)
        zoom = np.eye(self.retina.num_zooms, dtype=np.float32)[self.zooms]
        return {"glimpse": glimpse, "location": self.locations.copy(), "zoom": zoom}


def _check_initial_location(given: Any) -> NDArray[np.float32] | None:
    """None for "random"."""
    if isinstance(given, str) and given in ("random", "center"):
        return None if given == "random" else np.zeros(2, np.float32)
    try:
        array = np.asarray(given)
        with np.errstate(over="ignore"):
            pair = array.astype(np.float32 if array.dtype.kind in "iufO" else object)
    except (TypeError, ValueError, OverflowError):
        pair = np.empty(0, np.float32)
    if pair.shape != (2,) or pair.dtype == object or not (np.abs(pair) <= 1).all():
        raise ValueError(f'initial_location must be "random", "center" or a pair (x, y) in [-1, 1], got {given!r}')
    return pair


class GlimpseSpace(spaces.Dict):
    """The observations of one agent: "glimpse", "location" and maybe "zoom", as a Dict.

    Attributes:
        scene_shape: ([C,] H, W) in pixels of the scene that the glimpses are taken from.
    """

    def __init__(self, parts: dict[str, spaces.Space], scene_shape: tuple[int, ...]) -> None:
        super().__init__(parts)
        self.scene_shape = scene_shape


def _check_sizes(image_shape: tuple[int, ...], *sizes: Any) -> tuple[int, int, int]:
    """The sizes as Python's whole numbers."""
    for name, value in zip(("glimpse_size", "num_scales", "num_zooms"), sizes, strict=True):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    glimpse_size, num_scales, num_zooms = map(int, sizes)
    doublings, limit = num_scales + num_zooms - 2, MAX_RELATIVE_WIDTH * max(image_shape)
    if doublings > _MOST_DOUBLINGS or glimpse_size << doublings > limit:
        widest = f"{glimpse_size} * 2**{doublings}" if doublings > _MOST_DOUBLINGS else glimpse_size << doublings
        zoomed = f" and num_zooms={num_zooms}" if num_zooms > 1 else ""
        raise ValueError(
            f"glimpse_size={glimpse_size} with num_scales={num_scales}{zoomed} makes a widest patch of {widest} pixels; "
            f"images of {image_shape[0]}x{image_shape[1]} allow at most {limit}"
        )
    return glimpse_size, num_scales, num_zooms


def _address(array: NDArray) -> int:
    return array.__array_interface__["data"][0]


@compiled
def _corner(coordinate, length, width):
    """The first pixel of a patch `width` wide, centred at `coordinate` of an axis with `length` pixels."""
    centre = (min(max(coordinate, -1.0), 1.0) + 1.0) / 2.0 * length
    return int(np.floor(centre - width / 2.0 + 0.5))


@compiled
def _find_corners(locations, sides, widths, corners):
    for n in range(corners.shape[0]):
        for scale in range(corners.shape[1]):
            for axis in range(2):
                corners[n, scale, axis] = _corner(np.float64(locations[n, axis]), sides[axis], widths[n, scale])


@lru_cache(maxsize=64)
def _patch_cutter(size: int, num_levels: int, dtype: str) -> Callable[..., bool]:
    """Compile the loops for glimpses of one size and patches of size, 2 size, ... 2^(num_levels - 1) size pixels."""
    # 16 bits hold the sum of 16 x 16 bytes, and twice as many fit into a register as of 32 bits.
    number = np.float32 if dtype == "float32" else np.uint16 if num_levels <= _NUM_KNOWN else np.uint32
    brightest = 1 if dtype == "float32" else 255
    num_sums = ((size * size) << (num_levels - 1)) + _LANES

    @compiled
    def cut(pixels, scene_shape, locations, zooms, patches, margin, columns):
        """Fill patches (N, k, C, g * g) from the pixels of scenes (N, C, H, W); False if a location is not finite.

        scene_shape is (H, W) with the margin; columns are a patch's pixels to a row at each level, rounded up to registers.
        """
        height, width = scene_shape
        num_scenes, num_scales, num_channels = patches.shape[:3]
        out, below = patches.reshape(-1), _U(width)
        sums, pairs = np.empty(num_sums, number), np.empty(num_sums, number)
        for n in range(num_scenes):
            x, y = np.float64(locations[n, 0]), np.float64(locations[n, 1])
            if not (np.isfinite(x) and np.isfinite(y)):
                return False
            for scale in range(num_scales - 1, -1, -1):  # The widest brings the others' pixels into the cache.
                level = scale + zooms[n]
                span = size << level
                left, top = _corner(x, width - margin, span) + margin, _corner(y, height - margin, span) + margin
                for channel in range(num_channels):
                    first = _U(((n * num_channels + channel) * height + top) * width + left)
                    at = _U(((n * num_scales + scale) * num_channels + channel) * size * size)
                    if level == 0:
                        _average(pixels, first, below, out, at, sums, pairs, columns[0], brightest, size, 1)
                    elif num_levels > 1 and level == 1:
                        _average(pixels, first, below, out, at, sums, pairs, columns[1], brightest, size, 2)
                    elif num_levels > 2 and level == 2:
                        _average(pixels, first, below, out, at, sums, pairs, columns[2], brightest, size, 4)
                    elif num_levels > 3 and level == 3:
                        _average(pixels, first, below, out, at, sums, pairs, columns[3], brightest, size, 8)
                    elif num_levels > 4 and level == 4:
                        _average(pixels, first, below, out, at, sums, pairs, columns[4], brightest, size, 16)
                    elif num_levels > _NUM_KNOWN:
                        _average_wide(pixels, first, below, out, at, sums, brightest, size, 1 << level)
        return True

    return cut


@compiled
def _average(pixels, first, below, out, at, sums, pairs, columns, brightest, size, factor):
    """Fill one patch, size x size cells of factor x factor pixels: each row of cells is summed downwards, then all sideways.

    The compiler knows `size` and `factor`, but not `columns`: short loops of a known length it unrolls and does not vectorise.
    What a row of sums has too much of, the next one overwrites.
    """
    literally(size)
    literally(factor)
    number, num_cells, span = sums.dtype.type, size * size, size * factor
    mean = np.float32(1.0 / (brightest * factor * factor))
    for i in range(size):
        above, row = first + _U(i * factor) * below, _U(i * span)
        for c in range(columns if factor < 4 else span):
            total = number(0)
            for r in range(factor):
                total += number(pixels[above + _U(r) * below + _U(c)])
            sums[row + _U(c)] = total
    if factor > 2 and brightest == 255:  # Whole numbers can be added in any order: pairs first, which is faster.
        half = factor // 2
        for j in range(num_cells * half):
            pairs[_U(j)] = sums[_U(2 * j)] + sums[_U(2 * j + 1)]
        for j in range(num_cells):
            total = number(0)
            for c in range(half):
                total += pairs[_U(j * half + c)]
            out[at + _U(j)] = np.float32(total) * mean
    else:
        for j in range(num_cells):
            total = number(0)
            for c in range(factor):
                total += sums[_U(j * factor + c)]
            out[at + _U(j)] = np.float32(total) * mean


@compiled
def _average_wide(pixels, first, below, out, at, sums, brightest, size, factor):
    """The same for a `factor` that the compiler does not know."""
    number = sums.dtype.type
    mean = np.float32(1.0 / (brightest * factor * factor))
    for i in range(size):
        for j in range(size):
            corner = first + _U(i * factor) * below + _U(j * factor)
            total = number(0)
            for c in range(factor):
                column = number(0)
                for r in range(factor):
                    column += number(pixels[corner + _U(r) * below + _U(c)])
                total += column
            out[at + _U(i * size + j)] = np.float32(total) * mean
