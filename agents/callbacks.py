"""What happens beside the learning: evaluation with a clock, a limit of time, checkpoints to go on from."""

from __future__ import annotations

import io
import os
import pickle
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.vec_env import VecEnv
from tqdm.rich import tqdm


class Stopwatch:
    """Seconds of training, the pauses left out; it can be stored and taken up again."""

    def __init__(self, wall: float = 0.0, cpu: float = 0.0) -> None:
        self.wall, self.cpu = wall, cpu
        self._since: tuple[float, float] | None = None

    def start(self) -> None:
        """Run from now on."""
        self._since = (time.perf_counter(), time.process_time())

    def pause(self) -> None:
        """Count up to now and stand still."""
        self.wall, self.cpu = self.read()
        self._since = None

    def read(self) -> tuple[float, float]:
        """Wall seconds and CPU seconds of this process so far."""
        if self._since is None:
            return self.wall, self.cpu
        wall, cpu = self._since
        return self.wall + time.perf_counter() - wall, self.cpu + time.process_time() - cpu


class TimedEvalCallback(EvalCallback):
    """SB3's `EvalCallback` that also evaluates at the end and leaves its own time out of the training time.

    `evaluations.npz` holds, beside SB3's own arrays, `train_seconds` and `cpu_seconds`, the time spent on learning before each
    evaluation.

    Args:
        stopwatch: counts the training time.
        eval_env: the environments to evaluate on.
        eval_seed: if given, they are seeded with it for each evaluation: all have the same episodes.
        **kwargs: see SB3's `EvalCallback`; `log_path` is needed.
    """

    _KEPT = (
        "best_mean_reward",
        "last_mean_reward",
        "evaluations_results",
        "evaluations_timesteps",
        "evaluations_length",
        "evaluations_successes",
        "seconds",
        "n_calls",
    )

    def __init__(self, stopwatch: Stopwatch, eval_env: VecEnv, eval_seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(eval_env, **kwargs)
        self.stopwatch, self.eval_seed = stopwatch, eval_seed
        self.seconds: list[tuple[float, float]] = []

    def _on_training_start(self) -> None:
        self.stopwatch.start()

    def _on_step(self) -> bool:
        num_before = len(self.evaluations_timesteps)
        if self.eval_freq > 0 and self.n_calls % self.eval_freq == 0:
            self.stopwatch.pause()
            self.seconds.append(self.stopwatch.read())
            self.eval_env.seed(self.eval_seed)
        goes_on = super()._on_step()
        if len(self.evaluations_timesteps) > num_before:
            self._write()
            self.stopwatch.start()
        return goes_on

    def _on_training_end(self) -> None:
        if self.eval_freq > 0 and self.evaluations_timesteps[-1:] != [self.num_timesteps]:
            frequency, self.eval_freq = self.eval_freq, 1
            self._on_step()
            self.eval_freq = frequency
        self.stopwatch.pause()

    def _write(self) -> None:
        assert self.log_path is not None
        path = f"{self.log_path}.npz"
        with np.load(path) as saved:
            arrays = dict(saved)
        arrays["train_seconds"], arrays["cpu_seconds"] = np.array(self.seconds).T
        np.savez(path, **arrays)

    def get_state(self) -> dict[str, Any]:
        """What another callback needs to go on where this one is."""
        return {name: getattr(self, name) for name in self._KEPT}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on where another callback was."""
        for name in self._KEPT:
            setattr(self, name, state[name])


class TimeLimitCallback(BaseCallback):
    """Ends the training after so many seconds; a `TimedSchedule` beside it ends its schedule then.

    Args:
        stopwatch: counts the training time, evaluations left out.
        seconds: the limit.
        progress_bar: whether to show the seconds go by.
    """

    def __init__(self, stopwatch: Stopwatch, seconds: float, progress_bar: bool = False) -> None:
        super().__init__()
        self.stopwatch, self.seconds = stopwatch, seconds
        self._bar = tqdm(total=round(seconds), unit="s") if progress_bar else None

    def _on_step(self) -> bool:
        used = self.stopwatch.read()[0]
        if self._bar is not None:
            self._bar.update(min(used, self.seconds) - self._bar.n)
        return used < self.seconds

    def _on_rollout_end(self) -> None:
        schedule = self.model.learning_rate
        if isinstance(schedule, TimedSchedule):
            schedule.progress_remaining = max(0.0, 1 - self.stopwatch.read()[0] / self.seconds)

    def _on_training_end(self) -> None:
        if self._bar is not None:
            self._bar.close()


class TimedSchedule:
    """A schedule that runs with the clock of a `TimeLimitCallback` instead of with the steps."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.progress_remaining = 1.0

    def __call__(self, progress_remaining: float) -> float:
        return self.schedule(self.progress_remaining)


class ResumeCallback(BaseCallback):
    """Keeps one file from which `resume` goes on, between two rollouts: the weights, the optimizer, every random state, the
    environments in mid-episode where they can tell (`get_state`), the evaluations and the training time so far.

    Args:
        path: the file.
        save_freq: environment steps from one checkpoint to the next.
        evaluation: the callback whose state to keep.
    """

    def __init__(self, path: Path, save_freq: int, evaluation: TimedEvalCallback) -> None:
        super().__init__()
        self.path, self.save_freq, self.evaluation = path, save_freq, evaluation
        self._saved_at = 0

    def _on_training_start(self) -> None:
        self._saved_at = self.model.num_timesteps

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.model.num_timesteps - self._saved_at < self.save_freq:
            return
        self._saved_at = self.model.num_timesteps
        weights = io.BytesIO()
        self.model.save(weights)
        state = {
            "model": weights.getvalue(),
            "recurrent_state": getattr(self.model, "_state", None),
            "random": (random.getstate(), np.random.get_state(), torch.get_rng_state()),  # noqa: NPY002 (SB3 draws from it)
            "env": _env_state(self.training_env),
            "evaluation": self.evaluation.get_state(),
            "seconds": self.evaluation.stopwatch.read(),
        }
        partial = self.path.with_suffix(".partial")
        partial.write_bytes(pickle.dumps(state))
        os.replace(partial, self.path)  # A kill leaves the old checkpoint or the new one, never half of one.


def resume(
    algorithm: type[BaseAlgorithm], path: Path, env: VecEnv, evaluation: TimedEvalCallback, **kwargs: Any
) -> BaseAlgorithm:
    """The model of a `ResumeCallback`'s file, with everything else as it was; `learn(..., reset_num_timesteps=False)` goes on.

    The file is a pickle: resume from your own runs only.
    """
    state = pickle.loads(path.read_bytes())
    can_restore = state["env"] is not None
    env.reset()
    model = algorithm.load(io.BytesIO(state["model"]), env=env, force_reset=not can_restore, **kwargs)
    if can_restore:
        batch, returns, lengths = state["env"]
        env.env_method("set_state", batch)
        env.episode_returns, env.episode_lengths = returns, lengths  # type: ignore[attr-defined]
        model._state = state["recurrent_state"]  # type: ignore[attr-defined]
    evaluation.set_state(state["evaluation"])
    evaluation.stopwatch.wall, evaluation.stopwatch.cpu = state["seconds"]
    random.setstate(state["random"][0])
    np.random.set_state(state["random"][1])  # noqa: NPY002 (SB3 draws from it)
    torch.set_rng_state(state["random"][2])
    return model


def _env_state(env: VecEnv) -> tuple[Any, ...] | None:
    """The state of natively batched environments that can tell it, and of the `VecMonitor` around them."""
    if not env.has_attr("get_state"):
        return None
    returns, lengths = env.episode_returns, env.episode_lengths  # type: ignore[attr-defined]
    return env.env_method("get_state")[0], returns.copy(), lengths.copy()
