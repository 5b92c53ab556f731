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
import os
import shlex
import sys
from pathlib import Path

import gymnasium as gym

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # A script finds only what lies beside it.

from agents import get_algorithm
from benchmarks.cells import check_kept, complete, require_positive, tell
from benchmarks.leaderboard import write_page
from benchmarks.matrix import plan
from benchmarks.results import FACTS, note_comparison
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
    command = shlex.join(["python", "benchmarks/compare.py", *(sys.argv[1:] if arguments is None else arguments)])
    algorithms = {cell.algo: get_algorithm(cell.algo) for cell in cells}
    known = {name: {fact: getattr(one, fact) for fact in FACTS} for name, one in algorithms.items()}
    note_comparison(options.results, command, [cell.name for cell in cells], known)
    try:
        failures = complete(cells, options.results, options.jobs, options.imports)
    except BlockingIOError as error:
        print(error, file=sys.stderr)
        return 1
    if any(cell.result.exists() for cell in cells):
        write_page(options.results, options.page)
        print(f"\nLeaderboard: {options.page}", flush=True)
    return tell(failures)


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
    require_positive(parser, options, ("seeds", "minutes", "n_timesteps", "evaluations", "jobs"))
    options.results = options.results or options.out / "results"
    options.page = options.page or options.out / "leaderboard.md"
    return options, parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from the last checkpoints.", file=sys.stderr)
        sys.exit(130)
