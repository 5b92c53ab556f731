"""What happens beside the learning: evaluations that are left out of the training time, checkpoints, and a time limit."""

from __future__ import annotations

import functools
import hashlib
import io
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, TimeElapsedColumn, TimeRemainingColumn
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.vec_env import VecEnv
from tqdm.rich import tqdm

from .checkpoints import check_space, save_checkpoint, written
from .generator import GeneratorAlgorithm

CLOCKS = ("wall", "cpu")
_TEXT = "{task.description}[progress.percentage]{task.percentage:>4.0f}%"


class Stopwatch:
    """Seconds of training without the pauses; it can be stored and resumed.

    Args:
        wall, cpu: seconds that have passed already.
        clock: which of the two `used` gives, "wall" or "cpu".

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
        """Count up to now and stop."""
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
    """SB3's `EvalCallback` by steps or by the clock, and at the end of the training; its own time is not training time.

    `evaluations.npz` holds, beside SB3's own arrays, `train_seconds` and `cpu_seconds`, the time spent on learning before each
    evaluation.

    Args:
        stopwatch: counts the training time; or the clock of a new one.
        eval_env: the environments to evaluate on, or environments like these: then `make_split` makes those to evaluate on.
        eval_seed: if given, they are seeded with it for each evaluation: all have the same episodes.
        make_split: makes (environments, number of episodes, seed) when the training starts, after the model is made.
        eval_steps: environment steps from one evaluation to the next.
        eval_seconds: the same in seconds of training; one of the two is given.
        report: called with (steps, error in %) after each evaluation; what it raises ends the training.
        **kwargs: see SB3's `EvalCallback`; `log_path` is needed. Files are written aside and renamed.
    """

    _STATE = ("best_mean_reward", "last_mean_reward", "seconds", "n_calls", "evaluations_timesteps")
    _LISTS = ("evaluations_results", "evaluations_length", "evaluations_successes")

    def __init__(
        self,
        stopwatch: Stopwatch | str,
        eval_env: VecEnv,
        eval_seed: int | None = None,
        make_split: Callable[[], tuple[VecEnv, int, int | None]] | None = None,
        eval_steps: int | None = None,
        eval_seconds: float | None = None,
        report: Callable[[int, float], None] | None = None,
        **kwargs: Any,
    ) -> None:
        if (eval_steps is None) == (eval_seconds is None):
            raise ValueError(f"give one of eval_steps and eval_seconds, got {eval_steps!r} and {eval_seconds!r}")
        super().__init__(eval_env, eval_freq=1, **kwargs)
        self.path, best = Path(f"{self.log_path}.npz"), self.best_model_save_path
        self.best = best if best is None else Path(best) / "best_model.zip"
        self.stopwatch = Stopwatch(clock=stopwatch) if isinstance(stopwatch, str) else stopwatch
        self.eval_seed, self.make_split, self.report = eval_seed, make_split, report
        self.eval_steps, self.eval_seconds = eval_steps, eval_seconds
        self.seconds: list[tuple[float, float]] = []  # Wall and CPU, before each evaluation.

    def _init_callback(self) -> None:
        if self.make_split is not None:
            self.eval_env, self.n_eval_episodes, self.eval_seed = self.make_split()
        super()._init_callback()
        self.best_model_save_path = None  # SB3 would write in place.

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
        best, folder, file = self.best_mean_reward, self.log_path, io.BytesIO()
        self.log_path = file  # type: ignore[assignment]
        continues = super()._on_step()
        self.log_path = folder
        if not self.evaluations_successes:
            raise ValueError('env must give info["is_success"] at the end of each episode to be evaluated, this one does not')
        file.seek(0)
        with np.load(file) as saved, written(self.path) as out:
            train_seconds, cpu_seconds = np.array(self.seconds).T
            np.savez(out, **saved, train_seconds=train_seconds, cpu_seconds=cpu_seconds)
        if self.best is not None and self.best_mean_reward > best:
            with written(self.best) as out:
                self.model.save(out)
        if self.report is not None:
            self.report(self.num_timesteps, 100 * (1 - float(np.mean(self.evaluations_successes[-1]))))
        self.stopwatch.start()
        return continues

    def get_state(self) -> dict[str, Any]:
        """What another callback needs to resume where this one is."""
        lists = {name: np.array(getattr(self, name)) for name in self._LISTS}
        return {"stopwatch": self.stopwatch.read(), "best": self._digest(), **{n: getattr(self, n) for n in self._STATE}, **lists}

    def set_state(self, state: dict[str, Any]) -> None:
        """Resume where another callback was."""
        self.stopwatch.wall, self.stopwatch.cpu = state["stopwatch"]
        for name in self._STATE:
            setattr(self, name, state[name])
        for name in self._LISTS:
            setattr(self, name, [list(row) for row in state[name]])
        if state["best"] != self._digest():
            self.best_mean_reward = self._reward_of_best()

    def _digest(self) -> str | None:
        """The SHA-256 of the best model; None: there is none."""
        return hashlib.sha256(self.best.read_bytes()).hexdigest() if self.best is not None and self.best.exists() else None

    def _reward_of_best(self) -> float:
        """The mean reward of a best model that is newer than the state: a stop came between the two."""
        assert self.best is not None
        try:
            with zipfile.ZipFile(self.best) as archive, np.load(self.path) as saved:
                if archive.testzip() is None:
                    return float(saved["results"].mean(axis=1).max())
        except (OSError, ValueError, zipfile.BadZipFile):
            pass
        warnings.warn(f"{self.best} is damaged: the best model is that of the evaluations from now on", stacklevel=2)
        return -np.inf


class Stopped(KeyboardInterrupt):
    """A signal has ended the run, after a checkpoint where there was something to keep."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by signal {signum}")
        self.signum = signum


def end_by_signal(signum: int, frame: Any) -> None:
    """A handler that ends a program as Ctrl-C does."""
    raise Stopped(signum)


class ResumeCallback(BaseCallback):
    """Writes a checkpoint for `resume` after each evaluation, between two rollouts.

    It holds the weights, the optimizer, every random state, the environments in mid-episode where they have `get_state`, the
    evaluations and the training time so far. Only action noise with a memory (Ornstein-Uhlenbeck) begins anew, as in SB3 at each
    `learn`.

    Args:
        folder: the run's.
        evaluation: the callback that evaluates, whose state is part of the checkpoint.
        begin: called when the training starts and the disk has room for it.

    Attributes:
        signum: where this is set, the next rollout does not begin: a checkpoint is written and `Stopped` raised.
    """

    def __init__(self, folder: Path, evaluation: TimedEvalCallback, begin: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.folder, self.evaluation, self.begin = folder, evaluation, begin
        self.signum: int | None = None
        self._num_saved = 0

    @property
    def can_save(self) -> bool:
        """Whether the algorithm's state can be stored: a generator's can't."""
        return not isinstance(self.model, GeneratorAlgorithm)

    def _on_training_start(self) -> None:
        self._num_saved = len(self.evaluation.seconds)
        if self.can_save:
            check_space(self.folder, self.model, self.training_env, self.evaluation.get_state())
        self.begin()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if len(self.evaluation.seconds) > self._num_saved or self.signum is not None:
            self._save()
            self.evaluation.stopwatch.start()

    def _on_training_end(self) -> None:
        if self.signum is not None:
            self._save()

    def _save(self) -> None:
        self.evaluation.stopwatch.pause()
        if self.can_save:
            save_checkpoint(self.folder, self.model, self.training_env, self.evaluation.get_state())
        self._num_saved = len(self.evaluation.seconds)
        if self.signum is not None:
            raise Stopped(self.signum)


class TimeLimitCallback(BaseCallback):
    """Ends the training after a number of seconds. The schedules of a model that is `on_the_clock` follow the seconds.

    Args:
        stopwatch: counts the training time, evaluations left out.
        seconds: the limit.
    """

    def __init__(self, stopwatch: Stopwatch, seconds: float) -> None:
        super().__init__()
        self.stopwatch, self.seconds = stopwatch, seconds

    def _on_step(self) -> bool:
        used = min(self.stopwatch.used(), self.seconds)
        self.model.time_used = used / self.seconds  # type: ignore[attr-defined]
        return used < self.seconds


class ProgressCallback(BaseCallback):
    """A progress bar of the steps, or of the seconds, beside which the newest validation error or success stands.

    Args:
        evaluation: the callback that evaluates, which comes before this one.
        seconds: how long the training takes by the evaluation's stopwatch; None: the bar counts steps.
        success_name: what successes are called, such as "balls caught"; None: their lack is the validation error.
    """

    def __init__(self, evaluation: TimedEvalCallback, seconds: float | None = None, success_name: str | None = None) -> None:
        super().__init__()
        self.evaluation, self.seconds, self.success_name = evaluation, seconds, success_name

    def _on_training_start(self) -> None:
        done = self.model.num_timesteps
        total = self.locals["total_timesteps"] - done if self.seconds is None else round(self.seconds)
        columns = (_TEXT, BarColumn(bar_width=None), TimeElapsedColumn(), "<", TimeRemainingColumn())  # Fit in 80 letters.
        self.bar, self._begin = tqdm(total=total, desc=self._newest(), progress=columns), done

    def _on_step(self) -> bool:
        evaluation = self.evaluation
        now = self.num_timesteps - self._begin if self.seconds is None else min(evaluation.stopwatch.used(), self.seconds)
        if self.bar.desc != (newest := self._newest()):
            self.bar.set_description_str(newest)
        self.bar.update(now - self.bar.n)
        return True

    def _on_training_end(self) -> None:
        self.bar.set_description_str(self._newest())
        self.bar.close()

    def _newest(self) -> str:
        successes = self.evaluation.evaluations_successes
        rate = 100 * float(np.mean(successes[-1])) if successes else None
        if self.success_name is None:
            return "validation error -" if rate is None else f"validation error {100 - rate:.2f} %"
        return f"{self.success_name} -" if rate is None else f"{self.success_name} {rate:.2f} %"


def on_the_clock(model: BaseAlgorithm) -> BaseAlgorithm:
    """The model itself, with all schedules (learning rate, exploration, ...) by the time that `TimeLimitCallback` measures and
    not by steps.
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
