"""Figures, tables and pictures in Markdown."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.scores import Estimate, Summary


def describe_images(result: Mapping[str, Any]) -> str:
    """What a run learned from."""
    return f"{result['dataset']}, {result['dataset_size']:,} to learn from"


def show_success(cell: Mapping[str, Summary]) -> str:
    """Such as "98.70 ± 0.11 (3)"."""
    success = cell["success_rate"]
    deviation = "" if success.deviation is None else f" ± {100 * success.deviation:.2f}"
    return f"{100 * success.mean:.2f}{deviation} ({success.seeds})"


def show_cost(cell: Mapping[str, Summary]) -> str:
    """Such as "2.31 M, 300 s"."""
    return f"{cell['n_timesteps'].mean / 1e6:.3g} M, {cell['train_cpu_seconds'].mean:.0f} s"


def show_estimate(estimate: Estimate) -> str:
    """Such as "0.912 [0.905, 0.920]"."""
    interval = "" if estimate.interval is None else f" [{estimate.interval[0]:.3f}, {estimate.interval[1]:.3f}]"
    return f"{estimate.value:.3f}{interval}"


def bold(text: str, is_bold: bool) -> str:
    """Markdown's bold where it is."""
    return f"**{text}**" if is_bold else text


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table's lines."""
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


def image(picture: Path, page: Path, text: str | None = None) -> str:
    """A picture on the page, with its name or a text for those who can't see it."""
    return f"![{text or picture.stem}]({Path(os.path.relpath(picture, page.parent)).as_posix()})"


def link(path: Path, page: Path, text: str | None = None) -> str:
    """A link from the page to a file or folder, by its path or with another text."""
    return f"[{text or path.as_posix()}]({Path(os.path.relpath(path, page.parent)).as_posix()})"


def replace_block(page: str, name: str, lines: Sequence[str]) -> str:
    """The page with other lines between its markers of that name; all around them stays.

    Raises:
        ValueError: the page has not each marker once, in their order.
    """
    begin, end = (f"<!-- {name}: {what} -->\n" for what in ("begin", "end"))
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed) or page.count(begin) + page.count(end) != 2:
        raise ValueError(f"the page must hold a line {begin.strip()} and after it a line {end.strip()}, each once")
    return "\n".join([before + begin, *lines, "", end + after])
