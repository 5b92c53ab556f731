"""Pictures of where an agent looks: heat maps of many episodes beside what was measured of them, and one episode in detail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from ram_envs import Frame

_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)  # Of an error in %, on a logarithmic scale.
_COLUMNS = 8  # Heat maps, or glimpses, side by side.
_GAZE, _PATCH, _OWN, _OTHER = "#4dd2ff", "#ff7f0e", "#1f77b4", "#8c8c8c"  # Colours.
_LONGEST_NAME = 10  # Letters of a class above its glimpse.
_WORTH = {"error": "its own", "error_along_mean_path": "mean path", "error_at_anothers_looks": "another's"}


def plot_looks(
    heat_maps: NDArray[np.float64], path: NDArray[np.float64], scene_shape: tuple[int, ...], measured: dict[str, Any], title: str
) -> Figure:
    """A heat map of each glimpse, with a cross at the mean location, and below them what was measured.

    Args:
        heat_maps: (T, rows, columns), shares of the looks.
        path: (T, 2), mean locations in pixels, x first.
        scene_shape: ([C,] H, W) of the scene.
        measured: what `looks.measure` returns, or a part of it.
        title: above it all.
    """
    height, width = scene_shape[-2:]
    num_rows = -(-len(heat_maps) // _COLUMNS)
    tall = 1.6 * num_rows * min(height / width, 2)
    figure = Figure(figsize=(1.5 * _COLUMNS, tall + 3.1), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(tall, 2.8))
    upper, lower = parts
    for t, axis in enumerate(upper.subplots(num_rows, _COLUMNS, squeeze=False).flat):
        axis.set(xticks=(), yticks=())
        axis.set_visible(t < len(heat_maps))
        if t < len(heat_maps):
            # The root, so that rare places are seen beside the one where nearly all looks go.
            axis.imshow(np.sqrt(heat_maps[t]), cmap="magma", extent=(0, width, height, 0), interpolation="nearest")
            axis.plot(*path[t], marker="+", color=_GAZE, markersize=9, markeredgewidth=1.6)
            axis.set_title(f"glimpse {t + 1}", fontsize=8)
    charts = [_plot_worth, *([_plot_errors] if "error_after_glimpse" in measured else []), _plot_distances]
    charts += [_plot_slopes] if "slope" in measured else []
    for chart, axis in zip(charts, lower.subplots(1, len(charts), squeeze=False)[0], strict=True):
        chart(axis, measured)
        axis.tick_params(labelsize=8)
        axis.title.set_fontsize(9)
    figure.suptitle(title, fontsize=10)
    return figure


def _plot_worth(axis: Any, measured: dict[str, Any]) -> None:
    """The errors with the looks as they are, and without."""
    errors = {label: measured[name] for name, label in _WORTH.items() if name in measured}
    bars = axis.bar([*errors], [*errors.values()], color=[_OWN, _OTHER, _OTHER][: len(errors)])
    axis.bar_label(bars, fmt="{:.2f}", fontsize=8)
    axis.margins(y=0.15)
    axis.set_title("error in % by whose looks")


def _plot_errors(axis: Any, measured: dict[str, Any]) -> None:
    errors = measured["error_after_glimpse"]
    _plot_line(axis, errors)
    if min(errors) > 0:
        axis.set_yscale("log")
        axis.set_yticks([tick for tick in _TICKS if min(errors) / 1.2 <= tick <= max(errors) * 1.2])
        axis.yaxis.set_major_formatter("{x:g}")
        axis.minorticks_off()
    place = (len(errors), errors[-1])
    axis.annotate(f"{errors[-1]:.2f}", place, xytext=(0, 6), textcoords="offset points", ha="right", fontsize=8)
    axis.set_title("error in % after each glimpse")


def _plot_distances(axis: Any, measured: dict[str, Any]) -> None:
    for name, label in (("spread", "the mean path"), ("distance", "the object")):
        if name in measured:
            _plot_line(axis, measured[name], label=label)
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=7)
    axis.set_title("how far from there, in pixels")


def _plot_slopes(axis: Any, measured: dict[str, Any]) -> None:
    for level in (0, 1):
        axis.axhline(level, color=_OTHER, linewidth=0.8, linestyle=":")
    _plot_line(axis, [np.nan if slope is None else slope for slope in measured["slope"]])
    axis.set_title("slope on the object's place")


def _plot_line(axis: Any, values: Sequence[float], **kwargs: Any) -> None:
    axis.plot(range(1, len(values) + 1), values, marker="o", markersize=3, **kwargs)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_xlabel("glimpse", fontsize=8)


def plot_episode(frames: Sequence[Frame], scores: NDArray[np.floating] | None, title: str) -> Figure:
    """One episode, glimpse by glimpse: its patches, where it is taken (dot) and the next one (cross), and what is said after it.

    Args:
        frames: T + 1, one before each action and one after the last.
        scores: (T, k, m, m), of the retina's cells, the narrowest patch first: drawn below each glimpse, the higher the brighter,
            the finer cells on top. None: there are none.
        title: above it all.
    """
    num_glimpses, layers = len(frames) - 1, 1 if scores is None else 2
    columns = min(num_glimpses, _COLUMNS)
    num_rows = layers * -(-num_glimpses // columns)
    figure = Figure(figsize=(max(1.9 * columns, 7), 2.1 * num_rows + 0.4), layout="constrained")
    axes = figure.subplots(num_rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for t in range(num_glimpses):
        row, column = layers * (t // columns), t % columns
        said = frames[t + 1]
        assert said.choice is not None
        axes[row, column].set_title(f"{t + 1}: {said.names[said.choice][:_LONGEST_NAME]}", fontsize=9)
        following = frames[t + 1] if t + 1 < num_glimpses else None
        for layer in range(layers):
            _plot_glimpse(axes[row + layer, column], frames[t], following, scores[t] if layer and scores is not None else None)
    figure.suptitle(title, fontsize=10)
    return figure


def _plot_glimpse(axis: Any, frame: Frame, following: Frame | None, scores: NDArray | None) -> None:
    """The scene, or its cells' scores (k, m, m), with the patches of the look at it, and where the agent looks next."""
    look, (height, width) = frame.look, frame.scene.shape[-2:]
    assert look is not None
    scene = frame.scene if frame.scene.ndim == 2 else frame.scene.mean(axis=0)
    axis.imshow(scene, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
    for scale in reversed(range(len(look.widths))):
        (left, top), side = look.corners[scale], look.widths[scale]
        if scores is not None:
            levels, area = {"vmin": scores.min(), "vmax": scores.max()}, (left, left + side, top + side, top)
            axis.imshow(scores[scale], cmap="inferno", extent=area, interpolation="nearest", **levels)
        axis.add_patch(Rectangle((left, top), side, side, fill=False, color=_PATCH))
    for one, marker in ((frame, "o"), (following, "X")):
        if one is not None and one.look is not None:
            x, y = (one.look.location + 1) / 2 * (width, height)
            axis.plot(x, y, marker=marker, color=_GAZE, markeredgecolor="black", markersize=7)
    axis.set(xlim=(0, width), ylim=(height, 0))
