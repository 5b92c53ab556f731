"""Run what the paper's tables are made of, and publish it in results/tables.jsonl.

python benchmarks/reproduce.py                                  # every task with both presets, three seeds each
python benchmarks/reproduce.py --rows GlimpseMNIST-v0 --presets best --seeds 1
python benchmarks/reproduce.py --glimpses all --others          # the paper's other figures too, one seed each
python benchmarks/reproduce.py --presets --further              # what the paper has no row for
python benchmarks/reproduce.py --publish logs/ram/GlimpseMNIST-v0_1   # runs of train_agent.py that were started by hand

The same command again resumes what was stopped. `python benchmarks/tables.py --write` puts the results into the docs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

if not __package__:  # A script finds only what lies beside it.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ram_envs.agents.training.config import read_hyperparams
from ram_envs.benchmarks.jobs import TRAIN, Job, add_job_options, complete, difference, make_job, positive, run_script
from ram_envs.benchmarks.paper import FURTHER, PRESETS, TASKS, Entry, entry_of, ram_entry
from ram_envs.benchmarks.results import folder_of, publish
from train_agent import parse_config


def main(arguments: list[str] | None = None, script: Path = TRAIN) -> int:
    """Run the command line with this train_agent.py; returns the exit status, 1 where a run failed."""
    options = parse(arguments)
    if options.publish:
        publish_folders(options.publish, options.results)
        return 0
    return int(bool(complete(plan(options, script), options.results, options.jobs)))


def publish_folders(folders: Iterable[Path], results: Path) -> None:
    """Publish finished runs, each in place of an earlier one of the same entry and seed, if all belong to the tables."""
    found = {}
    for folder in folders:
        path = folder / "result.json"
        if not path.exists():
            raise FileNotFoundError(f"{folder} holds no result.json: publish the folders of finished runs")
        result = json.loads(path.read_text("utf-8"))
        try:
            entry = entry_of(result)
        except ValueError as error:
            raise ValueError(f"{folder} belongs to no entry of the tables: {error}") from error
        hyperparams, _ = read_hyperparams(parse_config(arguments_of(entry)))
        if changed := difference(result["hyperparams"], hyperparams):
            raise ValueError(f"{folder} holds a run with {changed} now: the tables have it with those")
        found[folder] = entry.run(result["seed"])
    for folder, run in found.items():
        publish(folder, results, run)
        print(f"{folder} published as {run} in {results}")


def plan(options: argparse.Namespace, script: Path = TRAIN) -> list[Job]:
    """The jobs that are asked for, the most important first."""
    device = ["--device", options.device] if options.device else []
    jobs = []
    for entry, seed in wanted(options):
        arguments = [*arguments_of(entry), "--seed", str(seed), *device]
        _, env_kwargs = read_hyperparams(parse_config(arguments))
        entry_of({"env": entry.env_id, "algo": entry.algo, "preset": entry.preset, "env_kwargs": env_kwargs})
        jobs.append(make_job(arguments, options.out / folder_of(entry.env_id) / entry.run(seed), script))
    return jobs


def wanted(options: argparse.Namespace) -> Iterator[tuple[Entry, int]]:
    """The entries to run, each with a seed: the main table, all of a seed before the next; then the paper's other figures."""
    tasks = [TASKS[env_id] for env_id in dict.fromkeys(options.rows)]
    for seed in range(options.seeds):
        for task in tasks:
            yield from ((ram_entry(task, preset), seed) for preset in options.presets)
        further = [one for one in FURTHER if options.further and one.env_id in options.rows]
        yield from ((Entry(one.env_id, preset=one.preset), seed) for one in further)
    for seed in range(options.other_seeds):
        for task in tasks:
            if options.glimpses == "all":
                fewer = [number for number in task.paper if number != task.glimpses]
                yield from ((ram_entry(task, preset, number), seed) for preset in options.presets for number in fewer)
            if options.others:
                yield from ((Entry(task.env_id, algo), seed) for algo in task.others)


def arguments_of(entry: Entry) -> list[str]:
    """The arguments of train_agent.py for an entry. With fewer glimpses a run takes fewer steps, and sees as many images."""
    algo = [] if entry.algo == "ram" else ["--algo", entry.algo]
    arguments = [*algo, "--env", entry.env_id, *(["--preset", entry.preset] if entry.preset else [])]
    if entry.glimpses is None:
        return arguments
    steps = read_hyperparams(parse_config(arguments))[0]["n_timesteps"] * entry.glimpses // TASKS[entry.env_id].glimpses
    return [*arguments, "--env-kwargs", f"num_glimpses:{entry.glimpses}", "-n", str(steps)]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--rows", nargs="+", metavar="ID", default=list(TASKS), choices=TASKS, help=f"default: {', '.join(TASKS)}")
    add("--presets", nargs="*", default=list(PRESETS), choices=PRESETS, help="hyperparameters (default: both); none: no RAM")
    add_job_options(parser, Path("logs/tables"))
    add("--glimpses", default="default", choices=("default", "all"), help="all: the paper's smaller numbers of glimpses too")
    add("--others", action="store_true", help="the paper's other models too: random glimpses, FC and convolutional nets")
    add("--further", action="store_true", help="what the paper has no row for, too")
    add("--other-seeds", type=positive(int), default=1, help="seeds of fewer glimpses and of other models (default: 1)")
    add("--device", help="of torch (default: auto)")
    add("--results", type=Path, default=Path("results/tables.jsonl"), help="to publish in (default: results/tables.jsonl)")
    add("--publish", nargs="+", type=Path, metavar="FOLDER", help="run nothing, publish these folders of finished runs")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_script(main)
