"""A loop of your own over one native batch of environments, with NumPy alone.

A policy written by hand plays Catch through the retina: it keeps the gaze on the ball and the paddle under it.

python docs/examples/bare_loop.py
python docs/examples/bare_loop.py --policy random --num-envs 16 --episodes 1000
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

import ram_envs  # noqa: F401 (registers the environments)

SIZE = 24  # Pixels to a side of the screen.
Policy = Callable[[Any, NDArray[np.bool_]], Any]


def play(policy: Policy, num_envs: int, num_episodes: int, seed: int) -> tuple[float, float]:
    """Play at least `num_episodes` games; the mean return and the share of balls caught, which are equal in this game.

    Args:
        policy: gives the actions for observations (N, ...) and a mask (N,), true where an episode has just begun.
        num_envs: N.
        num_episodes: games over all environments.
        seed: environment i has seed + i.
    """
    returns: list[float] = []
    caught: list[bool] = []
    envs = gym.make_vec("GlimpseCatch-v0", num_envs=num_envs, autoreset_mode="SameStep")
    obs, infos = envs.reset(seed=seed)
    began, score = np.ones(num_envs, np.bool_), np.zeros(num_envs)
    while len(returns) < num_episodes:
        obs, reward, terminated, truncated, infos = envs.step(policy(obs, began))
        began, score = terminated | truncated, score + reward
        if began.any():  # There obs is already the next episode's; how the last one ended is in infos.
            caught += infos["final_info"]["is_success"][began].tolist()
            returns += score[began].tolist()
            score[began] = 0
    envs.close()
    return float(np.mean(returns)), float(np.mean(caught))


class Follower:
    """Looks where the ball will be and moves the paddle there; it counts rows and remembers the last column and the paddle."""

    def __init__(self, num_envs: int) -> None:
        self.row, self.column, self.paddle = (np.zeros(num_envs) for _ in range(3))  # In pixels.

    def __call__(self, obs: Any, began: NDArray[np.bool_]) -> Any:
        """The actions (N, ...)."""
        seen = find_ball(obs)
        speed = np.where(began, 0, np.clip(seen - self.column, -1, 1))
        self.column, next_column = seen, np.clip(seen + speed, 0, SIZE - 1)
        self.row = np.where(began, 1, self.row + 1)
        look = np.stack([next_column, self.row], axis=1) / SIZE * 2 - 1  # From pixels to [-1, 1].
        self.paddle = np.where(began, SIZE // 2 - 1, self.paddle)
        step = np.clip(next_column - self.paddle, -1, 1)
        self.paddle = np.clip(self.paddle + step, 0, SIZE - 2)
        return {"location": look.astype(np.float32), "move": step.astype(np.int64) + 1}


def find_ball(obs: Any) -> NDArray[np.float64]:
    """The ball's column (N,) in whole pixels, from the finest patch that shows the ball; the gaze's column where none does."""
    gaze = np.round((obs["location"][:, 0] + 1) / 2 * SIZE)
    middle = obs["glimpse"].shape[2] // 2
    line = obs["glimpse"][:, :, middle]  # (N, k, g): the row right below the gaze, where the ball is.
    scale = (line > 0).any(axis=2).argmax(axis=1)
    line = line[np.arange(len(line)), scale]  # (N, g)
    width = 2**scale  # Pixels of the screen to one of the glimpse.
    return np.where(line.any(axis=1), gaze + (line.argmax(axis=1) - middle) * width + width // 2, gaze)


def random_policy(num_envs: int, seed: int) -> Policy:
    """Looks and moves at random."""
    actions = gym.make_vec("GlimpseCatch-v0", num_envs).action_space
    actions.seed(seed)
    return lambda obs, began: actions.sample()


def main(arguments: list[str] | None = None) -> tuple[float, float]:
    """Run the command line; see `play`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", choices=("follow", "random"), default="follow", help="who plays (default: follow)")
    parser.add_argument("--num-envs", type=int, default=256, help="environments side by side")
    parser.add_argument("--episodes", type=int, default=10_000, help="games to play")
    parser.add_argument("--seed", type=int, default=0, help="of the environments and of the random policy")
    options = parser.parse_args(arguments)
    policy = Follower(options.num_envs) if options.policy == "follow" else random_policy(options.num_envs, options.seed)
    mean_return, caught = play(policy, options.num_envs, options.episodes, options.seed)
    print(f"{options.policy}: mean return {mean_return:.3f}, {100 * caught:.1f} % of {options.episodes} balls caught")
    return mean_return, caught


if __name__ == "__main__":
    main()
