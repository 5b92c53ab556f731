"""What `render()` returns and what the window shows: the pictures of a task's environments, with their paths so far."""

from __future__ import annotations

import copy
import math
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from ram_envs.drawing import draw
from ram_envs.task import Task
from ram_envs.view import View
from ram_envs.window import Window

RENDER_MODES = ("human", "rgb_array")
MAX_SHOWN = 16  # Environments in one window.


class Renderer:
    """Draws N environments, and keeps what drawing needs and the task does without: paths and last actions.

    Args:
        task: of the environments.
        render_mode: one of `RENDER_MODES`.
    """

    def __init__(self, task: Task, render_mode: str) -> None:
        self.task = task
        self._window = Window(type(task).__name__, task.render_fps) if render_mode == "human" else None
        self._num_drawn = task.num_envs if self._window is None else min(task.num_envs, MAX_SHOWN)
        self._paths: list[list[NDArray]] = [[] for _ in range(self._num_drawn)]
        self._actions: list[Any] = [None] * self._num_drawn

    def begin(self, where: NDArray[np.bool_]) -> None:
        """An episode has just begun in the environments of the mask `where` (N,)."""
        for env in np.flatnonzero(where[: self._num_drawn]).tolist():
            self._paths[env], self._actions[env] = [self._location(env)], None
        self._show()

    def step(self, action: Any, num_actions: int | None, began: NDArray[np.bool_]) -> None:
        """A step has been taken, after which a new episode began in the mask (N,); num_actions as for `Task.step`."""
        for env in range(self._num_drawn):
            if not began[env]:
                self._actions[env] = _take(action, None if num_actions is None else env)
                self._paths[env].append(self._location(env))
        self.begin(began)

    def view(self, env: int) -> View:
        """What there is to draw of an environment."""
        return self.task.view(env, self._actions[env])

    def path(self, env: int) -> NDArray:
        """Where it looked in this episode: (m, 2)."""
        return np.array(self._paths[env])

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """The picture of each environment; in the mode "human" they go to the window.

        Raises:
            gymnasium.error.ResetNeeded: there is nothing to draw yet.
        """
        if not all(self._paths):
            raise gym.error.ResetNeeded("there is nothing to draw yet: call reset() before render()")
        if self._window is None:
            return self._draw()
        self._show()
        return None

    def close(self) -> None:
        """Close the window."""
        if self._window is not None:
            self._window.close()

    def _draw(self) -> tuple[NDArray[np.uint8], ...]:
        return tuple(draw(self.view(env), self.path(env)) for env in range(self._num_drawn))

    def _show(self) -> None:
        if self._window is not None and not self._window.is_closed:
            self._window.show(_tile(self._draw()))

    def _location(self, env: int) -> NDArray:
        gaze = getattr(self.task, "gaze", None)
        return np.zeros(2) if gaze is None else gaze.locations[env].copy()


def _take(action: Any, env: int | None) -> Any:
    """A copy of the action of one environment out of those of the batch; None: of a single action."""
    if env is None:
        return copy.deepcopy(action)
    if isinstance(action, dict):
        return {name: _take(values, env) for name, values in action.items()}
    return np.array(action)[env]


def _tile(pictures: tuple[NDArray[np.uint8], ...]) -> NDArray[np.uint8]:
    """Pictures (H, W, 3) in a grid about as many high as wide, with a black line between."""
    if len(pictures) == 1:
        return pictures[0]
    pictures = tuple(np.pad(picture, ((0, 4), (0, 4), (0, 0))) for picture in pictures)
    columns = math.ceil(math.sqrt(len(pictures)))
    blanks = (np.zeros_like(pictures[0]),) * (-len(pictures) % columns)
    rows = [(pictures + blanks)[i : i + columns] for i in range(0, len(pictures), columns)]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows], axis=0)
