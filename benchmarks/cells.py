"""Runs of train_agent.py side by side: taken up where they were stopped, and published as they finish."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from agents.trial import Trial, open_run, read_settings
from benchmarks.processes import Job, ended_by_signals, run_all, tail
from benchmarks.results import publish
from train_agent import parse_arguments, read_config

TRAIN = Path(__file__).resolve().parent.parent / "train_agent.py"


@dataclass(frozen=True)
class Cell:
    """One run.

    Args:
        name: such as "GlimpseMNIST-v0/ram_seed0"; so its published files are called.
        algo: its algorithm.
        folder: where it lands.
        arguments: of train_agent.py, the folder among them.
    """

    name: str
    algo: str
    folder: Path
    arguments: tuple[str, ...]

    @property
    def result(self) -> Path:
        """Where the finished run has its result."""
        return self.folder / "result.json"

    @property
    def log(self) -> Path:
        """What its process prints."""
        return self.folder / "log.txt"

    def trial(self) -> Trial:
        """What its command line asks for."""
        arguments = list(self.arguments)
        return Trial(**read_config(parse_arguments(arguments), arguments))

    def job(self, imports: Sequence[str]) -> Job:
        """The process that runs it."""
        modules = ("--imports", *imports) if imports else ()
        return Job(self.name, (sys.executable, str(TRAIN), *self.arguments, *modules), self.log)


def check_kept(cells: Sequence[Cell]) -> None:
    """See that the runs that are there already were asked for like those of now.

    Raises:
        ValueError: one was not; the message names its folder and what differs.
    """
    for cell in cells:
        if not (cell.folder / "args.yml").exists():
            continue
        trial = cell.trial()
        if changed := difference(open_run(trial).settings, read_settings(trial)):
            raise ValueError(f"{cell.folder} holds a run with {changed} now: take another --out or remove the folder")


def difference(kept: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """What first differs between the settings of a run and those it would have now; None: nothing."""
    for name in kept.keys() | (now.keys() - {"env_kwargs", "frame_stack"}):
        if kept.get(name) != now.get(name):
            return f"{name}={kept.get(name)!r}, its settings have {now.get(name)!r}"
    return None


def complete(cells: Sequence[Cell], results: Path, jobs: int, imports: Sequence[str] = ()) -> dict[Cell, str]:
    """Run those that are missing and publish all.

    Args:
        cells: the runs, in their order.
        results: the folder to publish in.
        jobs: how many are run side by side.
        imports: modules that each process imports first.

    Returns:
        of each that failed the end of its log.

    Raises:
        BlockingIOError: another process is at work in the folder of one.
    """
    missing = [cell for cell in cells if not cell.result.exists()]
    print(f"{len(cells)} runs, {len(cells) - len(missing)} finished already; {jobs} side by side", flush=True)
    for cell in cells:
        if cell.result.exists():
            publish(cell.folder, results / cell.name)
    cell_of, failures = {cell.job(imports): cell for cell in missing}, dict[Cell, str]()
    with (
        ended_by_signals(),
        closing(run_all(list(cell_of), jobs)) as ended,
        tqdm(total=len(missing), unit="run", smoothing=0, disable=None) as progress,
    ):
        for number, (job, status) in enumerate(ended, start=1):
            cell = cell_of[job]
            if status == 0 and cell.result.exists():
                publish(cell.folder, results / cell.name)
                line = describe(json.loads(cell.result.read_text()))
            else:
                failures[cell] = tail(job)
                line = f"failed with exit status {status}"
            progress.update()
            tqdm.write(f"[{number}/{len(missing)}] {cell.name}: {line}")
            sys.stdout.flush()
    return failures


def describe(result: Mapping[str, Any]) -> str:
    """A result in one line."""
    success, steps, seconds = 100 * result["success_rate"], result["n_timesteps"], result["train_cpu_seconds"]
    return f"success {success:.2f} %, {steps:,} steps, {seconds:.0f} CPU seconds"


def tell(failures: Mapping[Cell, str]) -> int:
    """Say which runs failed; returns the exit status, 1 where one did."""
    for cell, text in failures.items():
        print(f"\n{cell.name} failed. The end of {cell.log}:\n{text}", file=sys.stderr)
    return 1 if failures else 0


def require_positive(parser: argparse.ArgumentParser, options: argparse.Namespace, names: Sequence[str]) -> None:
    """End with an error where a number that was given is not above 0."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value <= 0:
            parser.error(f"--{name.replace('_', '-')} must be above 0, got {value}")
