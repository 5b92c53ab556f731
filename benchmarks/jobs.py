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
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
from tqdm import tqdm

import train_agent
from ram_envs.agents.training.callbacks import end_by_signal
from ram_envs.agents.training.config import read_hyperparams
from ram_envs.agents.training.run import open_run
from ram_envs.benchmarks.results import publish

try:
    import fcntl
except ModuleNotFoundError:  # Windows: there two starts at once are not told apart.
    fcntl = None  # type: ignore[assignment]

TRAIN = Path(train_agent.__file__)
POLL = 0.1  # Seconds between looks at the processes.
PATIENCE = 30  # Seconds that a process has to end when it is told to: until its next rollout, which may be after an evaluation.
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "NUMBA")}


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's main and exit with its status; one line says what was wrong, or that a signal has stopped it."""
    try:
        with ended_by_signals():
            sys.exit(main())
    except KeyboardInterrupt as stop:
        print("\nStopped. The same command resumes.", file=sys.stderr)
        sys.exit(128 + getattr(stop, "signum", signal.SIGINT))
    except (ValueError, ImportError, OSError, RuntimeError, gym.error.Error) as error:
        sys.exit(f"error: {error}")


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP, like Ctrl-C, raise `Stopped` in here, a KeyboardInterrupt, so that processes are stopped too."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, end_by_signal) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def add_job_options(parser: argparse.ArgumentParser, out: Path) -> None:
    """The options of scripts that run jobs."""
    parser.add_argument("--seeds", type=positive(int), default=3, help="the number of seeds, which begin at 0 (default: 3)")
    cores = "runs side by side, one thread each (default: the number of cores)"
    parser.add_argument("--jobs", type=positive(int), default=os.cpu_count(), help=cores)
    parser.add_argument("--out", type=Path, default=out, help=f"the folder of the runs (default: {out})")


def positive(number: Callable[[str], float]) -> Callable[[str], float]:
    """An argument's type: a number above 0."""

    def parse(text: str) -> float:
        value = number(text)
        if value <= 0:
            raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
        return value

    parse.__name__ = number.__name__  # In argparse's message where it is no number.
    return parse


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
    """The job of a run; the arguments are those of train_agent.py without the folder.

    Raises:
        ValueError: an argument is wrong, or the folder holds a run that was asked for differently or has other hyperparameters.
    """
    arguments = (*arguments, "--folder", str(folder))
    config = train_agent.parse_config(arguments)
    stored = open_run(config).hyperparams if (folder / "args.yml").exists() else None
    if stored and (changed := difference(stored, read_hyperparams(config)[0])):
        raise ValueError(f"{folder} holds a run with {changed} now: take another --out or remove the folder")
    return Job(folder, (sys.executable, str(script), *arguments), facts)


def difference(stored: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The first hyperparameter in which a run differs from those of now; None: there is none."""
    for name in (*stored, *now):
        if stored.get(name) != now.get(name):
            return f"{name}={stored.get(name)!r}, its hyperparameters have {now.get(name)!r}"
    return None


def complete(jobs: Sequence[Job], table: Path, num_processes: int) -> list[Job]:
    """Run the jobs that have no result yet, some side by side, publish the results of all, and return the jobs that failed.

    Raises:
        BlockingIOError: another process is at work in a job's folder.
    """
    finished = [job for job in jobs if job.result.exists()]
    missing = [job for job in jobs if job not in finished]
    print(f"{len(jobs)} runs, {len(finished)} finished already; {num_processes} side by side", flush=True)
    for job in finished:
        publish(job.folder, table, job.folder.name, **job.facts)
    failed = []
    with (
        closing(run_all(missing, num_processes)) as ended,
        tqdm(total=len(missing), unit="run", smoothing=0, disable=None) as progress,
    ):
        for number, (job, status) in enumerate(ended, start=1):
            if status == 0 and job.result.exists():
                publish(job.folder, table, job.folder.name, **job.facts)
                line = describe(json.loads(job.result.read_text("utf-8")))
            else:
                failed.append(job)
                line = f"failed with exit status {status}"
            progress.update()
            tqdm.write(f"[{number}/{len(missing)}] {job.name}: {line}")
            sys.stdout.flush()
    for job in failed:
        print(f"\n{job.name} failed. The end of {job.log}:\n{tail(job)}", file=sys.stderr)
    return failed


def describe(result: Mapping[str, Any]) -> str:
    """A result in one line."""
    success, steps, seconds = 100 * result["success_rate"], result["n_timesteps"], result["train_cpu_seconds"]
    return f"success {success:.2f} %, {steps:,} steps, {seconds:.0f} CPU seconds"


def run_all(jobs: Sequence[Job], num_processes: int) -> Generator[tuple[Job, int], None, None]:
    """Run the jobs in their order, some side by side; yields each with its exit status when it has ended.

    Close the generator (`contextlib.closing`) to stop those that are running.
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
    printed = job.log.read_text("utf-8", errors="replace").rpartition(_headline(job))[2]
    return "\n".join(printed.splitlines()[-num_lines:])


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
