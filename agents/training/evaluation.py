"""How agents are measured: on all images of a split, each once, or on games from a seed that training never sees."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

from ram_envs import Evaluation, seeded_evaluation

from ..vec_env import check_spaces, make_vec_env

EVAL_ENVS = 500
TEST_SEED = 0  # Of what a model draws even where it is greedy, such as random locations.


def evaluation_of(env: VecEnv, split: str) -> Evaluation:
    """How to evaluate on "train", "validation" or "test" in environments like these; others than ours as our games are."""
    try:
        evaluation = env.get_attr("evaluation")[0]
    except AttributeError:
        evaluation = seeded_evaluation
    return evaluation(split)


def make_split(
    env: VecEnv, env_id: str, split: str, env_kwargs: dict[str, Any], n_envs: int = EVAL_ENVS, frame_stack: int = 1
) -> tuple[VecMonitor, int, int | None]:
    """Environments to evaluate on, the number of episodes, and the seed (None: an epoch of all images needs none).

    Args:
        env: environments with the same id and options, perhaps of another split.
        env_id, env_kwargs, frame_stack: see `make_vec_env`.
        n_envs: the most environments, one for each episode at most.
        split: "train", "validation" or "test".
    """
    evaluation = evaluation_of(env, split)
    shown = make_vec_env(
        env_id, min(n_envs, evaluation.num_episodes), frame_stack=frame_stack, **{**env_kwargs, **evaluation.env_kwargs}
    )
    return shown, evaluation.num_episodes, evaluation.seed


def evaluate_on_test(model: BaseAlgorithm, env_id: str, env_kwargs: dict[str, Any], frame_stack: int = 1) -> dict[str, Any]:
    """The error on the whole test split, every image once, or on games; greedy locations and choices.

    Raises:
        ValueError: the model learned in environments with other spaces.

    Returns:
        "test_episodes", "test_error" in %, "success_rate", "mean_reward" and "mean_length" of an episode in steps.
    """
    env, episodes, seed = make_split(make_vec_env(env_id, **env_kwargs), env_id, "test", env_kwargs, frame_stack=frame_stack)
    check_spaces(model, env)
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
