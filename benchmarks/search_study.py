"""A hyperparameter search on Optuna: the study in a folder, and the worker that runs its trials one after another.

Any number of workers on any number of machines share the folder. A worker that is killed loses the trial it was at, nothing else:

- What is finished stands in the journal, line by line.
- A worker holds a file lock while it runs a trial; the operating system gives it back when the worker is gone, however it went.
  A trial that is "running" without its lock is told as failed by the next worker of the same machine.
"""

from __future__ import annotations

import itertools
import math
import os
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock, Timeout
from optuna.trial import TrialState

from benchmarks.search_journal import GRACE, open_journal
from benchmarks.search_report import FIGURES, Row, words
from benchmarks.search_space import Choices, Range, Space, decode, encode
from benchmarks.search_trial import RunTrial, check_same, trial_config, trial_folder

NAME = "search"  # Of the one study in a folder's journal.
POLL = 0.5  # Seconds between looks at trials that others run.
MAX_FAILURES = 3  # Trials in a row that end with an exception; then it is no longer the settings' fault.
MIN_IMPORTANCES = 20  # Trials from which on it is said what mattered.
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
}
PRUNERS: dict[str, Callable[[], optuna.pruners.BasePruner]] = {
    "none": optuna.pruners.NopPruner,
    "median": optuna.pruners.MedianPruner,
}


@dataclass
class Search:
    """A study and its folder."""

    folder: Path
    study: optuna.Study
    asked: dict[str, Any]  # What all its trials have in common.

    @property
    def lock(self) -> FileLock:
        """Held by the one who takes a trial or clears up."""
        return FileLock(self.folder / "claim.lock")

    def trial_lock(self, number: int) -> FileLock:
        """Held by the one who runs the trial."""
        return FileLock(trial_folder(self.folder, number) / "running.lock")

    def finished(self) -> list[optuna.trial.FrozenTrial]:
        """The trials that came to an end, pruned ones among them."""
        return self.study.get_trials(deepcopy=False, states=FINISHED)

    def importances(self) -> dict[str, float]:
        """How much each setting mattered, as shares of 1; {} while the trials are too few to tell."""
        enough = len(self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) >= MIN_IMPORTANCES
        return optuna.importance.get_param_importances(self.study) if enough else {}

    def rows(self) -> list[Row]:
        """All trials."""
        with self.lock:
            bury_the_dead(self)
        return [
            Row(
                trial=trial.number,
                state=trial.state.name.lower(),
                error=trial.value if trial.state in FINISHED else None,
                values={name: decode(value) for name, value in trial.params.items()},
                details=trial.user_attrs,
            )
            for trial in self.study.get_trials()
        ]


def open_search(folder: Path, asked: dict[str, Any] | None = None, grace_period: int = GRACE) -> Search:
    """The study in a folder; it is made where there is none yet.

    Args:
        folder: the study's folder, shared by all workers.
        asked: what its trials have in common. None: the study must be there.
        grace_period: see `open_journal`.

    Raises:
        FileNotFoundError: there is no study, and `asked` is None.
        ValueError: the study was begun with something else; the message names what.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = folder / "journal.log"
    if asked is None and not journal.exists():
        raise FileNotFoundError(f"there is no study in {folder}")
    if (folder / "asked.json").exists():
        raise ValueError(f"{folder} holds a study of --engine ray: go on with that, or begin another with --study")
    folder.mkdir(parents=True, exist_ok=True)
    storage = open_journal(journal, grace_period)
    if asked is None:
        study = optuna.load_study(study_name=NAME, storage=storage)
    else:
        with FileLock(folder / "claim.lock"):
            study = optuna.create_study(study_name=NAME, storage=storage, direction="minimize", load_if_exists=True)
            if "asked" not in study.user_attrs:
                study.set_user_attr("asked", asked)
    begun = study.user_attrs.get("asked", {})
    check_same(folder, begun, asked)
    return Search(folder, study, begun)


def work(
    search: Search,
    num_trials: int,
    space: Space,
    run_trial: RunTrial,
    sampler: str = "random",
    pruner: str = "none",
    command: str | None = None,
    goes_on: Callable[[], bool] = lambda: True,
) -> None:
    """Run trials until the study has so many finished ones.

    Args:
        search: the study.
        num_trials: finished trials, of all workers together.
        space: what the trials draw from.
        run_trial: `agents.training.run_trial`.
        sampler: one of `SAMPLERS`.
        pruner: one of `PRUNERS`.
        command: how all this was asked for; it stands in each trial's result.json.
        goes_on: asked before each trial.

    Raises:
        Exception: what the trial raised, after `MAX_FAILURES` of them in a row.
    """
    search.study.pruner = PRUNERS[pruner]()
    num_failures = 0
    while goes_on() and (claim := claim_trial(search, num_trials)):
        trial, lock = claim
        # A sampler for each trial: what trial 7 draws at random depends on its number and not on who runs it.
        seed = np.random.SeedSequence([search.asked["seed"], trial.number]).generate_state(1)[0]
        search.study.sampler = SAMPLERS[sampler](int(seed))
        values = {name: draw(trial, name, entry) for name, entry in space.items()}
        folder = trial_folder(search.folder, trial.number)
        config = trial_config({**search.asked, "folder": str(folder), "command": command}, space, values)
        try:
            outcome, error = run(trial, config, run_trial)
        finally:
            lock.release()
        print(f"Trial {trial.number}: {outcome} ({words(values)})", flush=True)
        num_failures = num_failures + 1 if error else 0
        if error and num_failures == MAX_FAILURES:
            raise error


def claim_trial(search: Search, num_trials: int) -> tuple[optuna.Trial, FileLock] | None:
    """A new trial and the lock that says that this process runs it; None when the study has enough finished ones.

    Those that run on this machine count among `num_trials` as long as their processes live; while they might be enough, it waits.
    Those of other machines count when they are finished: whether they live can't be known here.
    """
    while True:
        with search.lock:
            bury_the_dead(search)
            missing = num_trials - len(search.finished())
            if missing <= 0:
                return None
            if len(running_here(search)) < missing:
                trial = search.study.ask()
                trial_folder(search.folder, trial.number).mkdir(parents=True, exist_ok=True)
                lock = search.trial_lock(trial.number)
                lock.acquire()
                trial.set_user_attr("host", socket.gethostname())
                trial.set_user_attr("pid", os.getpid())
                return trial, lock
        time.sleep(POLL)


def running_here(search: Search) -> list[int]:
    """The numbers of this machine's trials under way."""
    running = search.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return [trial.number for trial in running if trial.user_attrs.get("host") == socket.gethostname()]


def bury_the_dead(search: Search) -> None:
    """Tell this machine's trials as failed whose process is gone; `search.lock` must be held."""
    for number in running_here(search):
        lock = search.trial_lock(number)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            continue  # It is being run.
        search.study.tell(number, state=TrialState.FAIL)
        lock.release()


def run(trial: optuna.Trial, config: dict[str, Any], run_trial: RunTrial) -> tuple[str, Exception | None]:
    """Run a trial and tell the study what came of it; returns that in words, and what the trial raised."""
    evaluations = itertools.count(1)

    def report(num_timesteps: int, validation_error: float) -> None:
        # Optuna compares trials at equal steps: the first evaluation with the first, however many steps of the environment.
        trial.report(validation_error, next(evaluations))
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        result = run_trial(config, report=report)
        if not math.isfinite(result["validation_error"]):
            raise ValueError(f"the validation error is {result['validation_error']}")
    except optuna.TrialPruned:
        pruned = trial.study.tell(trial, state=TrialState.PRUNED)
        return f"stopped early at {pruned.value:.2f} %", None
    except Exception as error:
        Path(config["folder"], "exception.txt").write_text(traceback.format_exc())
        trial.set_user_attr("exception", f"{type(error).__name__}: {error}")
        trial.study.tell(trial, state=TrialState.FAIL)
        return f"failed with {type(error).__name__}: {error}", error
    for name in FIGURES:
        trial.set_user_attr(name, result[name])
    trial.study.tell(trial, result["validation_error"])
    return f"{result['validation_error']:.2f} %", None


def draw(trial: optuna.Trial, name: str, entry: Range | Choices) -> Any:
    """A value for a setting."""
    if isinstance(entry, Choices):
        return decode(trial.suggest_categorical(name, [encode(choice) for choice in entry.choices]))
    if entry.is_whole:
        return trial.suggest_int(name, int(entry.low), int(entry.high), log=entry.log)
    return trial.suggest_float(name, entry.low, entry.high, log=entry.log)
