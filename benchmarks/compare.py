"""Train every algorithm on every environment with several seeds, and make a leaderboard of what came out.

python benchmarks/compare.py --minutes 5       # all algorithms, the four MNIST tasks and Catch, three seeds, 5 CPU minutes each
python benchmarks/compare.py --algos ram ppo --envs GlimpseCatch-v0 --seeds 5 --n-timesteps 1000000 --jobs 8
python benchmarks/compare.py --imports my_algorithms --algos ram my_reinforce --minutes 5        # your own beside ours
python benchmarks/compare.py --minutes 5 --page docs/leaderboard.md --results results/comparison # to be published

The same command again goes on where it was stopped; one with more seeds, algorithms or environments runs what is missing. Each
run is a process of `train_agent.py`, and its result.json names the command that repeats it.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium as gym
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # A script finds only what lies beside it.

from agents import get_algorithm
from benchmarks.leaderboard import write_page
from benchmarks.matrix import Cell, check_kept, plan
from benchmarks.processes import ended_by_signals, run_all, tail
from benchmarks.results import FACTS, note_comparison, publish
from train_agent import import_modules

ENVIRONMENTS = (
    "GlimpseMNIST-v0",
    "GlimpseTranslatedMNIST-v0",
    "GlimpseClutteredMNIST-v0",
    "GlimpseClutteredMNIST100-v0",
    "GlimpseCatch-v0",
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status, 1 where a run failed."""
    options, parser = parse(arguments)
    try:
        import_modules(options.imports)
        cells = plan(options)
        check_kept(cells)
    except (ValueError, ImportError, gym.error.Error) as error:
        parser.error(str(error))
    missing = [cell for cell in cells if not cell.result.exists()]
    print(f"{len(cells)} runs, {len(cells) - len(missing)} finished already; {options.jobs} side by side", flush=True)
    command = shlex.join(["python", "benchmarks/compare.py", *(sys.argv[1:] if arguments is None else arguments)])
    algorithms = {cell.algo: get_algorithm(cell.algo) for cell in cells}
    known = {name: {fact: getattr(one, fact) for fact in FACTS} for name, one in algorithms.items()}
    note_comparison(options.results, command, [cell.name for cell in cells], known)
    for cell in cells:
        if cell.result.exists():
            publish(cell.folder, options.results / cell.name)
    try:
        failures = run_cells(missing, options)
    except BlockingIOError as error:
        print(error, file=sys.stderr)
        return 1
    if any(cell.result.exists() for cell in cells):
        write_page(options.results, options.page)
        print(f"\nLeaderboard: {options.page}", flush=True)
    for name, text in failures.items():
        print(f"\n{name} failed. The end of {options.out / 'runs' / name / 'log.txt'}:\n{text}", file=sys.stderr)
    return 1 if failures else 0


def run_cells(cells: Sequence[Cell], options: argparse.Namespace) -> dict[str, str]:
    """Run them and publish each result; returns the end of the log of each that failed."""
    jobs, failures = {cell.job(options.imports): cell for cell in cells}, dict[str, str]()
    with (
        ended_by_signals(),
        closing(run_all(list(jobs), options.jobs)) as ended,
        tqdm(total=len(cells), unit="run", smoothing=0, disable=None) as progress,
    ):
        for number, (job, status) in enumerate(ended, start=1):
            cell = jobs[job]
            if status == 0 and cell.result.exists():
                publish(cell.folder, options.results / cell.name)
                line = describe(json.loads(cell.result.read_text()))
            else:
                failures[cell.name] = tail(job)
                line = f"failed with exit status {status}"
            progress.update()
            tqdm.write(f"[{number}/{len(cells)}] {cell.name}: {line}")
            sys.stdout.flush()
    return failures


def describe(result: dict[str, Any]) -> str:
    """A result in one line."""
    success, steps, seconds = 100 * result["success_rate"], result["n_timesteps"], result["train_cpu_seconds"]
    return f"success {success:.2f} %, {steps:,} steps, {seconds:.0f} CPU seconds"


def parse(arguments: list[str] | None) -> tuple[argparse.Namespace, argparse.ArgumentParser]:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--algos", nargs="+", metavar="NAME", help="the algorithms (default: all whose packages are installed)")
    ids = ", ".join(ENVIRONMENTS)
    add("--envs", nargs="+", metavar="ID", default=list(ENVIRONMENTS), help=f"the environments (default: {ids})")
    add("--seeds", type=int, default=3, help="how many seeds, from 0 (default: 3)")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--minutes", type=float, help="how long each run learns, evaluations not counted")
    budget.add_argument("-n", "--n-timesteps", type=int, help="how many steps of the environment each run learns from instead")
    add("--clock", default="cpu", choices=("cpu", "wall"), help="what --minutes are counted by (default: cpu)")
    add("--evaluations", type=int, default=12, help="evaluations on validation in each run (default: 12)")
    add(
        "-params",
        "--params",
        nargs="+",
        default=[],
        metavar="[ALGO:]NAME:VALUE",
        help="settings to change, of one or all",
    )
    add("--env-kwargs", nargs="+", default=[], metavar="[ID:]NAME:VALUE", help="options of one environment or all")
    add(
        "--imports",
        nargs="+",
        default=[],
        metavar="MODULE",
        help="modules to import first: they register what they like",
    )
    add("--jobs", type=int, default=os.cpu_count(), help="runs side by side, one thread each (default: the number of cores)")
    add("--device", default="cpu", help="of torch (default: cpu)")
    add("--out", type=Path, default=Path("logs/compare"), help="where the runs land (default: logs/compare)")
    add("--results", type=Path, help="where results and curves are copied to (default: the folder results in --out)")
    add("--page", type=Path, help="the leaderboard's page (default: leaderboard.md in --out)")
    options = parser.parse_args(arguments)
    for name in ("seeds", "minutes", "n_timesteps", "evaluations", "jobs"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            parser.error(f"--{name.replace('_', '-')} must be above 0, got {value}")
    options.results = options.results or options.out / "results"
    options.page = options.page or options.out / "leaderboard.md"
    return options, parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from the last checkpoints.", file=sys.stderr)
        sys.exit(130)
