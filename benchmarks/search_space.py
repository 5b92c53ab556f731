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

    Fixed are the names of entries that are not searched.

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
    is_json = {name: isinstance(value, str) and value.startswith(JSON) for name, value in params.items()}
    return {name: json.loads(value.removeprefix(JSON)) if is_json[name] else value for name, value in params.items()}


def with_schedules(space: Space, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as hyperparameters: a number with a schedule is "lin_0.001"."""
    return {name: f"{space[name]['schedule']}_{value}" if "schedule" in space[name] else value for name, value in values.items()}


def _distribution(entry: Any) -> BaseDistribution:
    """Optuna itself sees to the order of low and high, and to what a logarithm wants of low."""
    match entry:
        case {"choices": [_, *_] as choices, **others} if _fits(others, choices if others else []):
            return CategoricalDistribution(
                [f"{JSON}{json.dumps(one)}" if isinstance(one, (list, dict)) else one for one in choices]
            )
        case {"low": low, "high": high, **others} if _fits(others, [low, high], log=(True, False)):
            whole = isinstance(low, int) and isinstance(high, int)
            return (IntDistribution if whole else FloatDistribution)(low, high, log=bool(others.get("log")))
    raise ValueError(
        "must be {low, high}, two numbers (YAML wants the point in 1.0e-4), log: true or false beside them, or {choices}, a list "
        f"with something in it, beside either schedule, one of {SCHEDULES}, for numbers alone, got {entry!r}"
    )


def _fits(others: Mapping[Any, Any], numbers: Collection[Any], **allowed: Collection[Any]) -> bool:
    """Whether an entry's other keys are among those allowed and "schedule", with values allowed, and the numbers are numbers."""
    allowed["schedule"] = SCHEDULES
    known = all(key in allowed and value in allowed[key] for key, value in others.items())
    return known and all(type(number) in (int, float) and math.isfinite(number) for number in numbers)
