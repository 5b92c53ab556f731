"""Films of an agent at work, as its environment draws itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import imageio.v3 as imageio
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env.stacked_observations import StackedObservations

from agents.vec_env import BoxAction, is_location_and_choice

HOLD_SECONDS = 1.0  # The last picture of an episode stays so long.
FORMATS = (".gif", ".mp4")


def record(
    model: BaseAlgorithm,
    env_id: str,
    path: Path,
    *,
    num_episodes: int = 6,
    seed: int = 0,
    deterministic: bool = True,
    frame_stack: int = 1,
    **env_kwargs: Any,
) -> int:
    """Film some episodes into a .gif or .mp4; the environment's own `render_fps` is kept.

    `frame_stack` and `env_kwargs` are those of `make_vec_env` for which the model was made.

    Returns:
        the number of frames.

    Raises:
        ValueError: the path has another ending.
    """
    if path.suffix not in FORMATS:
        raise ValueError(f"the film's path must end in one of {FORMATS}, got {path}")
    if "glimpse" in getattr(model.observation_space, "spaces", {}):
        env_kwargs = {"action_format": "box", **env_kwargs}  # Shows the scores of all classes.
    env = gym.make(env_id, render_mode="rgb_array", **env_kwargs)
    fps = env.unwrapped.metadata["render_fps"]
    if is_location_and_choice(env.action_space):
        env = BoxAction(env)
    frames: list[NDArray] = []
    for episode in range(num_episodes):
        frames += film_episode(model, env, seed if episode == 0 else None, deterministic, frame_stack)
        frames += frames[-1:] * round(fps * HOLD_SECONDS)
    env.close()
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gif":
        imageio.imwrite(path, frames, duration=1000 / fps, loop=0)
    else:
        imageio.imwrite(path, frames, fps=fps, plugin="FFMPEG")
    return len(frames)


def film_episode(
    model: BaseAlgorithm, env: gym.Env, seed: int | None, deterministic: bool, frame_stack: int = 1
) -> list[NDArray]:
    """One episode's pictures, the first before any action."""
    stack = StackedObservations(1, frame_stack, env.observation_space)  # type: ignore[arg-type]
    obs: Any = stack.reset(_batch(env.reset(seed=seed)[0]))
    frames: list[Any] = [env.render()]
    state, start, over = None, np.ones(1, np.bool_), False
    while not over:
        actions, state = model.predict(obs, state, episode_start=start, deterministic=deterministic)
        seen, _, terminated, truncated, _ = env.step(actions[0])
        obs = stack.update(_batch(seen), np.zeros(1, np.bool_), [{}])[0]
        start, over = np.zeros(1, np.bool_), terminated or truncated
        frames.append(env.render())
    return frames


def _batch(obs: Any) -> Any:
    """A batch of one."""
    return {name: part[None] for name, part in obs.items()} if isinstance(obs, dict) else obs[None]
