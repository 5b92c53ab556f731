"""What a trial is asked for, and the settings that it runs with: hyperparams/<algo>.yml and what is changed of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from agents.algorithms import Algorithm, get_algorithm
from agents.callbacks import CLOCKS
from agents.pretrained import PRETRAINED, pretrained_settings
from agents.runs import change, current_commit, merge, read_hyperparams, write_yaml

PROJECT = Path(__file__).resolve().parent.parent
HYPERPARAMS = PROJECT / "hyperparams"
RUN_SETTINGS = ("n_timesteps", "n_envs", "matmul_precision")  # The last is torch's: "highest", "high" or "medium".
# What may differ when an unfinished run is taken up again.
_CIRCUMSTANCES = ("folder", "progress", "command", "device", "num_threads", "tensorboard_log", "figures")


@dataclass
class Trial:
    """What was asked for.

    Args:
        env: a registered environment's id.
        folder: where everything lands.
        algo: the algorithm's name.
        preset: "paper", "best" or whatever else hyperparams/<algo>.yml has for the environment; None: its everyday settings.
        seed: of the networks, the samples and the environments.
        n_timesteps: steps of the environment to learn from; None: the number in hyperparams/<algo>.yml, or a million.
        minutes: learn for so long instead, evaluations not counted.
        clock: what minutes are counted by: "wall", or the process's own "cpu".
        n_envs: environments side by side; None: the tuned number, or 128.
        params: changes to the settings of hyperparams/<algo>.yml; "policy_kwargs.core" changes one entry of a nested one.
        env_kwargs: options of the environment.
        evaluations: how many evaluations on validation, evenly spread.
        eval_freq: steps from one evaluation to the next instead.
        trained_agent: a saved model to begin from, or "pretrained": the agent for the environment that comes with the package.
        test: whether the best model is tested; else the test split is not touched.
        figures: whether the learning curve and glimpses or games are drawn.
        device, tensorboard_log: as in Stable-Baselines3.
        num_threads: threads of torch.
        progress: whether to show a progress bar.
        command: how all this was asked for.
    """

    env: str
    folder: str
    algo: str = "ram"
    preset: str | None = None
    seed: int = 0
    n_timesteps: int | None = None
    minutes: float | None = None
    clock: str = "wall"
    n_envs: int | None = None
    params: dict[str, Any] = field(default_factory=dict)
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    evaluations: int = 12
    eval_freq: int | None = None
    trained_agent: str | None = None
    test: bool = True
    figures: bool = True
    device: str = "auto"
    tensorboard_log: str | None = None
    num_threads: int = 1
    progress: bool = False
    command: str | None = None

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm of that name."""
        return get_algorithm(self.algo)


@dataclass
class Run:
    """A trial under way: its folder, what was asked, and the settings that it runs with."""

    folder: Path
    trial: Trial
    commit: str | None
    settings: dict[str, Any]  # Of the algorithm, and `RUN_SETTINGS`.
    env_kwargs: dict[str, Any]


def make_trial(config: dict[str, Any]) -> Trial:
    """The trial that a config describes.

    Raises:
        ValueError: something in it is unknown or out of range.
    """
    known = Trial.__dataclass_fields__
    for name in config:
        if name not in known:
            raise ValueError(f"config may hold {', '.join(known)}, got {name!r}")
    for name in ("env", "folder"):
        if name not in config:
            raise ValueError(f"config must hold {name}, got {', '.join(config)}")
    trial = Trial(**{**config, "folder": str(config["folder"])})
    for name, least in (("n_timesteps", 1), ("minutes", 0), ("n_envs", 1), ("evaluations", 1), ("eval_freq", 1)):
        value = getattr(trial, name)
        if value is not None and (value < least or value == 0):
            raise ValueError(f"{name} must be {'above 0' if least == 0 else f'at least {least}'}, got {value!r}")
    if trial.clock not in CLOCKS:
        raise ValueError(f"clock must be one of {CLOCKS}, got {trial.clock!r}")
    return trial


def open_run(trial: Trial) -> Run:
    """Write what a new run is about into its folder, or take up the one that is there."""
    folder = Path(trial.folder)
    path = folder / "args.yml"
    if path.exists():
        kept = yaml.safe_load(path.read_text())
        _check_same(folder, kept["options"], asdict(trial))
        return Run(folder, trial, kept["commit"], kept["settings"], kept["env_kwargs"])
    settings, env_kwargs = read_options(trial)
    run = Run(folder, trial, current_commit(PROJECT), settings, env_kwargs)
    folder.mkdir(parents=True, exist_ok=True)
    kept = {"options": asdict(trial), "commit": run.commit, "settings": settings, "env_kwargs": env_kwargs}
    write_yaml(path, kept)
    return run


def note_machine(run: Run, machine: str) -> list[str]:
    """The machines that the run has been on, this one the last, as its args.yml keeps them."""
    path = run.folder / "args.yml"
    kept = yaml.safe_load(path.read_text())
    machines = kept.get("machines", [])
    if machines[-1:] != [machine]:
        machines = [*machines, machine]
        write_yaml(path, {**kept, "machines": machines})
    return machines


def read_options(trial: Trial) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of the algorithm, and the options of the environment with what the algorithm needs."""
    settings = read_settings(trial)
    env_kwargs = trial.algorithm.env_options(trial.env, {**settings.pop("env_kwargs", {}), **trial.env_kwargs})
    if "frame_stack" in settings:
        env_kwargs = {**env_kwargs, "frame_stack": settings.pop("frame_stack")}
    return settings, env_kwargs


def read_settings(trial: Trial) -> dict[str, Any]:
    """The settings of the algorithm for the environment, with what the trial changes; "lin_..." is still text."""
    algorithm = trial.algorithm
    tuned = read_hyperparams(HYPERPARAMS / f"{trial.algo}.yml", trial.env, trial.preset)
    if trial.trained_agent == PRETRAINED:
        tuned |= _pretrained_settings(trial)
    settings = merge(algorithm.settings, change(tuned, trial.params))
    settings["n_timesteps"] = trial.n_timesteps or settings.get("n_timesteps", 1_000_000)
    settings["n_envs"] = trial.n_envs or settings.get("n_envs", 128)
    settings.setdefault("matmul_precision", "highest")
    return settings


def _pretrained_settings(trial: Trial) -> dict[str, Any]:
    if trial.algo != "ram":
        raise ValueError(f'trained_agent="{PRETRAINED}" is an agent of the algorithm "ram", got algo={trial.algo!r}')
    return pretrained_settings(trial.env)


def _check_same(folder: Path, kept: dict[str, Any], asked: dict[str, Any]) -> None:
    for name, value in yaml.safe_load(yaml.safe_dump(asked)).items():
        if name not in _CIRCUMSTANCES and kept.get(name) != value:
            raise ValueError(
                f"{folder} holds a run with {name}={kept.get(name)!r}, asked for was {value!r}: take another folder or remove it"
            )
