"""Published results: a table for each study, results/<study>.jsonl, with a row (one JSON object on one line) for each run.

A row holds what the run's result.json says (env, algo, preset, seed, hyperparams, env_kwargs, command, commit, machine, ...) and

- "run": its name, which no other row of the same environment has;
- "curve": what each evaluation on validation came to, a list for each of `COLUMNS`; not every old row has one.

Rows are sorted by environment and name. Their hyperparameters have the names of the row's commit, where its command repeats it. A
commit that ends in "-dirty" had changes that were not committed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    import fcntl
except ModuleNotFoundError:  # Windows: there two programs must not publish into one table at once.
    fcntl = None  # type: ignore[assignment]

PROJECT = Path(__file__).resolve().parent.parent
RESULTS = PROJECT / "results"
COLUMNS = ("timesteps", "train_seconds", "cpu_seconds", "success", "reward", "length")  # Of a curve.


@dataclass(frozen=True)
class Result:
    """A row of a table."""

    row: dict[str, Any]

    @property
    def run(self) -> str:
        """The run's name, such as "ram_best_seed0"."""
        return self.row["run"]

    @property
    def env_id(self) -> str:
        """Its environment; "" for a measurement without one."""
        return self.row.get("env", "")

    @property
    def algo(self) -> str:
        """Its algorithm."""
        return self.row["algo"]

    @property
    def seed(self) -> int:
        """Its seed."""
        return self.row["seed"]

    @property
    def curve(self) -> dict[str, NDArray[np.float64]]:
        """Each column over the evaluations, (E,); success is a share, in [0, 1]."""
        return {name: np.array(values, np.float64) for name, values in self.row["curve"].items()}


def read_results(study: str | Path) -> list[Result]:
    """The rows of a study.

    Args:
        study: its name, such as "tables" or "research", or the path of a table.

    Raises:
        FileNotFoundError: there is no such table.
    """
    path = study if isinstance(study, Path) else RESULTS / f"{study}.jsonl"
    if not path.is_file():
        names = ", ".join(sorted(table.stem for table in RESULTS.glob("*.jsonl")))
        raise FileNotFoundError(f"study must be one of {names} or the path of a table, got {str(study)!r}")
    return [Result(json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def add_results(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Put rows into a table, in place of those of the same environment and name; the table is made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        kept = read_results(path) if path.is_file() else []
        merged = {_name(row): row for row in (*(result.row for result in kept), *rows)}
        lines = [json.dumps(merged[name], ensure_ascii=False) + "\n" for name in sorted(merged, key=_order)]
        partial = path.with_suffix(".partial")
        partial.write_text("".join(lines), "utf-8")
        partial.replace(path)


def publish(folder: Path, path: Path, run: str, **facts: Any) -> None:
    """Put a finished run into a table.

    Args:
        folder: the run's, with its result.json and evaluations.npz.
        path: of the table.
        run: the name of the row.
        **facts: what the row says beside the run's result.
    """
    result = json.loads((folder / "result.json").read_text("utf-8"))
    add_results(path, [{"env": result["env"], "run": run, **result, **facts, "curve": read_curve(folder)}])


def read_curve(folder: Path) -> dict[str, list[float]]:
    """What a run's evaluations came to: `COLUMNS`, the last three as means over the episodes of each evaluation."""
    with np.load(folder / "evaluations.npz") as saved:
        clocks = [saved[name].round(2) for name in ("train_seconds", "cpu_seconds")]
        means = [saved[name].mean(axis=1, dtype=np.float64).round(6) for name in ("successes", "results", "ep_lengths")]
        columns = (saved["timesteps"], *clocks, *means)
        return {name: column.tolist() for name, column in zip(COLUMNS, columns, strict=True)}


def folder_of(env_id: str) -> str:
    """The name of an environment's files and folders: its id without the slashes and colons of namespaces and modules."""
    return re.sub(r"[^\w.-]", "_", env_id)


def _name(row: Mapping[str, Any]) -> tuple[str, str]:
    return row.get("env", ""), row["run"]


def _order(name: tuple[str, str]) -> tuple[Any, ...]:
    """Numbers in names of runs count by their value: seed 10 comes after seed 9."""
    env_id, run = name
    return env_id, [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", run)], run


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Only one process at a time is in here."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
