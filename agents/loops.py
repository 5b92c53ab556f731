"""A training loop of the user's own as a Stable-Baselines3 algorithm, so that callbacks and evaluations work with it."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecEnv

Predict = Callable[..., tuple[Any, Any]]  # (observations, state, episode_start, deterministic) to (actions, state)
_FILE = "predict.pkl"


class LoopAlgorithm(BaseAlgorithm):
    """Runs a generator that learns and yields (steps so far, predict).

    Args:
        loop: the generator function, called with (env, seed=, **settings).
        env: an SB3 `VecEnv`.
        settings: what else the loop is called with.
        seed: seeds the random numbers of Python, NumPy and torch, and the environments, and is handed to the loop.
        device, tensorboard_log: as in Stable-Baselines3.
    """

    def __init__(
        self,
        loop: Callable[..., Iterator[tuple[int, Predict]]] | None,
        env: VecEnv | None,
        settings: dict[str, Any] | None = None,
        seed: int | None = None,
        device: str = "auto",
        tensorboard_log: str | None = None,
    ) -> None:
        super().__init__(
            policy=None,  # type: ignore[arg-type]
            env=env,
            learning_rate=0.0,
            seed=seed,
            device=device,
            tensorboard_log=tensorboard_log,
            support_multi_env=True,
        )
        self.loop, self.settings = loop, settings or {}
        self._predict: Predict | None = None

    def _setup_model(self) -> None:
        self.set_random_seed(self.seed)

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "loop",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> LoopAlgorithm:
        """Run the loop from its beginning until it has taken so many steps; callbacks are called each time that it yields.

        Raises:
            ValueError: the model was loaded.
        """
        if self.loop is None:
            raise ValueError("a model that was loaded predicts only, its loop can't be gone on with: make a new one to learn")
        self._setup_model()
        total_timesteps, callback = self._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        callback.on_training_start(locals(), globals())
        callback.on_rollout_start()
        for num_timesteps, predict in self.loop(self.env, seed=self.seed, **self.settings):
            self.num_timesteps, self._predict = num_timesteps, predict
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
            callback.update_locals(locals())
            goes_on = callback.on_step()
            callback.on_rollout_end()
            if not goes_on or self.num_timesteps >= total_timesteps:
                break
            callback.on_rollout_start()
        callback.on_training_end()
        return self

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """What the loop's own `predict` says."""
        assert self._predict is not None, "learn first"
        return self._predict(observation, state, episode_start, deterministic)

    def save(self, path: Any, exclude: Any = None, include: Any = None) -> None:
        """Keep `predict` as it is now, and what it is a method of; environments are left out."""
        file = io.BytesIO()
        _Pickler(file).dump(self._predict)
        with zipfile.ZipFile(_zip(path), "w") as archive:
            archive.writestr(_FILE, file.getvalue())

    @classmethod
    def load(cls, path: Any, env: Any = None, device: Any = "auto", **kwargs: Any) -> LoopAlgorithm:  # type: ignore[override]
        """A model that predicts; env takes the place of the environments that were left out. The file is a pickle: load your own
        only.
        """
        model = cls(None, env, device=device)
        with zipfile.ZipFile(_zip(path)) as archive:
            model._predict = _Unpickler(io.BytesIO(archive.read(_FILE)), env).load()
        return model


class _Pickler(cloudpickle.Pickler):
    def persistent_id(self, obj: Any) -> str | None:
        return "env" if isinstance(obj, VecEnv) else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, env: VecEnv | None) -> None:
        super().__init__(file)
        self.env = env

    def persistent_load(self, pid: Any) -> VecEnv | None:
        return self.env


def _zip(path: str | Path) -> str:
    """SB3 leaves the ending out."""
    return str(path).removesuffix(".zip") + ".zip"
