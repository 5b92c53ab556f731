"""A trial of a hyperparameter search, whatever engine runs it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym

from benchmarks.search_space import Space

ENV_PREFIX = "env_kwargs."
RunTrial = Callable[..., dict[str, Any]]


def trial_folder(study: Path, trial: int | str) -> Path:
    """Its run folder."""
    return study / f"trial_{trial}"


def trial_config(asked: Mapping[str, Any], space: Space, values: Mapping[str, Any]) -> dict[str, Any]:
    """What `agents.training.run_trial` is called with: never a test, no pictures, one thread, and the values that were drawn.

    Args:
        asked: run_trial's config as far as all trials share it; what is under "space" is left out.
        space: what was drawn from.
        values: what was drawn. "n_envs" and "env_kwargs.NAME" go to where run_trial has them, everything else to its "params".
    """
    config = {name: value for name, value in asked.items() if name != "space"}
    config |= {"test": False, "figures": False, "num_threads": 1}
    config["params"], config["env_kwargs"] = dict(config.get("params", {})), dict(config.get("env_kwargs", {}))
    for name, value in values.items():
        schedule = space[name].schedule
        value = f"{schedule}_{value}" if schedule else value
        if name == "n_envs":
            config["n_envs"] = value
        elif name.startswith(ENV_PREFIX):
            config["env_kwargs"][name.removeprefix(ENV_PREFIX)] = value
        else:
            config["params"][name] = value
    return config


def import_trial(algo: str, env_id: str, env_kwargs: Mapping[str, Any], imports: Iterable[str] = ()) -> RunTrial:
    """`run_trial`, with the environments, the user's own modules and the algorithm there.

    Raises:
        ValueError: there is no such algorithm or environment, or they don't fit.
        ImportError: a module, or a package that the algorithm needs, is missing.
    """
    for name in ("ram_envs", *imports):
        importlib.import_module(name)
    from agents.algorithms import get_algorithm  # Here, because the process that only supervises needs no torch.
    from agents.training import run_trial

    algorithm = get_algorithm(algo)
    algorithm.resolve()
    try:
        algorithm.env_options(env_id, dict(env_kwargs))
    except gym.error.Error as error:
        raise ValueError(f"env must be a registered id, got {env_id!r}: {error}") from error
    return run_trial


def check_same(study: Path, begun: Mapping[str, Any], asked: Mapping[str, Any] | None) -> None:
    """See that trials of one study have the same in common.

    Raises:
        ValueError: they have not; the message names what differs.
    """
    for name, value in json.loads(json.dumps(asked or {})).items():
        if value != begun.get(name):
            raise ValueError(
                f"the study in {study} was begun with {name}={begun.get(name)!r}, got {value!r}: "
                "join it with the same, or begin another with --study"
            )
