"""One run: an algorithm learns in an environment, the best model on validation is kept, and that one is tested."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

from ram_envs import env_defaults

from ..pretrained import PRETRAINED, load_pretrained
from ..recurrent import parse_schedule
from ..vec_env import make_vec_env
from .callbacks import ResumeCallback, Stopwatch, TimedEvalCallback, TimeLimitCallback, on_the_clock
from .checkpoints import resume
from .config import PROJECT, RUN_HYPERPARAMS, RunConfig, read_hyperparams
from .evaluation import evaluate_on_test, evaluation_of, make_split
from .figures import plot_glimpses, plot_learning_curve, record, watch
from .generator import GeneratorAlgorithm
from .registry import Algorithm, get_algorithm

MANY_TIMESTEPS = 10**12  # With minutes the clock alone ends the training.
# What may differ when an unfinished run is resumed.
_CIRCUMSTANCES = ("folder", "progress", "command", "device", "num_threads", "tensorboard_log", "figures")
_NOISES = {"normal": NormalActionNoise, "ornstein-uhlenbeck": OrnsteinUhlenbeckActionNoise}


@dataclass
class Run:
    """A run: what was asked of it, and with what it learns."""

    config: RunConfig
    commit: str | None  # Of the project, with "-dirty" behind it where files differ; None outside git.
    hyperparams: dict[str, Any]  # Of the algorithm, and `RUN_HYPERPARAMS`.
    env_kwargs: dict[str, Any]  # Options of its environments.
    machines: list[str] = field(default_factory=list)  # Where it learned, one after the other.

    @property
    def folder(self) -> Path:
        """Where everything is written."""
        return Path(self.config.folder)

    @property
    def frame_stack(self) -> int:
        """The number of observations that the agent sees at once."""
        return self.hyperparams.get("frame_stack", 1)


def run(config: RunConfig, report: Callable[[int, float], None] | None = None) -> dict[str, Any]:
    """Train, evaluate and test as the config says.

    Where the folder holds a finished run its result is returned; an unfinished one is resumed from its last checkpoint.

    Args:
        config: what is asked.
        report: called with (steps, validation error in %) after each evaluation; what it raises ends the run.

    Returns:
        what result.json holds.

    Raises:
        ValueError: something in the config is unknown or out of range, or the folder holds a run that was asked for differently.
        ImportError: the algorithm needs a package that is not installed.
    """
    opened = open_run(config)
    finished = opened.folder / "result.json"
    if finished.exists():
        return json.loads(finished.read_text())
    torch.set_num_threads(config.num_threads)
    torch.set_flush_denormal(True)  # Numbers below 1e-38 count for nothing and cost a seventh of the time.
    torch.set_float32_matmul_precision(opened.hyperparams["matmul_precision"])
    return train(opened, report)


def open_run(config: RunConfig) -> Run:
    """The run of the config's folder as its args.yml has it, or a new one; writes nothing.

    Raises:
        ValueError: the folder holds a run that was asked for differently or by another version, or see `read_hyperparams`.
    """
    path = Path(config.folder) / "args.yml"
    if not path.exists():
        return Run(config, current_commit(), *read_hyperparams(config))
    stored = _read_args(path)
    for name, value in yaml.safe_load(yaml.safe_dump(_plain(config))).items():
        if name not in _CIRCUMSTANCES and stored["config"].get(name) != value:
            raise ValueError(
                f"{config.folder} holds a run with {name}={stored['config'].get(name)!r}, asked for was {value!r}: "
                "take another folder or remove it"
            )
    return Run(**{**stored, "config": config})


def train(run: Run, report: Callable[[int, float], None] | None = None) -> dict[str, Any]:
    """Learn, keep the model that is best on validation, test that one; returns what result.json holds."""
    config, checkpoint, algorithm = run.config, run.folder / "checkpoint.pkl", get_algorithm(run.config.algo)
    order = {"image_order": "shuffled"} if "image_order" in env_defaults(config.env) else {}
    env = make_vec_env(config.env, run.hyperparams["n_envs"], frame_stack=run.frame_stack, **{**order, **run.env_kwargs})
    evaluation = make_evaluation(run, env, report)
    callbacks: list[BaseCallback] = [evaluation]
    if checkpoint.exists():
        model, progress = resume(algorithm.load, checkpoint, env, device=config.device)
        evaluation.set_state(progress)
        print(f"Resuming after {model.num_timesteps} steps")
    else:
        model = load_agent(config, env) if config.trained_agent else make_model(run, algorithm, env)
        model.num_timesteps = 0
    store(run, model.device)
    if not isinstance(model, GeneratorAlgorithm):
        callbacks.append(ResumeCallback(checkpoint, evaluation))
    n_timesteps = run.hyperparams["n_timesteps"]
    if config.minutes:
        callbacks.append(TimeLimitCallback(evaluation.stopwatch, 60 * config.minutes, config.progress))
        model, n_timesteps = on_the_clock(model), MANY_TIMESTEPS
    model.learn(
        n_timesteps - model.num_timesteps,
        callbacks,
        reset_num_timesteps=model.num_timesteps == 0,
        progress_bar=config.progress and not config.minutes,
    )
    model.save(run.folder / "model.zip")
    best = algorithm.load(run.folder / "best_model.zip", env=env, device=config.device)
    result = describe(run, model, env, evaluation)
    if config.test:
        result |= evaluate_on_test(best, config.env, run.env_kwargs, run.frame_stack)
    (run.folder / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    if config.figures:
        draw(run, best, env)
    checkpoint.unlink(missing_ok=True)
    return result


def make_evaluation(run: Run, env: VecEnv, report: Callable[[int, float], None] | None) -> TimedEvalCallback:
    """Evaluations on the whole validation split, by steps or, with minutes, by the clock."""
    config = run.config
    when: dict[str, Any] = {"eval_steps": config.eval_freq or max(run.hyperparams["n_timesteps"] // config.evaluations, 1)}
    if config.minutes and not config.eval_freq:
        when = {"eval_seconds": 60 * config.minutes / config.evaluations}
    return TimedEvalCallback(
        Stopwatch(clock=config.clock),
        env,
        make_split=lambda: make_split(env, config.env, "validation", run.env_kwargs, frame_stack=run.frame_stack),
        report=report,
        log_path=str(run.folder),
        best_model_save_path=str(run.folder),
        verbose=0,
        **when,
    )


def make_model(run: Run, algorithm: Algorithm, env: VecMonitor) -> BaseAlgorithm:
    """A new model with the run's hyperparameters."""
    hyperparams = parse_hyperparams(run.hyperparams, env.action_space)
    config = run.config
    return algorithm.make(env, hyperparams, config.seed, device=config.device, tensorboard_log=config.tensorboard_log)


def load_agent(config: RunConfig, env: VecMonitor) -> BaseAlgorithm:
    """The trained agent that the config names."""
    if config.trained_agent == PRETRAINED:
        return load_pretrained(config.env, env, config.device)
    return get_algorithm(config.algo).load(config.trained_agent, env=env, device=config.device)


def parse_hyperparams(hyperparams: dict[str, Any], action_space: spaces.Space) -> dict[str, Any]:
    """The algorithm's arguments, with rl_zoo3's "lin_0.001" as a schedule, and its noise_type and noise_std as action noise.

    Raises:
        ValueError: an unknown noise type, or one without noise_std.
    """
    given = {name: value for name, value in hyperparams.items() if name not in RUN_HYPERPARAMS}
    noise_type, noise_std = given.pop("noise_type", None), given.pop("noise_std", None)
    parsed = {name: parse_schedule(value) if isinstance(value, str) else value for name, value in given.items()}
    if noise_type is not None:
        if noise_type not in _NOISES or noise_std is None:
            raise ValueError(f"noise_type must be one of {tuple(_NOISES)}, beside noise_std, got {noise_type!r}")
        ones = np.ones(action_space.shape or (1,))
        parsed["action_noise"] = _NOISES[noise_type](0 * ones, noise_std * ones)
    return parsed


def store(run: Run, device: torch.device) -> None:
    """Write args.yml, from which the run can be resumed, with the machine that it is on."""
    machine = describe_machine(device)
    if run.machines[-1:] != [machine]:
        run.machines.append(machine)
    run.folder.mkdir(parents=True, exist_ok=True)
    stored = {**vars(run), "config": _plain(run.config)}
    (run.folder / "args.yml").write_text(yaml.safe_dump(stored, sort_keys=False))


def describe(run: Run, model: BaseAlgorithm, env: VecMonitor, evaluation: TimedEvalCallback) -> dict[str, Any]:
    """What result.json says of the training."""
    config = run.config
    wall, cpu = evaluation.stopwatch.read()
    curve = np.load(run.folder / "evaluations.npz")
    episodes = model.num_timesteps / curve["ep_lengths"].mean()
    result: dict[str, Any] = {"env": config.env, "algo": config.algo, "preset": config.preset, "seed": config.seed}
    if num_images := _ask(env, "num_images"):
        result |= {"dataset": _ask(env, "dataset"), "dataset_size": num_images}
    return {
        **result,
        "n_timesteps": model.num_timesteps,
        "episodes_per_second": round(float(episodes) / wall, 1),
        "frames_per_second": round(model.num_timesteps / wall, 1),
        "train_seconds": round(wall, 1),
        "train_cpu_seconds": round(cpu, 1),
        "validation_error": round(100 * (1 - curve["successes"].mean(axis=1)[curve["results"].mean(axis=1).argmax()]), 2),
        "last_validation_error": round(100 * (1 - float(curve["successes"][-1].mean())), 2),
        "command": config.command,
        "commit": run.commit,
        "machine": ", then ".join(run.machines),
        "torch": torch.__version__,
        "hyperparams": run.hyperparams,
        "env_kwargs": run.env_kwargs,
    }


def draw(run: Run, model: BaseAlgorithm, env: VecMonitor) -> None:
    """The learning curve, and the glimpses of eight images or a film of games: of the test split if that is used."""
    config, curve = run.config, np.load(run.folder / "evaluations.npz")
    episodes = curve["timesteps"] / curve["ep_lengths"].mean()
    error = 100 * (1 - curve["successes"].mean(axis=1))
    title = f"{config.algo} on {config.env}, seed {config.seed}"
    plot_learning_curve(episodes, curve["cpu_seconds"], error, run.folder / "learning_curve.png", title)
    split = "test" if config.test else "validation"
    if not _ask(env, "num_images"):
        seed = evaluation_of(env, split).seed or 0
        record(model, config.env, run.folder / "games.gif", seed=seed, frame_stack=run.frame_stack, **run.env_kwargs)
    elif not get_algorithm(config.algo).sees_scene:
        plot_glimpses(watch(model, config.env, run.env_kwargs, split, frame_stack=run.frame_stack), run.folder / "glimpses.png")


def new_folder(log_folder: Path, algo: str, env_id: str) -> Path:
    """Make the folder of the next run, such as logs/ram/GlimpseMNIST-v0_3."""
    while True:
        number = max((number for number, _ in _numbered(log_folder, algo, env_id)), default=0) + 1
        folder = log_folder / algo / f"{env_id}_{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:  # Another run, begun at the same moment, was faster.
            continue
        return folder


def unfinished_run(log_folder: Path, algo: str, env_id: str) -> RunConfig:
    """What was asked of the newest run that has no result, with its folder.

    Raises:
        FileNotFoundError: there is none.
    """
    for _, folder in sorted(_numbered(log_folder, algo, env_id), reverse=True):
        path = folder / "args.yml"
        if path.is_file() and not (folder / "result.json").exists():
            return RunConfig(**{**_read_args(path)["config"], "folder": folder})
    raise FileNotFoundError(f"there is no unfinished run of {algo} on {env_id} in {log_folder}: start one without --resume")


def current_commit(folder: Path = PROJECT) -> str | None:
    """The commit checked out in the folder, with "-dirty" behind it where files differ; None outside git."""
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
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


def _ask(env: VecEnv, name: str) -> Any:
    """What environments of ours say of themselves; None where they are others'."""
    return env.get_attr(name)[0] if env.has_attr(name) else None


def _read_args(path: Path) -> dict[str, Any]:
    stored = yaml.safe_load(path.read_text())
    if "config" not in stored:
        raise ValueError(f"{path} is of another version of ram-envs, which can't be resumed: take another folder or remove it")
    return stored


def _plain(config: RunConfig) -> dict[str, Any]:
    return {**asdict(config), "folder": str(config.folder)}


def _numbered(log_folder: Path, algo: str, env_id: str) -> list[tuple[int, Path]]:
    """The numbers and folders of all runs."""
    numbered = []
    for folder in (log_folder / algo).glob(f"{env_id}_*"):
        number = folder.name.removeprefix(f"{env_id}_")
        if number.isdigit():
            numbered.append((int(number), folder))
    return numbered
