"""What happens beside the learning: evaluation with a clock, a limit of time."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.vec_env import VecEnv
from tqdm.rich import tqdm

CLOCKS = ("wall", "cpu")


class Stopwatch:
    """Seconds of training, the pauses left out; it can be stored and taken up again.

    Args:
        wall, cpu: seconds that have gone by already.
        clock: which of the two `used` tells, "wall" or "cpu".

    Raises:
        ValueError: another clock.
    """

    def __init__(self, wall: float = 0.0, cpu: float = 0.0, clock: str = "wall") -> None:
        if clock not in CLOCKS:
            raise ValueError(f"clock must be one of {CLOCKS}, got {clock!r}")
        self.wall, self.cpu, self.clock = wall, cpu, clock
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

    def used(self) -> float:
        """Seconds so far by the clock that counts."""
        return self.read()[CLOCKS.index(self.clock)]


class TimedEvalCallback(EvalCallback):
    """SB3's `EvalCallback` that goes by steps or by the clock, evaluates at the end too, and leaves its own time out of the
    training time.

    `evaluations.npz` holds, beside SB3's own arrays, `train_seconds` and `cpu_seconds`, the time spent on learning before each
    evaluation.

    Args:
        stopwatch: counts the training time.
        eval_env: the environments to evaluate on.
        eval_seed: if given, they are seeded with it for each evaluation: all have the same episodes.
        eval_steps: environment steps from one evaluation to the next.
        eval_seconds: the same in seconds of training; one of the two is given.
        report: called with (steps, error in %) after each evaluation; what it raises ends the training.
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

    def __init__(
        self,
        stopwatch: Stopwatch,
        eval_env: VecEnv,
        eval_seed: int | None = None,
        eval_steps: int | None = None,
        eval_seconds: float | None = None,
        report: Callable[[int, float], None] | None = None,
        **kwargs: Any,
    ) -> None:
        if (eval_steps is None) == (eval_seconds is None):
            raise ValueError(f"give one of eval_steps and eval_seconds, got {eval_steps!r} and {eval_seconds!r}")
        super().__init__(eval_env, eval_freq=1, **kwargs)
        self.stopwatch, self.eval_seed, self.report = stopwatch, eval_seed, report
        self.eval_steps, self.eval_seconds = eval_steps, eval_seconds
        self.seconds: list[tuple[float, float]] = []  # Wall and CPU, before each evaluation.

    def _on_training_start(self) -> None:
        self.stopwatch.start()

    def _on_step(self) -> bool:
        return self._evaluate() if self._is_due() else True

    def _on_training_end(self) -> None:
        if self.evaluations_timesteps[-1:] != [self.num_timesteps]:
            self._evaluate()
        self.stopwatch.pause()

    def _is_due(self) -> bool:
        if self.eval_steps is not None:
            last = self.evaluations_timesteps[-1] if self.evaluations_timesteps else 0
            return self.num_timesteps // self.eval_steps > last // self.eval_steps
        assert self.eval_seconds is not None
        return self.stopwatch.used() >= self.eval_seconds * (1 + len(self.seconds))

    def _evaluate(self) -> bool:
        self.stopwatch.pause()
        self.seconds.append((self.stopwatch.wall, self.stopwatch.cpu))
        self.eval_env.seed(self.eval_seed)
        goes_on = super()._on_step()
        self._write()
        if self.report is not None:
            self.report(self.num_timesteps, 100 * (1 - float(np.mean(self.evaluations_successes[-1]))))
        self.stopwatch.start()
        return goes_on

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
    """Ends the training after so many seconds. All schedules of a model that is `on_the_clock` run with the seconds.

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
        used = min(self.stopwatch.used(), self.seconds)
        self.model.time_used = used / self.seconds  # type: ignore[attr-defined]
        if self._bar is not None:
            self._bar.update(used - self._bar.n)
        return used < self.seconds

    def _on_training_end(self) -> None:
        if self._bar is not None:
            self._bar.close()


def on_the_clock(model: BaseAlgorithm) -> BaseAlgorithm:
    """The model itself, with the schedules of its learning rate, its exploration and so on tied to the time used, as
    `TimeLimitCallback` tells it, instead of the steps done.
    """
    model.__class__ = _clocked(type(model))
    return model


@functools.cache
def _clocked(algorithm: type[BaseAlgorithm]) -> type[BaseAlgorithm]:
    def update(self: Any, num_timesteps: int, total_timesteps: int) -> None:
        self._current_progress_remaining = 1 - self.time_used

    members = {"time_used": 0.0, "_update_current_progress_remaining": update, "__module__": algorithm.__module__}
    metaclass: Any = type(algorithm)
    return metaclass(algorithm.__name__, (algorithm,), members)
