"""RAM learns what each kind of action is for, on real digits and a small game."""

import numpy as np
import pytest

pytest.importorskip("torch")

from conftest import DATASET
from stable_baselines3.common.evaluation import evaluate_policy

from ram_envs.agents import RAM, make_vec_env

T = 4
SMALL = {"hidden_size": 32, "core_size": 64}


def test_learns_to_classify():
    """A tenth of an epoch is enough to be far from the 90 % error of chance."""
    learned, validation = (
        make_vec_env("GlimpseMNIST-v0", num_envs, dataset=DATASET, num_glimpses=T, split=split)
        for num_envs, split in ((64, "train"), (100, "validation"))
    )
    look = {"glimpse_mean": 0.13, "glimpse_std": 0.31}
    model = RAM("RAMPolicy", learned, seed=0, device="cpu", learning_rate=2e-3, policy_kwargs=look)
    model.learn(64 * T * 150)
    reward, _ = evaluate_policy(model, validation, n_eval_episodes=500)
    assert reward > 0.5


def test_learns_catch_from_the_final_reward():
    """The smallest game: far from the 40 % or so of a paddle that moves at random."""
    env = make_vec_env("GlimpseCatch-v0", 128, size=6, num_scales=1)
    look = {"core": "lstm", "core_size": 64, "location_gradient": "full", "baseline_gradient": "full"}
    ppo = {"n_epochs": 4, "n_minibatches": 2, "gae_lambda": 0.95, "normalize_advantage": True, "ent_coef": 0.01}
    model = RAM("RAMPolicy", env, learning_rate=3e-3, class_loss="reinforce", policy_kwargs=look, seed=0, device="cpu", **ppo)
    first, _ = evaluate_policy(model, env, n_eval_episodes=500)
    model.learn(128 * 5 * 60)
    reward, _ = evaluate_policy(model, env, n_eval_episodes=500)
    assert first < 0.7 < 0.9 < reward


def test_learns_to_stop_when_looks_cost():
    """At a price above what a look can earn, the best is to stop at once."""
    free, dear = (
        make_vec_env("GlimpseMNIST-v0", 64, dataset=DATASET, num_glimpses=T, stop_action=True, glimpse_cost=cost)
        for cost in (0, 0.5)
    )
    lengths = []
    for env in (free, dear):
        model = RAM("RAMPolicy", env, learning_rate=3e-3, seed=0, device="cpu", policy_kwargs=SMALL).learn(64 * 150)
        lengths.append(np.mean(evaluate_policy(model, env, n_eval_episodes=200, return_episode_rewards=True)[1]))
    assert lengths[1] < 1.2 < lengths[0]


def test_learns_to_zoom():
    """One glimpse of four pixels tells more about a digit when it is wide: the first is narrow, the second may be chosen."""
    env = make_vec_env(
        "GlimpseMNIST-v0", 128, dataset=DATASET, num_glimpses=2, glimpse_size=4, initial_location="center", zoom_action=True
    )
    model = RAM("RAMPolicy", env, learning_rate=3e-3, seed=0, device="cpu", policy_kwargs=SMALL).learn(128 * 2 * 150)
    actions, _ = model.predict(env.reset(), deterministic=True)
    obs, *_ = env.step(actions)
    assert obs["zoom"].mean(axis=0)[0] < 0.1  # Hardly anybody stays with the narrow one.
