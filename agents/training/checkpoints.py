"""One file from which a stopped run resumes and ends as an unbroken one would."""

from __future__ import annotations

import io
import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack
from torch.utils._pytree import tree_map_only

# What algorithms carry from step to step and do not save, or do not load: the recurrent states, the replay buffer, and the random
# state of exploration.
_UNSAVED = ("_state", "_last_lstm_states", "replay_buffer", "action_space")


def save_checkpoint(path: Path, model: BaseAlgorithm, env: VecEnv, progress: dict[str, Any]) -> None:
    """Write what `resume` needs: weights, optimizer, random states, and environments in mid-episode that can be stored.

    Args:
        path: the file.
        model: between two rollouts.
        env: its environments.
        progress: what else belongs to the run, such as its evaluations so far.
    """
    weights = io.BytesIO()
    model.save(weights)
    state = {
        "model": weights.getvalue(),
        "unsaved": {name: _on("cpu", getattr(model, name)) for name in _UNSAVED if hasattr(model, name)},
        "random": (random.getstate(), np.random.get_state(), torch.get_rng_state()),  # noqa: NPY002 (SB3 draws from it)
        "cuda": torch.cuda.get_rng_state_all() if model.device.type == "cuda" else [],
        "env": _env_state(env),
        "progress": progress,
    }
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:  # A replay buffer can be too large to be held twice.
        pickle.dump(state, file)
    os.replace(partial, path)  # A kill leaves the old checkpoint or the new one, never half of one.


def resume(load: Callable[..., BaseAlgorithm], path: Path, env: VecEnv, **kwargs: Any) -> tuple[BaseAlgorithm, dict[str, Any]]:
    """The model of a checkpoint and the run's progress, with everything else as it was; `learn(..., reset_num_timesteps=False)`
    continues.

    The file is a pickle: resume your own runs only. A run may resume on another device, but then not bit for bit.

    Args:
        load: the algorithm's own `load`.
        path: the file.
        env: environments made as those of the run.
        **kwargs: for `load`.
    """
    with path.open("rb") as file:
        state = pickle.load(file)
    can_restore = state["env"] is not None
    env.reset()
    model = load(io.BytesIO(state["model"]), env=env, force_reset=not can_restore, **kwargs)
    for name, value in state["unsaved"].items():
        if can_restore or name in ("replay_buffer", "action_space"):
            setattr(model, name, _on(model.device, value))
    if can_restore:
        _set_env_state(env, state["env"])
    random.setstate(state["random"][0])
    np.random.set_state(state["random"][1])  # noqa: NPY002 (SB3 draws from it)
    torch.set_rng_state(state["random"][2])
    torch.cuda.set_rng_state_all(state["cuda"])
    return model, state["progress"]


def _on(device: torch.device | str, value: Any) -> Any:
    """What is carried from step to step, with its tensors on the device: the run may resume where there is no GPU."""
    return tree_map_only(torch.Tensor, lambda part: part.to(device), value)


def _env_state(env: Any) -> tuple[Any, ...] | None:
    """The state of environments that have `get_state`, and of what `make_vec_env` puts around them; None: they have none."""
    if not env.has_attr("get_state"):
        return None
    stacked = env.venv.stacked_obs if isinstance(env.venv, VecFrameStack) else None
    return env.env_method("get_state")[0], env.episode_returns.copy(), env.episode_lengths.copy(), stacked


def _set_env_state(env: Any, state: tuple[Any, ...]) -> None:
    batch, env.episode_returns, env.episode_lengths, stacked = state
    env.env_method("set_state", batch)
    if stacked is not None:
        env.venv.stacked_obs = stacked
