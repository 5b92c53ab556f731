"""Commands side by side, each with its own log."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

try:
    import fcntl
except ModuleNotFoundError:  # Windows: two starts at once are not told apart there.
    fcntl = None  # type: ignore[assignment]

POLL = 0.1  # Seconds between looks at the processes.
PATIENCE = 10  # Seconds that a process has to end when it is told to.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)


@dataclass(frozen=True)
class Job:
    """A command, and the file that takes what it prints.

    Args:
        name: what to call it.
        command: the program and its arguments.
        log: where its output is added.
    """

    name: str
    command: tuple[str, ...]
    log: Path


def run_all(jobs: Sequence[Job], num_processes: int) -> Generator[tuple[Job, int], None, None]:
    """Run the jobs in their order, so many side by side; yields each with its exit status as soon as it has ended.

    Close the generator (`contextlib.closing`) to stop those that are under way.

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
    """The last lines of what the job printed when it last ran."""
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
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        if fcntl is not None:
            # The process inherits the lock and holds it for as long as it lives, even if this one is killed.
            try:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BlockingIOError(f"another process is at work in {job.log.parent}: wait for it or stop it") from error
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
