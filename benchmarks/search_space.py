"""The space that a hyperparameter search draws from, as data: a YAML file with an entry for each hyperparameter.

ram:
  learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true, schedule: lin}  # a number, here one that falls to 0 while training
  n_epochs: {low: 1, high: 8}                                          # a whole number: both bounds are whole
  policy_kwargs.core: {choices: [relu, lstm]}                          # one entry of a nested hyperparameter
  env_kwargs.num_glimpses: {choices: [4, 7]}                           # an option of the environment
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

SCHEDULES = ("lin",)  # "lin_0.001": from 0.001 to 0, as in rl_zoo3.
JSON = "json:"  # Optuna stores numbers, truths and strings; lists and mappings are stored as JSON behind this prefix.

Space = dict[str, dict[str, Any]]  # The entries as in the file, by name.


def read_space(path: Path, algo: str, env_id: str, fixed: Collection[str] = ()) -> Space:
    """The space of an algorithm out of a YAML file: that under "algo/env_id" where there is one, else that under "algo".

    Args:
        path: the file.
        algo: the algorithm's name.
        env_id: the environment's id.
        fixed: names of entries that are not searched.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has no space for the algorithm, or an entry is bad; the message names it and what is allowed.
    """
    spaces = yaml.safe_load(path.read_text())
    if not isinstance(spaces, dict) or not all(isinstance(space, dict) for space in spaces.values()):
        raise ValueError(f"{path} must map each algorithm to a space, and a space names to entries, got {spaces!r}")
    name = next((name for name in (f"{algo}/{env_id}", algo) if name in spaces), None)
    if name is None:
        raise ValueError(f"{path} has no space for {algo!r}, only for {sorted(spaces)}: write one and name it with --space")
    space = {str(entry): about for entry, about in spaces[name].items() if entry not in fixed}
    if not space:
        raise ValueError(f"{path}, {name}: nothing is left to search, all its hyperparameters are given")
    try:
        distributions(space)
    except ValueError as error:
        raise ValueError(f"{path}, {name}: {error}") from None
    return space


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """What Optuna draws from, by name.

    Raises:
        ValueError: an entry is bad; the message names it and what is allowed.
    """
    found = {}
    for name, entry in space.items():
        try:
            found[name] = _distribution(entry)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return found


def read_values(params: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a trial's parameters as they stand in the space."""
    return {
        name: json.loads(value.removeprefix(JSON)) if isinstance(value, str) and value.startswith(JSON) else value
        for name, value in params.items()
    }


def with_schedules(space: Space, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as hyperparameters: a number with a schedule is "lin_0.001"."""
    return {name: f"{space[name]['schedule']}_{value}" if "schedule" in space[name] else value for name, value in values.items()}


def _distribution(entry: Any) -> BaseDistribution:
    """Optuna itself sees to the order of low and high, and to what a logarithm wants of low."""
    keys = set(entry) if isinstance(entry, dict) else set()
    if not ({"low", "high"} <= keys <= {"low", "high", "log", "schedule"} or {"choices"} <= keys <= {"choices", "schedule"}):
        raise ValueError(
            f"must be {{low, high}}, log and schedule beside them, or {{choices}}, schedule beside it, got {entry!r}"
        )
    low, high, log, choices = (entry.get(key) for key in ("low", "high", "log", "choices"))
    for key, value, allowed in (("log", log, (None, True, False)), ("schedule", entry.get("schedule"), (None, *SCHEDULES))):
        if value not in allowed:
            raise ValueError(f"{key} must be one of {allowed[1:]}, got {value!r}")
    if "choices" in keys and not (isinstance(choices, list) and choices):
        raise ValueError(f"choices must be a list with something in it, got {choices!r}")
    for number in (choices if "schedule" in keys else []) if choices else (low, high):
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
            raise ValueError(
                f"low, high and choices with a schedule must be numbers, got {number!r} (YAML wants the point in 1.0e-4)"
            )
    if choices:
        return CategoricalDistribution([f"{JSON}{json.dumps(one)}" if isinstance(one, (list, dict)) else one for one in choices])
    whole = isinstance(low, int) and isinstance(high, int)
    return IntDistribution(low, high, log or False) if whole else FloatDistribution(low, high, log or False)
