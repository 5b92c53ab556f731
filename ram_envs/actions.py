"""What an agent sends: the next location, a choice (a class or a move) and, where the task has them, further choices.

Formats, for choices of K (and K', ...) possibilities:

"dict": {"location": Box(-1, 1, (2,)), name: Discrete(K), ...}.
"box": one Box(-1, 1, (2 + K + K' ...,)): the location, then K scores, of which the highest is the choice; for libraries that
know no Dict actions.
"multidiscrete": MultiDiscrete([G, G, K, K', ...]): column and row of a grid of G x G locations, then the choices.
"discrete": Discrete(G * G * K * K' ...): the product of those, numbered as `numpy.ravel_multi_index` does; for small grids.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numba import njit
from numpy.typing import NDArray

from ram_envs.checks import check_whole

ACTION_FORMATS = ("dict", "box", "multidiscrete", "discrete")
_Decoded = tuple[NDArray[np.float32], dict[str, NDArray[np.int64]]]


class ActionCodec:
    """Decodes and encodes batches of actions of one format.

    Args:
        choices: what there is to choose and from how many, such as {"class": 10}.
        action_format: one of `ACTION_FORMATS`.
        location_grid: G, the locations to a side in the discrete formats: the centres of G x G equal cells of [-1, 1]^2.

    Attributes:
        space: the action space of a single environment.

    Raises:
        ValueError: unknown format, or a grid without locations.
    """

    def __init__(self, choices: dict[str, int], action_format: str = "dict", location_grid: int = 5) -> None:
        if action_format not in ACTION_FORMATS:
            raise ValueError(f"action_format must be one of {ACTION_FORMATS}, got {action_format!r}")
        check_whole("location_grid", location_grid, 1)
        self.choices, self.action_format, self.location_grid = choices, action_format, location_grid
        self._sizes = np.array(list(choices.values()))
        self._grid = (location_grid, location_grid, *choices.values())
        self.space: spaces.Space
        if action_format == "dict":
            parts = {name: spaces.Discrete(size) for name, size in choices.items()}
            self.space = spaces.Dict({"location": spaces.Box(-1.0, 1.0, (2,), np.float32), **parts})
        elif action_format == "box":
            self.space = spaces.Box(-1.0, 1.0, (2 + int(self._sizes.sum()),), np.float32)
        elif action_format == "multidiscrete":
            self.space = spaces.MultiDiscrete(list(self._grid))
        else:
            self.space = spaces.Discrete(int(np.prod(self._grid)))

    def decode(self, action: Any, num_envs: int | None = None) -> _Decoded:
        """Check a batch of `num_envs` actions, or one action without a batch axis (None).

        Returns:
            locations (N, 2), clipped to [-1, 1], and the choices by name, (N,) each; N is 1 for a single action.

        Raises:
            ValueError: something is missing, misshaped, not finite or out of range.
        """
        batch = () if num_envs is None else (num_envs,)
        if self.action_format == "dict":
            return self._decode_dict(action, batch)
        if self.action_format == "box":
            return self._decode_box(action, batch)
        if self.action_format == "multidiscrete":
            cells = check_choice("action", action, self._grid, (*batch, len(self._grid))).reshape(-1, len(self._grid)).T
        else:
            number = check_choice("action", action, int(np.prod(self._grid)), batch).reshape(-1)
            cells = np.stack(np.unravel_index(number, self._grid))
        locations = (2 * cells[:2].T + 1) / self.location_grid - 1
        return locations.astype(np.float32), dict(zip(self.choices, cells[2:], strict=True))

    def encode(self, locations: NDArray, **choices: NDArray) -> Any:
        """The batch of actions that stands for locations (N, 2) and choices (N,) by name.

        `decode` gives them back; in the discrete formats the grid's nearest location.
        """
        locations = np.asarray(locations, np.float32)
        chosen = [np.asarray(choices[name], np.int64) for name in self.choices]
        if self.action_format == "dict":
            return {"location": locations, **dict(zip(self.choices, chosen, strict=True))}
        if self.action_format == "box":
            pairs = zip(self._sizes, chosen, strict=True)
            return np.concatenate(
                [locations, *(2 * np.eye(size, dtype=np.float32)[values] - 1 for size, values in pairs)], axis=1
            )
        cells = np.clip(np.floor((locations + 1) / 2 * self.location_grid), 0, self.location_grid - 1).astype(np.int64)
        parts = [*cells.T, *chosen]
        return np.stack(parts, axis=1) if self.action_format == "multidiscrete" else np.ravel_multi_index(parts, self._grid)

    def _decode_dict(self, action: Any, batch: tuple[int, ...]) -> _Decoded:
        if not isinstance(action, dict) or action.keys() != self.space.spaces.keys():  # type: ignore[attr-defined]
            names = ", ".join(f'"{name}"' for name in ("location", *self.choices))
            raise ValueError(f"action must be a dict with the keys {names}, got {action!r}")
        given = _shaped("action['location']", action["location"], (*batch, 2)).reshape(-1, 2)
        choices = {
            name: check_choice(f"action['{name}']", action[name], size, batch).reshape(-1) for name, size in self.choices.items()
        }
        locations = np.empty_like(given)
        if not _clip(given, locations):
            raise ValueError(f"action['location'] must be finite, got {action['location']!r}")
        return locations, choices

    def _decode_box(self, action: Any, batch: tuple[int, ...]) -> _Decoded:
        assert self.space.shape is not None
        values = _shaped("action", action, (*batch, *self.space.shape)).reshape(-1, *self.space.shape)
        locations, choices = np.empty((len(values), 2), np.float32), np.empty((len(self._sizes), len(values)), np.int64)
        if not _split_box(values, self._sizes, locations, choices):
            raise ValueError(f"action must be finite, got {action!r}")
        return locations, dict(zip(self.choices, choices, strict=True))


def check_choice(name: str, given: Any, size: int | tuple[int, ...], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """`given` as whole numbers of a shape, each below `size` (or each of the last axis below its own).

    Raises:
        ValueError: it is something else; the message begins with `name`.
    """
    try:
        values = np.asarray(given)
    except ValueError as error:  # Of rows of unequal length.
        raise ValueError(f"{name} must hold whole numbers of the shape {shape}, got {given!r}") from error
    if values.shape != shape or values.dtype.kind not in "iu":
        raise ValueError(f"{name} must hold whole numbers of the shape {shape}, got {given!r}")
    if values.min() < 0 or (values >= size).any():
        allowed = f"0..{size - 1}" if isinstance(size, int) else f"0..{[one - 1 for one in size]}"
        raise ValueError(f"{name} must lie in {allowed}, got {given!r}")
    return values


@njit(cache=True)
def _clip(values, locations):
    """Fill the locations (N, 2) with the values clipped to [-1, 1]; False if one is not finite."""
    for n in range(values.shape[0]):
        for i in range(2):
            if not np.isfinite(values[n, i]):
                return False
            locations[n, i] = min(max(values[n, i], np.float32(-1)), np.float32(1))
    return True


@njit(cache=True)
def _split_box(values, sizes, locations, choices):
    """Fill the clipped locations (N, 2) and the best-scored choices (P, N) from values (N, 2 + sum of sizes (P,)).

    False if a value is not finite.
    """
    if not _clip(values, locations):
        return False
    for n in range(values.shape[0]):
        first = 2
        for part in range(sizes.shape[0]):
            best = first
            for i in range(first, first + sizes[part]):
                if not np.isfinite(values[n, i]):
                    return False
                if values[n, i] > values[n, best]:
                    best = i
            choices[part, n] = best - first
            first += sizes[part]
    return True


def _shaped(name: str, given: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
    try:
        values = np.asarray(given, np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must hold numbers of the shape {shape}, got {given!r}") from error
    if values.shape != shape:
        raise ValueError(f"{name} must have the shape {shape}, got {values.shape}")
    return values
