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
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack
from torch.utils._pytree import tree_map_only

from .callbacks import TimedEvalCallback

# What algorithms carry from step to step and do not save, or do not load: the recurrent states, the replay buffer, and the random
# state of exploration.
_UNSAVED = ("_state", "_last_lstm_states", "replay_buffer", "action_space")


class ResumeCallback(BaseCallback):
    """Writes a checkpoint for `resume` after each evaluation, between two rollouts.

    It holds the weights, the optimizer, every random state, the environments in mid-episode where they have `get_state`, the
    evaluations and the training time so far. Only action noise with a memory (Ornstein-Uhlenbeck) begins anew, as in SB3 at each
    `learn`.

    Args:
        path: the file.
        evaluation: the callback that evaluates, whose state is part of the checkpoint.
    """

    def __init__(self, path: Path, evaluation: TimedEvalCallback) -> None:
        super().__init__()
        self.path, self.evaluation = path, evaluation
        self._num_saved = 0

    def _on_training_start(self) -> None:
        self._num_saved = len(self.evaluation.seconds)

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if len(self.evaluation.seconds) == self._num_saved:
            return
        self._num_saved = len(self.evaluation.seconds)
        self.evaluation.stopwatch.pause()
        self._save()
        self.evaluation.stopwatch.start()

    def _save(self) -> None:
        weights = io.BytesIO()
        self.model.save(weights)
        state = {
            "model": weights.getvalue(),
            "unsaved": {name: _on("cpu", getattr(self.model, name)) for name in _UNSAVED if hasattr(self.model, name)},
            "random": (random.getstate(), np.random.get_state(), torch.get_rng_state()),  # noqa: NPY002 (SB3 draws from it)
            "cuda": torch.cuda.get_rng_state_all() if self.model.device.type == "cuda" else [],
            "env": _env_state(self.training_env),
            "evaluation": self.evaluation.get_state(),
            "seconds": self.evaluation.stopwatch.read(),
        }
        partial = self.path.with_suffix(".partial")
        with partial.open("wb") as file:  # A replay buffer can be too large to be held twice.
            pickle.dump(state, file)
        os.replace(partial, self.path)  # A kill leaves the old checkpoint or the new one, never half of one.


def resume(
    load: Callable[..., BaseAlgorithm], path: Path, env: VecEnv, evaluation: TimedEvalCallback, **kwargs: Any
) -> BaseAlgorithm:
    """The model of a `ResumeCallback`'s file, with everything else as it was; `learn(..., reset_num_timesteps=False)` continues.

    The file is a pickle: resume your own runs only. A run may resume on another device, but then not bit for bit.

    Args:
        load: the algorithm's own `load`.
        path: the file.
        env: environments made as those of the run.
        evaluation: is set to the state of the run's.
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
    evaluation.set_state(state["evaluation"])
    evaluation.stopwatch.wall, evaluation.stopwatch.cpu = state["seconds"]
    random.setstate(state["random"][0])
    np.random.set_state(state["random"][1])  # noqa: NPY002 (SB3 draws from it)
    torch.set_rng_state(state["random"][2])
    torch.cuda.set_rng_state_all(state["cuda"])
    return model


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
