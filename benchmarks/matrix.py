"""The runs of a comparison: which algorithm in which environment with which seed, and where each lies."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agents import algorithm_names, get_algorithm
from agents.training import Trial, open_run, read_settings
from benchmarks.processes import Job
from benchmarks.results import folder_of
from ram_envs.pairs import parse_pairs
from train_agent import parse_arguments, read_config

TRAIN = Path(__file__).resolve().parent.parent / "train_agent.py"


@dataclass(frozen=True)
class Cell:
    """One run of the matrix."""

    algo: str
    env_id: str
    seed: int
    folder: Path
    arguments: tuple[str, ...]  # Of train_agent.py.

    @property
    def name(self) -> str:
        """Such as "GlimpseMNIST-v0/ram_seed0"."""
        return f"{folder_of(self.env_id)}/{self.algo}_seed{self.seed}"

    @property
    def result(self) -> Path:
        """Where the finished run has its result."""
        return self.folder / "result.json"

    def job(self, imports: Sequence[str]) -> Job:
        """The process that runs it."""
        modules = ("--imports", *imports) if imports else ()
        return Job(self.name, (sys.executable, str(TRAIN), *self.arguments, *modules), self.folder / "log.txt")


def plan(options: argparse.Namespace) -> list[Cell]:
    """The runs of the matrix, all of a seed before the next; says which pairs are left out, and why.

    Raises:
        ValueError: an algorithm, an environment or a setting is unknown.
        ImportError: an algorithm was asked for that needs another package; the message names it.
    """
    algos, envs = dict.fromkeys(options.algos or available()), dict.fromkeys(options.envs)
    for pair in options.params:
        if pair.partition(":")[0] in set(algorithm_names()) - algos.keys():
            raise ValueError(f"--params {pair} is for an algorithm that is not among --algos {' '.join(algos)}")
    matches = []
    for env_id in envs:
        for algo in algos:
            env_kwargs = parse_pairs(pairs_for(options.env_kwargs, env_id, envs))
            if reason := get_algorithm(algo).reason_against(env_id, env_kwargs):
                print(f"Left out: {algo} on {env_id}: {reason}")
            else:
                matches.append((algo, env_id))
    for algo in algos:
        get_algorithm(algo).resolve()
    return [make_cell(algo, env_id, seed, options) for seed in range(options.seeds) for algo, env_id in matches]


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


def make_cell(algo: str, env_id: str, seed: int, options: argparse.Namespace) -> Cell:
    """A run with its command line.

    Raises:
        ValueError: a setting is not of the form NAME:VALUE.
    """
    folder = options.out / "runs" / folder_of(env_id) / f"{algo}_seed{seed}"
    budget = ["-n", str(options.n_timesteps)] if options.n_timesteps else ["--minutes", str(options.minutes)]
    arguments = ["--algo", algo, "--env", env_id, "--seed", str(seed), *budget]
    arguments += ["--clock", options.clock] if options.minutes else []
    arguments += ["--evaluations", str(options.evaluations), "--device", options.device, "--folder", str(folder)]
    for option, pairs, key, keys in (
        ("-params", options.params, algo, algorithm_names()),
        ("--env-kwargs", options.env_kwargs, env_id, options.envs),
    ):
        chosen = pairs_for(pairs, key, keys)
        parse_pairs(chosen)
        arguments += [option, *chosen] if chosen else []
    return Cell(algo, env_id, seed, folder, tuple(arguments))


def pairs_for(pairs: Sequence[str], key: str, keys: Iterable[str]) -> list[str]:
    """What holds for one key: "NAME:VALUE" does for all, "KEY:NAME:VALUE" for its own."""
    chosen = []
    for pair in pairs:
        head, _, rest = pair.partition(":")
        if head not in keys:
            chosen.append(pair)
        elif head == key:
            chosen.append(rest)
    return chosen


def check_kept(cells: Sequence[Cell]) -> None:
    """See that the runs that are there already were asked for like those of now.

    Raises:
        ValueError: one was not; the message names its folder and what differs.
    """
    for cell in cells:
        if not (cell.folder / "args.yml").exists():
            continue
        arguments = list(cell.arguments)
        trial = Trial(**read_config(parse_arguments(arguments), arguments))
        kept, now = open_run(trial).settings, read_settings(trial)
        for name in kept.keys() | (now.keys() - {"env_kwargs", "frame_stack"}):
            if kept.get(name) != now.get(name):
                raise ValueError(
                    f"{cell.folder} holds a run with {name}={kept.get(name)!r}, its settings have {now.get(name)!r} now: "
                    "take another --out or remove the folder"
                )
