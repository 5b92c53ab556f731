"""Images out of a folder of one's own: a sub-folder for each class, or train/, validation/ and test/ with such sub-folders.

Classes, split and size are told by a name, such as "folder:/data/shapes?size=50x70", so that it is known wherever it is stored.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

import numpy as np
from numpy.typing import NDArray

from ram_envs.datasets import FOLDER_PREFIX, SPLITS, DataError, ImageSet, keep_dataset

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
_OTHER_NAMES = {"val": "validation", "valid": "validation"}  # Of a split's sub-folder.
_LONGER_SIDE = 128  # Of images where no size is given: larger ones are made smaller.
_LARGEST = 4096
_BRIGHT, _FAINT = 0.7, 1.5  # How bright the edges of a bright ground are, and of faint images, in ranges of their values.
_MEASURED = 200  # In how many images that is measured.
_SIDEWAYS = (5, 6, 7, 8)  # Orientations of EXIF that turn the image by a quarter.
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Folder:
    """What the name of a folder says, see `from_folder`; its files are read when a split is loaded."""

    path: Path
    size: tuple[int, int] | None = None  # Height and width.
    channels: int | None = None
    seed: int = 0
    validation: float = 0.15
    test: float = 0.15
    invert: bool | None = None
    levels: tuple[int, int] | None = None  # What becomes 0 and 255 before `invert`; None where nothing is stretched.

    @classmethod
    def of(cls, name: str) -> Folder:
        """The folder that a name tells.

        Raises:
            ValueError: it holds something unknown or out of range.
        """
        path, _, query = name.removeprefix(FOLDER_PREFIX).partition("?")
        given = dict(parse_qsl(query))
        kinds: dict[str, Any] = {"size": _pair, "channels": int, "seed": int, "validation": float, "test": float}
        kinds |= {"invert": {"False": False, "True": True}.__getitem__, "levels": _pair}
        try:
            return cls(Path(unquote(path)), **{option: kinds[option](value) for option, value in given.items()}).checked()
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"dataset must be {FOLDER_PREFIX}PATH?size=HxW&channels=C&seed=S&..., got {name!r} ({error})"
            ) from error

    @property
    def name(self) -> str:
        """From which `of` makes it again."""
        given = {name: value for name, value in vars(self).items() if name != "path" and value is not None}
        given |= {name: "x".join(map(str, pair)) for name, pair in given.items() if isinstance(pair, tuple)}
        return f"{FOLDER_PREFIX}{quote(self.path.as_posix())}?{urlencode(given)}"

    def checked(self) -> Folder:
        """Itself, with the size as a pair.

        Raises:
            ValueError: an option is out of range; the message names it.
        """
        size: Any = self.size if self.size is None or np.ndim(self.size) else (self.size, self.size)
        if size is not None and (len(size) != 2 or not all(isinstance(one, (int, np.integer)) for one in size)):
            raise ValueError(f"size must be a side or a pair (height, width) in whole pixels, got {self.size!r}")
        if size is not None and not 1 <= min(size) <= max(size) <= _LARGEST:
            raise ValueError(f"size must be from 1 to {_LARGEST} pixels, got {self.size!r}")
        if self.channels not in (None, 1, 3):
            raise ValueError(f"channels must be 1 (grey), 3 (colour) or None (as the files are), got {self.channels!r}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, (int, np.integer)):
            raise ValueError(f"seed must be a whole number, got {self.seed!r}")
        if not (0 < self.validation < 1 and 0 < self.test < 1 and self.validation + self.test < 1):
            raise ValueError(
                f"validation and test must be shares above 0 that leave some images to train on, got {self.validation!r} and "
                f"{self.test!r}"
            )
        if not isinstance(self.invert, (bool, type(None))):  # The name says it in words.
            raise ValueError(f"invert must be True, False or None (where the ground is bright), got {self.invert!r}")
        levels = self.levels
        if levels is not None:
            pair = levels if isinstance(levels, (tuple, list)) and len(levels) == 2 else (0, 0)
            if not all(isinstance(one, (int, np.integer)) for one in pair) or not 0 <= pair[0] < pair[1] <= 255:
                raise ValueError(f"levels must be two whole numbers (black, white), 0 <= black < white <= 255, got {levels!r}")
            levels = int(levels[0]), int(levels[1])
        return replace(self, size=None if size is None else (int(size[0]), int(size[1])), levels=levels)

    def load(self, split: str) -> ImageSet:
        """The images (M, H, W) or (M, 3, H, W) of a split, uint8, in an order without meaning.

        Raises:
            DataError: see `from_folder`.
        """
        splits, names, _ = self.find()
        is_known = self.size and self.channels and self.invert is not None
        known = self if is_known else self.measured([path for files in splits.values() for path, _ in files])
        images = np.stack([_read(path, known) for path, _ in splits[split]])
        labels = np.array([label for _, label in splits[split]])
        return ImageSet(self.path.name, images, labels, len(names), names)

    def find(self) -> tuple[dict[str, list[tuple[Path, int]]], tuple[str, ...], list[Path]]:
        """The files and labels of each split, the names of the classes, and the files that are left out.

        Raises:
            DataError: there is no such folder, or it lacks images of a class or a split.
        """
        folders = _folders_in(self.path)
        known = {_OTHER_NAMES.get(folder.name.lower(), folder.name.lower()): folder for folder in folders}
        ready = set(known) <= set(SPLITS) and {"train"} < set(known) and bool(_folders_in(known["train"]))
        left_out: list[Path] = []
        sources = known if ready else {"train": self.path}
        given = {split: _classes_in(folder, left_out) for split, folder in sources.items()}
        names = tuple(sorted(given["train"]))
        if len(names) < 2:
            raise DataError(
                f"{self.path} must have a sub-folder for each of at least two classes, there is {', '.join(names) or 'none'}"
            )
        for split, classes in given.items():
            if unknown := sorted(set(classes) - set(names)):
                raise DataError(f"{known[split] / unknown[0]} is a class that {known['train']} lacks: add it there or remove it")
        splits: dict[str, list[tuple[str, Path, int]]] = {split: [] for split in SPLITS}
        for split, classes in given.items():
            for name, files in classes.items():
                keyed = sorted((self._key(name, inside), path, names.index(name)) for inside, path in files.items())
                for part, some in self._share(keyed, given, name).items() if split == "train" else [(split, keyed)]:
                    splits[part] += some
        return {split: [(path, label) for _, path, label in sorted(files)] for split, files in splits.items()}, names, left_out

    def _key(self, name: str, inside: str) -> str:
        """Where a file comes in the order of all: added files move few of the others from one split to another."""
        return hashlib.sha256(f"{self.seed}:{name}/{inside}".encode()).hexdigest()

    def _share(self, files: list[Any], given: Mapping[str, Any], name: str) -> dict[str, list[Any]]:
        """The files of a class for each split that has none of its own, at least one for each."""
        shares = {split: share for split, share in (("test", self.test), ("validation", self.validation)) if split not in given}
        if len(files) <= len(shares):
            needed = " and ".join(["train", *shares])
            raise DataError(f"{self.path} must have an image of each class for {needed}, of {name!r} there are {len(files)}")
        parts, start, left = {}, 0, len(shares)
        for split, share in shares.items():
            number = min(max(round(share * len(files)), 1), len(files) - start - left)
            parts[split], start, left = files[start : start + number], start + number, left - 1
        return {**parts, "train": files[start:]}

    def measured(self, paths: list[Path]) -> Folder:
        """The folder with a size, channels, levels and a ground that fit its files, which is said where it changes any.

        Raises:
            DataError: a file is no image.
        """
        headers = [_read_header(path) for path in paths]
        sides = np.array([header[:2] for header in headers])  # (M, 2), height and width
        middle = np.median(sides, axis=0)
        height, width = np.maximum(np.rint(middle * min(_LONGER_SIDE / middle.max(), 1)), 1).astype(int).tolist()
        size, channels = self.size or (height, width), self.channels or (3 if any(header[2] for header in headers) else 1)
        if self.size is None and (sides != size).any():
            low, high = ("x".join(map(str, side)) for side in (sides.min(axis=0), sides.max(axis=0)))
            warnings.warn(
                f"{self.path} holds images of {low} to {high} pixels (height x width): all are fitted into {size[0]}x{size[1]}, "
                f"in proportion and with black around; size=({size[0]}, {size[1]}) says so, or give another",
                stacklevel=3,
            )
        if number := sum(header[3] for header in headers):
            warnings.warn(
                f"{self.path} holds {number} images that are transparent in places, which become black: lay them on another "
                "ground and save them if that is not meant",
                stacklevel=3,
            )
        levels, invert = self.levels, self.invert
        if levels is None or invert is None:
            levels, is_bright = _measure_light(paths, channels, levels)
            invert = is_bright if invert is None else invert
        if levels and self.levels is None:
            warnings.warn(
                f"{self.path} holds faint images, all with values from {levels[0]} to {levels[1]}, which are stretched to all of "
                "0 to 255: a retina sees black outside of an image, and little else beside so large a step; "
                f"levels={levels} says so, levels=(0, 255) leaves them as they are",
                stacklevel=3,
            )
        if invert and self.invert is None:
            warnings.warn(
                f"{self.path} holds images of a bright ground, which are inverted: a retina sees black outside of an image; "
                "invert=True says so, invert=False leaves them as they are",
                stacklevel=3,
            )
        return replace(self, size=size, channels=channels, invert=invert, levels=levels)


def from_folder(
    folder: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    seed: int = 0,
    validation: float = 0.15,
    test: float = 0.15,
    invert: bool | None = None,
    levels: tuple[int, int] | None = None,
) -> str:
    """Read the images in a folder: what it returns goes to `dataset`, and is known in other processes and later too.

    Args:
        folder: has a sub-folder for each class, with PNG, JPEG or other images (`ENDINGS`) of any sizes in it or below it. Or
            the sub-folders train, test and perhaps validation (or val), each with a sub-folder for each class; of these two the
            one that is missing is taken from train. Hidden files are left out, links followed.
        size: a side, or (height, width): images are fitted into it in proportion, black around. None: the files' own size, or
            their median height and width, at most 128 pixels.
        channels: 1 makes images grey, 3 makes them coloured. None: 1 where all are grey.
        seed: of the split, which keeps the classes' shares and depends on the files' names.
        validation, test: the shares of each class's images that are held out; of a split that is there, its own are used.
        invert: whether bright becomes dark: outside of an image a retina sees black, and the edge of a bright ground would be all
            there is to see. None: where the edges of most images are brighter than 0.7 of all levels and than the rest.
        levels: the values, of 0 to 255, that become black and white before that, in all images alike; what lies between is
            stretched. None: the lowest and the highest value of the images (of some 200, where there are more), if they are
            faint: if the edges of most are brighter than 1.5 times that range.

    Returns:
        the data set's name, for `dataset=`, `load_images` and `--env-kwargs dataset:NAME`.

    Raises:
        ValueError: an argument is out of range.
        DataError: there are fewer than two classes or a class has too few images; a file is damaged or no image; Pillow is not
            installed.

    Warns:
        UserWarning: images are scaled to a size that was not given, stretched, inverted, transparent, or of kinds that are left
            out.
    """
    path = Path(os.path.abspath(os.path.expanduser(folder)))
    chosen = Folder(path, size, channels, seed, validation, test, invert, levels).checked()  # type: ignore[arg-type]
    splits, _, left_out = chosen.find()
    if left_out:
        warnings.warn(
            f"{len(left_out)} files in {path} are left out, such as {left_out[0]}: images are {', '.join(ENDINGS)} in the "
            "sub-folder of a class",
            stacklevel=2,
        )
    chosen = chosen.measured([file for files in splits.values() for file, _ in files])
    keep_dataset(chosen.name, chosen.load, SPLITS)
    return chosen.name


def _pair(text: str) -> tuple[int, int]:
    first, _, second = text.partition("x")
    return int(first), int(second or first)


def _folders_in(folder: Path) -> list[Path]:
    try:
        is_there = folder.is_dir()
    except OSError as error:  # Such as a name longer than names may be.
        raise DataError(f"there is no folder {folder}: {error.strerror}") from error
    if not is_there:
        raise DataError(f"there is no folder {folder}")
    visible = (one for one in folder.iterdir() if not _is_hidden(one.name))
    return sorted(one for one in visible if one.is_dir())


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _classes_in(folder: Path, left_out: list[Path]) -> dict[str, dict[str, Path]]:
    """The images of each class, by their path inside of its sub-folder; what else there is joins `left_out`."""
    classes = {}
    left_out += sorted(one for one in folder.iterdir() if one.is_file() and not _is_hidden(one.name))
    for one in _folders_in(folder):
        files = {path.relative_to(one).as_posix(): path for path in _files_below(one, set())}
        classes[one.name] = {inside: path for inside, path in files.items() if path.suffix.lower() in ENDINGS}
        others = [path for path in files.values() if path.suffix.lower() not in ENDINGS]
        if not classes[one.name]:
            seen = f"{len(others)} others, such as {others[0].name}" if others else "nothing"
            raise DataError(f"{one} must hold images ({', '.join(ENDINGS)}), there is {seen}: remove it or put some in")
        left_out += others
    return classes


def _files_below(folder: Path, seen: set[str]) -> Iterator[Path]:
    """All files that are not hidden, through links too, each folder once."""
    if (real := os.path.realpath(folder)) in seen:
        return
    seen.add(real)
    for path in sorted(folder.iterdir()):
        if _is_hidden(path.name):
            continue
        if path.is_dir():
            yield from _files_below(path, seen)
        else:
            yield path


def _open(path: Path) -> Any:
    """The image as Pillow has it, its pixels not read yet."""
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError("reading images takes Pillow: pip install 'ram-envs[images]'") from error
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image: Any = Image.open(path)
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # A camera's JPEG with a second view.
        image.close()
        raise ValueError(f"it holds {image.n_frames} pictures: save the one that is meant")
    return image


def _read_header(path: Path) -> tuple[int, int, bool, bool]:
    """Height, width, whether it has colours, and whether it is transparent anywhere."""
    with _naming(path), _open(path) as image:
        width, height = image.size
        if image.getexif().get(_ORIENTATION) in _SIDEWAYS:
            width, height = height, width
        has_colours = image.mode not in ("1", "L", "LA", "La") and not image.mode.startswith("I")
        is_transparent = _has_alpha(image) and image.convert("RGBA").getchannel("A").getextrema()[0] < 255
        return height, width, has_colours, is_transparent


def _measure_light(paths: list[Path], channels: int, levels: tuple[int, int] | None) -> tuple[tuple[int, int] | None, bool]:
    """The levels, those given or, of faint images, their own, and whether the images have a bright ground between them."""
    edges, means, extremes = [], [], []
    for path in paths[:: -(-len(paths) // _MEASURED)]:
        with _naming(path), _open(path) as image:
            opaque = _opaque(_in_8_bits(image))
            pixels, values = (np.asarray(opaque.convert(mode)) for mode in ("L", "L" if channels == 1 else "RGB"))
        edges.append(np.median(np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])))
        means.append(pixels.mean())
        extremes += [int(values.min()), int(values.max())]
    low, high, edge, mean = min(extremes), max(extremes), float(np.median(edges)), float(np.median(means))
    above_black = 255 - edge if edge > 255 * _BRIGHT else edge  # A bright ground is inverted.
    if levels is None and 0 < _FAINT * (high - low) < above_black:
        levels = low, high
    low, high = levels or (0, 255)
    return levels, edge - low > _BRIGHT * (high - low) and 255 * (edge - mean) > high - low


def _read(path: Path, folder: Folder) -> NDArray[np.uint8]:
    """The pixels (H, W), or (3, H, W)."""
    with _naming(path), _open(path) as image:
        from PIL import Image, ImageOps

        assert folder.size is not None
        height, width = folder.size
        image.draft(None, (2 * max(folder.size),) * 2)  # JPEGs of large photos are read at a part of their size.
        image = _opaque(_in_8_bits(ImageOps.exif_transpose(image)), "white" if folder.invert else "black")
        image = image.convert("L" if folder.channels == 1 else "RGB")
        if folder.levels:
            low, high = folder.levels
            stretched = np.rint((np.arange(256) - low) * (255 / (high - low))).clip(0, 255).astype(int)
            image = image.point([*stretched.tolist()] * len(image.getbands()))
        image = ImageOps.invert(image) if folder.invert else image
        pixels = np.asarray(ImageOps.pad(image, (width, height), Image.Resampling.BILINEAR, color=0))
        return pixels if folder.channels == 1 else np.moveaxis(pixels, 2, 0)


def _in_8_bits(image: Any) -> Any:
    """An image of 16 bits with 8, any other as it is."""
    from PIL import Image

    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers: save it with 8 or 16 bits")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    if values.min() < 0 or values.max() >= 2**16:
        raise ValueError(f"its pixels go from {values.min()} to {values.max()}: save it with 8 or 16 bits")
    return Image.fromarray(((values.astype(np.int64) + 128) // 257).astype(np.uint8))


def _opaque(image: Any, ground: str = "black") -> Any:
    """An image on a ground, where it is transparent."""
    from PIL import Image

    if not _has_alpha(image):
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, ground), image.convert("RGBA"))


def _has_alpha(image: Any) -> bool:
    return "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Whatever Pillow raises is a `DataError` that names the file."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path} can't be read ({error}): put a whole image in its place or remove it") from error
