"""How agents are measured: on all images of a split, each once, or on so many games."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecMonitor

from agents.figures import Episodes
from agents.vec_env import make_vec_env

EVAL_ENVS = 500
TEST_SEED = 0  # Of what a model draws even where it is greedy, such as random locations.
# Games have no images to be split: they are evaluated on so many episodes from a seed that training never sees.
GAME_EVALUATIONS = {"validation": (2_000, 1_000_000), "test": (10_000, 2_000_000)}


def has_images(env_id: str) -> bool:
    """Whether the environment shows images out of a data set."""
    return gym.spec(env_id).kwargs.get("task") == "classification"


def split_options(env_id: str, split: str, env_kwargs: dict[str, Any]) -> dict[str, Any]:
    """The options of the environments that show a split, each image exactly once."""
    return {**env_kwargs, "split": split, "image_order": "sequential"} if has_images(env_id) else env_kwargs


def make_split(
    env_id: str, split: str, env_kwargs: dict[str, Any], n_envs: int = EVAL_ENVS
) -> tuple[VecMonitor, int, int | None]:
    """Environments to evaluate on, for how many episodes, and from which seed (None: a pass over all images needs none)."""
    env = make_vec_env(env_id, n_envs, **split_options(env_id, split, env_kwargs))
    return (env, len(task_of(env).images.labels), None) if has_images(env_id) else (env, *GAME_EVALUATIONS[split])


def task_of(env: Any) -> Any:
    """The task behind the environments."""
    return env.unwrapped.env.unwrapped.task


def test(model: BaseAlgorithm, env_id: str, env_kwargs: dict[str, Any]) -> dict[str, Any]:
    """The error over the whole test split, every image once, or over so many games; greedy locations and choices."""
    env, episodes, seed = make_split(env_id, "test", env_kwargs)
    env.seed(seed)
    successes = []

    def note(local: dict[str, Any], _: dict[str, Any]) -> None:
        if local["done"]:
            successes.append(local["info"]["is_success"])

    with torch.random.fork_rng():
        torch.manual_seed(TEST_SEED)
        rewards, lengths = evaluate_policy(model, env, episodes, deterministic=True, callback=note, return_episode_rewards=True)
    rate = float(np.mean(successes))
    return {
        "test_episodes": episodes,
        "test_error": round(100 * (1 - rate), 4),
        "success_rate": round(rate, 6),
        "mean_reward": round(float(np.mean(rewards)), 6),
        "mean_length": round(float(np.mean(lengths)), 4),
    }


def watch(model: BaseAlgorithm, env_id: str, env_kwargs: dict[str, Any], split: str = "test", num_images: int = 8) -> Episodes:
    """Run the model on a split's first images and keep what it saw; an episode that it stopped early keeps its last glimpse."""
    env = make_split(env_id, split, env_kwargs, num_images)[0]
    task = task_of(env)
    obs: Any = env.reset()
    scenes, labels = task.gaze.retina.inner(task.scenes).copy(), task.labels.copy()
    state, over, answers = None, np.zeros(num_images, bool), np.full(num_images, -1)
    starts = np.ones(num_images, bool)
    seen: list[dict[str, Any]] = []
    while not over.all():
        corners, widths = task.gaze.retina.corners(task.gaze.locations, task.gaze.zooms)
        now = {"location": task.gaze.locations.copy(), "glimpse": task.observe()["glimpse"], "corners": corners, "widths": widths}
        if seen:
            now = {name: np.where(over.reshape(-1, *(1,) * (new.ndim - 1)), seen[-1][name], new) for name, new in now.items()}
        seen.append(now)
        actions, state = model.predict(obs, state, episode_start=starts, deterministic=True)
        choices = task.codec.decode(env.unwrapped.to_env(actions), num_images)[1]  # type: ignore[attr-defined]
        answers = np.where(over, answers, choices["class"])
        obs, _, done, _ = env.step(actions)
        starts, over = done, over | done
    path = {name: np.stack([one[name] for one in seen], axis=1) for name in seen[0]}  # (N, T, ...)
    return Episodes(
        scenes,
        path["location"],
        path["corners"],
        path["widths"],
        path["glimpse"],
        [str(label) for label in labels],
        [str(answer) for answer in answers],
    )
