"""Published results: a table for each study, results/<study>.jsonl, with a row (one JSON object on one line) for each run.

A row holds what the run's result.json says (env, algo, preset, seed, hyperparams, env_kwargs, command, commit, machine, ...) and

- "run": its name, which no other row of the same environment has;
- "curve": what each evaluation on validation came to, a list for each of `COLUMNS`; not every old row has one.

Rows are sorted by environment and name; their hyperparameters have the names of their commit, where the command repeats them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
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
Row = dict[str, Any]
Curve = Mapping[str, NDArray[np.float64]]  # Each column over the evaluations, (E,); success is a share, in [0, 1].


def read_results(study: str | Path) -> list[Row]:
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
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def curve_of(row: Row) -> Curve:
    """The learning curve of a run."""
    return {name: np.array(values, np.float64) for name, values in row["curve"].items()}


def add_results(path: Path, rows: Iterable[Row]) -> None:
    """Put rows into a table, in place of those of the same environment and name; the table is made where there is none."""
    from ram_envs.agents.training.checkpoints import write_text  # Brings torch: not while environments are timed.

    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        stored = read_results(path) if path.is_file() else []
        merged = {(row.get("env", ""), row["run"]): row for row in (*stored, *rows)}
        lines = [json.dumps(merged[name], ensure_ascii=False) + "\n" for name in sorted(merged, key=_order)]
        write_text(path, "".join(lines))


def publish(folder: Path, path: Path, run: str, **facts: Any) -> None:
    """Put the finished run of a folder into a table, under a name; facts are what the row says beside the run's result."""
    result = json.loads((folder / "result.json").read_text("utf-8"))
    with np.load(folder / "evaluations.npz") as saved:
        clocks = [saved[name].round(2) for name in ("train_seconds", "cpu_seconds")]
        means = [saved[name].mean(axis=1, dtype=np.float64).round(6) for name in ("successes", "results", "ep_lengths")]
        columns = [column.tolist() for column in (saved["timesteps"], *clocks, *means)]
    curve = dict(zip(COLUMNS, columns, strict=True))
    add_results(path, [{"env": result["env"], "run": run, **result, **facts, "curve": curve}])


def folder_of(env_id: str) -> str:
    """The name of an environment's files and folders: its id without the slashes and colons of namespaces and modules."""
    return re.sub(r"[^\w.-]", "_", env_id)


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
