"""Stable-Baselines3 and sb3-contrib on an environment seen through a retina, in a few lines each.

python docs/examples/sb3.py                                      # PPO
python docs/examples/sb3.py --algo recurrent_ppo --steps 300000  # or a2c, dqn, sac, td3
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.evaluation import evaluate_policy

import ram_envs  # noqa: F401 (registers the environments)
from ram_envs import parse_pairs
from ram_envs.agents import make_vec_env


def ppo(steps: int, **options: Any) -> BaseAlgorithm:
    """PPO takes "box", "multidiscrete" and "discrete"; without a memory of its own, it is shown all 7 glimpses side by side."""
    from stable_baselines3 import PPO

    env = make_vec_env("GlimpseMNIST-v0", n_envs=64, frame_stack=7, action_format="multidiscrete", **options)
    model = PPO("MultiInputPolicy", env, n_steps=14, batch_size=224, ent_coef=0.01)
    return model.learn(steps)


def a2c(steps: int, **options: Any) -> BaseAlgorithm:
    """A2C takes the same."""
    from stable_baselines3 import A2C

    env = make_vec_env("GlimpseMNIST-v0", n_envs=64, frame_stack=7, action_format="multidiscrete", **options)
    model = A2C("MultiInputPolicy", env, n_steps=7, ent_coef=0.01)
    return model.learn(steps)


def recurrent_ppo(steps: int, **options: Any) -> BaseAlgorithm:
    """RecurrentPPO takes the same; its LSTM remembers the glimpses."""
    from sb3_contrib import RecurrentPPO

    env = make_vec_env("GlimpseMNIST-v0", n_envs=64, action_format="multidiscrete", **options)
    model = RecurrentPPO("MultiInputLstmPolicy", env, n_steps=14, batch_size=224, ent_coef=0.01)
    return model.learn(steps)


def dqn(steps: int, **options: Any) -> BaseAlgorithm:
    """DQN takes "discrete": one value for each pair of a location and a class, so a small grid of locations."""
    from stable_baselines3 import DQN

    env = make_vec_env("GlimpseMNIST-v0", n_envs=64, frame_stack=7, action_format="discrete", location_grid=3, **options)
    model = DQN("MultiInputPolicy", env, buffer_size=50_000, train_freq=1, batch_size=256)
    return model.learn(steps)


def sac(steps: int, **options: Any) -> BaseAlgorithm:
    """SAC takes "box": the location, then a score for each class."""
    from stable_baselines3 import SAC

    env = make_vec_env("GlimpseMNIST-v0", n_envs=64, frame_stack=7, action_format="box", **options)
    model = SAC("MultiInputPolicy", env, buffer_size=50_000)
    return model.learn(steps)


def td3(steps: int, **options: Any) -> BaseAlgorithm:
    """TD3 takes the same."""
    from stable_baselines3 import TD3

    env = make_vec_env("GlimpseMNIST-v0", n_envs=64, frame_stack=7, action_format="box", **options)
    model = TD3("MultiInputPolicy", env, buffer_size=50_000)
    return model.learn(steps)


ALGORITHMS = {learn.__name__: learn for learn in (ppo, a2c, recurrent_ppo, dqn, sac, td3)}


def main(arguments: list[str] | None = None) -> float:
    """Learn, and return the share of images that are classified correctly."""
    options = parse_arguments(arguments)
    model = ALGORITHMS[options.algo](options.steps, **parse_pairs(options.env_kwargs))
    env = model.get_env()
    assert env is not None
    reward, _ = evaluate_policy(model, env, n_eval_episodes=options.episodes)
    correct = float(np.mean(reward))
    print(f"{options.algo}, {model.num_timesteps} steps: {100 * correct:.1f} % of {options.episodes} training images right")
    return correct


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algo", choices=tuple(ALGORITHMS), default="ppo", help="the algorithm (default: ppo)")
    parser.add_argument("--steps", type=int, default=500_000, help="steps of the environment to learn from")
    parser.add_argument("--episodes", type=int, default=2_000, help="images to classify at the end")
    parser.add_argument("--env-kwargs", nargs="+", default=[], metavar="NAME:VALUE", help="options of the environment to change")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
