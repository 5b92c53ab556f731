"""What a hyperparameter search found: a table of the best trials, trials.csv and best.yml."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.search_trial import trial_folder

NUM_SHOWN = 10
FILE_WIDTH = 150  # Of the table where no terminal says otherwise.
FINISHED = ("complete", "pruned")
FIGURES = ("n_timesteps", "train_seconds", "train_cpu_seconds")  # Of result.json, for trials.csv.


@dataclass(frozen=True)
class Row:
    """One trial.

    Args:
        trial: its number (Optuna counts from 0, whatever came of them) or its name (Ray Tune).
        state: "complete", "pruned" (stopped early, its error is the last one seen), "fail" or "running".
        error: the validation error in %.
        values: what was drawn from the search space, by name.
        details: host, pid, the exception and some figures, as far as they are known.
    """

    trial: int | str
    state: str
    error: float | None
    values: dict[str, Any]
    details: dict[str, Any] = field(default_factory=dict)


def report(study: Path, env_id: str, rows: list[Row], title: str, importances: dict[str, float] | None = None) -> None:
    """Print the best trials and what mattered; write trials.csv, and best.yml where a trial is complete."""
    best = sorted((row for row in rows if row.state == "complete"), key=lambda row: (row.error, str(row.trial)))
    _write(study / "trials.csv", _csv(rows))
    Console(width=None if sys.stdout.isatty() else FILE_WIDTH).print(_table(best[:NUM_SHOWN], f"{title}: {_counts(rows)}"))
    if importances:
        print(f"What mattered, as shares (Optuna's importances): {words(importances)}")
    print(study / "trials.csv")
    if best:
        _write(study / "best.yml", _best(study, env_id, best[0]))
        print(study / "best.yml")


def _counts(rows: list[Row]) -> str:
    """Such as "8 complete, 1 fail"."""
    counts = Counter(row.state for row in rows)
    return ", ".join(f"{counts[state]} {state}" for state in (*FINISHED, "fail", "running") if counts[state]) or "no trials"


def _table(rows: list[Row], title: str) -> Table:
    names = _names(rows)
    table = Table(title=title, title_justify="left")
    table.add_column("trial", no_wrap=True)
    table.add_column("error, %")
    for name in names:
        table.add_column(name.rpartition(".")[2].replace("_", "_\n"), no_wrap=True)
    for row in rows:
        table.add_row(str(row.trial), f"{row.error:.2f}", *(_short(row.values.get(name)) for name in names))
    return table


def _csv(rows: list[Row]) -> str:
    names, text = _names(rows), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    details = ("host", "exception", *FIGURES)
    writer.writerow(["trial", "state", "validation_error", *names, *details])
    for row in rows:
        cells = [row.values.get(name) for name in names] + [row.details.get(name) for name in details]
        writer.writerow([row.trial, row.state, row.error, *cells])
    return text.getvalue()


def _best(study: Path, env_id: str, row: Row) -> str:
    """The settings of a trial in rl_zoo3's form."""
    result = json.loads((trial_folder(study, row.trial) / "result.json").read_text())
    settings = result["settings"] | ({"env_kwargs": result["env_kwargs"]} if result.get("env_kwargs") else {})
    about = (
        f"{result['algo']}: trial {row.trial}, validation error {row.error:.2f} % after {result['n_timesteps']} steps, the best"
    )
    head = f"# {about} of\n# {result['command']}\n"
    return head + yaml.safe_dump({env_id: settings}, sort_keys=False)


def _names(rows: list[Row]) -> list[str]:
    """The settings, in the order of the search space."""
    return list(dict.fromkeys(name for row in rows for name in row.values))


def words(values: dict[str, Any]) -> str:
    """Such as "learning_rate 0.00123, n_envs 64"."""
    return ", ".join(f"{name} {_short(value)}" for name, value in values.items())


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _write(path: Path, text: str) -> None:
    """At one stroke: workers on several machines may write at the same time."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(path)
