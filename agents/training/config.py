"""What a run is asked for, what it learns with (hyperparams/<algo>.yml, with changes), and its folder, commit and machine."""

from __future__ import annotations

import math
import os
import platform
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
import yaml

from ..policy import current_names
from ..pretrained import PRETRAINED, pretrained_hyperparams
from .callbacks import CLOCKS
from .checkpoints import checkpoints_in
from .registry import WHOLE_SCENE, get_algorithm
from .settings import HYPERPARAMS, PROJECT, Settings, find_settings, read_file, rollout

# Hyperparameters of a run and not of the algorithm's class. The last is torch's: "highest", "high" or "medium".
RUN_HYPERPARAMS = ("n_timesteps", "n_envs", "frame_stack", "matmul_precision")
# What may differ when an unfinished run is resumed.
CIRCUMSTANCES = ("folder", "progress", "command", "device", "num_threads", "tensorboard_log", "figures", "imports", "trust")
PUBLISHED = (":!results", ":!docs/*.md", ":!docs/images")  # Where runs are published; no run reads it.
_AT_LEAST_ONE = ("n_timesteps", "n_envs", "evaluations", "eval_freq", "num_threads")


@dataclass(frozen=True)
class RunConfig:
    """What is asked of a run.

    Raises:
        ValueError: a value is out of range, an unknown algorithm, or what does not go with the trained agent.
    """

    env: str = "GlimpseMNIST-v0"  # A registered environment's id.
    folder: str | Path = ""  # Where everything is written.
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

    trained_agent: str | None = None
    """A trained agent to begin from: "pretrained", the package's own for the environment; a run's folder or a model in it, with
    the run's hyperparameters and options; or SB3's zip from elsewhere."""

    trust: bool = False  # Whether that zip may run the code that it holds.
    test: bool = True  # Whether the best model is tested; else the test split is not touched.
    figures: bool = True  # Whether the learning curve and glimpses or games are drawn.
    device: str = "auto"  # Of torch, or "auto".
    tensorboard_log: str | None = None  # A folder for TensorBoard's logs.
    num_threads: int = 1  # Threads of torch.
    progress: bool = False  # Whether to show a progress bar.
    imports: list[str] = field(default_factory=list)  # Modules that register what the run needs.
    command: str | None = None  # The command line that asked for all this.

    def __post_init__(self) -> None:
        for name in _AT_LEAST_ONE:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value!r}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in [0, 2**32), got {self.seed!r}")
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise ValueError(f"minutes must be a number above 0, got {self.minutes!r}")
        if self.clock not in CLOCKS:
            raise ValueError(f"clock must be one of {CLOCKS}, got {self.clock!r}")
        if "frame_stack" in self.env_kwargs:
            raise ValueError("env_kwargs can't hold frame_stack, which is a hyperparameter: -params frame_stack:NUMBER")
        _check_device(self.device)
        get_algorithm(self.algo)
        if self.trained_agent == PRETRAINED and self.algo != "ram":
            raise ValueError(f'trained_agent="{PRETRAINED}" is an agent of the algorithm "ram", got algo={self.algo!r}')
        if self.trained_agent and self.preset:
            raise ValueError(f"preset can't be given for a trained agent, which has its own hyperparameters, got {self.preset!r}")
        if self.is_foreign and (changed := [name for name in self.hyperparams if name not in RUN_HYPERPARAMS]):
            raise ValueError(f"{changed[0]} can't be changed: {self.trained_agent} has its own hyperparameters")

    @property
    def agent_run(self) -> Path | None:
        """The folder of the run that made the trained agent; None: there is no such run."""
        return run_of(self.trained_agent)

    @property
    def is_foreign(self) -> bool:
        """Whether the trained agent is SB3's zip from elsewhere."""
        return self.trained_agent not in (None, PRETRAINED) and self.agent_run is None


def _check_device(device: str) -> None:
    try:
        kind = torch.device("cpu" if device == "auto" else device).type
    except RuntimeError as error:
        raise ValueError(f'device must be "auto" or torch\'s "cpu", "cuda", "cuda:1" or another, got {device!r}') from error
    if kind == "cuda" and not torch.cuda.is_available():  # Stable-Baselines3 would take the CPU without a word.
        raise ValueError(f'device must be "cpu" or "auto" where torch finds no GPU, got {device!r}')


def run_of(trained_agent: str | None) -> Path | None:
    """The folder of the run that a trained agent's path is in or names; None: there is no such run."""
    if trained_agent in (None, PRETRAINED):
        return None
    path = Path(str(trained_agent))
    try:
        folder = path if path.is_dir() else path.parent
        return folder if (folder / "args.yml").is_file() else None
    except OSError:  # Such as a name longer than names may be.
        return None


def read_hyperparams(config: RunConfig, say: Callable[[str], None] = lambda line: None) -> tuple[dict[str, Any], dict[str, Any]]:
    """All hyperparameters of a run, with "lin_..." still as text, and all options of its environments.

    What the config changes takes precedence over hyperparams/<algo>.yml, or the trained agent's own hyperparameters, and those
    over what defines the algorithm. A zip from elsewhere tells only SB3 of its hyperparameters. Where the file has none for the
    environment, or its images are not those that they were made for, `say` is told in one line which are used, see
    `find_settings`.

    Raises:
        ValueError: an unknown preset, an environment without a pretrained agent, a trained agent of another algorithm, a change
            of an entry where there are no entries, numbers out of range, or options that don't fit the algorithm.
    """
    algorithm = get_algorithm(config.algo)
    settings = Settings(read_file(HYPERPARAMS / f"{config.algo}.yml", config.env, config.preset))
    if config.trained_agent == PRETRAINED:
        settings.hyperparams |= pretrained_hyperparams(config.env)
    elif config.agent_run is not None:
        settings.hyperparams = _hyperparams_of_run(config, config.agent_run, WHOLE_SCENE if algorithm.sees_scene else {})
    elif not config.is_foreign:
        settings = find_settings(algorithm, config.env, settings.hyperparams, config.env_kwargs)
    hyperparams = merge(algorithm.hyperparams, change(settings.hyperparams, config.hyperparams))
    env_kwargs = algorithm.env_kwargs(config.env, {**hyperparams.pop("env_kwargs", {}), **config.env_kwargs})
    for name, default in (("n_timesteps", 1_000_000), ("n_envs", 128)):
        value = getattr(config, name) or hyperparams.get(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 1 or value != value // 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        hyperparams[name] = int(value)
    if not config.is_foreign and "n_steps" not in hyperparams:
        hyperparams = {**rollout(algorithm, settings, hyperparams["n_envs"]), **hyperparams}
    if settings.source:
        say(f"{config.algo} on {config.env}: {settings.source}")
    hyperparams.setdefault("matmul_precision", "highest")
    return {name: value for name, value in hyperparams.items() if name in RUN_HYPERPARAMS or not config.is_foreign}, env_kwargs


def _hyperparams_of_run(config: RunConfig, folder: Path, added: dict[str, Any]) -> dict[str, Any]:
    """Those that a trained agent has learned with, and its environment's options without what its algorithm adds."""
    stored = read_args(folder)
    algo, env_id = (stored["config"].get(name) for name in ("algo", "env"))
    if algo != config.algo:
        raise ValueError(f"{config.trained_agent} is an agent of the algorithm {algo}, got algo={config.algo!r}")
    options = stored["env_kwargs"] if env_id == config.env else {}
    return {**stored["hyperparams"], "env_kwargs": {name: value for name, value in options.items() if name not in added}}


def read_args(folder: Path) -> dict[str, Any]:
    """What a run's args.yml holds: "config", what was asked for, and the other fields of `Run`.

    Raises:
        ValueError: it is of another version of ram-envs, or not whole.
    """
    path = folder / "args.yml"
    try:
        stored = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
    if not isinstance(stored, dict) or not isinstance(stored.get("config"), dict):
        raise ValueError(f"{path} is of another version of ram-envs, which can't be resumed: take another folder or remove it")
    hyperparams = stored.get("hyperparams")
    if isinstance(hyperparams, dict) and isinstance(hyperparams.get("policy_kwargs"), dict):
        hyperparams["policy_kwargs"] = current_names(hyperparams["policy_kwargs"])
    return stored


def difference(stored: dict[str, Any], asked: dict[str, Any]) -> str | None:
    """The first thing in which a run differs from what is asked, but for circumstances that may; None: there is none."""
    for name, value in yaml.safe_load(yaml.safe_dump(asked)).items():  # Tuples are stored as lists.
        if name not in CIRCUMSTANCES and stored.get(name) != value:
            return f"{name}={stored.get(name)!r}, asked for was {value!r}"
    return None


def new_folder(log_folder: Path, algo: str, env_id: str) -> Path:
    """Make the folder of the next run, such as logs/ram/GlimpseMNIST-v0_3."""
    while True:
        number = max((number for number, _ in _numbered(log_folder, algo, env_id)), default=0) + 1
        folder = log_folder / plain_name(algo) / f"{plain_name(env_id)}_{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:  # Another run, begun at the same moment, was faster.
            if not folder.is_dir():
                raise
            continue
        return folder


def unfinished_run(log_folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """What was asked of the newest run that has a checkpoint and no result, as fields of `RunConfig`, with its folder.

    Args:
        log_folder: where the run folders are.
        asked: fields of `RunConfig` that it must agree with, but for `CIRCUMSTANCES`, which take the place of the run's own;
            "folder", where given, is the run's.

    Raises:
        FileNotFoundError: there is none.
        ValueError: there are some, but they were asked for differently.
    """
    algo, env_id = asked.get("algo", RunConfig.algo), asked.get("env", RunConfig.env)
    folders = [folder for _, folder in sorted(_numbered(log_folder, algo, env_id), reverse=True)]
    differences = []
    for folder in [Path(asked["folder"])] if asked.get("folder") else folders:
        if (folder / "result.json").exists() or not checkpoints_in(folder) or not (folder / "args.yml").is_file():
            continue
        stored = read_args(folder)["config"]
        if changed := difference(stored, asked):
            differences.append(f"{folder} holds a run with {changed}")
            continue
        known = {field.name for field in fields(RunConfig)}
        circumstances = {name: asked[name] for name in CIRCUMSTANCES if name in asked}
        return {**{n: v for n, v in stored.items() if n in known}, "trust": False, **circumstances, "folder": str(folder)}
    if asked.get("folder") and (Path(asked["folder"]) / "result.json").exists():
        raise ValueError(f"{asked['folder']} holds a finished run: there is nothing to resume")
    if differences:
        raise ValueError(f"nothing to resume as asked: {differences[0]}")
    where = asked.get("folder") or f"{log_folder} of {algo} on {env_id}"
    raise FileNotFoundError(f"there is no unfinished run with a checkpoint in {where}: start one without --resume")


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


def current_commit(folder: Path = PROJECT) -> str | None:
    """The commit checked out in the folder, with "-dirty" behind it where files differ that a run may read; None outside git.

    What results are published into counts for nothing: else the second run of a study would not be clean any more.
    """
    if not (folder / ".git").exists():  # What surrounds an installed package is not it.
        return None
    git = ["git", "-C", str(folder)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changes = [*git, "status", "--porcelain", "--untracked-files=no", *PUBLISHED]
        return head + "-dirty" * bool(subprocess.run(changes, capture_output=True, text=True, check=True).stdout)
    except (OSError, subprocess.CalledProcessError):
        return None


def describe_machine(device: torch.device) -> str:
    """The processor and what the networks run on: the GPU's name, or "cpu"."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{name_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} torch thread(s), {name}"


def name_processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name as far as it is known, else its architecture; cpuinfo is Linux's file that names it."""
    lines = cpuinfo.read_text("utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), "") or platform.processor() or platform.machine()


def _numbered(log_folder: Path, algo: str, env_id: str) -> list[tuple[int, Path]]:
    """The numbers and folders of all runs."""
    numbered = []
    prefix = f"{plain_name(env_id)}_"
    for folder in (log_folder / plain_name(algo)).glob("*"):
        number = folder.name.removeprefix(prefix)
        if folder.name.startswith(prefix) and number.isdecimal():
            numbered.append((int(number), folder))
    return numbered


def plain_name(name: str) -> str:
    """An environment's or algorithm's name as a part of a path, as rl_zoo3 has it: no module, no slashes of namespaces."""
    return re.sub(r"[^\w.-]", "-", name.rpartition(":")[2]).lstrip(".")
