"""A hyperparameter search as an Optuna study in a folder, and the worker that runs its trials one after another.

Any number of workers on any number of machines share the folder. A worker that is killed loses the trial it was at, nothing else:

- What is finished stands in Optuna's journal, line by line.
- A worker holds a file lock while it runs a trial; the operating system releases it when the worker is gone, however it ended.
  A trial that is "running" without its lock is marked as failed by the next worker of the same machine, and another is run.
  (Optuna's own heartbeat takes a database.)

The space that trials draw from is a YAML file with an entry for each hyperparameter:

ram:
  learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true, schedule: lin}  # a number, here one that falls to 0 while training
  n_epochs: {low: 1, high: 8}                                          # a whole number: both bounds are whole
  policy_kwargs.core: {choices: [relu, lstm]}                          # one entry of a nested hyperparameter
  env_kwargs.num_glimpses: {choices: [4, 7]}                           # an option of the environment
"""

from __future__ import annotations

import itertools
import json
import math
import os
import socket
import time
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import yaml
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from ram_envs.agents.training.checkpoints import write_text
from ram_envs.agents.training.config import RunConfig

SCHEDULES = ("lin",)  # "lin_0.001": from 0.001 to 0, as in rl_zoo3.
JSON = "json:"  # Optuna stores numbers, truths and strings; lists and mappings are stored as JSON behind this prefix.

Space = dict[str, dict[str, Any]]  # The entries as in the file, by name.
NAME = "search"  # Of the one study in a folder's journal.
GRACE = 10  # Seconds after which the journal's lock is taken from a worker that was killed while it held it, for milliseconds.
POLL = 0.5  # Seconds between looks at trials that others run.
MAX_FAILURES = 3  # Trials in a row that end with an exception; then the hyperparameters are no longer the reason.
FIGURES = ("n_timesteps", "train_seconds", "train_cpu_seconds")  # Of result.json, kept with the trial.
SAMPLERS = {"random": optuna.samplers.RandomSampler, "tpe": optuna.samplers.TPESampler}
PRUNERS = {"none": optuna.pruners.NopPruner, "median": optuna.pruners.MedianPruner}


@dataclass(frozen=True)
class Search:
    """A study and its folder."""

    folder: Path
    study: optuna.Study
    asked: dict[str, Any]  # What all its trials have in common: arguments of `RunConfig`, and the "space".

    @property
    def lock(self) -> FileLock:
        """Held by a worker that takes a trial or clears up."""
        return FileLock(self.folder / "claim.lock")

    def trial_folder(self, number: int) -> Path:
        """The folder of a trial's run."""
        return self.folder / f"trial_{number}"

    def trial_lock(self, number: int) -> FileLock:
        """Held by the worker that runs the trial."""
        return FileLock(self.trial_folder(number) / "running.lock")

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """All trials, or those in some states."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def num_finished(self) -> int:
        """The number of trials that ended with an error on validation, those stopped early among them."""
        return len(self.trials(TrialState.COMPLETE, TrialState.PRUNED))


class JournalLock(JournalFileOpenLock):
    """Optuna's lock on a journal that, once acquired, ends with a whole line.

    A worker that is killed while it writes may leave half a line, which would make the journal unreadable after the next one.
    """

    def __init__(self, path: Path, grace_period: int) -> None:
        super().__init__(str(path), grace_period)
        self.path = path

    def acquire(self) -> bool:
        """Wait for the lock, then cut off half a line."""
        super().acquire()
        with self.path.open("rb+") as file:
            if file.seek(0, os.SEEK_END) and (file.seek(-1, os.SEEK_END), file.read())[1] != b"\n":
                file.truncate(self.path.read_bytes().rfind(b"\n") + 1)
        return True


def open_search(folder: Path, asked: dict[str, Any] | None = None, grace_period: int = GRACE) -> Search:
    """The study in a folder that all workers share; it is made where there is none yet and what is `asked` is given.

    Raises:
        FileNotFoundError: there is no study, and `asked` is None.
        ValueError: the study was begun with something else; the message names what.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = folder / "journal.log"
    if asked is None and not journal.exists():
        raise FileNotFoundError(f"there is no study in {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(journal), JournalLock(journal, grace_period)))
    with FileLock(folder / "claim.lock"):
        study = optuna.create_study(study_name=NAME, storage=storage, direction="minimize", load_if_exists=True)
        if asked is not None and not study.user_attrs:
            study.set_user_attr("asked", asked)
    begun = study.user_attrs.get("asked", {})
    for name, value in json.loads(json.dumps(asked or {})).items():
        if value != begun.get(name):
            begun_with = f"the study in {folder} was begun with {name}={begun.get(name)!r}, got {value!r}"
            raise ValueError(f"{begun_with}: join it with the same, or begin another with --study")
    return Search(folder, study, begun)


def work(
    search: Search,
    num_trials: int,
    run: Callable[..., dict[str, Any]],
    sampler: str = "random",
    pruner: str = "none",
    command: str | None = None,
    continues: Callable[[], bool] = lambda: True,
) -> None:
    """Run trials until the study has a number of finished ones, those of all workers together.

    Args:
        search: the study.
        num_trials: that number.
        run: `ram_envs.agents.training.run.run`, or what stands in for it.
        sampler: one of `SAMPLERS`.
        pruner: one of `PRUNERS`.
        command: the command line that asked for all this; it stands in each trial's result.json.
        continues: asked before each trial.

    Raises:
        Exception: what the trial raised, after `MAX_FAILURES` of them in a row.
    """
    search.study.pruner = PRUNERS[pruner]()
    num_failures = 0
    while continues() and (claim := claim_trial(search, num_trials, sampler)):
        trial, lock = claim
        values = read_values(trial.params)
        config = make_config(search, trial.number, values, command)
        try:
            outcome, error = run_trial(trial, config, run)
        finally:
            lock.release()
        print(f"Trial {trial.number}: {outcome} ({in_words(values)})", flush=True)
        num_failures = num_failures + 1 if error else 0
        if error and num_failures == MAX_FAILURES:
            raise error


def claim_trial(
    search: Search, num_trials: int, sampler: str = "random", sleep: Callable[[float], None] = time.sleep
) -> tuple[optuna.Trial, FileLock] | None:
    """A new trial and the lock that says that this process runs it; None when the study has enough finished ones.

    Those that run on this machine count among `num_trials` as long as their processes live; while they might be enough, it waits.
    Those of other machines count when they are finished: whether they live can't be known here.
    """
    while True:
        with search.lock:
            num_running = count_running(search)
            missing = num_trials - search.num_finished()
            if missing <= 0:
                return None
            if num_running < missing:
                # A sampler for each trial: what trial 7 draws at random depends on its number and not on who runs it.
                seed = np.random.SeedSequence([search.asked["seed"], len(search.trials())]).generate_state(1)[0]
                search.study.sampler = SAMPLERS[sampler](seed=int(seed))
                trial = search.study.ask(distributions(search.asked["space"]))
                search.trial_folder(trial.number).mkdir(parents=True, exist_ok=True)
                lock = search.trial_lock(trial.number)
                lock.acquire()
                trial.set_user_attr("host", socket.gethostname())
                trial.set_user_attr("pid", os.getpid())
                return trial, lock
        sleep(POLL)


def count_running(search: Search) -> int:
    """The number of this machine's trials under way; marks those as failed whose process is gone. `search.lock` must be held."""
    num_running = 0
    for trial in search.trials(TrialState.RUNNING):
        if trial.user_attrs.get("host") == socket.gethostname():
            try:
                with search.trial_lock(trial.number).acquire(blocking=False):
                    search.study.tell(trial.number, state=TrialState.FAIL)
            except Timeout:
                num_running += 1
    return num_running


def make_config(search: Search, number: int, values: dict[str, Any], command: str | None = None) -> RunConfig:
    """What is asked of a trial's run: the values that were drawn, no test, no figures."""
    asked = {name: value for name, value in search.asked.items() if name != "space"}
    asked["hyperparams"] = {**asked["hyperparams"], **with_schedules(search.asked["space"], values)}
    return RunConfig(**asked, folder=search.trial_folder(number), test=False, figures=False, command=command)


def run_trial(trial: optuna.Trial, config: RunConfig, run: Callable[..., dict[str, Any]]) -> tuple[str, Exception | None]:
    """Run a trial and tell the study what came of it; returns that in words, and what the trial raised."""
    evaluations = itertools.count(1)

    def report(num_timesteps: int, validation_error: float) -> None:
        # Optuna compares trials at equal steps: the first evaluation with the first, however many steps of the environment.
        trial.report(validation_error, next(evaluations))
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        result = run(config, report=report)
        if not math.isfinite(result["validation_error"]):
            raise ValueError(f"the validation error is {result['validation_error']}")
    except optuna.TrialPruned:
        pruned = trial.study.tell(trial, state=TrialState.PRUNED)
        return f"stopped early at {pruned.value:.2f} %", None
    except Exception as error:
        Path(config.folder).mkdir(parents=True, exist_ok=True)
        write_text(Path(config.folder, "exception.txt"), traceback.format_exc())
        trial.set_user_attr("exception", f"{type(error).__name__}: {error}")
        trial.study.tell(trial, state=TrialState.FAIL)
        return f"failed with {type(error).__name__}: {error}", error
    for name in FIGURES:
        trial.set_user_attr(name, result[name])
    trial.study.tell(trial, result["validation_error"])
    return f"{result['validation_error']:.2f} %", None


def in_words(value: Any) -> str:
    """For the eye: 0.00123, or "learning_rate 0.00123, n_envs 64" of a dict."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {in_words(entry)}" for name, entry in value.items())
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def read_space(path: Path, algo: str, env_id: str, fixed: Collection[str] = ()) -> Space:
    """The space of an algorithm out of a YAML file: that under "algo/env_id" where there is one, else that under "algo".

    Fixed are the names of entries that are not searched.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has no space for the algorithm, or an entry is bad; the message names it and what is allowed.
    """
    spaces = yaml.safe_load(path.read_text("utf-8"))
    if not isinstance(spaces, dict) or not all(isinstance(space, dict) for space in spaces.values()):
        raise ValueError(f"{path} must map each algorithm to a space, and a space names to entries, got {spaces!r}")
    name = next((name for name in (f"{algo}/{env_id}", algo) if name in spaces), None)
    if name is None:
        raise ValueError(f"{path} has no space for {algo!r}, only for {sorted(spaces)}: write one and name it with --space")
    space = {str(entry): about for entry, about in spaces[name].items() if entry not in fixed}
    if not space:
        raise ValueError(f"{path}, {name}: nothing is left to search, all its hyperparameters are given")
    try:
        distributions(space)
    except ValueError as error:
        raise ValueError(f"{path}, {name}: {error}") from None
    return space


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """What Optuna draws from, by name.

    Raises:
        ValueError: an entry is bad; the message names it and what is allowed.
    """
    found = {}
    for name, entry in space.items():
        try:
            found[name] = _distribution(entry)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return found


def read_values(params: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a trial's parameters as they stand in the space."""
    is_json = {name: isinstance(value, str) and value.startswith(JSON) for name, value in params.items()}
    return {name: json.loads(value.removeprefix(JSON)) if is_json[name] else value for name, value in params.items()}


def with_schedules(space: Space, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as hyperparameters: a number with a schedule is "lin_0.001"."""
    return {name: f"{space[name]['schedule']}_{value}" if "schedule" in space[name] else value for name, value in values.items()}


def _distribution(entry: Any) -> BaseDistribution:
    """Optuna itself sees to the order of low and high, and to what a logarithm wants of low."""
    match entry:
        case {"choices": [_, *_] as choices, **others} if _fits(others, choices if others else []):
            return CategoricalDistribution(
                [f"{JSON}{json.dumps(one)}" if isinstance(one, (list, dict)) else one for one in choices]
            )
        case {"low": low, "high": high, **others} if _fits(others, [low, high], log=(True, False)):
            whole = isinstance(low, int) and isinstance(high, int)
            return (IntDistribution if whole else FloatDistribution)(low, high, log=bool(others.get("log")))
    raise ValueError(
        "must be {low, high}, two numbers (YAML wants the point in 1.0e-4), log: true or false beside them, or {choices}, a list "
        f"with something in it, beside either schedule, one of {SCHEDULES}, for numbers alone, got {entry!r}"
    )


def _fits(others: Mapping[Any, Any], numbers: Collection[Any], **allowed: Collection[Any]) -> bool:
    """Whether an entry's other keys are among those allowed and "schedule", with values allowed, and the numbers are numbers."""
    allowed["schedule"] = SCHEDULES
    known = all(key in allowed and value in allowed[key] for key, value in others.items())
    return known and all(type(number) in (int, float) and math.isfinite(number) for number in numbers)
