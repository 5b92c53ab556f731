"""One trial: an algorithm learns in an environment, the best model on validation is kept, and that one is tested."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecMonitor

from agents.callbacks import Stopwatch, TimedEvalCallback, TimeLimitCallback, on_the_clock
from agents.checkpoints import ResumeCallback, resume
from agents.evaluation import GAME_EVALUATIONS, has_images, make_split, task_of, test, watch
from agents.figures import plot_glimpses, plot_learning_curve
from agents.film import record
from agents.loops import LoopAlgorithm
from agents.pretrained import PRETRAINED, load_pretrained
from agents.runs import name_processor, parse_settings, write_result
from agents.trial import RUN_SETTINGS, Run, Trial, make_trial, note_machine, open_run
from agents.vec_env import make_vec_env

MANY_TIMESTEPS = 10**12  # With minutes the clock alone ends the training.


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
    run = open_run(make_trial(config))
    finished = run.folder / "result.json"
    if finished.exists():
        return json.loads(finished.read_text())
    torch.set_num_threads(run.trial.num_threads)
    torch.set_flush_denormal(True)  # Numbers below 1e-38 count for nothing and cost a seventh of the time.
    torch.set_float32_matmul_precision(run.settings["matmul_precision"])
    return train(run, report)


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
    machines = note_machine(run, describe_machine(model.device))
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
    result = describe(run, model, evaluation, machines)
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
    settings = with_scene_size({name: value for name, value in run.settings.items() if name not in RUN_SETTINGS}, env)
    model = trial.algorithm.make(
        env,
        parse_settings(settings, env.action_space),
        seed=trial.seed,
        device=trial.device,
        tensorboard_log=trial.tensorboard_log,
    )
    check_scene_size(model, env)
    return model


def with_scene_size(settings: dict[str, Any], env: VecMonitor) -> dict[str, Any]:
    """The settings, with the scene's height and width for a policy that looks at what is salient, where they don't name them."""
    policy_kwargs = settings.get("policy_kwargs", {})
    if policy_kwargs.get("location_input") != "saliency" or "scene_size" in policy_kwargs:
        return settings
    return {**settings, "policy_kwargs": {**policy_kwargs, "scene_size": list(scene_size(env))}}


def check_scene_size(model: BaseAlgorithm, env: VecMonitor) -> None:
    """Raises a ValueError where the model takes the scene to be of another size than it is."""
    given = getattr(getattr(model, "policy", None), "scene_size", None)  # Algorithms of one's own may have none.
    if given is None:
        return
    size = scene_size(env)
    if tuple(np.broadcast_to(given, 2)) != size:
        raise ValueError(f"policy_kwargs.scene_size must be that of the environment's scenes, {list(size)}, got {given!r}")


def scene_size(env: VecMonitor) -> tuple[int, int]:
    """Height and width of the environment's scenes, in pixels."""
    return task_of(env).gaze.retina.image_shape[-2:]


def load_agent(trial: Trial, env: VecMonitor) -> BaseAlgorithm:
    """The trained agent that the trial names."""
    if trial.trained_agent == PRETRAINED:
        model: BaseAlgorithm = load_pretrained(trial.env, env, trial.device)
    else:
        model = trial.algorithm.load(trial.trained_agent, env=env, device=trial.device)
    check_scene_size(model, env)
    return model


def describe(run: Run, model: BaseAlgorithm, evaluation: TimedEvalCallback, machines: list[str]) -> dict[str, Any]:
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
        "machine": ", then ".join(machines),
        "torch": torch.__version__,
        "settings": run.settings,
        "env_kwargs": run.env_kwargs,
    }


def describe_machine(device: torch.device) -> str:
    """The processor and what the networks run on: the GPU's name, or "cpu"."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{name_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} torch thread(s), {name}"


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
