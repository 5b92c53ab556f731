"""Plots of published results: learning curves with bands over seeds, and aggregates with their confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from ram_envs.benchmarks.results import Curve, Row, curve_of
from ram_envs.benchmarks.scores import Estimate

# Okabe and Ito's colours without the yellow, which is lost on white, and as many more; for those who see no colours, and beyond
# 14 lines, there are dashes and markers.
_OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00")
COLOURS = (*_OKABE_ITO, "#6A3D9A", "#8C510A", "#7F7F7F", "#B2182B", "#7CB518", "#F768A1", "#3B3EAC")
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
MARKERS = "os^DvP*X<>hpd8"
GRID = 200  # Points of a curve.
# What progress is measured by: the axis' label and its unit. Steps are drawn on a logarithmic scale.
CLOCKS = {"timesteps": ("million steps of the environment", 1e-6), "cpu_seconds": ("CPU minutes of training", 1 / 60)}
PERCENT = ("success", "error")  # What is a share, and drawn in %.


@dataclass(frozen=True)
class Panel:
    """One of several diagrams in a plot."""

    title: str
    curves: Mapping[str, Sequence[Curve]]  # For each label the curves of its seeds.
    levels: Mapping[str, float]  # Figures in %, drawn as horizontal lines, by their labels.
    measure: str = "error"  # On a logarithmic scale; or "success".


def style_of(number: int) -> dict[str, Any]:
    """The style of an algorithm's lines and points."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": DASHES[number // len(_OKABE_ITO) % len(DASHES)],
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 4.5,
    }


def plot_curves(results: Sequence[Row], order: Sequence[str], title: str) -> Figure:
    """Draw success (and reward, where it is not the same) on validation against steps and against CPU time.

    Args:
        results: of one environment.
        order: all algorithms of the comparison; an algorithm's place in it gives its style, the same in all plots.
        title: above the plot.
    """
    curves: dict[str, list[Curve]] = {}
    for row in results:
        curves.setdefault(row["algo"], []).append(curve_of(row))
    measures = {"success": "success on validation, %", "reward": "reward on validation"}
    if all(np.allclose(one["success"], one["reward"], atol=1e-5) for own in curves.values() for one in own):
        measures = {"success": "success on validation, %\n(100 times the reward)"}
    figure = Figure(figsize=(11, 1.2 + 3.2 * len(measures)), layout="constrained")
    grid = figure.subplots(len(measures), len(CLOCKS), squeeze=False, sharex="col", sharey="row")
    for axes, (measure, label) in zip(grid, measures.items(), strict=True):
        for axis, clock in zip(axes, CLOCKS, strict=True):
            for algo in sorted(curves, key=order.index):
                draw_band(axis, curves[algo], clock, measure, style_of(order.index(algo)), algo)
            axis.grid(True, alpha=0.3)
        axes[0].set_ylabel(label)
    for axis, (label, _) in zip(grid[-1], CLOCKS.values(), strict=True):
        axis.set_xlabel(label)
    steps = grid[-1, 0]
    steps.set_xscale("log")
    low, high = steps.get_xlim()
    label_numbers(steps.xaxis, (1, 2, 5) if high < 200 * low else (1,))
    grid[0, 0].set_ylim(0, 101)
    figure.suptitle(title)
    lines = sorted(grid[0, 0].get_lines(), key=lambda line: -line.get_ydata()[-1])
    figure.legend(handles=lines, loc="outside right center", handlelength=3.5)
    return figure


def label_numbers(axis: Axis, marked: Sequence[float]) -> None:
    """Write numbers at these multiples of the powers of ten on a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=marked))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def draw_band(axis: Axes, curves: Sequence[Curve], clock: str, measure: str, style: Mapping[str, Any], label: str) -> None:
    """Draw the mean over seeds as a line, and the range from the lowest to the highest seed as a band."""
    where, values = common_grid(curves, clock, measure)
    where, values = CLOCKS[clock][1] * where, (100 if measure in PERCENT else 1) * values
    marks = np.unique(np.linspace(0, len(where) - 1, 7).round().astype(int)).tolist()
    axis.plot(where, values.mean(axis=0), label=label, markevery=marks, lw=1.6, **style)
    low, high = values.min(axis=0), values.max(axis=0)
    if len(where) > 1:
        axis.fill_between(where, low, high, color=style["color"], alpha=0.15, lw=0)
    else:
        axis.vlines(where, low, high, color=style["color"])


def common_grid(curves: Sequence[Curve], clock: str, measure: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points (G,) that the curves of all seeds span, and their values there (seeds, G); the last point if they share none.

    A curve is linear between evaluations.
    """
    first = max(float(curve[clock][0]) for curve in curves)
    last = min(float(curve[clock][-1]) for curve in curves)
    if first >= last:
        return np.array([np.mean([curve[clock][-1] for curve in curves])]), np.array([curve[measure][-1:] for curve in curves])
    where = (np.geomspace if clock == "timesteps" else np.linspace)(first, last, GRID)
    return where, np.array([np.interp(where, curve[clock], curve[measure]) for curve in curves])


def plot_panels(panels: Sequence[Panel], columns: int = 3) -> Figure:
    """Draw several diagrams of learning curves on validation against CPU time."""
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(max(4.2 * columns, 5.5), 3.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        draw_panel(axis, panel)
    for axis in axes[len(panels) :]:
        axis.remove()
    return figure


def draw_panel(axis: Axes, panel: Panel) -> None:
    """Draw a diagram: the curves with their bands, and the levels."""
    for number, (label, curves) in enumerate(panel.curves.items()):
        with_errors = [{**curve, "error": 1 - curve["success"]} for curve in curves]
        draw_band(axis, with_errors, "cpu_seconds", panel.measure, style_of(number), label)
    for number, (label, level) in enumerate(panel.levels.items()):
        axis.axhline(level, color="grey", lw=1, linestyle=DASHES[number % len(DASHES)], label=label)
    if panel.measure == "error" and all((curve["success"] < 1).all() for curves in panel.curves.values() for curve in curves):
        axis.set_yscale("log")
        label_numbers(axis.yaxis, (1, 1.5, 2, 3, 5, 7))
    axis.set(xlabel=CLOCKS["cpu_seconds"][0], ylabel=f"{panel.measure} on validation, %")
    axis.set_title(panel.title, fontsize=10)
    axis.grid(True, alpha=0.3)
    axis.legend(fontsize=8)


def plot_aggregates(estimates: Mapping[str, Mapping[str, Estimate]], order: Sequence[str], title: str) -> Figure:
    """Draw every aggregate of every algorithm with its interval, the first on top; order and title: see `plot_curves`."""
    names = list(next(iter(estimates.values())))
    figure = Figure(figsize=(11, 1.4 + 0.3 * len(estimates)), layout="constrained")
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axis, name in zip(axes, names, strict=True):
        for row, (algo, own) in enumerate(estimates.items()):
            value, interval = own[name].value, own[name].interval
            # A seed's own mean may lie a rounding error outside the interval of seeds that agree.
            errors = None if interval is None else [[max(value - interval[0], 0)], [max(interval[1] - value, 0)]]
            axis.errorbar(value, row, xerr=errors, capsize=3, **{**style_of(order.index(algo)), "linestyle": "none"})
        axis.set_xlabel(name)
        axis.grid(True, axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(estimates)), list(estimates))
    axes[0].set_ylim(len(estimates) - 0.5, -0.5)
    figure.suptitle(title)
    return figure


def save_plot(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
