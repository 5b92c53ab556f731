"""What there is to draw of one environment, as plain data; `ram_envs.drawing` draws it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ram_envs.actions import ActionCodec
from ram_envs.retina import Gaze


@dataclass(frozen=True, eq=False)
class Look:
    """One look through a retina of k patches."""

    location: NDArray[np.float32]  # (2,), in [-1, 1]
    corners: NDArray[np.int64]  # (k, 2), column and row of each patch's top-left pixel, maybe outside the scene
    widths: NDArray[np.int64]  # (k,), of the patches in pixels of the scene
    glimpse: NDArray[np.float32]  # (k, [C,] g, g), in [0, 1], the narrowest patch first
    zoom: int | None  # None where there is only one zoom.


@dataclass(frozen=True, eq=False)
class Frame:
    """One environment as it is now."""

    scene: NDArray[np.float32]  # ([C,] H, W), in [0, 1]
    look: Look | None  # None: the scene is seen whole.
    lines: tuple[str, ...]  # Captions.
    names: tuple[str, ...]  # K, of the classes or the moves.
    scores: NDArray[np.float32]  # (K,), of the classes or the moves, in [0, 1]; zeros before the first action
    choice: int | None = None  # Of the last action: a class or a move.
    truth: int | None = None  # The right choice, None where there is no such thing.
    gamma: float = 1.0  # Patches are drawn with this power of their brightness: below 1 faint pixels are easier to see.


def look_of(gaze: Gaze, scenes: NDArray, env: int) -> Look:
    """The look of environment `env` at its scene; scenes (N, [C,] H, W) have the retina's margin."""
    this = slice(env, env + 1)
    corners, widths = gaze.retina.corners(gaze.locations[this], gaze.zooms[this])
    glimpse = gaze.retina.look(scenes[this], gaze.locations[this], gaze.zooms[this])
    zoom = int(gaze.zooms[env]) if gaze.retina.num_zooms > 1 else None
    return Look(gaze.locations[env].copy(), corners[0], widths[0], glimpse[0], zoom)


def through_retina(frame: Frame) -> NDArray[np.float32]:
    """The part of the scene ([C,] H, W) inside the retina: each patch at its place, the finer ones on top, the rest black."""
    if frame.look is None:
        return frame.scene
    margin = int(frame.look.widths[-1])
    seen = np.zeros_like(np.pad(frame.scene, [(0, 0)] * (frame.scene.ndim - 2) + [(margin, margin)] * 2))
    for patch, corner, width in reversed(list(zip(frame.look.glimpse, frame.look.corners, frame.look.widths, strict=True))):
        left, top = corner + margin
        factor = width // patch.shape[-1]
        drawn = patch**frame.gamma
        seen[..., top : top + width, left : left + width] = drawn.repeat(factor, axis=-1).repeat(factor, axis=-2)
    return seen[..., margin:-margin, margin:-margin]


def in_unit_range(scene: NDArray) -> NDArray[np.float32]:
    """A scene of uint8 in [0, 255] or float32 in [0, 1] as a copy in [0, 1]."""
    return scene.astype(np.float32) / np.float32(255 if scene.dtype == np.uint8 else 1)


def scores_of(codec: ActionCodec, action: Any) -> tuple[NDArray[np.float32], dict[str, int]]:
    """The scores (K,) in [0, 1] that one action gives the first of its choices, and all that it chooses.

    Only an array of location and scores has such scores, taken from [-1, 1]; otherwise the choice has 1 and the rest 0. Before
    the first action (None) all are 0 and nothing is chosen.
    """
    size = next(iter(codec.choices.values()))
    if action is None:
        return one_hot(size, None), {}
    choices = {name: int(value[0]) for name, value in codec.decode(action)[1].items()}
    if codec.action_format in ("dict", "box") and not isinstance(action, dict):
        scores = np.clip(np.asarray(action)[2 : 2 + size], -1, 1)
        return ((scores + 1) / 2).astype(np.float32), choices
    return one_hot(size, next(iter(choices.values()))), choices


def one_hot(size: int, choice: int | None) -> NDArray[np.float32]:
    """Scores (K,): 1 for the choice, 0 for the rest."""
    return np.array([i == choice for i in range(size)], np.float32)
