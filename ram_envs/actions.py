"""What an agent sends: the next location and a choice (a class or a move), in several formats.

"dict": {"location": Box(-1, 1, (2,)), choice: Discrete(K)}.
"box": one Box(-1, 1, (2 + K,)), the location and then K scores, of which the highest is the choice; for libraries that know no
Dict actions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numba import njit
from numpy.typing import NDArray

ACTION_FORMATS = ("dict", "box")


class ActionCodec:
    """Decodes and encodes batches of actions of one format.

    Args:
        choice: the name of the choice, such as "class".
        num_choices: K.
        action_format: one of `ACTION_FORMATS`.

    Attributes:
        space: the action space of a single environment.

    Raises:
        ValueError: unknown format.
    """

    def __init__(self, choice: str, num_choices: int, action_format: str = "dict") -> None:
        if action_format not in ACTION_FORMATS:
            raise ValueError(f"action_format must be one of {ACTION_FORMATS}, got {action_format!r}")
        self.choice, self.num_choices, self.action_format = choice, num_choices, action_format
        self.space: spaces.Space
        if action_format == "box":
            self.space = spaces.Box(-1.0, 1.0, (2 + num_choices,), np.float32)
        else:
            self.space = spaces.Dict(
                {
                    "location": spaces.Box(-1.0, 1.0, (2,), np.float32),
                    choice: spaces.Discrete(num_choices),
                }
            )

    def decode(self, action: Any, num_envs: int | None = None) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Check a batch of `num_envs` actions, or one action without a batch axis (None).

        Returns:
            locations (N, 2), clipped to [-1, 1], and choices (N,); N is 1 for a single action.

        Raises:
            ValueError: something is missing, misshaped, not finite or out of range.
        """
        batch = () if num_envs is None else (num_envs,)
        if self.action_format == "box":
            values = _shaped("action", action, (*batch, 2 + self.num_choices))
            return _decode_box(values.reshape(-1, 2 + self.num_choices), action)
        if not isinstance(action, dict) or action.keys() != self.space.spaces.keys():  # type: ignore[attr-defined]
            raise ValueError(f'action must be a dict with the keys "location" and "{self.choice}", got {action!r}')
        locations = _shaped("action['location']", action["location"], (*batch, 2))
        if not np.isfinite(locations).all():
            raise ValueError(f"action['location'] must be finite, got {action['location']!r}")
        choices = self._check_choices(action[self.choice], batch)
        clipped = np.minimum(np.maximum(locations, np.float32(-1)), np.float32(1))
        return clipped.reshape(-1, 2), choices.reshape(-1)

    def encode(self, locations: NDArray, choices: NDArray) -> Any:
        """The batch of actions that stands for locations (N, 2) and choices (N,): `decode` gives them back."""
        locations = np.asarray(locations, np.float32)
        if self.action_format == "dict":
            return {"location": locations, self.choice: np.asarray(choices, np.int64)}
        scores = 2 * np.eye(self.num_choices, dtype=np.float32)[choices] - 1
        return np.concatenate([locations, scores], axis=1)

    def _check_choices(self, given: Any, batch: tuple[int, ...]) -> NDArray[np.int64]:
        choices = np.asarray(given)
        if choices.shape != batch or choices.dtype.kind not in "iu":
            raise ValueError(f"action['{self.choice}'] must hold whole numbers of the shape {batch}, got {given!r}")
        if choices.min() < 0 or choices.max() >= self.num_choices:
            raise ValueError(f"action['{self.choice}'] must lie in 0..{self.num_choices - 1}, got {given!r}")
        return choices


def _decode_box(values: NDArray[np.float32], given: Any) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    locations, choices = np.empty((len(values), 2), np.float32), np.empty(len(values), np.int64)
    if not _split_box(values, locations, choices):
        raise ValueError(f"action must be finite, got {given!r}")
    return locations, choices


@njit(cache=True)
def _split_box(values, locations, choices):
    """Fill the clipped locations (N, 2) and the best-scored choices (N,) from values (N, 2 + K); False if one is not finite."""
    for n in range(values.shape[0]):
        best = 2
        for i in range(values.shape[1]):
            if not np.isfinite(values[n, i]):
                return False
            if i > 2 and values[n, i] > values[n, best]:
                best = i
        choices[n] = best - 2
        for i in range(2):
            locations[n, i] = min(max(values[n, i], np.float32(-1)), np.float32(1))
    return True


def _shaped(name: str, given: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
    try:
        values = np.asarray(given, np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must hold numbers of the shape {shape}, got {given!r}") from error
    if values.shape != shape:
        raise ValueError(f"{name} must have the shape {shape}, got {values.shape}")
    return values
