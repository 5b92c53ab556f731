"""One trial: an algorithm learns in an environment, the best model on validation is kept, and that one is tested."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecMonitor

from agents.algorithms import Algorithm, get_algorithm
from agents.callbacks import CLOCKS, Stopwatch, TimedEvalCallback, TimeLimitCallback, on_the_clock
from agents.checkpoints import ResumeCallback, resume
from agents.evaluation import GAME_EVALUATIONS, has_images, make_split, task_of, test, watch
from agents.figures import plot_glimpses, plot_learning_curve
from agents.film import record
from agents.loops import LoopAlgorithm
from agents.pretrained import PRETRAINED, load_pretrained, pretrained_settings
from agents.runs import change, current_commit, merge, parse_settings, read_hyperparams, write_result, write_yaml
from agents.vec_env import make_vec_env

PROJECT = Path(__file__).resolve().parent.parent
HYPERPARAMS = PROJECT / "hyperparams"
RUN_SETTINGS = ("n_timesteps", "n_envs", "matmul_precision")  # The last is torch's: "highest", "high" or "medium".
MANY_TIMESTEPS = 10**12  # With minutes the clock alone ends the training.
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


def run_trial(config: dict[str, Any], report: Callable[[int, float], None] | None = None) -> dict[str, Any]:
    """Train, evaluate and test as the config says; see `Trial` for what it holds.

    Where the folder holds a finished run its result is returned; an unfinished one goes on from its last checkpoint.

    Args:
        config: the arguments of `Trial`.
        report: called with (steps, validation error in %) after each evaluation; what it raises ends the trial.

    Returns:
        what result.json holds.

    Raises:
        ValueError: something in the config is unknown or out of range, or the folder holds a run that was asked for differently.
        ImportError: the algorithm needs a package that is not installed.
    """
    run = open_run(_make_trial(config))
    finished = run.folder / "result.json"
    if finished.exists():
        return json.loads(finished.read_text())
    torch.set_num_threads(run.trial.num_threads)
    torch.set_float32_matmul_precision(run.settings["matmul_precision"])
    return train(run, report)


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


def train(run: Run, report: Callable[[int, float], None] | None = None) -> dict[str, Any]:
    """Learn, keep the model that is best on validation, test that one; returns what result.json holds."""
    trial, checkpoint = run.trial, run.folder / "checkpoint.pkl"
    order = {"image_order": "shuffled"} if has_images(trial.env) else {}
    env = make_vec_env(trial.env, run.settings["n_envs"], **{**order, **run.env_kwargs})
    evaluation = make_evaluation(run, report)
    callbacks: list[BaseCallback] = [evaluation]
    if checkpoint.exists():
        model = resume(trial.algorithm.load, checkpoint, env, evaluation, device=trial.device)
        print(f"Going on after {model.num_timesteps} steps")
    else:
        model = make_model(run, env)
    if not isinstance(model, LoopAlgorithm):
        callbacks.append(ResumeCallback(checkpoint, evaluation))
    n_timesteps = run.settings["n_timesteps"]
    if trial.minutes:
        callbacks.append(TimeLimitCallback(evaluation.stopwatch, 60 * trial.minutes, trial.progress))
        model, n_timesteps = on_the_clock(model), MANY_TIMESTEPS
    model.learn(
        n_timesteps - model.num_timesteps,
        callbacks,
        reset_num_timesteps=model.num_timesteps == 0,
        progress_bar=trial.progress and not trial.minutes,
    )
    model.save(run.folder / "model.zip")
    best = trial.algorithm.load(run.folder / "best_model.zip", env=env, device=trial.device)
    result = describe(run, model, evaluation)
    if trial.test:
        result |= test(best, trial.env, run.env_kwargs)
    write_result(run.folder / "result.json", result)
    if trial.figures:
        draw(run, best)
    checkpoint.unlink(missing_ok=True)
    return result


def make_evaluation(run: Run, report: Callable[[int, float], None] | None) -> TimedEvalCallback:
    """Evaluations on the whole validation split, by steps or, with minutes, by the clock."""
    trial = run.trial
    env, episodes, eval_seed = make_split(trial.env, "validation", run.env_kwargs)
    when: dict[str, Any] = {"eval_steps": trial.eval_freq or max(run.settings["n_timesteps"] // trial.evaluations, 1)}
    if trial.minutes and not trial.eval_freq:
        when = {"eval_seconds": 60 * trial.minutes / trial.evaluations}
    return TimedEvalCallback(
        Stopwatch(clock=trial.clock),
        env,
        eval_seed=eval_seed,
        n_eval_episodes=episodes,
        report=report,
        log_path=str(run.folder),
        best_model_save_path=str(run.folder),
        verbose=0,
        **when,
    )


def make_model(run: Run, env: VecMonitor) -> BaseAlgorithm:
    """A new model with the run's settings, or the one that the trial begins from."""
    trial = run.trial
    if trial.trained_agent:
        model = load_agent(trial, env)
        model.num_timesteps = 0
        return model
    settings = {name: value for name, value in run.settings.items() if name not in RUN_SETTINGS}
    return trial.algorithm.make(
        env,
        parse_settings(settings, env.action_space),
        seed=trial.seed,
        device=trial.device,
        tensorboard_log=trial.tensorboard_log,
    )


def load_agent(trial: Trial, env: VecMonitor) -> BaseAlgorithm:
    """The trained agent that the trial names."""
    if trial.trained_agent == PRETRAINED:
        return load_pretrained(trial.env, env, trial.device)
    return trial.algorithm.load(trial.trained_agent, env=env, device=trial.device)


def describe(run: Run, model: BaseAlgorithm, evaluation: TimedEvalCallback) -> dict[str, Any]:
    """What result.json says of the training."""
    trial = run.trial
    wall, cpu = evaluation.stopwatch.read()
    curve = np.load(run.folder / "evaluations.npz")
    episodes = model.num_timesteps / curve["ep_lengths"].mean()
    result: dict[str, Any] = {"env": trial.env, "algo": trial.algo, "preset": trial.preset, "seed": trial.seed}
    if has_images(trial.env):
        images = task_of(model.get_env()).images
        result |= {"dataset": images.name, "dataset_size": len(images.labels)}
    return {
        **result,
        "n_timesteps": model.num_timesteps,
        "episodes_per_second": round(float(episodes) / wall, 1),
        "frames_per_second": round(model.num_timesteps / wall, 1),
        "train_seconds": round(wall, 1),
        "train_cpu_seconds": round(cpu, 1),
        "validation_error": round(100 * (1 - curve["successes"].mean(axis=1)[curve["results"].mean(axis=1).argmax()]), 2),
        "last_validation_error": round(100 * (1 - float(curve["successes"][-1].mean())), 2),
        "command": trial.command,
        "commit": run.commit,
        "machine": f"{os.cpu_count()} cores, {torch.get_num_threads()} torch thread(s), {model.device}",
        "torch": torch.__version__,
        "settings": run.settings,
        "env_kwargs": run.env_kwargs,
    }


def draw(run: Run, model: BaseAlgorithm) -> None:
    """The learning curve, and how the model looks at eight images, or a film of its games: of the test split if that is used."""
    trial, curve = run.trial, np.load(run.folder / "evaluations.npz")
    episodes = curve["timesteps"] / curve["ep_lengths"].mean()
    error = 100 * (1 - curve["successes"].mean(axis=1))
    title = f"{trial.algo} on {trial.env}, seed {trial.seed}"
    plot_learning_curve(episodes, curve["cpu_seconds"], error, run.folder / "learning_curve.png", title)
    split = "test" if trial.test else "validation"
    if not has_images(trial.env):
        record(model, trial.env, run.folder / "games.gif", seed=GAME_EVALUATIONS[split][1], **run.env_kwargs)
    elif not trial.algorithm.sees_scene:
        plot_glimpses(watch(model, trial.env, run.env_kwargs, split), run.folder / "glimpses.png")


def _pretrained_settings(trial: Trial) -> dict[str, Any]:
    if trial.algo != "ram":
        raise ValueError(f'trained_agent="{PRETRAINED}" is an agent of the algorithm "ram", got algo={trial.algo!r}')
    return pretrained_settings(trial.env)


def _make_trial(config: dict[str, Any]) -> Trial:
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


def _check_same(folder: Path, kept: dict[str, Any], asked: dict[str, Any]) -> None:
    for name, value in yaml.safe_load(yaml.safe_dump(asked)).items():
        if name not in _CIRCUMSTANCES and kept.get(name) != value:
            raise ValueError(
                f"{folder} holds a run with {name}={kept.get(name)!r}, asked for was {value!r}: take another folder or remove it"
            )
