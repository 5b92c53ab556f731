"""One run: an algorithm learns in an environment, the best model on validation is kept, and that one is tested."""

from __future__ import annotations

import inspect
import json
import math
import os
import shutil
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from filelock import FileLock, Timeout
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

from ram_envs import env_defaults

from ..pretrained import PRETRAINED, load_pretrained_weights
from ..recurrent import parse_schedule
from ..vec_env import make_vec_env
from . import checkpoints
from .callbacks import ProgressCallback, ResumeCallback, Stopped, TimedEvalCallback, TimeLimitCallback, on_the_clock
from .config import (
    RUN_HYPERPARAMS,
    RunConfig,
    current_commit,
    describe_machine,
    difference,
    plain_name,
    read_args,
    read_hyperparams,
)
from .evaluation import evaluate_on_test, evaluation_of, make_split
from .figures import plot_glimpses, plot_learning_curve, record, watch
from .generator import GeneratorAlgorithm
from .looks import LooksCallback, error_along_mean_path, log_hyperparams
from .registry import Algorithm, get_algorithm

MANY_TIMESTEPS = 10**12  # With minutes the clock alone ends the training.
_SAME_SIGNAL = 1.0  # Seconds in which a signal may come twice: `make` passes on what the whole group of processes was sent.
_NOISES = {"normal": NormalActionNoise, "ornstein-uhlenbeck": OrnsteinUhlenbeckActionNoise}


@dataclass
class Run:
    """A run: what was asked of it, and with what it learns."""

    config: RunConfig
    commit: str | None  # `current_commit`.
    hyperparams: dict[str, Any]  # Of the algorithm, and `RUN_HYPERPARAMS`.
    env_kwargs: dict[str, Any]  # Options of its environments.
    machines: list[str] = field(default_factory=list)  # Where it learned, one after the other.
    class_names: list[str] | None = None  # What its classes stand for; None: it has none.

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

    Where the folder holds a finished run its result is returned; an unfinished one is resumed from its last checkpoint. Where the
    training fails before its first evaluation, a folder that was new or empty is removed.

    Ctrl-C, and SIGTERM where it has a handler, end the training with a checkpoint before the next rollout; a later one at once.

    Args:
        config: what is asked.
        report: called with (steps, validation error in %) after each evaluation; what it raises ends the run.

    Returns:
        what result.json holds.

    Raises:
        ValueError: something in the config is unknown or out of range, or the folder holds a run that was asked for differently.
        ImportError: the algorithm needs a package that is not installed.
        OSError: the folder can't take what a run writes, or another process is at work in it.
        Stopped: a signal came.
    """
    finished = Path(config.folder) / "result.json"
    with nullcontext() if finished.exists() else _alone(finished.parent, config.algo):
        opened = open_run(config)
        if finished.exists():
            return json.loads(finished.read_text("utf-8"))
        torch.set_num_threads(config.num_threads)
        torch.set_flush_denormal(True)  # Numbers below 1e-38 count for nothing and cost a seventh of the time.
        torch.set_float32_matmul_precision(opened.hyperparams["matmul_precision"])
        return train(opened, report)


def open_run(config: RunConfig) -> Run:
    """The run of the config's folder as its args.yml has it, or a new one; writes nothing.

    Raises:
        ValueError: the folder holds a run that was asked for differently or by another version, or see `read_hyperparams`.
    """
    if not (Path(config.folder) / "args.yml").exists():
        read = read_hyperparams(config, say=print)
        hyperparams, env_kwargs = yaml.safe_load(yaml.safe_dump(read))  # As they are when it resumes.
        steps, n_envs = hyperparams["n_timesteps"], hyperparams["n_envs"]
        if steps < n_envs and not config.minutes:
            raise ValueError(f"n_timesteps must be at least n_envs, one step of each environment, got {steps} and {n_envs}")
        return Run(config, current_commit(), hyperparams, env_kwargs)
    if (Path(config.folder) / "checkpoint.pkl").exists():
        raise ValueError(f"{config.folder} has a checkpoint of another version of ram-envs: take another folder or remove it")
    stored = read_args(Path(config.folder))
    if changed := difference(stored["config"], _plain(config)):
        raise ValueError(f"{config.folder} holds a run with {changed}: take another folder or remove it")
    return Run(**{**stored, "config": config})


@contextmanager
def _alone(folder: Path, algo: str) -> Iterator[None]:
    """Hold the folder for this process; a new one is removed again where nothing was learned."""
    is_new, new = not folder.exists() or not any(folder.iterdir()), [path for path in folder.parents if not path.exists()]
    if folder.exists() and folder.parent.name == algo:  # As `new_folder` has just made it.
        new = [folder.parent]
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BlockingIOError(f"another process is at work in {folder}: wait for it or stop it") from error
    try:
        yield
    finally:
        with suppress(OSError):
            os.remove(lock.lock_file)
        lock.release()
        if is_new and not ((folder / "evaluations.npz").exists() or checkpoints.checkpoints_in(folder)):
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # They hold other runs.
                for path in new:
                    path.rmdir()


def train(run: Run, report: Callable[[int, float], None] | None = None) -> dict[str, Any]:
    """Learn, keep the model that is best on validation, test that one; returns what result.json holds."""
    config, algorithm = run.config, get_algorithm(run.config.algo)
    order = {"image_order": "shuffled"} if "image_order" in env_defaults(config.env) else {}
    env = make_vec_env(config.env, run.hyperparams["n_envs"], frame_stack=run.frame_stack, **{**order, **run.env_kwargs})
    run.class_names = class_names(env)
    evaluation = make_evaluation(run, env, report)
    keeper = ResumeCallback(run.folder, evaluation, begin=lambda: store(run, model.device))
    callbacks: list[BaseCallback] = [evaluation, keeper]
    if any((run.folder / name).exists() for name in (checkpoints.CHECKPOINT, checkpoints.PREVIOUS)):
        state = checkpoints.read_checkpoint(run.folder)
        model = load_agent(run, env) if config.is_foreign else make_model(run, algorithm, env)
        evaluation.set_state(checkpoints.restore(state, model, env))
        print(f"Resuming after {model.num_timesteps} steps")
    else:
        model = load_agent(run, env) if config.trained_agent else make_model(run, algorithm, env)
        model.num_timesteps = 0
        for name in ("best_model.zip", "evaluations.npz") if run.machines else ():  # Of a start that came to no checkpoint.
            (run.folder / name).unlink(missing_ok=True)
    n_timesteps = run.hyperparams["n_timesteps"]
    if config.minutes:
        callbacks.append(TimeLimitCallback(evaluation.stopwatch, 60 * config.minutes))
        model, n_timesteps = on_the_clock(model), MANY_TIMESTEPS
    if config.progress:
        callbacks.append(ProgressCallback(evaluation, 60 * config.minutes if config.minutes else None, _ask(env, "success_name")))
    with _stopped_by_signals(keeper):
        model.learn(n_timesteps - model.num_timesteps, callbacks, reset_num_timesteps=model.num_timesteps == 0)
    with checkpoints.written(run.folder / "model.zip") as file:
        model.save(file)
    checkpoints.link(run.folder / "model.zip", run.folder / f"{plain_name(config.env)}.zip")  # By the name that rl_zoo3 expects.
    result = describe(run, model, env, evaluation)
    best = _best_of(run, model, env)
    if config.test:
        tested = (best, config.env, run.env_kwargs)
        result |= evaluate_on_test(*tested, run.frame_stack)
        if (blind := error_along_mean_path(*tested, frame_stack=run.frame_stack)) is not None:
            result["error_along_mean_path"] = blind
    log_hyperparams(model, run.hyperparams, {name: result[name] for name in ("validation_error", "test_error") if name in result})
    checkpoints.write_text(run.folder / "result.json", json.dumps(result, indent=2) + "\n")
    if config.figures:
        draw(run, best, env)
    checkpoints.remove_checkpoints(run.folder)
    return result


@contextmanager
def _stopped_by_signals(keeper: ResumeCallback) -> Iterator[None]:
    """Let the keeper end the training at SIGINT and SIGTERM; another one, later than `_SAME_SIGNAL`, ends it at once."""
    first = math.inf

    def note(signum: int, frame: Any) -> None:
        nonlocal first
        if time.monotonic() > first + _SAME_SIGNAL:
            raise Stopped(signum)
        keeper.signum, first = signum, min(first, time.monotonic())

    is_main = threading.current_thread() is threading.main_thread()  # Others can't set handlers.
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM) if is_main}
    for number in (number for number, handler in before.items() if callable(handler)):  # Neither ignored nor deadly.
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _best_of(run: Run, model: BaseAlgorithm, env: VecMonitor) -> BaseAlgorithm:
    """The model with the weights that were best on validation; a generator's is loaded from what this process has written."""
    path = run.folder / "best_model.zip"
    if isinstance(model, GeneratorAlgorithm):
        return GeneratorAlgorithm.load(path, env=env)
    checkpoints.load_weights(model, path)
    return model


def make_evaluation(run: Run, env: VecEnv, report: Callable[[int, float], None] | None) -> TimedEvalCallback:
    """Evaluations on the whole validation split, by steps or, with minutes, by the clock."""
    config = run.config
    when: dict[str, Any] = {"eval_steps": config.eval_freq or max(run.hyperparams["n_timesteps"] // config.evaluations, 1)}
    if config.minutes and not config.eval_freq:
        when = {"eval_seconds": 60 * config.minutes / config.evaluations}
    return TimedEvalCallback(
        config.clock,
        env,
        make_split=lambda: make_split(env, config.env, "validation", run.env_kwargs, frame_stack=run.frame_stack),
        report=report,
        callback_after_eval=LooksCallback(config.env, run.env_kwargs, run.frame_stack) if config.tensorboard_log else None,
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


def load_agent(run: Run, env: VecMonitor) -> BaseAlgorithm:
    """The trained agent that the run's config names, with the run's hyperparameters and seed.

    Raises:
        ValueError: it does not fit the environment, its file is no saved model, or holds code that runs when it is loaded and
            `trust` is not set.
        FileNotFoundError: there is no such file.
    """
    config, algorithm = run.config, get_algorithm(run.config.algo)
    if config.trained_agent == PRETRAINED:
        return load_pretrained_weights(make_model(run, algorithm, env), config.env)  # type: ignore[arg-type]
    path = Path(str(config.trained_agent))
    path = path / "best_model.zip" if path.is_dir() else path
    if not path.exists():
        raise FileNotFoundError(f"there is no trained agent {path}")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is no saved model: those are zips that Stable-Baselines3's save() writes")
    if not config.is_foreign and not inspect.isgeneratorfunction(algorithm.target):
        model = make_model(run, algorithm, env)
        checkpoints.load_weights(model, path)
        return model
    if not config.trust:
        raise ValueError(f"{path} holds pickled code, which runs when it is loaded: give --trust if you know where it comes from")
    return algorithm.load(path, env=env, device=config.device, seed=config.seed, tensorboard_log=config.tensorboard_log)


def parse_hyperparams(hyperparams: dict[str, Any], action_space: spaces.Space) -> dict[str, Any]:
    """The algorithm's arguments, with rl_zoo3's "lin_0.001" as a schedule, and its noise_type and noise_std as action noise.

    Raises:
        ValueError: an unknown noise type, or one without noise_std.
    """
    given = {name: value for name, value in hyperparams.items() if name not in RUN_HYPERPARAMS}
    noise_type, noise_std = given.pop("noise_type", None), given.pop("noise_std", None)
    parsed = {name: parse_schedule(value) if str(value).startswith("lin_") else value for name, value in given.items()}
    if noise_type is not None:
        if noise_type not in _NOISES or noise_std is None:
            raise ValueError(f"noise_type must be one of {tuple(_NOISES)}, beside noise_std, got {noise_type!r}")
        ones = np.ones(action_space.shape or (1,))
        parsed["action_noise"] = _NOISES[noise_type](0 * ones, noise_std * ones)
    return parsed


def store(run: Run, device: torch.device) -> None:
    """Write args.yml, from which the run can be resumed, with the machine that it is on; and what rl_zoo3 reads of a run."""
    machine = describe_machine(device)
    if run.machines[-1:] != [machine]:
        run.machines.append(machine)
    zoo = run.folder / plain_name(run.config.env)
    zoo.mkdir(parents=True, exist_ok=True)
    args = {**vars(run), "config": _plain(run.config)}
    files = {run.folder / "args.yml": args, zoo / "args.yml": {"env_kwargs": run.env_kwargs}, zoo / "config.yml": run.hyperparams}
    for path, content in files.items():
        checkpoints.write_text(path, yaml.safe_dump(content, sort_keys=False))


def describe(run: Run, model: BaseAlgorithm, env: VecMonitor, evaluation: TimedEvalCallback) -> dict[str, Any]:
    """What result.json says of the training."""
    config = run.config
    wall, cpu = evaluation.stopwatch.read()
    with np.load(run.folder / "evaluations.npz") as saved:
        curve = dict(saved)
    best = np.abs(curve["results"].mean(axis=1) - evaluation.best_mean_reward).argmin()
    episodes = model.num_timesteps / curve["ep_lengths"].mean()
    result: dict[str, Any] = {"env": config.env, "algo": config.algo, "preset": config.preset, "seed": config.seed}
    if num_images := _ask(env, "num_images"):
        result |= {"dataset": _ask(env, "dataset"), "dataset_size": num_images}
        if run.class_names != [str(number) for number in range(len(run.class_names or ()))]:
            result["class_names"] = run.class_names
    return {
        **result,
        "n_timesteps": model.num_timesteps,
        "episodes_per_second": round(float(episodes) / wall, 1),
        "frames_per_second": round(model.num_timesteps / wall, 1),
        "train_seconds": round(wall, 1),
        "train_cpu_seconds": round(cpu, 1),
        "validation_error": round(100 * (1 - curve["successes"].mean(axis=1)[best]), 2),
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
    path, success = run.folder / "learning_curve.png", _ask(env, "success_name")
    plot_learning_curve(episodes, curve["cpu_seconds"], error, path, title, success)
    split = "test" if config.test else "validation"
    if not _ask(env, "num_images"):
        seed = evaluation_of(env, split).seed or 0
        record(model, config.env, run.folder / "games.gif", seed=seed, frame_stack=run.frame_stack, **run.env_kwargs)
    elif not get_algorithm(config.algo).sees_scene:
        plot_glimpses(watch(model, config.env, run.env_kwargs, split, frame_stack=run.frame_stack), run.folder / "glimpses.png")


def class_names(env: VecEnv) -> list[str] | None:
    """What the classes of environments stand for; None: they have no images."""
    return list(_ask(env, "choice_names")) if _ask(env, "num_images") else None


def _ask(env: VecEnv, name: str) -> Any:
    """What environments of ours say of themselves; None where they are others'."""
    return env.get_attr(name)[0] if env.has_attr(name) else None


def _plain(config: RunConfig) -> dict[str, Any]:
    return {**asdict(config), "folder": str(config.folder)}
