"""The space that a hyperparameter search draws from, as data: a YAML file with an entry for each setting.

ram:
  learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true, schedule: lin}  # a number, here one that falls to 0 while training
  n_epochs: {low: 1, high: 8}                                          # a whole number: both bounds are whole
  policy_kwargs.core: {choices: [relu, lstm]}                          # one entry of a nested setting
  env_kwargs.num_glimpses: {choices: [4, 7]}                           # an option of the environment
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

SCHEDULES = ("lin",)  # "lin_0.001": from 0.001 to 0, as in rl_zoo3.


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones where both are ints."""

    low: float
    high: float
    log: bool = False
    schedule: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers are drawn."""
        return isinstance(self.low, int) and isinstance(self.high, int)


@dataclass(frozen=True)
class Choices:
    """Any of `choices`."""

    choices: tuple[Any, ...]
    schedule: str | None = None


Space = dict[str, Range | Choices]


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
    if not isinstance(spaces, dict):
        raise ValueError(f"{path} must hold a space under the name of each algorithm, got {spaces!r}")
    name = next((name for name in (f"{algo}/{env_id}", algo) if name in spaces), None)
    if name is None:
        raise ValueError(f"{path} has no space for {algo!r}, only for {sorted(spaces)}: write one and name it with --space")
    try:
        space = parse_space(spaces[name])
    except ValueError as error:
        raise ValueError(f"{path}, {name}: {error}") from None
    space = {setting: entry for setting, entry in space.items() if setting not in fixed}
    if not space:
        raise ValueError(f"{path}, {name}: nothing is left to search, all its settings are given")
    return space


def parse_space(entries: Any) -> Space:
    """{"gamma": {"low": 0.9, "high": 1.0}, ...} as ranges and choices.

    Raises:
        ValueError: an entry is bad; the message names it and what is allowed.
    """
    if not isinstance(entries, dict) or not entries:
        raise ValueError(f"a space must map the names of settings to what they may be, got {entries!r}")
    return {str(name): _parse_entry(str(name), entry) for name, entry in entries.items()}


def _parse_entry(name: str, entry: Any) -> Range | Choices:
    if not isinstance(entry, dict) or ("choices" in entry) == ("low" in entry or "high" in entry):
        raise ValueError(f"{name} must have either low and high, or choices, got {entry!r}")
    allowed = {"choices", "schedule"} if "choices" in entry else {"low", "high", "log", "schedule"}
    for key in entry:
        if key not in allowed:
            raise ValueError(f"{name}: unknown key {key!r}, allowed beside each other are {sorted(allowed)}")
    if entry.get("schedule") not in (None, *SCHEDULES):
        raise ValueError(f"{name}: schedule must be one of {SCHEDULES}, got {entry['schedule']!r}")
    return _parse_choices(name, entry) if "choices" in entry else _parse_range(name, entry)


def _parse_choices(name: str, entry: dict[str, Any]) -> Choices:
    choices = entry["choices"]
    if not isinstance(choices, list) or not choices:
        raise ValueError(f"{name}: choices must be a list with something in it, got {choices!r}")
    if entry.get("schedule"):
        for choice in choices:
            _check_number(f"{name}: a choice with a schedule", choice)
    return Choices(choices=tuple(choices), schedule=entry.get("schedule"))


def _parse_range(name: str, entry: dict[str, Any]) -> Range:
    for bound in ("low", "high"):
        _check_number(f"{name}: {bound}", entry.get(bound))
    low, high, log = entry["low"], entry["high"], entry.get("log", False)
    if low >= high:
        raise ValueError(f"{name}: low must be below high, got low {low!r} and high {high!r}")
    if not isinstance(log, bool):
        raise ValueError(f"{name}: log must be true or false, got {log!r}")
    if log and low <= 0:
        raise ValueError(f"{name}: with log, low must be above 0, got {low!r}")
    return Range(**entry)


def _check_number(what: str, value: Any) -> None:
    if isinstance(value, str) and "e" in value:
        raise ValueError(f"{what} must be a number, got {value!r}: YAML wants a point before the e, as in 1.0e-4")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{what} must be a number, got {value!r}")


def encode(choice: Any) -> Any:
    """Optuna keeps numbers, truths and strings; lists and mappings go as JSON."""
    return f"json:{json.dumps(choice)}" if isinstance(choice, (list, dict)) else choice


def decode(value: Any) -> Any:
    """The inverse of `encode`."""
    return json.loads(value.removeprefix("json:")) if isinstance(value, str) and value.startswith("json:") else value
