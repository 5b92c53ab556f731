"""Runs of train_agent.py as processes side by side: resumed where they were stopped, and published as they finish."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from tqdm import tqdm

from agents.training.config import RunConfig, read_hyperparams
from agents.training.run import open_run
from benchmarks.results import publish
from train_agent import parse_config

try:
    import fcntl
except ModuleNotFoundError:  # Windows: there two starts at once are not told apart.
    fcntl = None  # type: ignore[assignment]

TRAIN = Path(__file__).resolve().parent.parent / "train_agent.py"
POLL = 0.1  # Seconds between looks at the processes.
PATIENCE = 10  # Seconds that a process has to end when it is told to.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)


@dataclass(frozen=True, eq=False)
class Job:
    """A run as a process."""

    folder: Path  # Takes the run, and what its process prints; its name is the name of the run.
    command: tuple[str, ...]  # The program and its arguments.
    facts: Mapping[str, Any] = field(default_factory=dict)  # What the run's row in a table says beside its result.

    @property
    def name(self) -> str:
        """Such as "GlimpseMNIST-v0/ram_seed0"."""
        return "/".join(self.folder.parts[-2:])

    @property
    def result(self) -> Path:
        """The result of the finished run."""
        return self.folder / "result.json"

    @property
    def log(self) -> Path:
        """The file to which the process prints."""
        return self.folder / "log.txt"


def make_job(arguments: Sequence[str], folder: Path, script: Path, **facts: Any) -> Job:
    """The job of a run.

    Args:
        arguments: of train_agent.py, without the folder.
        folder: for the run.
        script: train_agent.py.
        **facts: see `Job`.

    Raises:
        ValueError: an argument is wrong, or the folder holds a run that was asked for differently or has other hyperparameters.
    """
    arguments = (*arguments, "--folder", str(folder))
    check_folder(parse_config(arguments))
    return Job(folder, (sys.executable, str(script), *arguments), facts)


def check_folder(config: RunConfig) -> None:
    """See that the run in the folder, if there is one, is what would be run now.

    Raises:
        ValueError: it is not; the message says what differs.
    """
    if (Path(config.folder) / "args.yml").exists():
        run = open_run(config)
        if changed := difference(run.hyperparams, read_hyperparams(config)[0]):
            raise ValueError(f"{config.folder} holds a run with {changed} now: take another --out or remove the folder")


def difference(stored: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The first hyperparameter in which a run differs from those of now; None: there is none."""
    for name in (*stored, *now):
        if stored.get(name) != now.get(name):
            return f"{name}={stored.get(name)!r}, its hyperparameters have {now.get(name)!r}"
    return None


def complete(jobs: Sequence[Job], table: Path, num_processes: int) -> dict[Job, str]:
    """Run the jobs that have no result yet, and publish the results of all.

    Args:
        jobs: in their order.
        table: where to publish, see `benchmarks.results`.
        num_processes: how many run side by side.

    Returns:
        of each job that failed the end of its log.

    Raises:
        BlockingIOError: another process is at work in a job's folder.
    """
    missing = [job for job in jobs if not job.result.exists()]
    print(f"{len(jobs)} runs, {len(jobs) - len(missing)} finished already; {num_processes} side by side", flush=True)
    for job in jobs:
        if job.result.exists():
            publish(job.folder, table, job.folder.name, **job.facts)
    failures = {}
    with (
        ended_by_signals(),
        closing(run_all(missing, num_processes)) as ended,
        tqdm(total=len(missing), unit="run", smoothing=0, disable=None) as progress,
    ):
        for number, (job, status) in enumerate(ended, start=1):
            if status == 0 and job.result.exists():
                publish(job.folder, table, job.folder.name, **job.facts)
                line = describe(json.loads(job.result.read_text()))
            else:
                failures[job] = tail(job)
                line = f"failed with exit status {status}"
            progress.update()
            tqdm.write(f"[{number}/{len(missing)}] {job.name}: {line}")
            sys.stdout.flush()
    return failures


def describe(result: Mapping[str, Any]) -> str:
    """A result in one line."""
    success, steps, seconds = 100 * result["success_rate"], result["n_timesteps"], result["train_cpu_seconds"]
    return f"success {success:.2f} %, {steps:,} steps, {seconds:.0f} CPU seconds"


def report_failures(failures: Mapping[Job, str]) -> int:
    """Print the jobs that failed; returns the exit status, 1 if there are any."""
    for job, text in failures.items():
        print(f"\n{job.name} failed. The end of {job.log}:\n{text}", file=sys.stderr)
    return 1 if failures else 0


def require_positive(parser: argparse.ArgumentParser, options: argparse.Namespace, names: Sequence[str]) -> None:
    """End with an error where a number that was given is not above 0."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value <= 0:
            parser.error(f"--{name.replace('_', '-')} must be above 0, got {value}")


def run_all(jobs: Sequence[Job], num_processes: int) -> Generator[tuple[Job, int], None, None]:
    """Run the jobs in their order, several side by side; yields each with its exit status when it has ended.

    Close the generator (`contextlib.closing`) to stop those that are running.

    Raises:
        BlockingIOError: another process writes into a job's log.
    """
    waiting, running = deque(jobs), dict[Job, subprocess.Popen[bytes]]()
    try:
        while waiting or running:
            while waiting and len(running) < num_processes:
                job = waiting.popleft()
                running[job] = _start(job)
            for job in [job for job, process in running.items() if process.poll() is not None]:
                yield job, running.pop(job).returncode
            time.sleep(POLL)
    finally:
        _stop(list(running.values()))


def tail(job: Job, num_lines: int = 20) -> str:
    """The last lines that the job printed since its last start."""
    printed = job.log.read_text(errors="replace").rpartition(_headline(job))[2]
    return "\n".join(printed.splitlines()[-num_lines:])


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP, like Ctrl-C, raise KeyboardInterrupt in here."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before: dict[str, Any] = {name: signal.signal(getattr(signal, name), stop) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


def _start(job: Job) -> subprocess.Popen[bytes]:
    """A process in a session of its own: Ctrl-C reaches it through `_stop` alone."""
    job.folder.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        if fcntl is not None:
            # The process inherits the lock and holds it for as long as it lives, even if this one is killed.
            try:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BlockingIOError(f"another process is at work in {job.folder}: wait for it or stop it") from error
        log.write(_headline(job).encode())
        log.flush()
        return subprocess.Popen(
            job.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **ONE_THREAD},
            start_new_session=True,
        )


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + PATIENCE
    for process in processes:
        try:
            process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _headline(job: Job) -> str:
    return f"$ {shlex.join(job.command)}\n"
