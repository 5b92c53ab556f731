"""Search for hyperparameters: the paper's random search over learning rate, location variance and the rest, on Optuna.

python benchmarks/search.py --env GlimpseMNIST-v0 --trials 40 --minutes 1 --workers 2
python benchmarks/search.py --algo ppo --env GlimpseCatch-v0 --sampler tpe --pruner median -n 1000000
python benchmarks/search.py --env GlimpseMNIST-v0 --show                 # the best so far
python benchmarks/search.py --env GlimpseMNIST-v0 --trials 40 --engine ray --workers 0

The same command again, here or on another machine that shares the study's folder, joins the study. What counts is the best error
on validation; the test split is never touched. docs/search.md has the rest.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(os.getcwd())  # What --imports names.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # A script finds only what lies beside it.

from benchmarks.processes import ONE_THREAD, ended_by_signals
from benchmarks.search_report import Row, report
from benchmarks.search_space import Space, read_space
from benchmarks.search_trial import ENV_PREFIX, import_trial
from ram_envs.pairs import parse_pairs

SPACES = Path(__file__).resolve().parents[1] / "hyperparams" / "search.yml"
EXTRAS = {"optuna": "ram-envs[search]", "filelock": "ram-envs[search]", "ray": "ram-envs[ray]"}
DEATHS = 3  # So many workers, times --workers, may be killed with no trial finished between them.


def main(arguments: list[str] | None = None) -> list[Row]:
    """Run the command line; returns the study's trials."""
    options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    engine = import_engine(options.engine)
    if options.show:
        search = engine.open_search(options.study)
    else:
        space = read_space(options.space, options.algo, options.env, fixed=given(options))
        search = engine.open_search(options.study, describe(options, space))
        rest = {"sampler": options.sampler, "pruner": options.pruner, "command": options.command}
        if options.engine == "ray":
            engine.run(search, options.trials, space, options.imports, max_concurrent=options.workers or None, **rest)
        elif options.workers and not options.worker_of:
            supervise(options, lambda: len(search.finished()))
        else:
            run_trial = import_trial(options.algo, options.env, options.env_kwargs, options.imports)
            engine.work(search, options.trials, space, run_trial, goes_on=lambda: has_supervisor(options), **rest)
    rows: list[Row] = search.rows()
    if not options.worker_of:
        title = f"{search.asked['algo']} on {search.asked['env']}"
        report(options.study, search.asked["env"], rows, title, search.importances())
    return rows


def given(options: argparse.Namespace) -> set[str]:
    """What the command line fixes and so is not searched, by its names in the space."""
    names = {*options.params, *(f"{ENV_PREFIX}{name}" for name in options.env_kwargs)}
    return names | ({"n_envs"} if options.n_envs else set())


def describe(options: argparse.Namespace, space: Space) -> dict[str, Any]:
    """What all trials of the study have in common."""
    how = ("n_timesteps", "minutes", "clock", "n_envs", "params", "env_kwargs", "evaluations", "device")
    names = ("algo", "env", "preset", "seed", *how)
    return {**{name: getattr(options, name) for name in names}, "space": {k: dataclasses.asdict(v) for k, v in space.items()}}


def import_engine(name: str) -> Any:
    """The module that runs the trials.

    Raises:
        ImportError: a package is missing; the message names the `pip install`.
    """
    try:
        return importlib.import_module({"optuna": "benchmarks.search_study", "ray": "benchmarks.search_ray"}[name])
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        raise ImportError(f"--engine {name} needs the package {package}: pip install '{EXTRAS[package]}'") from error


def has_supervisor(options: argparse.Namespace) -> bool:
    """Whether the process that started this one, if any did, still lives."""
    return options.worker_of in (None, os.getppid())


def supervise(options: argparse.Namespace, num_finished: Callable[[], int]) -> None:
    """Start the workers, processes of this same script, and others for those that are killed.

    Raises:
        RuntimeError: the workers came to an end, and the study has not enough finished trials.
    """

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, str(Path(__file__).resolve()), *options.arguments, f"--worker-of={os.getpid()}"]
        return subprocess.Popen(command, env={**os.environ, **ONE_THREAD}, start_new_session=True)

    num_before, num_killed = num_finished(), 0
    workers = [start() for _ in range(min(options.workers, options.trials - num_before))]
    try:
        while workers:
            time.sleep(0.2)
            for worker in [worker for worker in workers if worker.poll() is not None]:
                workers.remove(worker)
                if worker.returncode >= 0:  # It is done, or has told its error.
                    continue
                num_now = num_finished()
                num_killed = num_killed + 1 if num_now == num_before else 1
                num_before = num_now
                print(f"A worker was killed (signal {-worker.returncode}), its trial is lost.", flush=True)
                if num_killed <= DEATHS * options.workers:
                    workers.append(start())
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()
    if (num_now := num_finished()) < options.trials:
        raise RuntimeError(f"the workers ended after {num_now} of {options.trials} trials, see above")


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--algo", default="ram", help="the algorithm, as for train_agent.py (default: ram)")
    add("--env", default="GlimpseMNIST-v0", help="a registered environment's id")
    add("--preset", help="settings to search around, as for train_agent.py (default: the everyday ones)")
    add("--trials", type=int, default=20, help="finished trials in the study, all in all (default: 20)")
    add("--workers", type=int, default=1, help="processes on this machine, one thread each; 0: this process itself (default: 1)")
    add("--study", type=Path, help="the study's folder (default: logs/search/ALGO/ENV, or ENV_PRESET)")
    add("--show", action="store_true", help="only show what the study has found so far")
    add("--sampler", default="random", choices=("random", "tpe"), help="random (default), as in the paper, or tpe, which learns")
    add(
        "--pruner",
        default="none",
        choices=("none", "median"),
        help="median: end trials early that do worse than half of the others",
    )
    add("--space", type=Path, default=SPACES, help="a YAML file with the search space (default: hyperparams/search.yml)")
    add("--engine", default="optuna", choices=("optuna", "ray"), help="what runs the trials (default: optuna)")
    add("-n", "--n-timesteps", type=int, help="steps of each trial; default: the tuned number")
    add("--minutes", type=float, help="let each trial learn for so long instead (evaluations not counted)")
    add("--clock", default="wall", choices=("wall", "cpu"), help="what the minutes are counted by (default: wall)")
    add("--evaluations", type=int, default=12, help="evaluations of each trial on validation (default: 12)")
    add("--seed", type=int, default=0, help="seed of each trial and of the samples")
    add("--n-envs", type=int, help="environments side by side; default: the tuned number, or searched")
    add("--env-kwargs", nargs="+", default=[], metavar="NAME:VALUE", help="options of the environment to change")
    add("-params", "--params", nargs="+", default=[], metavar="NAME:VALUE", help="settings of the algorithm that are fixed")
    add("--imports", nargs="+", default=[], metavar="MODULE", help="modules to import first: they register what is your own")
    add("--device", default="auto", help="cpu, cuda or auto (default)")
    add("--worker-of", type=int, help=argparse.SUPPRESS)  # The process that supervises this one.
    options = parser.parse_args(arguments)
    for name, least in (("trials", 1), ("workers", 0), ("evaluations", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name} must be at least {least}, got {getattr(options, name)}")
    try:
        options.params, options.env_kwargs = parse_pairs(options.params), parse_pairs(options.env_kwargs)
    except ValueError as error:
        parser.error(str(error))
    options.arguments = [argument for argument in arguments if not argument.startswith("--worker-of=")]
    options.command = shlex.join(["python", "benchmarks/search.py", *options.arguments])
    options.study = options.study or Path("logs", "search", options.algo, "_".join(filter(None, (options.env, options.preset))))
    return options


if __name__ == "__main__":
    try:
        with ended_by_signals():  # So that the workers are stopped too.
            main()
    except KeyboardInterrupt:
        sys.exit("\nStopped. The same command goes on with the study.")
    except (ValueError, ImportError, FileNotFoundError, RuntimeError) as error:
        sys.exit(f"error: {error}")
