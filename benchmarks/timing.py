"""Measurements that take turns: what slows the machine for a while slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ram_envs.benchmarks.results import Row

Timed = Callable[[], float]  # Works for a turn and returns what it reached, such as steps per second.


def take_turns(timed: Mapping[Any, Timed], rounds: int) -> dict[Any, NDArray[np.float64]]:
    """What each reached in its turns, (rounds,); a first round, which compiles and warms up, is left out."""
    turns = [[run() for run in timed.values()] for _ in range(rounds + 1)][1:]
    return dict(zip(timed, np.array(turns).T, strict=True))


def median(turns: NDArray[np.float64], digits: int | None = None) -> float:
    """Their median, rounded."""
    return round(float(np.median(turns)), digits)


def per_second(work: Callable[[], Any], amount: int, clock: Callable[[], float] = time.process_time) -> Timed:
    """Works for a turn; reaches the amount per second."""

    def run() -> float:
        start = clock()
        work()
        return amount / (clock() - start)

    return run


def print_table(rows: Sequence[Row]) -> None:
    """Print rows with the same columns in Markdown."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row.values()] for row in rows]
    print("\n".join(f"| {' | '.join(line)} |" for line in [rows[0], ["---"] * len(rows[0]), *cells]))
