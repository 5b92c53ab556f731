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


class GeneratorAlgorithm(BaseAlgorithm):
    """Runs a generator that learns and yields (steps so far, predict).

    Args:
        generator: the generator function, called with (env, seed=, **hyperparams).
        env: an SB3 `VecEnv`.
        hyperparams: further arguments of the generator function.
        seed: seeds the random numbers of Python, NumPy and torch, and the environments, and is an argument of the generator.
        device, tensorboard_log: as in Stable-Baselines3.
    """

    def __init__(
        self,
        generator: Callable[..., Iterator[tuple[int, Predict]]] | None,
        env: VecEnv | None,
        hyperparams: dict[str, Any] | None = None,
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
        self.generator, self.hyperparams = generator, hyperparams or {}
        self._predict: Predict | None = None

    def _setup_model(self) -> None:
        self.set_random_seed(self.seed)

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "generator",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> GeneratorAlgorithm:
        """Run the generator from its beginning until it has taken these steps; callbacks are called each time that it yields.

        Raises:
            ValueError: the model was loaded.
        """
        if self.generator is None:
            raise ValueError("a loaded model only predicts, its generator can't be resumed: make a new one to learn")
        self._setup_model()
        total_timesteps, callback = self._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        callback.on_training_start(locals(), globals())
        callback.on_rollout_start()
        for num_timesteps, predict in self.generator(self.env, seed=self.seed, **self.hyperparams):
            self.num_timesteps, self._predict = num_timesteps, predict
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
            callback.update_locals(locals())
            continues = callback.on_step()
            callback.on_rollout_end()
            if not continues or self.num_timesteps >= total_timesteps:
                break
            callback.on_rollout_start()
        callback.on_training_end()
        return self

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """Actions and state by the `predict` that the generator yielded last."""
        assert self._predict is not None, "learn first"
        return self._predict(observation, state, episode_start, deterministic)

    def save(self, path: Any, exclude: Any = None, include: Any = None) -> None:
        """Store `predict` as it is now, with the object whose method it is; environments are left out."""
        file = io.BytesIO()
        _Pickler(file).dump(self._predict)
        with zipfile.ZipFile(_zip(path), "w") as archive:
            archive.writestr(_FILE, file.getvalue())

    @classmethod
    def load(cls, path: Any, env: Any = None, device: Any = "auto", **kwargs: Any) -> GeneratorAlgorithm:  # type: ignore[override]
        """A model that only predicts; env takes the place of the environments that were left out.

        The file is a pickle: load your own only.
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


def _zip(path: Any) -> Any:
    """SB3 leaves the ending out; an open file stays as it is."""
    return str(path).removesuffix(".zip") + ".zip" if isinstance(path, (str, Path)) else path
