"""Run the rows of the paper's tables, and publish what came out under results/tables.

python benchmarks/reproduce.py                                  # every task with both presets, three seeds each
python benchmarks/reproduce.py --rows GlimpseMNIST-v0 --presets best --seeds 1
python benchmarks/reproduce.py --glimpses all --others          # the paper's other rows too, one seed each
python benchmarks/reproduce.py --publish logs/ram/GlimpseMNIST-v0_1   # what train_agent.py was run for by hand

The same command again goes on where it was stopped. Each run is a process of `train_agent.py`, and its result.json names the
command that repeats it. `python benchmarks/tables.py --write` puts the results into the docs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # A script finds only what lies beside it.

from agents.trial import Trial, read_settings
from benchmarks.cells import Cell, check_kept, complete, difference, require_positive, tell
from benchmarks.results import publish
from benchmarks.rows import PRESETS, SEEDS, TASKS, Recipe, own_recipe, recipe_of


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status, 1 where a run failed."""
    options, parser = parse(arguments)
    try:
        if options.publish:
            publish_folders(options.publish, options.results)
            return 0
        cells = plan(options)
        check_kept(cells)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    try:
        failures = complete(cells, options.results, options.jobs)
    except BlockingIOError as error:
        print(error, file=sys.stderr)
        return 1
    return tell(failures)


def publish_folders(folders: Iterable[Path], results: Path) -> None:
    """Publish finished runs; a run of the same row, preset and seed that is there already gives way.

    Raises:
        FileNotFoundError: a folder holds no finished run.
        ValueError: a run belongs to no row, or has other settings than its row.
    """
    found = {}
    for folder in folders:
        path = folder / "result.json"
        if not path.exists():
            raise FileNotFoundError(f"{folder} holds no result.json: publish the folders of finished runs")
        result = json.loads(path.read_text())
        try:
            recipe = recipe_of(result)
        except ValueError as error:
            raise ValueError(f"{folder} belongs to no row: {error}") from error
        trial = Trial(recipe.env_id, "", recipe.algo, recipe.preset, n_timesteps=n_timesteps(recipe))
        if changed := difference(result["settings"], read_settings(trial)):
            raise ValueError(f"{folder} holds a run with {changed} now: its row is run with those")
        found[folder] = results / recipe.run_name(result["seed"])
    for folder, to in found.items():
        publish(folder, to)
        print(f"{folder} published as {to}.json")


def plan(options: argparse.Namespace) -> list[Cell]:
    """The runs that are asked for, the most wanted first.

    Raises:
        ValueError: there are no such settings, or they make another task of a row.
    """
    return [make_cell(recipe, seed, options) for recipe, seed in wanted(options)]


def wanted(options: argparse.Namespace) -> Iterator[tuple[Recipe, int]]:
    """What to run with which seed: the tasks as they are, all of a seed before the next; then what one seed is enough for."""
    tasks = [TASKS[env_id] for env_id in dict.fromkeys(options.rows)]
    for seed in range(options.seeds):
        for task in tasks:
            yield from ((own_recipe(task, preset), seed) for preset in options.presets)
    for seed in range(options.other_seeds):
        for task in tasks:
            if options.glimpses == "all":
                fewer = [number for number in task.paper if number != task.glimpses]
                yield from ((own_recipe(task, preset, number), seed) for preset in options.presets for number in fewer)
            if options.others:
                yield from ((Recipe(task.env_id, algo), seed) for algo in task.others)


def make_cell(recipe: Recipe, seed: int, options: argparse.Namespace) -> Cell:
    """A run with its command line."""
    name = recipe.run_name(seed)
    folder = options.out / name
    device = ["--device", options.device] if options.device else []
    steps = ["-n", str(n_timesteps(recipe))] if recipe.glimpses else []
    cell = Cell(name, recipe.algo, folder, (*recipe.arguments, *steps, "--seed", str(seed), *device, "--folder", str(folder)))
    trial = cell.trial()
    env_kwargs = {**read_settings(trial).get("env_kwargs", {}), **trial.env_kwargs}
    recipe_of({"env": trial.env, "algo": trial.algo, "preset": trial.preset, "env_kwargs": env_kwargs})
    return cell


def n_timesteps(recipe: Recipe) -> int:
    """As many as the settings have; with fewer glimpses, those in which as many images are seen."""
    steps = read_settings(Trial(recipe.env_id, "", recipe.algo, recipe.preset))["n_timesteps"]
    return steps * recipe.glimpses // TASKS[recipe.env_id].glimpses if recipe.glimpses else steps


def parse(arguments: list[str] | None) -> tuple[argparse.Namespace, argparse.ArgumentParser]:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--rows", nargs="+", metavar="ID", default=list(TASKS), choices=TASKS, help=f"the tasks (default: {', '.join(TASKS)})")
    add("--presets", nargs="*", default=list(PRESETS), choices=PRESETS, help="with which settings (default: both); none: no RAM")
    add("--seeds", type=int, default=SEEDS, help=f"how many seeds, from 0 (default: {SEEDS})")
    add("--glimpses", default="default", choices=("default", "all"), help="all: the paper's smaller numbers of glimpses too")
    add("--others", action="store_true", help="the paper's other models too: random glimpses, FC and convolutional nets")
    add("--other-seeds", type=int, default=1, help="how many seeds of fewer glimpses and other models (default: 1)")
    add("--jobs", type=int, default=os.cpu_count(), help="runs side by side, one thread each (default: the number of cores)")
    add("--device", help="of torch (default: what train_agent.py takes)")
    add("--out", type=Path, default=Path("logs/tables"), help="where the runs land (default: logs/tables)")
    add("--results", type=Path, default=Path("results/tables"), help="where they are published (default: results/tables)")
    add("--publish", nargs="+", type=Path, metavar="FOLDER", help="run nothing, publish these folders of finished runs")
    options = parser.parse_args(arguments)
    require_positive(parser, options, ("seeds", "other_seeds", "jobs"))
    return options, parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from the last checkpoints.", file=sys.stderr)
        sys.exit(130)
