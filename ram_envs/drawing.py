"""Draw one environment: its scene dimmed outside the retina, the path so far, the patches and the scores. Needs no screen."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from ram_envs.view import Look, View

if TYPE_CHECKING:
    import pygame

SIDE = 480  # The picture's height, and the side of the square that the scene lies in.
DIMMED = 0.35  # How much of the scene is left outside the widest patch; the rest is fog, so that black dims as well.
PATCH_COLOURS = ("#ff7f0e", "#1f77b4", "#9467bd", "#8c564b")  # The narrowest patch first.
PATH_COLOUR = "#2ca02c"

_BORDER = 24  # Around the scene at least, so that patches are seen to reach out of it.
_COLUMN, _GAP, _LARGEST_PATCH = 168, 14, 144  # The patches enlarged.
_PANEL, _LINE, _NUM_LINES = 184, 26, 6  # The captions, and the bars below them.
_MAX_BARS = 20
_FOG, _BACKGROUND, _TEXT, _FAINT = "#2d333c", "#1b1e23", "#e6e6e6", "#444a54"
_FADING, _PALEST = 0.09, 0.3  # A step of the path loses so much colour with each later one, down to so little.
_RIGHT, _WRONG, _NEUTRAL = "#3fb950", "#e5534b", "#b8c0cc"


@dataclass(frozen=True)
class Place:
    """Where a scene of a shape ([C,] H, W) lies in the picture, in pixels of the picture."""

    left: int
    top: int
    width: int
    height: int
    scale: float  # Pixels for each of the scene's.

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> Place:
        """Enlarged in whole pixels, in the middle of the square; only what is larger than the square is shrunk."""
        room, longest = SIDE - 2 * _BORDER, max(shape[-2:])
        scale = room // longest if longest <= room else room / longest
        height, width = (max(round(side * scale), 1) for side in shape[-2:])
        return cls((SIDE - width) // 2, (SIDE - height) // 2, width, height, scale)

    def point(self, location: NDArray) -> tuple[float, float]:
        """Where a location in [-1, 1] lies."""
        x, y = location.tolist()
        return self.left + (x + 1) / 2 * self.width, self.top + (y + 1) / 2 * self.height

    def location(self, x: float, y: float) -> NDArray[np.float32]:
        """The location (2,) in [-1, 1] that lies at a point; the nearest one for points outside the scene."""
        point = 2 * (x - self.left) / self.width - 1, 2 * (y - self.top) / self.height - 1
        return np.clip(np.array(point, np.float32), -1, 1)


def import_pygame() -> Any:
    """Import pygame when something is to be drawn.

    Raises:
        gymnasium.error.DependencyNotInstalled: it is missing.
    """
    try:
        import pygame
    except ImportError as error:
        raise gym.error.DependencyNotInstalled('pygame-ce is not installed, run `pip install "ram-envs[render]"`') from error
    return pygame


def draw(view: View, path: NDArray | None = None, note: str = "") -> NDArray[np.uint8]:
    """The picture (SIDE, W, 3) of a view, with a note below the scene.

    path (m, 2) holds the locations of its episode so far, the first glimpse first; None: none is drawn.
    """
    pygame = import_pygame()
    has_look = view.look is not None
    surface = pygame.Surface((SIDE + _COLUMN * has_look + _PANEL, SIDE))
    surface.fill(_BACKGROUND)
    surface.fill(_FOG, (0, 0, SIDE, SIDE))
    place = Place.of(view.scene.shape)
    scene = _to_surface(_dim(_to_rgb(view.scene), view.look), (place.width, place.height))
    surface.blit(scene, (place.left, place.top))
    if view.look is not None:
        surface.set_clip((0, 0, SIDE, SIDE))
        _draw_squares(surface, place, view.look)
        if path is not None:
            _draw_path(surface, [place.point(location) for location in path])
        surface.set_clip(None)
        _draw_patches(surface, view.look.glimpse)
    left = SIDE + _COLUMN * has_look
    _draw_lines(surface, view, left)
    _draw_bars(surface, view, left)
    _write(surface, note, (12, SIDE - _BORDER // 2))
    return np.ascontiguousarray(pygame.surfarray.array3d(surface).swapaxes(0, 1))


def _colour_of(scale: int) -> str:
    """The colour of a patch."""
    return PATCH_COLOURS[scale % len(PATCH_COLOURS)]


def _write(surface: pygame.Surface, text: str, at: tuple[int, int], colour: str = _TEXT, size: int = 24) -> None:
    """Write a line of text with the middle of its left edge at a point."""
    pygame = import_pygame()
    # A font dies with `pygame.quit`, which any other program part may call: none is kept.
    pygame.font.init()
    line = pygame.font.Font(None, size).render(text, True, colour)
    surface.blit(line, line.get_rect(midleft=at))


def _to_rgb(image: NDArray) -> NDArray:
    """([C,] H, W) as (H, W, 3): three channels are colours, the mean of any other number is grey."""
    if image.ndim == 3 and len(image) == 3:
        return np.moveaxis(image, 0, -1)
    grey = image.mean(axis=0) if image.ndim == 3 else image
    return np.repeat(grey[..., None], 3, axis=-1)


def _dim(scene: NDArray, look: Look | None) -> NDArray:
    """Hide what lies outside the widest patch behind fog."""
    if look is None:
        return scene
    (left, top), width = look.corners[-1], look.widths[-1]
    fog = np.array(import_pygame().Color(_FOG)[:3], np.float32) / 255
    dimmed = DIMMED * scene + (1 - DIMMED) * fog
    inside = np.s_[max(top, 0) : max(top + width, 0), max(left, 0) : max(left + width, 0)]
    dimmed[inside] = scene[inside]
    return dimmed


def _to_surface(image: NDArray, size: tuple[int, int]) -> pygame.Surface:
    """An image (H, W, 3) in [0, 1] at a size in pixels: enlarged to blocks, shrunk smoothly."""
    pygame = import_pygame()
    surface = pygame.surfarray.make_surface(np.rint(255 * image).astype(np.uint8).swapaxes(0, 1))
    shrinks = size[0] < image.shape[1] or size[1] < image.shape[0]
    return (pygame.transform.smoothscale if shrinks else pygame.transform.scale)(surface, size)


def _draw_squares(surface: pygame.Surface, place: Place, look: Look) -> None:
    """Where the patches lie."""
    pygame = import_pygame()
    for scale in reversed(range(len(look.widths))):
        left, top = place.left + look.corners[scale, 0] * place.scale, place.top + look.corners[scale, 1] * place.scale
        side = round(look.widths[scale] * place.scale)
        # Half of the line lies outside, so that it hides little of what is seen.
        pygame.draw.rect(surface, _colour_of(scale), (round(left) - 1, round(top) - 1, side + 2, side + 2), width=2)


def _draw_path(surface: pygame.Surface, points: list[tuple[float, float]]) -> None:
    """From a ring at the first glimpse to a dot at the current one, the older the paler."""
    pygame = import_pygame()
    for age, (begin, end) in reversed(list(enumerate(pairwise(points[::-1])))):
        colour = pygame.Color(_FOG).lerp(PATH_COLOUR, max(1 - _FADING * age, _PALEST))
        pygame.draw.line(surface, colour, begin, end, width=3)
    for point, radius, width in ((points[0], 8, 2), (points[-1], 5, 0)):
        pygame.draw.circle(surface, "black", point, radius + 1, width=2 * width)  # Seen on a green scene, too.
        pygame.draw.circle(surface, PATH_COLOUR, point, radius, width=width)


def _draw_patches(surface: pygame.Surface, glimpse: NDArray[np.float32]) -> None:
    """The patches one below the other, all of one size."""
    pygame = import_pygame()
    number, size = len(glimpse), glimpse.shape[-1]
    largest = min(_LARGEST_PATCH, (SIDE - _GAP) // number - _GAP)
    side = largest // size * size or largest
    top = (SIDE - number * (side + _GAP) + _GAP) // 2
    left = SIDE + (_COLUMN - side) // 2
    for scale, patch in enumerate(glimpse):
        at = top + scale * (side + _GAP)
        surface.blit(_to_surface(_to_rgb(patch), (side, side)), (left, at))
        pygame.draw.rect(surface, _colour_of(scale), (left - 3, at - 3, side + 6, side + 6), width=3)


def _draw_lines(surface: pygame.Surface, view: View, left: int) -> None:
    lines = list(view.lines)
    if view.look is not None and view.look.zoom is not None:
        lines.append(f"zoom {view.look.zoom}")
    if view.truth is not None:
        lines.append(f"label {view.names[view.truth]}")
    for i, line in enumerate(lines):
        _write(surface, line, (left + 12, _BORDER + i * _LINE))


def _draw_bars(surface: pygame.Surface, view: View, left: int) -> None:
    """A bar for each score: what was chosen in colour, what is right with its name in colour."""
    pygame = import_pygame()
    rows = _rows(view)
    top = _BORDER + _NUM_LINES * _LINE
    height = min((SIDE - _BORDER - top) // max(len(rows), 1), 28)
    begin = left + 20 + max((len(view.names[row]) for row in rows), default=0) * 9
    length = left + _PANEL - 16 - begin
    for i, row in enumerate(rows):
        at = top + i * height
        right, chosen = row == view.truth, row == view.choice
        _write(surface, view.names[row], (left + 12, at + height // 2), _RIGHT if right else _TEXT, min(height + 4, 24))
        colour = _NEUTRAL if not chosen or view.truth is None else _RIGHT if right else _WRONG
        pygame.draw.rect(surface, _FAINT, (begin, at + 2, length, height - 4))
        pygame.draw.rect(surface, colour, (begin, at + 2, round(length * float(view.scores[row])), height - 4))


def _rows(view: View) -> list[int]:
    """What has a bar: all, or the best few of many, with what is right and what was chosen among them."""
    number = len(view.names)
    if number <= _MAX_BARS:
        return list(range(number))
    wanted = [row for row in (view.choice, view.truth) if row is not None]
    best = [int(row) for row in np.argsort(-view.scores, kind="stable") if view.scores[row] > 0]
    return list(dict.fromkeys(wanted + best))[:_MAX_BARS]
