"""A hyperparameter search on Ray Tune: the same trials, placed by Ray on the machines of its cluster.

All machines share the study's folder. Each trial has a folder of its own there, with trial.json and, at its end, result.json:
these are the record. When the command is run again, what is missing is run.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter, SearchAlgorithm, Searcher
from ray.tune.search.optuna import OptunaSearch

from benchmarks.search_report import FIGURES, FINISHED, Row, words
from benchmarks.search_space import Choices, Range, Space, decode, encode
from benchmarks.search_trial import check_same, import_trial, trial_config, trial_folder

METRIC = "validation_error"
STARTUP = 5  # So many trials are looked at before one is stopped, as with Optuna's pruner.
PRUNERS: dict[str, Callable[[], TrialScheduler]] = {
    "none": FIFOScheduler,
    "median": lambda: MedianStoppingRule(time_attr="training_iteration", grace_period=1, min_samples_required=STARTUP),
}


@dataclass
class Search:
    """A study's folder."""

    folder: Path
    asked: dict[str, Any]  # What all its trials have in common.

    def rows(self) -> list[Row]:
        """All trials, in the order in which they began."""
        return sorted(map(_read_row, self.folder.glob("trial_*/trial.json")), key=lambda row: row.details["began"])

    def finished(self) -> list[Row]:
        """The trials that came to an end, pruned ones among them."""
        return [row for row in self.rows() if row.state in FINISHED]

    def importances(self) -> dict[str, float]:
        """Tune has none."""
        return {}


def open_search(folder: Path, asked: dict[str, Any] | None = None) -> Search:
    """The study in a folder; it is made where there is none yet.

    Args:
        folder: the study's folder, shared by all machines.
        asked: what its trials have in common. None: the study must be there.

    Raises:
        FileNotFoundError: there is no study, and `asked` is None.
        ValueError: the study was begun with something else; the message names what.
    """
    path = folder.resolve() / "asked.json"
    if (path.parent / "journal.log").exists():
        raise ValueError(f"{folder} holds a study of --engine optuna: go on with that, or begin another with --study")
    if asked is not None and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, asked)
    if not path.exists():
        raise FileNotFoundError(f"there is no study in {folder}")
    begun = json.loads(path.read_text())
    check_same(folder, begun, asked)
    return Search(path.parent, begun)


def run(
    search: Search,
    num_trials: int,
    space: Space,
    imports: Sequence[str] = (),
    sampler: str = "random",
    pruner: str = "none",
    command: str | None = None,
    max_concurrent: int | None = None,
) -> None:
    """Let Ray Tune run trials until the study has so many finished ones.

    Args:
        search: the study.
        num_trials: finished trials, all in all.
        space: what the trials draw from.
        imports: modules that each trial imports first.
        sampler: "random", Tune's own, or "tpe", Optuna's.
        pruner: one of `PRUNERS`.
        command: how all this was asked for; it stands in each trial's result.json.
        max_concurrent: trials at a time; None: as many as the cluster has cores.

    Raises:
        RuntimeError: trials ended, and none of them was finished.
    """
    if not ray.is_initialized():
        paths = [str(Path(__file__).resolve().parents[1]), os.getcwd(), os.environ.get("PYTHONPATH", "")]
        ray.init(runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}})
    while (missing := num_trials - len(past := search.finished())) > 0:
        seed = int(np.random.SeedSequence([search.asked["seed"], len(search.rows())]).generate_state(1)[0])
        tuner = tune.Tuner(
            tune.with_resources(make_trainable(search, space, imports, command), resources(search.asked["device"])),
            param_space={name: domain(entry) for name, entry in space.items()},
            tune_config=tune.TuneConfig(
                metric=METRIC,
                mode="min",
                num_samples=missing,
                search_alg=make_sampler(sampler, seed, past, max_concurrent),
                scheduler=PRUNERS[pruner](),
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(storage_path=str(search.folder / "ray"), verbose=0),
        )
        results = list(tuner.fit())
        for result in results:
            note_outcome(search, result)
        if len(search.finished()) == len(past):
            raise RuntimeError(f"{len(results)} trials ended, and none was finished: {results[0].error}")


def make_sampler(name: str, seed: int, past: list[Row], max_concurrent: int | None) -> SearchAlgorithm | Searcher:
    """What draws the values; `past` is what it can learn from."""
    if name == "random":
        return BasicVariantGenerator(random_state=seed, max_concurrent=max_concurrent or 0)
    points = [{setting: encode(value) for setting, value in row.values.items()} for row in past]
    optuna = OptunaSearch(seed=seed, points_to_evaluate=points or None, evaluated_rewards=[row.error for row in past] or None)
    return ConcurrencyLimiter(optuna, max_concurrent) if max_concurrent else optuna


def resources(device: str) -> dict[str, float]:
    """What a trial takes."""
    return {"cpu": 1, "gpu": 1 if device.startswith("cuda") else 0}


def make_trainable(search: Search, space: Space, imports: Sequence[str], command: str | None) -> Callable[[dict[str, Any]], None]:
    """The function that Ray calls with the values drawn, perhaps on another machine."""

    def trial(drawn: dict[str, Any]) -> None:
        values = {name: decode(value) for name, value in drawn.items()}
        name = tune.get_context().get_trial_id()
        folder = trial_folder(search.folder, name)
        folder.mkdir(parents=True, exist_ok=True)
        began = {"values": values, "host": socket.gethostname(), "pid": os.getpid(), "began": time.time()}
        _write(folder / "trial.json", began)
        config = trial_config({**search.asked, "folder": str(folder), "command": command}, space, values)
        run_trial = import_trial(config["algo"], config["env"], config["env_kwargs"], imports)
        result = run_trial(config, report=lambda num_timesteps, error: tune.report({METRIC: error}))
        tune.report({METRIC: result[METRIC]})  # The last report is what the sampler learns from: the best evaluation.
        print(f"Trial {name}: {result[METRIC]:.2f} % ({words(values)})", flush=True)

    return trial


def note_outcome(search: Search, result: tune.Result) -> None:
    """Write down of a trial that left no result.json what Ray knows of it: an exception, or that it was stopped early."""
    folder = trial_folder(search.folder, Path(result.path).name)
    if (folder / "result.json").exists() or not (folder / "trial.json").exists():
        return
    outcome: dict[str, Any] = {"state": "pruned", "error": (result.metrics or {}).get(METRIC)}
    if result.error:
        outcome = {"state": "fail", "exception": f"{type(result.error).__name__}: {result.error}"}
    _write(folder / "trial.json", json.loads((folder / "trial.json").read_text()) | outcome)


def domain(entry: Range | Choices) -> Any:
    """Ray Tune's form of an entry of the space."""
    if isinstance(entry, Choices):
        return tune.choice([encode(choice) for choice in entry.choices])
    if entry.is_whole:  # Tune leaves the upper bound out.
        return (tune.lograndint if entry.log else tune.randint)(int(entry.low), int(entry.high) + 1)
    return (tune.loguniform if entry.log else tune.uniform)(entry.low, entry.high)


def _read_row(path: Path) -> Row:
    noted, result = json.loads(path.read_text()), path.with_name("result.json")
    if result.exists():
        measured = json.loads(result.read_text())
        noted |= {name: measured[name] for name in FIGURES} | {"state": "complete", "error": measured[METRIC]}
    name = path.parent.name.removeprefix("trial_")
    return Row(name, noted.pop("state", "running"), noted.pop("error", None), noted.pop("values"), noted)


def _write(path: Path, values: Mapping[str, Any]) -> None:
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(values, indent=2) + "\n")
    draft.replace(path)
