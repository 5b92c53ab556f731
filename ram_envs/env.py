"""Gymnasium's two faces of one task: `GlimpseEnv` is the batch of one, `GlimpseVectorEnv` the batch of N."""

from __future__ import annotations

import inspect
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from ram_envs.catch import Catch, GlimpseCatch
from ram_envs.checks import check_whole
from ram_envs.classification import GlimpseClassification
from ram_envs.rendering import RENDER_MODES, Renderer
from ram_envs.streams import draw_keys
from ram_envs.task import Task

TASKS: dict[str, type[Task]] = {"classification": GlimpseClassification, "catch": GlimpseCatch, "whole-catch": Catch}

_EVERY = np.ones(1, np.bool_)


class GlimpseEnv(gym.Env):
    """One environment of a task, for `gym.make`.

    Args:
        task: a name out of `TASKS`.
        render_mode: None, "rgb_array" or "human", see `render`.
        **options: the task's own arguments, see `GlimpseClassification`, `GlimpseCatch` and `Catch`.

    Raises:
        TypeError: an option that the task does not have.
        ValueError: an option out of range.
    """

    metadata: dict[str, Any] = {"render_modes": [*RENDER_MODES], "render_fps": 4}  # noqa: RUF012 (each instance has its own)

    def __init__(self, task: str = "classification", render_mode: str | None = None, **options: Any) -> None:
        self.render_mode = _check_render_mode(render_mode)
        self.task = _make_task(task, 1, options)
        self.metadata = {**self.metadata, "render_fps": self.task.render_fps}
        self._renderer = None if render_mode is None else Renderer(self.task, render_mode)
        self.observation_space = self.task.observation_space
        self.action_space = self.task.action_space
        self._is_seeded = False
        self._needs_reset = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; `options={"index": i}` shows image i.

        Raises:
            ValueError: an unknown option, or an index out of range.
        """
        options = _check_reset_options(options, self.task.reset_options)
        super().reset(seed=seed)
        if seed is not None or not self._is_seeded:
            self.task.seed(draw_keys(self.np_random, 1), _EVERY)
            self._is_seeded = True
        self.task.begin(_EVERY, options)
        self._needs_reset = False
        if self._renderer is not None:
            self._renderer.begin(_EVERY)
        return self._observe(), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Look at the location given.

        Raises:
            ValueError: the action is misshaped, not finite or out of range; the episode goes on as if nothing had been sent.
            gymnasium.error.ResetNeeded: the episode is over.
        """
        if self._needs_reset:
            raise gym.error.ResetNeeded("there is no episode under way: call reset() before step()")
        self.task.step(action, None, None)
        terminated = bool(self.task.terminated[0])
        self._needs_reset = terminated
        if self._renderer is not None:
            self._renderer.step(action, None, ~_EVERY)
        return (
            self._observe(),
            float(self.task.reward()[0]),
            terminated,
            False,
            self._info(),
        )

    def render(self) -> Any:
        """The picture (H, W, 3) of the current step; in the mode "human" the window shows it, as it does after each step anyway.

        Raises:
            gymnasium.error.ResetNeeded: there is nothing to draw before the first reset.
        """
        pictures = _render(self, self._renderer)
        return None if pictures is None else pictures[0]

    def close(self) -> None:
        """Close the window."""
        if self._renderer is not None:
            self._renderer.close()

    def _observe(self) -> Any:
        return _take(self.task.observe(), 0)

    def _info(self) -> dict[str, Any]:
        return {name: values[0].item() for name, (values, _) in self.task.info().items()}


class GlimpseVectorEnv(VectorEnv):
    """N environments of a task advanced as one batch, for `gym.make_vec`.

    With seed s it equals single environments with the seeds s, s + 1, ...

    Args:
        task: a name out of `TASKS`.
        num_envs: N.
        autoreset_mode: an `AutoresetMode` or its value. NEXT_STEP begins a new episode at the step after the last, whose action
            is ignored; SAME_STEP at the last step itself, whose observation is then in `info["final_obs"]`; DISABLED when
            `reset(options={"reset_mask": mask})` is called with a mask (N,) of bool.
        render_mode: None, "rgb_array" or "human", see `render`.
        **options: the task's own arguments, see `GlimpseClassification`, `GlimpseCatch` and `Catch`.

    Raises:
        TypeError: an option that the task does not have.
        ValueError: an option out of range.
    """

    metadata: dict[str, Any] = {"render_modes": [*RENDER_MODES], "render_fps": 4}  # noqa: RUF012 (each instance has its own)
    _renderer: Renderer | None = None  # Gymnasium closes what could not be made, too.

    def __init__(
        self,
        task: str = "classification",
        num_envs: int = 1,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        check_whole("num_envs", num_envs, 1)
        self.autoreset_mode = _check_autoreset_mode(autoreset_mode)
        self.render_mode = _check_render_mode(render_mode)
        self.num_envs = num_envs
        self.task = _make_task(task, num_envs, options)
        self.metadata = {**self.metadata, "render_fps": self.task.render_fps, "autoreset_mode": self.autoreset_mode}
        self._renderer = None if render_mode is None else Renderer(self.task, render_mode)
        self.single_observation_space = self.task.observation_space
        self.single_action_space = self.task.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._is_seeded = False
        self._done: NDArray[np.bool_] | None = None  # (N,), None before the first reset.

    def reset(
        self,
        *,
        seed: int | list[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in every environment, or in those of `options["reset_mask"]`.

        Raises:
            ValueError: an unknown option, an index out of range, or not one seed for each environment.
            TypeError: a reset_mask that is not an array of bool.
        """
        options = _check_reset_options(options, (*self.task.reset_options, "reset_mask"))
        mask = options.pop("reset_mask", None)
        where = self._check_reset_mask(mask)
        self._seed(seed, where)
        if mask is None:
            self.task.restart()
        self.task.begin(where, options)
        self._done = np.zeros(self.num_envs, np.bool_) if self._done is None else self._done & ~where
        if self._renderer is not None:
            self._renderer.begin(where)
        return self.task.observe(), self._info(where)

    def step(self, actions: Any) -> tuple[Any, NDArray, NDArray, NDArray, dict[str, Any]]:
        """Look at the locations given, one for each environment.

        Raises:
            ValueError: an action is misshaped, not finite or out of range; the episodes go on as if nothing had been sent.
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
        self.task.step(actions, self.num_envs, ~over if some_over else None)
        if some_over:
            self.task.begin(over, {})
        terminated = self.task.terminated.copy()
        reward = self.task.reward()
        self._done = terminated.copy()
        truncated = np.zeros(self.num_envs, np.bool_)
        began = over
        if self.autoreset_mode == AutoresetMode.SAME_STEP and terminated.any():
            observation, info = self._reset_at_once(terminated)
            began = terminated
        else:
            observation, info = self.task.observe(), self._info()
        if self._renderer is not None:
            self._renderer.step(actions, self.num_envs, began)
        return observation, reward, terminated, truncated, info

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """The pictures of all environments; in the mode "human" one window shows the first 16 of them, after each step.

        Raises:
            gymnasium.error.ResetNeeded: there is nothing to draw before the first reset.
        """
        return _render(self, self._renderer)

    def close_extras(self, **kwargs: Any) -> None:
        """Close the window."""
        if self._renderer is not None:
            self._renderer.close()

    def get_state(self) -> dict[str, Any]:
        """Everything that the next steps depend on, so that a training run can be stopped and gone on with; pickles."""
        return {"task": self.task.get_state(), "done": self._done, "is_seeded": self._is_seeded}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on where `get_state` was called, in environments made with the same arguments."""
        self.task.set_state(state["task"])
        self._done, self._is_seeded = state["done"], state["is_seeded"]
        if self._renderer is not None and self._done is not None:
            self._renderer.begin(np.ones(self.num_envs, np.bool_))

    def _reset_at_once(self, over: NDArray[np.bool_]) -> tuple[Any, dict[str, Any]]:
        final = self.task.observe()
        final_obs = np.full(self.num_envs, None, dtype=object)
        for env in np.flatnonzero(over).tolist():
            final_obs[env] = _take(final, env)
        final_info = self._info(over)
        self.task.begin(over, {})
        self._done = np.zeros(self.num_envs, np.bool_)
        info = self._info()
        info.update(final_obs=final_obs, _final_obs=over.copy())
        info.update(final_info=final_info, _final_info=over.copy())
        return self.task.observe(), info

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
            seeds = list(seed)
        if len(seeds) != self.num_envs:
            raise ValueError(f"seed must be a number or a list of num_envs={self.num_envs} numbers, got {len(seeds)} of them")
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


def _make_task(task: str, num_envs: int, options: dict[str, Any]) -> Task:
    if task not in TASKS:
        raise ValueError(f"task must be one of {tuple(TASKS)}, got {task!r}")
    known = inspect.signature(TASKS[task]).parameters
    for name in options:
        if name not in known or name == "num_envs":
            allowed = ", ".join(known.keys() - {"num_envs"})
            raise TypeError(f"{name!r} is not an option of this environment; its options are: {allowed}")
    return TASKS[task](num_envs, **options)


def _take(observations: Any, env: int) -> Any:
    """The observation of one environment out of those of the batch."""
    if isinstance(observations, dict):
        return {name: values[env] for name, values in observations.items()}
    return observations[env]


def _check_reset_options(options: dict[str, Any] | None, allowed: tuple[str, ...]) -> dict[str, Any]:
    """A copy of reset's options."""
    for name in options or ():
        if name not in allowed:
            raise ValueError(f"options of reset() may hold {allowed}, got {name!r}")
    return dict(options or {})


def _check_autoreset_mode(given: AutoresetMode | str) -> AutoresetMode:
    try:
        return AutoresetMode(given)
    except ValueError as error:
        allowed = [mode.value for mode in AutoresetMode]
        raise ValueError(f"autoreset_mode must be an AutoresetMode or one of {allowed}, got {given!r}") from error


def _check_render_mode(given: str | None) -> str | None:
    if given is not None and given not in RENDER_MODES:
        raise ValueError(f"render_mode must be None or one of {RENDER_MODES}, got {given!r}")
    return given


def _render(env: gym.Env | VectorEnv, renderer: Renderer | None) -> tuple[NDArray[np.uint8], ...] | None:
    if renderer is None:
        name = type(env).__name__ if env.spec is None else env.spec.id
        gym.logger.warn(f'{name} was made without a render mode, such as render_mode="rgb_array": render() draws nothing')
        return None
    return renderer.render()
