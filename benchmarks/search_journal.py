"""The file in which a hyperparameter search on Optuna keeps its trials, safe against workers that are killed."""

from __future__ import annotations

import os
from pathlib import Path

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

GRACE = 10  # Seconds after which the lock is taken from a worker that was killed while it held it; it is held for milliseconds.


def open_journal(path: Path, grace_period: int = GRACE) -> JournalStorage:
    """Optuna's storage in a file that workers on several machines may share.

    Args:
        path: the file; it is made where there is none.
        grace_period: seconds that a worker waits for another's lock before it takes it.
    """
    return JournalStorage(JournalFileBackend(str(path), lock_obj=TidyLock(path, grace_period)))


class TidyLock(JournalFileOpenLock):
    """Optuna's lock on a journal; with it comes a journal that ends with a whole line.

    A worker that is killed while it writes may leave half a line, which would make the journal unreadable after the next one.
    """

    def __init__(self, path: Path, grace_period: int) -> None:
        super().__init__(str(path), grace_period=grace_period)
        self.path = path

    def acquire(self) -> bool:
        """Wait for the lock."""
        super().acquire()
        cut_half_line(self.path)
        return True


def cut_half_line(path: Path) -> None:
    """Take away what stands behind the last end of a line."""
    with path.open("rb+") as file:
        if file.seek(0, os.SEEK_END) and (file.seek(-1, os.SEEK_END), file.read())[1] != b"\n":
            file.truncate(path.read_bytes().rfind(b"\n") + 1)
