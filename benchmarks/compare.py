"""Train every algorithm in every environment with several seeds, and make a leaderboard of the results.

python benchmarks/compare.py --minutes 5       # all algorithms, the four MNIST tasks and Catch, three seeds, 5 CPU minutes each
python benchmarks/compare.py --algos ram ppo --envs GlimpseCatch-v0 --seeds 5 --n-timesteps 1000000 --jobs 8
python benchmarks/compare.py --imports my_algorithms --algos ram my_reinforce --minutes 5        # your own beside ours
python benchmarks/compare.py --minutes 5 --page docs/leaderboard.md --results results/comparison.jsonl # to be published

The same command again resumes what was stopped; one with more seeds, algorithms or environments runs what is missing.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import gymnasium as gym

if not __package__:  # A script finds only what lies beside it.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ram_envs import parse_pairs
from ram_envs.agents import algorithm_names, get_algorithm
from ram_envs.agents.training.registry import Algorithm
from ram_envs.benchmarks.jobs import TRAIN, Job, add_job_options, complete, make_job, positive, run_script
from ram_envs.benchmarks.leaderboard import write_page
from ram_envs.benchmarks.results import folder_of, read_results
from train_agent import import_modules

NAMES = ("GlimpseMNIST", "GlimpseTranslatedMNIST", "GlimpseClutteredMNIST", "GlimpseClutteredMNIST100", "GlimpseCatch")
ENVIRONMENTS = [f"{name}-v0" for name in NAMES]
FACTS = ("summary", "sees_scene", "uses_labels")  # Of an `Algorithm`, in each row.


def main(arguments: list[str] | None = None, script: Path = TRAIN, prog: str = "compare.py") -> int:
    """Run the command line with this train_agent.py; returns the exit status, 1 where a run failed."""
    options = parse(arguments, prog)
    import_modules(options.imports)
    command = shlex.join(["python", "benchmarks/compare.py", *(sys.argv[1:] if arguments is None else arguments)])
    jobs = plan(options, command, script)
    failed = complete(jobs, options.results, options.jobs)
    if len(failed) < len(jobs):
        write_page(options.results, options.page)
        print(f"\nLeaderboard: {options.page}", flush=True)
    return int(bool(failed))


def plan(options: argparse.Namespace, command: str, script: Path = TRAIN) -> list[Job]:
    """The jobs of the comparison, all of a seed before the next; says which pairs are left out, and why."""
    algos = {name: get_algorithm(name) for name in options.algos or available()}
    for pair in options.hyperparams:
        if pair.partition(":")[0] in set(algorithm_names()) - algos.keys():
            raise ValueError(f"--hyperparams {pair} is for an algorithm that is not among --algos {' '.join(algos)}")
    pairs = [(env_id, algo) for env_id in dict.fromkeys(options.envs) for algo in fitting(env_id, algos.values(), options)]
    for algo in algos.values():
        algo.resolve()
    runs = [(env_id, algo, seed) for seed in range(options.seeds) for env_id, algo in pairs]
    command = covering_command(options.results, {(env_id, f"{algo.name}_seed{seed}") for env_id, algo, seed in runs}) or command
    return [plan_job(env_id, algo, seed, options, script, command) for env_id, algo, seed in runs]


def available() -> list[str]:
    """The algorithms whose packages are installed; says which are left out."""
    names = []
    for name in algorithm_names():
        try:
            get_algorithm(name).resolve()
            names.append(name)
        except ImportError as error:
            print(f"Left out: {error}")
    return names


def fitting(env_id: str, algos: Iterable[Algorithm], options: argparse.Namespace) -> Iterator[Algorithm]:
    """The algorithms that can learn in an environment; says which are left out, and why."""
    env = gym.make(env_id, **parse_pairs(pairs_for(options.env_kwargs, env_id, options.envs)))
    for algo in algos:
        if reason := algo.reason_against(env.action_space, getattr(env.unwrapped, "has_labels", False)):
            print(f"Left out: {algo.name} on {env_id}: {reason}")
        else:
            yield algo
    env.close()


def plan_job(env_id: str, algo: Algorithm, seed: int, options: argparse.Namespace, script: Path, command: str) -> Job:
    budget = ["-n", str(options.n_timesteps)] if options.n_timesteps else ["--minutes", str(options.minutes)]
    budget += ["--clock", options.clock] if options.minutes else []
    arguments = ["--algo", algo.name, "--env", env_id, "--seed", str(seed), *budget]
    arguments += ["--evaluations", str(options.evaluations), "--device", options.device]
    for option, values in (
        ("-params", pairs_for(options.hyperparams, algo.name, algorithm_names())),
        ("--env-kwargs", pairs_for(options.env_kwargs, env_id, options.envs)),
        ("--imports", options.imports),
    ):
        arguments += [option, *values] if values else []
    facts = {fact: getattr(algo, fact) for fact in FACTS}
    folder = options.out / "runs" / folder_of(env_id) / f"{algo.name}_seed{seed}"
    return make_job(arguments, folder, script, comparison_command=command, **facts)


def pairs_for(pairs: Sequence[str], key: str, keys: Iterable[str]) -> list[str]:
    """The pairs that hold for one key: NAME:VALUE does for all, KEY:NAME:VALUE for its own."""
    heads = [pair.partition(":")[0] for pair in pairs]
    return [pair.removeprefix(f"{key}:") for pair, head in zip(pairs, heads, strict=True) if head == key or head not in keys]


def covering_command(table: Path, runs: set[tuple[str, str]]) -> str | None:
    """An earlier command that made all these runs, (environment, name), and perhaps more; None where there is none."""
    earlier: dict[str, set[tuple[str, str]]] = {}
    for row in read_results(table) if table.exists() else []:
        earlier.setdefault(row["comparison_command"], set()).add((row["env"], row["run"]))
    return next((command for command, made in earlier.items() if runs <= made), None)


def parse(arguments: list[str] | None, prog: str = "compare.py") -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--algos", nargs="+", metavar="NAME", help="the algorithms (default: all whose packages are installed)")
    envs = f"the environments (default: {', '.join(ENVIRONMENTS)})"
    add("--envs", nargs="+", metavar="ID", default=ENVIRONMENTS, help=envs)
    add_job_options(parser, Path("logs/compare"))
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--minutes", type=positive(float), help="how long each run learns, evaluations not counted")
    budget.add_argument("-n", "--n-timesteps", type=positive(int), help="steps of the environment that each run learns from")
    add("--clock", default="cpu", choices=("cpu", "wall"), help="what counts the --minutes (default: cpu)")
    add("--evaluations", type=positive(int), default=12, help="evaluations on validation in each run (default: 12)")
    what = "hyperparameters to change, of one algorithm or all"
    add("-params", "--hyperparams", nargs="+", default=[], metavar="[ALGO:]NAME:VALUE", help=what)
    add("--env-kwargs", nargs="+", default=[], metavar="[ID:]NAME:VALUE", help="options of one environment or all")
    add("--imports", nargs="+", default=[], metavar="MODULE", help="modules to import first, which register what they like")
    add("--device", default="cpu", help="of torch (default: cpu)")
    add("--results", type=Path, help="the table of their results and curves (default: results.jsonl in --out)")
    add("--page", type=Path, help="the leaderboard's page (default: leaderboard.md in --out)")
    options = parser.parse_args(arguments)
    options.results = options.results or options.out / "results.jsonl"
    options.page = options.page or options.out / "leaderboard.md"
    return options


def command(arguments: list[str] | None = None, prog: str = "compare.py") -> None:
    """The command line as a process of its own."""
    run_script(lambda: main(arguments, prog=prog))


if __name__ == "__main__":
    command()
