"""What `render()` returns and what the window shows: the pictures of a task's environments, with their paths so far."""

from __future__ import annotations

import copy
import math
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from ram_envs.drawing import draw, pygame
from ram_envs.frame import Frame
from ram_envs.task import Task

RENDER_MODES = ("human", "rgb_array")
MAX_SHOWN = 16  # Environments in one window.

_INPUT = ("KEYDOWN", "KEYUP", "MOUSEBUTTONDOWN", "MOUSEBUTTONUP", "MOUSEWHEEL", "USEREVENT")
_open_windows: set[Window] = set()  # Of this process: they share one queue of events.


class Renderer:
    """Draws N environments, and keeps what only drawing needs: paths and last actions.

    Args:
        task: of the environments.
        render_mode: one of `RENDER_MODES`.
    """

    def __init__(self, task: Task, render_mode: str) -> None:
        self.task = task
        self._window = Window(type(task).__name__, task.render_fps) if render_mode == "human" else None
        self._num_drawn = task.num_envs if self._window is None else min(task.num_envs, MAX_SHOWN)
        self._paths: list[list[NDArray]] = [[] for _ in range(self._num_drawn)]
        self._zooms: list[int] = [0] * self._num_drawn
        self._actions: list[Any] = [None] * self._num_drawn

    def set_title(self, title: str) -> None:
        """What is written above the window, if there is to be one, when it opens."""
        if self._window is not None:
            self._window.title = title

    def begin(self, where: NDArray[np.bool_]) -> None:
        """An episode has just begun in the environments of the mask `where` (N,)."""
        for env in np.flatnonzero(where[: self._num_drawn]).tolist():
            self._paths[env], self._actions[env] = [], None
            self._note_look(env)
        self._show()

    def step(self, action: Any, num_actions: int | None, began: NDArray[np.bool_]) -> None:
        """A step has been taken, after which a new episode began in the mask (N,); num_actions as for `Task.step`."""
        for env in range(self._num_drawn):
            if not began[env]:
                self._actions[env] = _take(action, None if num_actions is None else env)
                if not self.task.terminated[env]:  # At the location that the last action names nobody looks.
                    self._note_look(env)
        self.begin(began)

    def frame(self, env: int) -> Frame:
        """What there is to draw of an environment; when its episode is over, the last look that was taken stays."""
        gaze = getattr(self.task, "gaze", None)
        if gaze is None or not self.task.terminated[env]:
            return self.task.frame(env, self._actions[env])
        named = gaze.locations[env].copy(), gaze.zooms[env]
        gaze.locations[env], gaze.zooms[env] = self._paths[env][-1], self._zooms[env]
        try:
            return self.task.frame(env, self._actions[env])
        finally:
            gaze.locations[env], gaze.zooms[env] = named

    def path(self, env: int) -> NDArray:
        """The locations (m, 2) of this episode's glimpses."""
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
        return tuple(draw(self.frame(env), self.path(env)) for env in range(self._num_drawn))

    def _show(self) -> None:
        if self._window is not None and not self._window.is_closed:
            self._window.show(_tile(self._draw()))

    def _note_look(self, env: int) -> None:
        gaze = getattr(self.task, "gaze", None)
        self._paths[env].append(np.zeros(2) if gaze is None else gaze.locations[env].copy())
        self._zooms[env] = 0 if gaze is None else gaze.zooms[env]


class Window:
    """A window of its own for each environment, opened when the first picture comes.

    Args:
        title: what is written above it.
        fps: how many pictures `show` shows a second at the most.

    Attributes:
        is_closed: whether the person has closed it; it stays closed then.
    """

    def __init__(self, title: str, fps: float) -> None:
        self.title, self.fps = title, fps
        self.is_closed = False
        self._window: pygame.Window | None = None
        self._clock: pygame.time.Clock | None = None

    def show(self, picture: NDArray, ends_by_escape: bool = False) -> None:
        """Answer what the person did, show a picture (H, W, 3) of uint8, and wait until it is time for the next.

        With `ends_by_escape` the window takes in the keys, and Esc closes it, too.

        Raises:
            gymnasium.error.Error: there is no screen.
        """
        if self._window is not None and pygame.display.get_init():
            # Keys and mouse are left to the program, as in Gymnasium's own environments. Asking for WINDOWCLOSE by name finds
            # nothing: in SDL's queue it has another type (pygame-ce 2.5).
            keys = [event.key for event in pygame.event.get(pygame.KEYDOWN)] if ends_by_escape else []
            _answer(pygame.event.get(exclude=[getattr(pygame, name) for name in _INPUT]))
            if pygame.K_ESCAPE in keys:
                self.is_closed = True
                self.close()
        if self.is_closed:
            return
        self.draw(picture)
        if self._clock is None:
            self._clock = pygame.time.Clock()
        self._clock.tick(self.fps)

    def draw(self, picture: NDArray) -> None:
        """Show a picture at once, as large as the window is."""
        surface = self._surface(picture)
        shown = pygame.surfarray.make_surface(picture.swapaxes(0, 1))
        place = _fit(shown.get_size(), surface.get_size())
        surface.fill("black")
        if place.size != shown.get_size():
            shown = pygame.transform.smoothscale(shown, place.size)
        surface.blit(shown, place)
        assert self._window is not None
        self._window.flip()

    def to_picture(self, point: tuple[float, float], picture: NDArray) -> tuple[float, float]:
        """The point of the picture that the window shows at a point of its own."""
        if self._window is None:
            return point
        height, width = picture.shape[:2]
        place = _fit((width, height), self._window.size)
        return (point[0] - place.x) * width / place.width, (point[1] - place.y) * height / place.height

    def close(self) -> None:
        """Close the window, and pygame's display with the last one."""
        if self._window is None:
            return
        self._window.destroy()
        self._window = self._clock = None
        _open_windows.discard(self)
        if not _open_windows and pygame.display.get_init() and pygame.display.get_surface() is None:
            pygame.display.quit()

    def _surface(self, picture: NDArray) -> pygame.Surface:
        if self._window is not None:
            try:
                return self._window.get_surface()
            except pygame.error:  # Another part of the program has called `pygame.quit`.
                self._window = None
        if not hasattr(pygame, "Window"):
            raise gym.error.DependencyNotInstalled('the window needs pygame-ce, run `pip install "ram-envs[render]"`')
        try:
            pygame.display.init()
        except pygame.error as error:
            raise gym.error.Error(f"there is no screen for a window ({error}): make pictures or a video instead") from error
        height, width = picture.shape[:2]
        room = [0.9 * side for side in pygame.display.get_desktop_sizes()[0]]
        scale = min(1.0, room[0] / width, room[1] / height)
        self._window = pygame.Window(self.title, (round(width * scale), round(height * scale)), resizable=True)
        _open_windows.add(self)
        return self._window.get_surface()


def _answer(events: list[pygame.event.Event]) -> None:
    """Close what these events ask to close: one of the windows, or all that this module has opened."""
    for event in events:
        for window in list(_open_windows):
            if event.type == pygame.QUIT or (event.type == pygame.WINDOWCLOSE and event.window is window._window):
                window.is_closed = True
                window.close()


def _fit(size: tuple[int, int], room: tuple[int, int]) -> pygame.Rect:
    """The largest rectangle of a shape in the middle of a room."""
    scale = min(room[0] / size[0], room[1] / size[1])
    place = pygame.Rect(0, 0, max(round(size[0] * scale), 1), max(round(size[1] * scale), 1))
    place.center = room[0] // 2, room[1] // 2
    return place


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
