"""Stable-Baselines3's everyday idioms, in every registered id as it is registered."""

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("stable_baselines3")

from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env as sb3_make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

import ram_envs
from ram_envs.agents import RAM, EpisodePPO, make_vec_env
from ram_envs.agents.training.evaluation import evaluate_on_test

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 14, 14), np.uint8), np.arange(12) % 3
SMALL = {"core_size": 8, "hidden_size": 8}


def few(env_id):
    """Options of a small task."""
    return {"size": 6} if "Catch" in env_id else {"dataset": IMAGES, "num_glimpses": 2, "clutter_size": 4}


def make_model(env_id, env):
    """RAM where there are glimpses and locations, PPO where observations are flat or whole."""
    if isinstance(gym.spaces.flatten_space(env.observation_space), type(env.observation_space)):
        return PPO("MlpPolicy", env, n_steps=4, batch_size=4, n_epochs=1, policy_kwargs={"net_arch": [4]}, device="cpu")
    loss = "reinforce" if "Catch" in env_id else "cross_entropy"
    return RAM("RAMPolicy", env, class_loss=loss, policy_kwargs=SMALL, device="cpu")


@pytest.mark.parametrize("env_id", ram_envs.ENVIRONMENTS)
@pytest.mark.filterwarnings("ignore:Training and eval env are not of the same type")
def test_the_quick_start(env_id, tmp_path):
    def make():
        return gym.make(f"ram_envs:{env_id}", **few(env_id))

    evaluation = EvalCallback(make(), eval_freq=4, n_eval_episodes=1, verbose=0, warn=False)
    model = make_model(env_id, make()).learn(8, evaluation)
    assert np.isfinite(evaluation.last_mean_reward)
    env = make()
    obs, _ = env.reset(seed=0)
    terminated = False
    while not terminated:
        action, _ = model.predict(obs, deterministic=True)
        assert isinstance(action, np.ndarray)
        obs, _, terminated, _, info = env.step(action)
    assert isinstance(info["is_success"], bool)
    evaluate_policy(model, env, 1, warn=False)
    batches = (sb3_make_vec_env(env_id, 2, env_kwargs=few(env_id)), make_vec_env(f"ram_envs:{env_id}", 2, **few(env_id)))
    model.set_env(make())
    model.save(tmp_path / "model")
    for batch in batches:
        evaluate_policy(model, batch, 2)
        loaded = type(model).load(tmp_path / "model", env=batch, device="cpu").learn(8)
        actions, _ = loaded.predict(batch.reset(), deterministic=True)
        assert len(actions) == 2 and loaded.action_space.contains(actions[0])


def test_time_limits_of_batches_are_those_of_sb3s_own():
    for limit in (2, 5):
        theirs = sb3_make_vec_env("Catch-v0", 2, env_kwargs={"size": 6, "max_episode_steps": limit})
        native = make_vec_env("Catch-v0", 2, size=6, max_episode_steps=limit)
        theirs.seed(3), native.seed(3)
        np.testing.assert_array_equal(theirs.reset(), native.reset())
        for _ in range(7):
            (seen, *ends, told), (other, *expected, also) = (env.step(np.array([0, 2])) for env in (theirs, native))
            np.testing.assert_array_equal(seen, other)
            np.testing.assert_array_equal(ends, expected)
            for name in ("TimeLimit.truncated", "is_success"):
                assert [one[name] for one in told] == [one[name] for one in also]


def test_a_model_of_other_actions_is_refused():
    """Those of one length too, of which the columns stand for something else; both spaces are named."""
    images, _ = IMAGES
    stops = {"dataset": IMAGES, "stop_action": True, "num_glimpses": 2}  # 3 scores of the class and 2 of stop.
    five = {"dataset": (images, np.arange(12) % 5), "split": "test", "num_glimpses": 2}
    model = RAM("RAMPolicy", make_vec_env("GlimpseMNIST-v0", 2, **stops), policy_kwargs=SMALL, device="cpu")
    with pytest.raises(ValueError, match=r"action_space must be .*choices=\{'class': 5\}.* got .*'class': 3, 'stop': 2"):
        evaluate_on_test(model, "GlimpseMNIST-v0", five)
    with pytest.raises(ValueError, match=r"'class': 3, 'stop': 2.*choices=\{'class': 5\}"):
        model.set_env(make_vec_env("GlimpseMNIST-v0", 2, **five))
    ppo = EpisodePPO("RecurrentPolicy", make_vec_env("GlimpseCatch-v0", 2, action_format="discrete", location_grid=2))
    other = make_vec_env("GlimpseCatch-v0", 2, action_format="discrete", location_grid=3)
    for refuse in (lambda: ppo.set_env(other), lambda: evaluate_on_test(ppo, "GlimpseCatch-v0", {"action_format": "discrete"})):
        with pytest.raises(ValueError, match=r"Discrete\(12\) != Discrete\(27\)|Discrete\(75\), got Discrete\(12\)"):
            refuse()
