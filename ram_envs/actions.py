"""What an agent sends: the next location, a choice (a class or a move) and, where the task has them, further choices.

Formats, for choices of K (and K', ...) possibilities:

"dict": {"location": Box(-1, 1, (2,)), name: Discrete(K), ...}; takes actions of the format "box" too.
"box": one Box(-1, 1, (2 + K + K' ...,)): the location, then K scores, of which the highest is the choice; for libraries that
know no Dict actions.
"multidiscrete": MultiDiscrete([G, G, K, K', ...]): column and row of a grid of G x G locations, then the choices.
"discrete": Discrete(G * G * K * K' ...): the product of those, numbered as `numpy.ravel_multi_index` does; for small grids.

The grid fills the scene, or only the middle of it: an agent that tries locations at random looks about widely there.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from ram_envs.sampling import compiled

ACTION_FORMATS = ("dict", "box", "multidiscrete", "discrete")
_MOST_ACTIONS = 2**62  # An action's number is an int64.
_LEAST_EXTENT = 0.001
_Decoded = tuple[NDArray[np.float32], dict[str, NDArray[np.int64]]]


class BoxActions(spaces.Box):
    """Actions (2 + K + ...,) in [-1, 1]: the location, then scores for each choice, of which the highest is chosen.

    Attributes:
        choices: what there is to choose and from how many, in the order of the scores, such as {"class": 10, "stop": 2}.
    """

    def __init__(self, choices: dict[str, int]) -> None:
        super().__init__(-1.0, 1.0, (2 + sum(choices.values()),), np.float32)
        self.choices = dict(choices)

    def __eq__(self, other: object) -> bool:
        """Whether the scores stand for the same choices too, where the other space says for which."""
        return super().__eq__(other) and [*getattr(other, "choices", self.choices).items()] == [*self.choices.items()]

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, choices={self.choices})"

    def to_dict(self, actions: NDArray) -> dict[str, NDArray]:
        """Actions (2 + K + ...,), or a batch (N, 2 + K + ...), as Dict actions, for who batches those.

        Raises:
            ValueError: another length.
        """
        if actions.shape[-1:] != self.shape:
            raise ValueError(f"actions must have the shape {self.shape} or (N, {self.shape[0]}), got {actions.shape}")
        parts, first = {"location": actions[..., :2]}, 2
        for name, size in self.choices.items():
            parts[name] = actions[..., first : first + size].argmax(-1)
            first += size
        return parts


class DictActions(spaces.Dict):
    """Actions {"location": (2,) in [-1, 1], and for each choice of K a whole number below K}.

    Attributes:
        choices: what there is to choose and from how many; the first is the answer: {"class": 10, "stop": 2}.
    """

    def __init__(self, choices: dict[str, int]) -> None:
        parts = {name: spaces.Discrete(size) for name, size in choices.items()}
        super().__init__({"location": spaces.Box(-1.0, 1.0, (2,), np.float32), **parts})
        self.choices = dict(choices)

    def as_box(self) -> BoxActions:
        """The same actions as one Box; the environment takes those as well."""
        return BoxActions(self.choices)


class _PartOfScene:
    """A space of grid actions that equals another only where the grid has the same extent."""

    grid_extent = 1.0

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) and getattr(other, "grid_extent", 1.0) == self.grid_extent

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, grid_extent={self.grid_extent})"


class PartMultiDiscrete(_PartOfScene, spaces.MultiDiscrete):
    """Column, row and choices, where the grid fills the middle of the scene."""


class PartDiscrete(_PartOfScene, spaces.Discrete):
    """The same as one number."""


class ActionCodec:
    """Decodes and encodes batches of actions of one format.

    Args:
        choices: what there is to choose and from how many, such as {"class": 10}.
        action_format: one of `ACTION_FORMATS`.
        location_grid: G, the locations to a side in the discrete formats: the centres of G x G equal cells.
        grid_extent: E, from 0.001 to 1: the cells fill [-E, E]^2.

    Attributes:
        space: the action space of a single environment.

    Raises:
        ValueError: unknown format, a grid without locations, one of more than can be numbered, or an extent out of range.
    """

    def __init__(
        self, choices: dict[str, int], action_format: str = "dict", location_grid: int = 5, grid_extent: float = 1.0
    ) -> None:
        if action_format not in ACTION_FORMATS:
            raise ValueError(f"action_format must be one of {ACTION_FORMATS}, got {action_format!r}")
        _check_grid(location_grid, grid_extent, math.isqrt(_MOST_ACTIONS // math.prod(choices.values())))
        self.choices, self.action_format, self.location_grid = choices, action_format, int(location_grid)
        self.grid_extent = float(grid_extent)
        self._sizes = np.array(list(choices.values()))
        self._keys = {"location", *choices}
        self._length = 2 + int(self._sizes.sum())  # Of a Box action.
        self._grid = (self.location_grid, self.location_grid, *choices.values())
        self.space: spaces.Space
        if action_format == "dict":
            self.space = DictActions(choices)
        elif action_format == "box":
            self.space = BoxActions(choices)
        elif action_format == "multidiscrete":
            self.space = (spaces.MultiDiscrete if self.grid_extent == 1 else PartMultiDiscrete)(list(self._grid))
        else:
            self.space = (spaces.Discrete if self.grid_extent == 1 else PartDiscrete)(math.prod(self._grid))
        if isinstance(self.space, _PartOfScene):
            self.space.grid_extent = self.grid_extent

    def decode(self, action: Any, num_envs: int | None = None) -> _Decoded:
        """Check a batch of `num_envs` actions, or one action without a batch axis (None).

        Returns:
            locations (N, 2), clipped to [-1, 1], and the choices by name, (N,) each; N is 1 for a single action.

        Raises:
            ValueError: something is missing, misshaped, not finite or out of range.
        """
        batch = () if num_envs is None else (num_envs,)
        if self.action_format == "dict" and not isinstance(action, np.ndarray):
            return self._decode_dict(action, batch)
        if self.action_format in ("dict", "box"):
            return self._decode_box(action, batch)
        if self.action_format == "multidiscrete":
            cells = check_choice("action", action, self._grid, (*batch, len(self._grid))).reshape(-1, len(self._grid)).T
        else:
            number = check_choice("action", action, math.prod(self._grid), batch).reshape(-1)
            cells = np.stack(np.unravel_index(number, self._grid))
        locations = self.grid_extent * ((2 * cells[:2].T + 1) / self.location_grid - 1)
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
        cells = np.floor((locations / self.grid_extent + 1) / 2 * self.location_grid)
        cells = np.clip(cells, 0, self.location_grid - 1).astype(np.int64)
        parts = [*cells.T, *chosen]
        return np.stack(parts, axis=1) if self.action_format == "multidiscrete" else np.ravel_multi_index(parts, self._grid)

    def _decode_dict(self, action: Any, batch: tuple[int, ...]) -> _Decoded:
        if not isinstance(action, dict) or action.keys() != self._keys:
            names = ", ".join(f'"{name}"' for name in ("location", *self.choices))
            raise ValueError(
                f"action must be a dict with the keys {names}, or an array of the shape {(*batch, self._length)}, got {action!r}"
            )
        given = _shaped("action['location']", action["location"], (*batch, 2)).reshape(-1, 2)
        choices = {
            name: check_choice(f"action['{name}']", action[name], size, batch).reshape(-1) for name, size in self.choices.items()
        }
        locations = np.empty_like(given)
        if not _clip(given, locations):
            raise ValueError(f"action['location'] must be finite as float32, got {action['location']!r}")
        return locations, choices

    def _decode_box(self, action: Any, batch: tuple[int, ...]) -> _Decoded:
        values = _shaped("action", action, (*batch, self._length)).reshape(-1, self._length)
        locations, choices = np.empty((len(values), 2), np.float32), np.empty((len(self._sizes), len(values)), np.int64)
        if not _split_box(values, self._sizes, locations, choices):
            raise ValueError(f"action must be finite as float32, got {action!r}")
        return locations, dict(zip(self.choices, choices, strict=True))


class ActionFormat(gym.ActionWrapper, gym.utils.RecordConstructorArgs):
    """Takes actions of another format for an environment with Dict actions; the same as its option `action_format`.

    rl_zoo3's files of hyperparameters name it, because rl_zoo3 gives their `env_kwargs` to the environments that it trains in and
    not to those that it evaluates in. Elsewhere the option is the shorter way.

    Args:
        env: an environment of ours with the default action_format="dict".
        action_format: one of `ram_envs.actions.ACTION_FORMATS`.
        location_grid: see `ActionCodec`; None: the environment's own.
        grid_extent: the same.

    Raises:
        ValueError: an argument is out of range, or an environment without Dict actions.
    """

    def __init__(
        self, env: gym.Env, action_format: str, location_grid: int | None = None, grid_extent: float | None = None
    ) -> None:
        given: dict[str, Any] = {"action_format": action_format, "location_grid": location_grid, "grid_extent": grid_extent}
        gym.utils.RecordConstructorArgs.__init__(self, **given)
        super().__init__(env)
        if not isinstance(env.action_space, DictActions):
            name = type(env.unwrapped).__name__ if env.spec is None else env.spec.id
            raise ValueError(f"env must have Dict actions (action_format='dict'), got {name} with {env.action_space}")
        task: Any = env.unwrapped
        codec = task.task.codec
        own = {"location_grid": codec.location_grid, "grid_extent": codec.grid_extent}
        self._codec = ActionCodec(codec.choices, **own | {name: value for name, value in given.items() if value is not None})
        self.action_space = self._codec.space

    def action(self, action: Any) -> dict[str, Any]:
        """The Dict action for an action of the format.

        Raises:
            ValueError: it is misshaped, not finite or out of range.
        """
        locations, choices = self._codec.decode(action)
        return {"location": locations[0], **{name: values[0] for name, values in choices.items()}}


def _check_grid(location_grid: Any, grid_extent: Any, most: int) -> None:
    if isinstance(location_grid, bool) or not isinstance(location_grid, (int, np.integer)) or not 1 <= location_grid <= most:
        raise ValueError(f"location_grid must be a whole number from 1 to {most}, got {location_grid!r}")
    is_number = isinstance(grid_extent, (int, float, np.integer, np.floating)) and not isinstance(grid_extent, bool)
    if not is_number or not _LEAST_EXTENT <= grid_extent <= 1:
        raise ValueError(f"grid_extent must be a number from {_LEAST_EXTENT} to 1, got {grid_extent!r}")


def as_array(given: Any) -> NDArray:
    """An array, of objects where rows are of unequal length."""
    try:
        return np.asarray(given)
    except ValueError:
        return np.empty(0, object)


def check_choice(name: str, given: Any, size: int | tuple[int, ...], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """`given` as whole numbers of a shape, each below `size` (or each of the last axis below its own).

    Raises:
        ValueError: it is something else; the message begins with `name`.
    """
    values = as_array(given)
    if values.shape != shape or values.dtype.kind not in "iu":
        raise ValueError(f"{name} must hold whole numbers of the shape {shape}, got {given!r}")
    values = values.astype(np.int64, copy=False)
    if not _all_below(values.ravel(), np.atleast_1d(size)):
        allowed = f"0..{size - 1}" if isinstance(size, int) else f"0..{[one - 1 for one in size]}"
        raise ValueError(f"{name} must lie in {allowed}, got {given!r}")
    return values


@compiled
def _all_below(values, sizes):
    """Whether all values (n,) lie in 0..size - 1; the sizes (P,) take turns."""
    inside = True
    for part in range(len(sizes)):
        for n in range(part, len(values), len(sizes)):
            inside &= 0 <= values[n] < sizes[part]
    return inside


@compiled
def _clip(values, locations):
    """Fill the locations (N, 2) with the values clipped to [-1, 1]; False if one is not finite."""
    for n in range(values.shape[0]):
        for i in range(2):
            if not np.isfinite(values[n, i]):
                return False
            locations[n, i] = min(max(values[n, i], np.float32(-1)), np.float32(1))
    return True


@compiled
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
    values = as_array(given)
    if values.dtype.kind not in "fiu":
        raise ValueError(f"{name} must hold numbers of the shape {shape}, got {given!r}")
    if values.shape != shape:
        raise ValueError(f"{name} must have the shape {shape}, got {values.shape}")
    with np.errstate(over="ignore"):  # What is beyond float32 is refused as infinite.
        return values.astype(np.float32, copy=False)
