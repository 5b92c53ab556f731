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
import csv
import io
import json
import multiprocessing
import os
import shlex
import signal
import sys
from collections import Counter
from dataclasses import fields
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import gymnasium as gym
import yaml
from rich.console import Console
from rich.table import Table

if not __package__:  # A script finds only what lies beside it.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

try:
    import optuna
    from optuna.trial import FrozenTrial, TrialState

    from ram_envs.benchmarks import search_study as studies
except ModuleNotFoundError as error:
    raise ImportError(f"benchmarks/search.py needs the package {error.name}: pip install 'ram-envs[search]'") from error

from ram_envs import parse_pairs
from ram_envs.agents.training.callbacks import CLOCKS
from ram_envs.agents.training.config import RunConfig, read_args, read_hyperparams
from ram_envs.agents.training.registry import get_algorithm
from ram_envs.agents.training.run import run
from ram_envs.agents.training.settings import HYPERPARAMS
from ram_envs.benchmarks.jobs import ONE_THREAD, positive, run_script
from ram_envs.benchmarks.results import add_results
from ram_envs.benchmarks.search_study import read_space, read_values
from train_agent import import_modules

DEATHS = 3  # This number of workers, times --workers, may be killed with no trial finished between them.
NUM_SHOWN = 10
FILE_WIDTH = 150  # Of the table where no terminal says otherwise.
MIN_IMPORTANCES = 20  # Complete trials from which on it is said what mattered.


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    if options.show:
        search = studies.open_search(options.study)
    else:
        import_modules(options.imports)
        search = studies.open_search(options.study, ask(options))
        if options.engine == "ray":
            work_on_ray(search, options)
        elif options.workers:
            work_in_processes(search, options)
        else:
            work_here(options)
    report(search)
    if options.results:
        add_results(options.results, rows(search))


def ask(options: argparse.Namespace) -> dict[str, Any]:
    """What all trials of the study have in common; raises ValueError or ImportError where that can't be run."""
    try:
        gym.spec(options.env)
    except gym.error.Error as error:
        raise ValueError(f"env must be a registered id, got {options.env!r}: {error}") from error
    asked = {field.name: getattr(options, field.name) for field in fields(RunConfig) if hasattr(options, field.name)}
    read_hyperparams(RunConfig(**asked, folder=options.study))
    get_algorithm(options.algo).resolve()
    fixed = [*options.hyperparams, *(f"env_kwargs.{name}" for name in options.env_kwargs), *["n_envs"] * bool(options.n_envs)]
    return {**asked, "space": read_space(options.space, options.algo, options.env, fixed)}


def work_here(options: argparse.Namespace) -> None:
    """Run trials in this process, for as long as the process that started it, if one did, lives."""
    import_modules(options.imports)
    parent = multiprocessing.parent_process()
    how = {"sampler": options.sampler, "pruner": options.pruner, "command": options.command_line}
    search = studies.open_search(options.study)
    studies.work(search, options.trials, run, **how, continues=lambda: parent is None or parent.is_alive())


def work_in_process(options: argparse.Namespace) -> None:
    """`work_here` in a process of its own, which Ctrl-C reaches through its parent alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        work_here(options)
    except Exception as error:
        sys.exit(f"A worker ended with {type(error).__name__}: {error}")


def work_in_processes(search: studies.Search, options: argparse.Namespace) -> None:
    """Run workers on this machine, and others in place of those that are killed."""
    os.environ.update(ONE_THREAD)
    methods = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload(["ram_envs.agents.training.run"])  # So that torch is imported once.
    num_finished, num_killed = search.num_finished(), 0
    num_missing, workers = min(options.workers, options.trials - num_finished), list[BaseProcess]()
    try:
        while workers or num_missing > 0:
            for _ in range(num_missing):
                workers.append(context.Process(target=work_in_process, args=(options,)))
                workers[-1].start()
            num_missing = 0
            wait([worker.sentinel for worker in workers])
            for worker in [worker for worker in workers if not worker.is_alive()]:
                workers.remove(worker)
                killed_by = -(worker.exitcode or 0)
                if killed_by <= 0:  # It is done, or has told its error.
                    continue
                before, num_finished = num_finished, search.num_finished()
                num_killed = num_killed + 1 if num_finished == before else 1
                num_missing += num_killed <= DEATHS * options.workers
                print(f"A worker was killed (signal {killed_by}), its trial is lost.", flush=True)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()
    if search.num_finished() < options.trials:
        raise RuntimeError(f"the workers ended after {search.num_finished()} of {options.trials} trials, see above")


def work_on_ray(search: studies.Search, options: argparse.Namespace) -> None:
    """Run workers on the machines of a Ray cluster, which share the study's folder; Ray starts killed ones again."""
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ImportError("--engine ray needs the package ray: pip install 'ram-envs[ray]'") from error
    if not ray.is_initialized():
        paths = [str(HYPERPARAMS.parent), os.getcwd(), os.environ.get("PYTHONPATH", "")]
        ray.init(runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, paths)), **ONE_THREAD}})
    num_workers = min(options.workers or int(ray.cluster_resources()["CPU"]), options.trials - search.num_finished())
    num_gpus = 1 if options.device.startswith("cuda") else 0
    worker = ray.remote(num_cpus=1, num_gpus=num_gpus, max_retries=DEATHS)(work_here)
    there = argparse.Namespace(**{**vars(options), "study": options.study.resolve()})
    ray.get([worker.remote(there) for _ in range(num_workers)])


def report(search: studies.Search) -> None:
    """Print the best trials and what mattered; write trials.csv, and best.yml where a trial is complete."""
    with search.lock:
        studies.count_running(search)
    best = sorted(search.trials(TrialState.COMPLETE), key=lambda trial: trial.value or 0)
    counts = Counter(trial.state.name.lower() for trial in search.trials())
    counted = ", ".join(f"{counts[state]} {state}" for state in sorted(counts)) or "no trials"
    names = list(search.asked["space"])
    print(f"{search.asked['algo']} on {search.asked['env']}: {counted}")
    table = Table()
    for name in ("trial", "error, %", *names):
        table.add_column(name.rpartition(".")[2].replace("_", "_\n"), no_wrap=True)
    for trial in best[:NUM_SHOWN]:
        values = read_values(trial.params)
        table.add_row(str(trial.number), f"{trial.value:.2f}", *(studies.in_words(values[name]) for name in names))
    Console(width=None if sys.stdout.isatty() else FILE_WIDTH).print(table)
    if len(best) >= MIN_IMPORTANCES:
        importances = optuna.importance.get_param_importances(search.study)
        print(f"What mattered, as shares (Optuna's importances): {studies.in_words(importances)}")
    write_trials(search, search.folder / "trials.csv")
    if best:
        write_best(search, best[0], search.folder / "best.yml")


def write_trials(search: studies.Search, path: Path) -> None:
    """Write every trial: its state, error and values, the machine, the exception where it failed, and some figures."""
    names, text = [*search.asked["space"], "host", "exception", *studies.FIGURES], io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", "validation_error", *names])
    for trial in search.trials():
        facts = read_values(trial.params) | trial.user_attrs
        writer.writerow([trial.number, trial.state.name.lower(), trial.value, *(facts.get(name) for name in names)])
    replace(path, text.getvalue())


def rows(search: studies.Search) -> list[dict[str, Any]]:
    """Every finished trial as a row of a table of results: what it was given, what came of it, and where it ran."""
    asked, found = search.asked, []
    for trial in search.trials(TrialState.COMPLETE, TrialState.PRUNED):
        run_of = read_args(search.trial_folder(trial.number))
        found.append(
            {name: asked[name] for name in ("env", "algo", "preset", "seed")}
            | {"run": "_".join(filter(None, (asked["algo"], asked["preset"], f"seed{asked['seed']}_trial{trial.number}")))}
            | {"state": trial.state.name.lower(), "validation_error": trial.value, "hyperparams": read_values(trial.params)}
            | {name: trial.user_attrs.get(name) for name in studies.FIGURES}
            | {"command": run_of["config"]["command"], "commit": run_of["commit"], "machine": ", then ".join(run_of["machines"])}
        )
    return found


def write_best(search: studies.Search, trial: FrozenTrial, path: Path) -> None:
    """Write all hyperparameters of a trial in rl_zoo3's form."""
    result = json.loads((search.trial_folder(trial.number) / "result.json").read_text("utf-8"))
    hyperparams = result["hyperparams"] | ({"env_kwargs": result["env_kwargs"]} if result["env_kwargs"] else {})
    error = f"validation error {trial.value:.2f} % after {result['n_timesteps']} steps"
    origin = f"# {result['algo']}: trial {trial.number}, {error}, the best of\n# {result['command']}\n"
    replace(path, origin + yaml.safe_dump({result["env"]: hyperparams}, sort_keys=False))


def replace(path: Path, text: str) -> None:
    """Write a file, which others, on several machines, may write at the same time."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, "utf-8")
    draft.replace(path)
    print(path)


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--algo", default="ram", help="the algorithm, as for train_agent.py (default: ram)")
    add("--env", default="GlimpseMNIST-v0", help="a registered environment's id")
    add("--preset", help="hyperparameters to search around, as for train_agent.py (default: the everyday ones)")
    add("--trials", type=positive(int), default=20, help="finished trials in the study, all in all (default: 20)")
    add("--workers", type=int, default=1, help="processes on this machine, one thread each; 0: this process itself (default: 1)")
    add("--study", type=Path, help="the study's folder (default: logs/search/ALGO/ENV, or ENV_PRESET)")
    add("--results", type=Path, help="a table to put every trial into, such as results/search.jsonl")
    add("--show", action="store_true", help="only show what the study has found so far")
    add("--sampler", default="random", choices=studies.SAMPLERS, help="random (default), as in the paper, or tpe, which learns")
    pruner = "median: end trials early that do worse than half of the others"
    add("--pruner", default="none", choices=studies.PRUNERS, help=pruner)
    add("--space", type=Path, default=HYPERPARAMS / "search.yml", help="a YAML file (default: hyperparams/search.yml)")
    add("--engine", default="optuna", choices=("optuna", "ray"), help="where workers run: here (default) or on a Ray cluster")
    add("-n", "--n-timesteps", type=int, help="steps of each trial; default: the tuned number")
    add("--minutes", type=float, help="the time for each trial to learn instead (evaluations not counted)")
    add("--clock", default="wall", choices=CLOCKS, help="what counts the minutes (default: wall)")
    add("--evaluations", type=int, default=12, help="evaluations of each trial on validation (default: 12)")
    add("--seed", type=int, default=0, help="seed of each trial and of the samples")
    add("--n-envs", type=int, help="environments side by side; default: the tuned number, or searched")
    add("--env-kwargs", nargs="+", default=[], metavar="NAME:VALUE", help="options of the environment to change")
    add("-params", "--hyperparams", nargs="+", default=[], metavar="NAME:VALUE", help="hyperparameters that are fixed")
    add("--imports", nargs="+", default=[], metavar="MODULE", help="modules to import first: they register what is your own")
    add("--device", default="auto", help="cpu, cuda or auto (default)")
    options = parser.parse_args(arguments)
    if options.workers < 0:
        parser.error(f"--workers must be at least 0, got {options.workers}")
    options.hyperparams, options.env_kwargs = parse_pairs(options.hyperparams), parse_pairs(options.env_kwargs)
    options.command_line = shlex.join(["python", "benchmarks/search.py", *arguments])
    options.study = options.study or Path("logs", "search", options.algo, "_".join(filter(None, (options.env, options.preset))))
    return options


if __name__ == "__main__":
    run_script(main)
