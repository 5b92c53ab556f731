"""Published runs: what they measured, in files small enough to keep beside the code.

A folder of results holds, for each run, <environment>/<algorithm>_seed<seed>.json (its result.json) and .csv (its curve), and
comparison.json: the commands that made them and what the algorithms are.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

COMPARISON = "comparison.json"
FACTS = ("summary", "sees_scene", "uses_labels")  # Of an algorithm, see `agents.algorithms.Algorithm`.
COLUMNS = ("timesteps", "train_seconds", "cpu_seconds", "success", "reward", "length")


@dataclass(frozen=True)
class PublishedRun:
    """One run."""

    result: dict[str, Any]  # As in result.json.
    curve: dict[str, NDArray[np.float64]]  # Each of `COLUMNS` over the evaluations on validation, (E,); success in [0, 1].
    path: Path  # Of the published result.

    @property
    def env_id(self) -> str:
        """Its environment."""
        return self.result["env"]

    @property
    def algo(self) -> str:
        """Its algorithm."""
        return self.result["algo"]


def folder_of(env_id: str) -> str:
    """The name of an environment's folder: its id without the slashes and colons of namespaces and modules."""
    return re.sub(r"[^\w.-]", "_", env_id)


def publish(folder: Path, to: Path) -> None:
    """Copy a run's result to `to`.json, and its curve, a mean over the episodes of each evaluation, to `to`.csv."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with np.load(folder / "evaluations.npz") as saved:
        clocks = [saved[name].round(2) for name in ("train_seconds", "cpu_seconds")]
        means = [saved[name].mean(axis=1, dtype=np.float64).round(6) for name in ("successes", "results", "ep_lengths")]
        columns = [saved["timesteps"], *clocks, *means]
    with _suffixed(to, ".csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(zip(*(column.tolist() for column in columns), strict=True))
    shutil.copyfile(folder / "result.json", _suffixed(to, ".json"))


def read_runs(results: Path) -> list[PublishedRun]:
    """All runs of a folder, by environment, algorithm and seed.

    Raises:
        FileNotFoundError: it holds none.
    """
    runs = [
        PublishedRun(json.loads(path.read_text()), _read_curve(path.with_suffix(".csv")), path)
        for path in sorted(results.glob("*/*.json"))
    ]
    if not runs:
        raise FileNotFoundError(f"there is no <environment>/<algorithm>_seed<seed>.json in {results}")
    return sorted(runs, key=lambda run: (run.env_id, run.algo, run.result["seed"]))


def note_comparison(results: Path, command: str, runs: Sequence[str], algorithms: Mapping[str, Mapping[str, Any]]) -> None:
    """Remember a command and the runs it makes, in place of earlier ones whose runs are among them; not if one makes them all.

    Args:
        results: the folder of results.
        command: as on a command line.
        runs: their names, such as "GlimpseMNIST-v0/ram_seed0".
        algorithms: for each the `FACTS`, as the registry says.
    """
    before = read_comparison(results)
    commands = [entry for entry in before["commands"] if not set(entry["runs"]) <= set(runs)]
    if not any(set(runs) <= set(entry["runs"]) for entry in commands):
        commands.append({"command": command, "runs": sorted(runs)})
    comparison = {"commands": commands, "algorithms": {**before["algorithms"], **algorithms}}
    results.mkdir(parents=True, exist_ok=True)
    (results / COMPARISON).write_text(json.dumps(comparison, indent=2) + "\n")


def read_comparison(results: Path) -> dict[str, Any]:
    """The commands that made the runs, and what the algorithms are; nothing where none is noted."""
    path = results / COMPARISON
    return json.loads(path.read_text()) if path.exists() else {"commands": [], "algorithms": {}}


def _read_curve(path: Path) -> dict[str, NDArray[np.float64]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in COLUMNS}


def _suffixed(path: Path, suffix: str) -> Path:
    return path.parent / (path.name + suffix)
