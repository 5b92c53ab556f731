"""Draw environments: the scene dimmed outside the retina, the path so far, the glimpse and the scores. Needs no screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from ram_envs.frame import Frame, Look


class _Pygame:
    """pygame, imported when something of it is used: not everybody who has an environment draws it.

    Raises:
        gymnasium.error.DependencyNotInstalled: it is missing.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            import pygame
        except ImportError as error:
            raise gym.error.DependencyNotInstalled('pygame-ce is not installed, run `pip install "ram-envs[render]"`') from error
        return getattr(pygame, name)


if TYPE_CHECKING:
    import pygame
else:
    pygame = _Pygame()

SIDE = 480  # The picture's height, and the side of the square that holds the scene.
DIMMED = 0.35  # The scene's share outside the widest patch; the rest is fog, so that black dims, too.
PATCH_COLOURS = ("#ff7f0e", "#1f77b4", "#9467bd", "#8c564b")  # The narrowest patch first.
PATH_COLOUR = "#2ca02c"

_BORDER = 24  # The least room around the scene, to show patches that reach out of it.
_COLUMN, _GLIMPSE, _PATCH_BORDER = 248, 246, 3  # The enlarged glimpse.
_PANEL, _INSET, _LINE, _NUM_LINES = 184, 12, 26, 6  # The captions, and the bars below them.
_MAX_BARS, _LONGEST_NAME = 20, 8  # Bars, and letters beside them.
_FOG, _BACKGROUND, _TEXT, _FAINT = "#2d333c", "#1b1e23", "#e6e6e6", "#444a54"
_FADING, _PALEST = 0.09, 0.3  # A line of the path loses this share of its colour with each later step, down to the palest.
_MOST_NUMBERS, _NUMBER_SIZE = 12, 20  # On a path, of longer ones at every second, fifth or tenth glimpse; the height of a number.
_RIGHT, _WRONG, _NEUTRAL, _NUMBER = "#3fb950", "#e5534b", "#b8c0cc", "#7ee787"


@dataclass(frozen=True)
class Place:
    """Where a scene of a shape ([C,] H, W) lies in the picture, in pixels of the picture."""

    left: int
    top: int
    width: int
    height: int
    scale: float  # Pixels of the picture for each pixel of the scene.

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> Place:
        """In the middle of the square, enlarged by a whole factor; only a scene larger than the square is shrunk."""
        room, longest = SIDE - 2 * _BORDER, max(shape[-2:])
        scale = room // longest if longest <= room else room / longest
        height, width = (max(round(side * scale), 1) for side in shape[-2:])
        return cls((SIDE - width) // 2, (SIDE - height) // 2, width, height, scale)

    def point(self, location: NDArray) -> tuple[float, float]:
        """The point of a location in [-1, 1]."""
        x, y = location.tolist()
        return self.left + (x + 1) / 2 * self.width, self.top + (y + 1) / 2 * self.height

    def location(self, x: float, y: float) -> NDArray[np.float32]:
        """The location (2,) in [-1, 1] of a point; the nearest one for points outside the scene."""
        point = 2 * (x - self.left) / self.width - 1, 2 * (y - self.top) / self.height - 1
        return np.clip(np.array(point, np.float32), -1, 1)


def draw(frame: Frame, path: NDArray | None = None, note: str = "") -> NDArray[np.uint8]:
    """The picture (SIDE, W, 3) of a frame, with a note below the scene.

    path (m, 2) holds the locations of its episode so far, the first glimpse first; None: no path is drawn.
    """
    look = frame.look
    left = SIDE + (0 if look is None else _COLUMN)
    surface = pygame.Surface((left + _PANEL, SIDE))
    surface.fill(_BACKGROUND)
    if look is None:
        _draw_scene(surface, _to_rgb(frame.scene))
    else:
        _draw_scene(surface, _dim(_to_rgb(frame.scene), look), look, () if path is None else path)
        glimpse = _glimpse_surface(frame, _GLIMPSE)
        surface.blit(glimpse, glimpse.get_rect(center=(SIDE + (_COLUMN + _INSET) // 2, SIDE // 2)))
    _draw_lines(surface, frame, left)
    _draw_bars(surface, frame, left)
    _write(surface, note, (_INSET, SIDE - _BORDER // 2))
    return _to_picture(surface)


def draw_scene(frame: Frame, path: Sequence[NDArray] | NDArray, size: int) -> NDArray[np.uint8]:
    """The picture (size, size, 3) of a frame's whole scene, with the numbered path along the locations (m, 2)."""
    surface = pygame.Surface((SIDE, SIDE))
    _draw_scene(surface, _to_rgb(frame.scene), path=path, thickness=SIDE / size)
    return _to_picture(pygame.transform.smoothscale(surface, (size, size)))


def draw_glimpse(frame: Frame, size: int) -> NDArray[np.uint8]:
    """The picture (s, s, 3) of a frame's glimpse as the eye sees it, enlarged by a whole factor where size has room; s <= size.

    The narrowest patch is in the middle, the wider ones with their larger pixels around it; lines in their colours part them.
    """
    return _to_picture(_glimpse_surface(frame, size))


def _to_picture(surface: pygame.Surface) -> NDArray[np.uint8]:
    """The pixels (H, W, 3) of a surface."""
    width, height = surface.get_size()
    return np.frombuffer(bytearray(pygame.image.tobytes(surface, "RGB")), np.uint8).reshape(height, width, 3)


def _write(surface: pygame.Surface, text: str, at: tuple[int, int], colour: str = _TEXT, size: int = 24) -> None:
    """Write a line of text; `at` is the middle of its left edge."""
    # No font is kept: it dies with `pygame.quit`, which any other part of the program may call.
    pygame.font.init()
    line = pygame.font.Font(None, size).render(text, True, colour)
    surface.blit(line, line.get_rect(midleft=at))


def _to_rgb(image: NDArray) -> NDArray:
    """([C,] H, W) as (H, W, 3): three channels are colours, the mean of any other number is grey."""
    if image.ndim == 3 and len(image) == 3:
        return np.moveaxis(image, 0, -1)
    grey = image.mean(axis=0) if image.ndim == 3 else image
    return np.repeat(grey[..., None], 3, axis=-1)


def _dim(scene: NDArray, look: Look) -> NDArray:
    """Hide the scene (H, W, 3) outside the widest patch behind fog."""
    (left, top), width = look.corners[-1], look.widths[-1]
    fog = np.array(pygame.Color(_FOG)[:3], np.float32) / 255
    dimmed = DIMMED * scene + (1 - DIMMED) * fog
    inside = np.s_[max(top, 0) : max(top + width, 0), max(left, 0) : max(left + width, 0)]
    dimmed[inside] = scene[inside]
    return dimmed


def _to_surface(image: NDArray, size: tuple[int, int]) -> pygame.Surface:
    """An image (H, W, 3) in [0, 1] at a size in pixels: enlarged to blocks, shrunk smoothly."""
    surface = pygame.surfarray.make_surface(np.rint(255 * image).astype(np.uint8).swapaxes(0, 1))
    shrinks = size[0] < image.shape[1] or size[1] < image.shape[0]
    return (pygame.transform.smoothscale if shrinks else pygame.transform.scale)(surface, size)


def _draw_scene(
    surface: pygame.Surface,
    scene: NDArray,
    look: Look | None = None,
    path: Sequence[NDArray] | NDArray = (),
    thickness: float = 1,
) -> None:
    """The scene (H, W, 3) in its square, the squares of a look's patches, and the path (m, 2)."""
    square = (0, 0, SIDE, SIDE)
    place = Place.of(scene.shape[:2])
    surface.fill(_FOG, square)
    surface.blit(_to_surface(scene, (place.width, place.height)), (place.left, place.top))
    surface.set_clip(square)
    if look is not None:
        _draw_squares(surface, place, look)
    if len(path):
        _draw_path(surface, np.array([place.point(location) for location in path]), thickness)
    surface.set_clip(None)


def _draw_squares(surface: pygame.Surface, place: Place, look: Look) -> None:
    """Where the patches lie."""
    for scale in reversed(range(len(look.widths))):
        left, top = place.left + look.corners[scale, 0] * place.scale, place.top + look.corners[scale, 1] * place.scale
        side = round(look.widths[scale] * place.scale)
        # Half of the line lies outside, to hide little of the patch.
        colour = PATCH_COLOURS[scale % len(PATCH_COLOURS)]
        pygame.draw.rect(surface, colour, (round(left) - 1, round(top) - 1, side + 2, side + 2), width=2)


def _draw_path(surface: pygame.Surface, points: NDArray, thickness: float) -> None:
    """From a ring at the first glimpse to a dot at the current one, the older the paler; points (m, 2)."""
    for age, (begin, end) in reversed(list(enumerate(pairwise(points[::-1])))):
        colour = pygame.Color(_FOG).lerp(PATH_COLOUR, max(1 - _FADING * age, _PALEST))
        pygame.draw.line(surface, colour, begin, end, width=round(1.5 * thickness + 1.5))
    for point, radius, width in ((points[0], 8, 2), (points[-1], 5, 0)):
        radius, width = round(radius * thickness**0.5), round(width * thickness**0.5)
        pygame.draw.circle(surface, "black", point, radius + 1, width=2 * width)  # Sets it off from a green scene.
        pygame.draw.circle(surface, PATH_COLOUR, point, radius, width=width)
    every = next(step * 10**power for power in count() for step in (1, 2, 5) if len(points) <= _MOST_NUMBERS * step * 10**power)
    size, turns = _NUMBER_SIZE * thickness, np.arange(every - 1, len(points), every)
    for turn, place in zip(turns.tolist(), _beside(points, turns, 0.6 * size), strict=True):
        _write_number(surface, turn + 1, place, round(size))


def _beside(points: NDArray, turns: NDArray, distance: float) -> NDArray:
    """Places (n, 2) in the square, beside points[turns] out of points (m, 2), away from their middle, about a distance apart."""
    # Points that are one have places apart, too.
    outwards = points[turns] - points.mean(axis=0) + 1e-3 * np.stack([np.sin(turns), -np.cos(turns)], axis=1)
    places = points[turns] + 0.9 * distance * outwards / np.linalg.norm(outwards, axis=1, keepdims=True)
    taken = np.concatenate([places, points])  # The places give way to each other, and to the points themselves.
    for _ in range(100):
        apart = places[:, None] - taken  # (n, n + m, 2)
        far = np.linalg.norm(apart, axis=2, keepdims=True)
        push = np.where(far > 0, np.clip(distance - far, 0, None) / np.maximum(far, 1e-9), 0) * apart
        places = np.clip(places + 0.5 * push.sum(axis=1), distance / 2, SIDE - distance / 2)
        taken[: len(places)] = places
    return places


def _write_number(surface: pygame.Surface, number: int, middle: NDArray, size: int) -> None:
    """Write a number in the path's colour on a dark edge."""
    pygame.font.init()
    font = pygame.font.Font(None, size)
    edge = max(size // 12, 1)
    for colour, shifts in (("black", [(x, y) for x in (-edge, 0, edge) for y in (-edge, 0, edge)]), (_NUMBER, [(0, 0)])):
        text = font.render(str(number), True, colour)
        for shift in shifts:
            surface.blit(text, text.get_rect(center=np.rint(middle + shift).tolist()))


def _glimpse_surface(frame: Frame, largest: int) -> pygame.Surface:
    """See `draw_glimpse`."""
    assert frame.look is not None
    patches, corners, widths = frame.look.glimpse**frame.gamma, frame.look.corners, frame.look.widths
    pixels = patches.shape[-1] << (len(patches) - 1)  # Of the narrowest patch's size, to a side.
    room = largest - 2 * _PATCH_BORDER
    side = room // pixels * pixels or room
    surface = pygame.Surface((side + 2 * _PATCH_BORDER,) * 2)
    surface.fill(PATCH_COLOURS[(len(patches) - 1) % len(PATCH_COLOURS)])
    for scale in reversed(range(len(patches))):
        left, top = (round(at * side / widths[-1]) + _PATCH_BORDER for at in (corners[scale] - corners[-1]).tolist())
        width = max(round(widths[scale] * side / widths[-1]), 1)
        surface.blit(_to_surface(_to_rgb(patches[scale]), (width, width)), (left, top))
        if scale < len(patches) - 1:
            colour = PATCH_COLOURS[scale % len(PATCH_COLOURS)]
            pygame.draw.rect(surface, colour, (left - 1, top - 1, width + 2, width + 2), width=1)
    return surface


def _draw_lines(surface: pygame.Surface, frame: Frame, left: int) -> None:
    lines = list(frame.lines)
    if frame.look is not None and frame.look.zoom is not None:
        lines.append(f"zoom {frame.look.zoom}")
    if frame.truth is not None:
        lines.append(f"label {frame.names[frame.truth][:_LONGEST_NAME]}")
    for i, line in enumerate(lines):
        _write(surface, line, (left + _INSET, _BORDER + i * _LINE))


def _draw_bars(surface: pygame.Surface, frame: Frame, left: int) -> None:
    """A bar for each score: the choice's bar is coloured, and the name of the right one."""
    rows = _rows(frame)
    top = _BORDER + _NUM_LINES * _LINE
    height = min((SIDE - _BORDER - top) // max(len(rows), 1), 28)
    names = {row: frame.names[row][:_LONGEST_NAME] for row in rows}
    begin = left + _INSET + 8 + max(map(len, names.values()), default=0) * 9
    length = left + _PANEL - 16 - begin
    for i, row in enumerate(rows):
        at = top + i * height
        right, chosen = row == frame.truth, row == frame.choice
        _write(surface, names[row], (left + _INSET, at + height // 2), _RIGHT if right else _TEXT, min(height + 4, 24))
        colour = _NEUTRAL if not chosen or frame.truth is None else _RIGHT if right else _WRONG
        pygame.draw.rect(surface, _FAINT, (begin, at + 2, length, height - 4))
        pygame.draw.rect(surface, colour, (begin, at + 2, round(length * float(frame.scores[row])), height - 4))


def _rows(frame: Frame) -> list[int]:
    """The choices that have a bar: all, or of many the chosen one, the right one and the best few."""
    number = len(frame.names)
    if number <= _MAX_BARS:
        return list(range(number))
    wanted = [row for row in (frame.choice, frame.truth) if row is not None]
    best = [int(row) for row in np.argsort(-frame.scores, kind="stable") if frame.scores[row] > 0]
    return list(dict.fromkeys(wanted + best))[:_MAX_BARS]
