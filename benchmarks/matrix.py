"""The runs of a comparison: which algorithm in which environment with which seed, and where each lies."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence

from agents import algorithm_names, get_algorithm
from benchmarks.cells import Cell
from benchmarks.results import folder_of
from ram_envs.pairs import parse_pairs


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
    name = f"{folder_of(env_id)}/{algo}_seed{seed}"
    folder = options.out / "runs" / name
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
    return Cell(name, algo, folder, tuple(arguments))


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
