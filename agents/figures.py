"""Pictures of what was learned, from plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

_TICKS = (0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 15, 20, 30, 50, 100)  # Of an error in %, on a logarithmic scale.
_PATH_COLOUR = "#2ca02c"
_BOX_COLOURS = ("#ff7f0e", "#1f77b4", "#9467bd", "#8c564b")


@dataclass
class Episodes:
    """N whole episodes of T glimpses, as an agent saw them."""

    scenes: NDArray  # (N, [C,] H, W), what there was to be seen
    locations: NDArray  # (N, T, 2), where each glimpse was taken, in [-1, 1]
    corners: NDArray  # (N, T, k, 2), column and row of each patch's top-left pixel
    widths: NDArray  # (N, T, k), of the patches in pixels
    glimpses: NDArray  # (N, T, k, [C,] g, g), in [0, 1]
    labels: Sequence[str]  # N
    answers: Sequence[str]  # N


def plot_glimpses(episodes: Episodes, path: Path) -> None:
    """Draw each image with the glimpses' path, and each glimpse in order beside it (as in Figure 3 of the paper)."""
    num_images, num_glimpses = episodes.glimpses.shape[:2]
    figure = Figure(figsize=(1.1 * (num_glimpses + 2.2), 1.25 * num_images), layout="constrained")
    axes = figure.subplots(num_images, num_glimpses + 1, squeeze=False, width_ratios=[1.6] + [1] * num_glimpses)
    for row, n in zip(axes, range(num_images), strict=True):
        _draw_path(row[0], episodes, n)
        right = episodes.answers[n] == episodes.labels[n]
        row[0].set_ylabel(f"{episodes.labels[n]}: said {episodes.answers[n]}", color="black" if right else "crimson")
        for t, axis in enumerate(row[1:]):
            # The patches side by side, the narrowest first, with a grey line between.
            patches = _channels_last(episodes.glimpses[n, t], 3)  # (k, g, g, [C])
            line = ((0, 0), (0, 0), (0, 1)) + ((0, 0),) * (patches.ndim - 3)
            strip = np.concatenate(list(np.pad(patches, line, constant_values=0.5)), axis=1)[:, :-1]
            axis.imshow(strip, cmap="gray", vmin=0, vmax=1)
            _hide_axes(axis)
            if n == 0:
                axis.set_title(f"glimpse {t + 1}", fontsize=8)
    axes[0, 0].set_title("image and path", fontsize=8)
    _save(figure, path)


def plot_learning_curve(episodes: NDArray, cpu_seconds: NDArray, error: NDArray, path: Path, title: str) -> None:
    """Draw the error (E,) in % of each evaluation against the episodes (E,) and the CPU seconds (E,) of training before it."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axis, values, name in ((left, episodes, "training episodes"), (right, cpu_seconds, "CPU seconds")):
        axis.plot(values, error, marker=".")
        axis.set_xlabel(name)
        axis.grid(True, which="both", alpha=0.3)
        if error.min() > 0:
            axis.set_yscale("log")
            axis.set_yticks([tick for tick in _TICKS if error.min() / 1.2 <= tick <= error.max() * 1.2])
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    left.set_ylabel("validation error, %")
    best = int(np.argmin(error))
    left.annotate(f"{error[best]:.2f}", (episodes[best], error[best]), xytext=(0, 6), textcoords="offset points")
    figure.suptitle(title)
    _save(figure, path)


def _channels_last(images: NDArray, num_axes: int) -> NDArray:
    """Matplotlib's (..., H, W, C) out of (..., C, H, W); (..., H, W) has `num_axes` axes and stays."""
    return images if images.ndim == num_axes else np.moveaxis(images, -3, -1)


def _draw_path(axis: matplotlib.axes.Axes, episodes: Episodes, n: int) -> None:
    height, width = episodes.scenes.shape[-2:]
    axis.imshow(_channels_last(episodes.scenes[n], 2), cmap="gray")
    # A pixel's centre lies at whole coordinates in the picture, and half a pixel inside in the scene.
    points = (episodes.locations[n] + 1) / 2 * (width, height) - 0.5  # (T, 2)
    for corners, widths in zip(episodes.corners[n], episodes.widths[n], strict=True):
        for scale, ((left, top), side) in enumerate(zip(corners, widths, strict=True)):
            colour = _BOX_COLOURS[scale % len(_BOX_COLOURS)]
            axis.add_patch(Rectangle((left - 0.5, top - 0.5), side, side, fill=False, edgecolor=colour, lw=0.6, alpha=0.7))
    axis.plot(points[:, 0], points[:, 1], color=_PATH_COLOUR, lw=1.5)
    axis.plot(*points[0], marker="o", ms=5, mfc="none", mec=_PATH_COLOUR)
    axis.plot(*points[-1], marker="o", ms=5, color=_PATH_COLOUR)
    axis.set_xlim(-0.5, width - 0.5)
    axis.set_ylim(height - 0.5, -0.5)
    _hide_axes(axis)


def _hide_axes(axis: matplotlib.axes.Axes) -> None:
    axis.set_xticks([])
    axis.set_yticks([])


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
