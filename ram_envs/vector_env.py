"""N environments of a task advanced as one batch, for `gymnasium.make_vec`."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from ram_envs.env import TaskEnv, check_reset_options, fits_memory
from ram_envs.rendering import RENDER_MODES
from ram_envs.sampling import draw_keys
from ram_envs.task import check_state


class GlimpseVectorEnv(TaskEnv, VectorEnv):
    """N environments of a task advanced as one batch, for `gym.make_vec`; they also have what `TaskEnv` says.

    With seed s it equals single environments with the seeds s, s + 1, ...

    Args:
        task: "classification", "catch", "whole-catch", or a name given to `register_task`.
        num_envs: N.
        autoreset_mode: an `AutoresetMode` or its value. NEXT_STEP begins a new episode at the step after the last, whose action
            is ignored; SAME_STEP at the last step itself, whose observation is then in `info["final_obs"]`; DISABLED when
            `reset(options={"reset_mask": mask})` is called with a mask (N,) of bool.
        render_mode: None, "rgb_array" or "human", see `render`.
        flatten_observation: observations are one array (N, D), each as Gymnasium's `FlattenObservation` makes it.
        max_episode_steps: the steps after which an episode is truncated, as `gym.make` takes it.
        **options: the task's own arguments, see `GlimpseClassification`, `GlimpseCatch` and `Catch`.

    Raises:
        TypeError: an option that the task does not have.
        ValueError: an option out of range.
    """

    metadata: dict[str, Any] = {"render_modes": [*RENDER_MODES], "render_fps": 4}  # noqa: RUF012 (each instance has its own)

    def __init__(
        self,
        task: str = "classification",
        num_envs: int = 1,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        flatten_observation: bool = False,
        max_episode_steps: int | None = None,
        **options: Any,
    ) -> None:
        if isinstance(num_envs, bool) or not isinstance(num_envs, (int, np.integer)) or not 1 <= num_envs < 2**31:
            raise ValueError(f"num_envs must be a whole number of at least 1 and less than 2**31, got {num_envs!r}")
        self.num_envs = int(num_envs)
        allowed = [mode.value for mode in AutoresetMode]
        if autoreset_mode not in (*AutoresetMode, *allowed):
            raise ValueError(f"autoreset_mode must be an AutoresetMode or one of {allowed}, got {autoreset_mode!r}")
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        limit = None if max_episode_steps == -1 else max_episode_steps  # As in `gym.make`.
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, (int, np.integer)) or limit < 1):
            raise ValueError(f"max_episode_steps must be a whole number of at least 1, or None, got {max_episode_steps!r}")
        self._time_limit = limit and int(limit)
        self._take_up(task, self.num_envs, options, render_mode, flatten_observation)
        self.metadata["autoreset_mode"] = self.autoreset_mode
        self.single_observation_space = self._space
        self.single_action_space = self.task.action_space
        with fits_memory(self.num_envs):
            self._elapsed = np.zeros(self.num_envs, np.int64)
            self.observation_space = batch_space(self.single_observation_space, self.num_envs)
            self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._done: NDArray[np.bool_] | None = None  # (N,), None before the first reset.

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in every environment, or in those of `options["reset_mask"]`.

        Raises:
            ValueError: an unknown option, an index out of range, or not one seed for each environment; nothing has changed then.
            TypeError: a reset_mask that is not an array of bool.
        """
        options = check_reset_options(options, (*self.task.reset_options, "reset_mask"))
        mask = options.pop("reset_mask", None)
        where = self._check_reset_mask(mask)
        with self._unchanged_if_refused(options):
            self._seed(seed, where)
            if mask is None:
                self.task.restart()
            self.task.begin(where, options)
        self._elapsed[where] = 0
        self._done = np.zeros(self.num_envs, np.bool_) if self._done is None else self._done & ~where
        if self._renderer is not None:
            self._renderer.begin(where)
        return self._observe(), self._info(where)

    def step(self, actions: Any) -> tuple[Any, NDArray, NDArray, NDArray, dict[str, Any]]:
        """Look at the locations given, one for each environment.

        Raises:
            ValueError: an action is misshaped, not finite or out of range; the episodes continue as if nothing had been sent.
            gymnasium.error.ResetNeeded: an episode is over and was not reset.
        """
        if self._done is None:
            raise gym.error.ResetNeeded("there is no episode under way: call reset() before step()")
        over = self._done
        some_over = over.any()
        if some_over and self.autoreset_mode == AutoresetMode.DISABLED:
            raise gym.error.ResetNeeded(
                f"environments {np.flatnonzero(over).tolist()} are over: call reset(options={{'reset_mask': mask}}) before step()"
            )
        reward = self.task.step(actions, self.num_envs, ~over if some_over else None)
        if some_over:
            self.task.begin(over, {})
            reward[over] = 0
        terminated = self.task.terminated.copy()
        truncated = np.zeros(self.num_envs, np.bool_)
        if self._time_limit is not None:
            self._elapsed = np.where(over, 0, self._elapsed + 1)
            truncated = self._elapsed >= self._time_limit
        self._done = done = terminated | truncated
        began = over
        if self.autoreset_mode == AutoresetMode.SAME_STEP and done.any():
            observation, info = self._reset_at_once(done)
            began = done
        else:
            observation, info = self._observe(), self._info()
        if self._renderer is not None:
            self._renderer.step(actions, self.num_envs, began)
        return observation, reward, terminated, truncated, info

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """The pictures of all environments; in the mode "human" one window shows the first 16 of them, after each step.

        Raises:
            gymnasium.error.ResetNeeded: there is nothing to draw before the first reset.
        """
        return self._pictures()

    def close_extras(self, **kwargs: Any) -> None:
        """Close the window."""
        if self._renderer is not None:
            self._renderer.close()

    def get_state(self) -> dict[str, Any]:
        """Everything that the next steps depend on, so that a training run can be resumed; pickles."""
        return {
            "task": self.task.get_state(),
            "done": self._done,
            "elapsed": self._elapsed.copy(),
            "is_seeded": self._is_seeded,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue where `get_state` was called, in environments made with the same arguments.

        Raises:
            ValueError: the state is that of other environments, or none; nothing has changed then.
        """
        if not isinstance(state, dict) or not {"task", "done", "is_seeded"} <= state.keys():
            raise ValueError(f"state must be what get_state gives, got {list(state) if isinstance(state, dict) else state!r}")
        done, seeded = state["done"], state["is_seeded"]
        if done is not None:
            done = check_state(state, "done", np.zeros(self.num_envs, np.bool_)).copy()
        if not isinstance(seeded, (bool, np.bool_)):
            raise ValueError(f"state['is_seeded'] must be True or False, got {seeded!r}")
        elapsed = self._elapsed
        if "elapsed" in state:  # Not stored by version 0.1.0.
            elapsed = check_state(state, "elapsed", self._elapsed, 0, 2**62).copy()
        self.task.set_state(state["task"])
        self._done, self._is_seeded, self._elapsed = done, bool(seeded), elapsed
        if self._renderer is not None and self._done is not None:
            self._renderer.begin(np.ones(self.num_envs, np.bool_))

    def _reset_at_once(self, over: NDArray[np.bool_]) -> tuple[Any, dict[str, Any]]:
        final = self._observe()
        final_obs = np.full(self.num_envs, None, dtype=object)
        where = np.flatnonzero(over).tolist()
        if isinstance(final, dict):
            final_obs[over] = [{name: values[env] for name, values in final.items()} for env in where]
        else:
            for env in where:
                final_obs[env] = final[env]
        final_info = self._info(over)
        self.task.begin(over, {})
        self._elapsed[over] = 0
        self._done = np.zeros(self.num_envs, np.bool_)
        info = self._info()
        info.update(final_obs=final_obs, _final_obs=over.copy())
        info.update(final_info=final_info, _final_info=over.copy())
        return self._observe(), info

    def _info(self, where: NDArray[np.bool_] | None = None) -> dict[str, Any]:
        """The task's facts as Gymnasium's vector environments give them, for the environments of the mask `where`."""
        info: dict[str, Any] = {}
        everywhere = np.ones(self.num_envs, np.bool_)
        for name, (values, holds) in self.task.info().items():
            if holds is None and where is None:
                info[name], info[f"_{name}"] = values.copy(), everywhere
                continue
            mask = np.ones(self.num_envs, np.bool_) if where is None else where.copy()
            if holds is not None:
                mask &= holds
            if mask.any():
                info[name], info[f"_{name}"] = values * mask, mask
        return info

    def _seed(self, seed: int | list[int | None] | None, where: NDArray[np.bool_]) -> None:
        if seed is None:
            if not self._is_seeded:
                self.task.seed(draw_keys(self.np_random, self.num_envs), np.ones_like(where))
                self._is_seeded = True
            return
        if isinstance(seed, (int, np.integer)):
            super().reset(seed=int(seed))
            seeds: list[int | None] = [int(seed) + env for env in range(self.num_envs)]
        else:
            seeds = list(seed) if isinstance(seed, (list, tuple, np.ndarray)) else []
        if len(seeds) != self.num_envs:
            raise ValueError(f"seed must be a whole number or a list of num_envs={self.num_envs} of them, got {seed!r}")
        seeded = np.array([value is not None for value in seeds]) & where
        if not self._is_seeded:
            self._seed(None, where)
        if seeded.any():
            keys = [draw_keys(seeding.np_random(value)[0], 1)[0] for value, chosen in zip(seeds, seeded, strict=True) if chosen]
            self.task.seed(np.array(keys, np.uint64), seeded)

    def _check_reset_mask(self, mask: Any) -> NDArray[np.bool_]:
        if mask is None:
            return np.ones(self.num_envs, np.bool_)
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise TypeError(f"options['reset_mask'] must be an array of bool, got {mask!r}")
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(f"options['reset_mask'] must have the shape ({self.num_envs},) and at least one True, got {mask!r}")
        if self._done is None and not mask.all():
            raise ValueError("the first reset must reset every environment: leave out options['reset_mask']")
        return mask
