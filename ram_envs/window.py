"""The window that a person sees the pictures in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gymnasium as gym
from numpy.typing import NDArray

from ram_envs.drawing import import_pygame

if TYPE_CHECKING:
    import pygame

_INPUT = ("KEYDOWN", "KEYUP", "MOUSEBUTTONDOWN", "MOUSEBUTTONUP", "MOUSEWHEEL", "USEREVENT")

_open_windows: set[Window] = set()  # Of this process: they share one queue of events.


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

    def show(self, picture: NDArray) -> None:
        """Answer to what the person did, show a picture (H, W, 3) of uint8, and wait until it is time for the next."""
        pygame = import_pygame()
        if self._window is not None and pygame.display.get_init():
            # What was pressed is left to the program, as Gymnasium's own environments do. Asking for WINDOWCLOSE by name finds
            # nothing: in SDL's queue it has another type (pygame-ce 2.5).
            answer_events(pygame.event.get(exclude=[getattr(pygame, name) for name in _INPUT]))
        if self.is_closed:
            return
        self.draw(picture)
        if self._clock is None:
            self._clock = pygame.time.Clock()
        self._clock.tick(self.fps)

    def draw(self, picture: NDArray) -> None:
        """Show a picture at once, as large as the window is."""
        pygame = import_pygame()
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
        """Where a point of the window lies in the picture that it shows."""
        if self._window is None:
            return point
        height, width = picture.shape[:2]
        place = _fit((width, height), self._window.size)
        return (point[0] - place.x) * width / place.width, (point[1] - place.y) * height / place.height

    def close(self) -> None:
        """Close the window, and pygame's display with the last one."""
        if self._window is None:
            return
        pygame = import_pygame()
        self._window.destroy()
        self._window = self._clock = None
        _open_windows.discard(self)
        if not _open_windows and pygame.display.get_init() and pygame.display.get_surface() is None:
            pygame.display.quit()

    def _surface(self, picture: NDArray) -> pygame.Surface:
        pygame = import_pygame()
        if self._window is not None:
            try:
                return self._window.get_surface()
            except pygame.error:  # Another part of the program has called `pygame.quit`.
                self._window = None
        if not hasattr(pygame, "Window"):
            raise gym.error.DependencyNotInstalled('the window needs pygame-ce, run `pip install "ram-envs[render]"`')
        pygame.display.init()
        self._window = pygame.Window(self.title, self._first_size(picture), resizable=True)
        _open_windows.add(self)
        return self._window.get_surface()

    def _first_size(self, picture: NDArray) -> tuple[int, int]:
        """The picture's, if the screen has room for it."""
        pygame = import_pygame()
        height, width = picture.shape[:2]
        room = [0.9 * side for side in pygame.display.get_desktop_sizes()[0]]
        scale = min(1.0, room[0] / width, room[1] / height)
        return round(width * scale), round(height * scale)


def answer_events(events: list[pygame.event.Event]) -> None:
    """Close what these events ask to close: one of the windows, or all that this module has opened."""
    pygame = import_pygame()
    for event in events:
        for window in list(_open_windows):
            if event.type == pygame.QUIT or (event.type == pygame.WINDOWCLOSE and event.window is window._window):
                window.is_closed = True
                window.close()


def _fit(size: tuple[int, int], room: tuple[int, int]) -> pygame.Rect:
    """The largest rectangle of a shape in the middle of a room."""
    pygame = import_pygame()
    scale = min(room[0] / size[0], room[1] / size[1])
    place = pygame.Rect(0, 0, max(round(size[0] * scale), 1), max(round(size[1] * scale), 1))
    place.center = room[0] // 2, room[1] // 2
    return place
