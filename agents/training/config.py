"""What a run is asked for, and what it learns with: hyperparams/<algo>.yml and what the command line changes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..pretrained import PRETRAINED, pretrained_hyperparams
from .callbacks import CLOCKS
from .registry import get_algorithm

PROJECT = Path(__file__).resolve().parents[2]
HYPERPARAMS = PROJECT / "hyperparams"
# Hyperparameters of a run and not of the algorithm's class. The last is torch's: "highest", "high" or "medium".
RUN_HYPERPARAMS = ("n_timesteps", "n_envs", "frame_stack", "matmul_precision")
# rl_zoo3 evaluates in environments without the env_kwargs of its files, so those hold the format of actions as a wrapper.
ACTION_WRAPPER = "ram_envs.actions.ActionFormat"
_AT_LEAST_ONE = ("n_timesteps", "n_envs", "evaluations", "eval_freq")


@dataclass(frozen=True)
class RunConfig:
    """What is asked of a run.

    Raises:
        ValueError: a value is out of range, an unknown algorithm, or "pretrained" for another algorithm than "ram".
    """

    env: str  # A registered environment's id.
    folder: str | Path  # Where everything is written.
    algo: str = "ram"  # The algorithm's name.
    preset: str | None = None  # "paper", "best" or another of hyperparams/<algo>.yml; None: the everyday one.
    seed: int = 0  # Of the networks, the samples and the environments.
    n_timesteps: int | None = None  # Steps of the environment to learn from; None: those of hyperparams/<algo>.yml, or a million.
    minutes: float | None = None  # The time to learn for instead of n_timesteps, evaluations not counted.
    clock: str = "wall"  # What counts the minutes: "wall", or "cpu", the time of this process.
    n_envs: int | None = None  # Environments side by side; None: the number in hyperparams/<algo>.yml, or 128.
    hyperparams: dict[str, Any] = field(default_factory=dict)  # Changes; "policy_kwargs.core" is an entry of "policy_kwargs".
    env_kwargs: dict[str, Any] = field(default_factory=dict)  # Options of the environment.
    evaluations: int = 12  # The number of evaluations on validation, evenly spread.
    eval_freq: int | None = None  # Steps from one evaluation to the next, instead of evaluations.
    trained_agent: str | None = None  # A saved model to begin from, or "pretrained": the package's own for the environment.
    test: bool = True  # Whether the best model is tested; else the test split is not touched.
    figures: bool = True  # Whether the learning curve and glimpses or games are drawn.
    device: str = "auto"  # Of torch, or "auto".
    tensorboard_log: str | None = None  # A folder for TensorBoard's logs.
    num_threads: int = 1  # Threads of torch.
    progress: bool = False  # Whether to show a progress bar.
    command: str | None = None  # The command line that asked for all this.

    def __post_init__(self) -> None:
        for name in _AT_LEAST_ONE:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value!r}")
        if self.minutes is not None and self.minutes <= 0:
            raise ValueError(f"minutes must be above 0, got {self.minutes!r}")
        if self.clock not in CLOCKS:
            raise ValueError(f"clock must be one of {CLOCKS}, got {self.clock!r}")
        if "frame_stack" in self.env_kwargs:
            raise ValueError("env_kwargs can't hold frame_stack, which is a hyperparameter: -params frame_stack:NUMBER")
        get_algorithm(self.algo)
        if self.trained_agent == PRETRAINED and self.algo != "ram":
            raise ValueError(f'trained_agent="{PRETRAINED}" is an agent of the algorithm "ram", got algo={self.algo!r}')


def read_hyperparams(config: RunConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """All hyperparameters of a run, with "lin_..." still as text, and all options of its environments.

    What the config changes takes precedence over hyperparams/<algo>.yml, or the pretrained agent's own hyperparameters, and those
    over what defines the algorithm.

    Raises:
        ValueError: an unknown preset, an environment without a pretrained agent, a change of an entry where there are no entries,
            or options of the environment that don't fit the algorithm.
    """
    algorithm = get_algorithm(config.algo)
    tuned = read_file(HYPERPARAMS / f"{config.algo}.yml", config.env, config.preset)
    if config.trained_agent == PRETRAINED:
        tuned |= pretrained_hyperparams(config.env)
    hyperparams = merge(algorithm.hyperparams, change(tuned, config.hyperparams))
    env_kwargs = algorithm.env_kwargs(config.env, {**hyperparams.pop("env_kwargs", {}), **config.env_kwargs})
    hyperparams["n_timesteps"] = config.n_timesteps or hyperparams.get("n_timesteps", 1_000_000)
    hyperparams["n_envs"] = config.n_envs or hyperparams.get("n_envs", 128)
    hyperparams.setdefault("matmul_precision", "highest")
    return hyperparams, env_kwargs


def read_file(path: Path, env_id: str, preset: str | None = None) -> dict[str, Any]:
    """The hyperparameters for one environment out of a file in rl_zoo3's form; {} where there are none.

    Of rl_zoo3's "env_wrapper" only `ACTION_WRAPPER` is known, and read as the env_kwargs that it stands for.

    Args:
        path: the file.
        env_id: the environment.
        preset: other hyperparameters for it, which the file holds as "<env_id>/<preset>".

    Raises:
        ValueError: the file has no such preset, or names another wrapper, which natively batched environments can't have.
    """
    entries = yaml.safe_load(path.read_text()) if path.exists() else {}
    if preset is not None and f"{env_id}/{preset}" not in entries:
        known = [name.removeprefix(f"{env_id}/") for name in entries if name.startswith(f"{env_id}/")]
        raise ValueError(f"preset must be one of those that {path.name} has for {env_id}, {known or 'none'}, got {preset!r}")
    hyperparams = dict(entries.get(f"{env_id}/{preset}" if preset else env_id, {}))
    wrappers = hyperparams.pop("env_wrapper", [])
    if not isinstance(wrappers, list) or any(not isinstance(one, dict) or list(one) != [ACTION_WRAPPER] for one in wrappers):
        raise ValueError(f"env_wrapper must be a list of {ACTION_WRAPPER}: {{action_format: ...}} alone, got {wrappers!r}")
    for one in wrappers:
        hyperparams["env_kwargs"] = {**one[ACTION_WRAPPER], **hyperparams.get("env_kwargs", {})}
    return hyperparams


def merge(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Both together; where both have a value the second's counts, entry by entry where it is a dict."""
    merged = {**first, **second}
    for name in first.keys() & second.keys():
        if isinstance(first[name], dict) and isinstance(second[name], dict):
            merged[name] = merge(first[name], second[name])
    return merged


def change(hyperparams: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The hyperparameters with new values; "policy_kwargs.core" changes one entry of the dict "policy_kwargs".

    Raises:
        ValueError: a name goes into something that has no entries.
    """
    changed = dict(hyperparams)
    for name, value in changes.items():
        first, _, rest = name.partition(".")
        if rest:
            entries = changed.get(first, {})
            if not isinstance(entries, dict):
                raise ValueError(f"{name} can't be set: {first} is {entries!r}, which has no entries")
            value = change(entries, {rest: value})
        changed[first] = value
    return changed
