"""Where N agents look: their retina, the location of each, and what they see there."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from ram_envs.retina import Retina


class Gaze:
    """The gaze of N agents through one kind of retina.

    Args:
        num_envs: N.
        retina: what they look through.
        initial_location: where the first glimpse is taken: "random" (uniform over the scene), "center", or a pair (x, y) in
            [-1, 1].

    Attributes:
        locations: (N, 2), where the current glimpse is taken, l.
        zooms: (N,), how wide the retina looks.
        space: the observations of a single agent.

    Raises:
        ValueError: `initial_location` is something else.
    """

    state_names = ("gaze.locations", "gaze.zooms")

    def __init__(self, num_envs: int, retina: Retina, initial_location: Any) -> None:
        self.retina = retina
        self.initial_location = _check_initial_location(initial_location)
        self.locations = np.zeros((num_envs, 2), np.float32)
        self.zooms = np.zeros(num_envs, np.int64)
        parts: dict[str, spaces.Space] = {
            "glimpse": spaces.Box(0.0, 1.0, retina.glimpse_shape, np.float32),
            "location": spaces.Box(-1.0, 1.0, (2,), np.float32),
        }
        if retina.num_zooms > 1:
            parts["zoom"] = spaces.Box(0.0, 1.0, (retina.num_zooms,), np.float32)
        self.space = spaces.Dict(parts)

    def begin(self, where: NDArray[np.bool_], draws: NDArray) -> None:
        """Place the first glimpses of the mask `where` (N,) at zoom 0; draws (m, 2) in [0, 1) are for those at random."""
        self.locations[where] = 2 * draws - 1 if self.initial_location is None else self.initial_location
        self.zooms[where] = 0

    def look(self, locations: NDArray, zooms: NDArray | None, where: NDArray[np.bool_] | None) -> None:
        """Look at locations (N, 2) with zooms (N,) from now on, in the environments of the mask `where` (None: all)."""
        if where is None:
            self.locations[...] = locations
        else:
            self.locations[where] = locations[where]
        if zooms is not None:
            np.copyto(self.zooms, zooms, where=True if where is None else where)

    def observe(self, scenes: NDArray) -> dict[str, NDArray[np.float32]]:
        """What the agents see of the scenes (N, [C,] H, W), which have the retina's margin.

        "glimpse" (N, k, g, g) in [0, 1] (with channels (N, k, C, g, g)), "location" (N, 2) in [-1, 1] and, where there is more
        than one zoom, "zoom" (N, Z), 1 at the current one.
        """
        if self.retina.num_zooms == 1:
            return {"glimpse": self.retina.look(scenes, self.locations), "location": self.locations.copy()}
        glimpse = self.retina.look(scenes, self.locations, self.zooms)
        zoom = np.eye(self.retina.num_zooms, dtype=np.float32)[self.zooms]
        return {"glimpse": glimpse, "location": self.locations.copy(), "zoom": zoom}


def _check_initial_location(given: Any) -> NDArray[np.float32] | None:
    """None for "random"."""
    if isinstance(given, str) and given in ("random", "center"):
        return None if given == "random" else np.zeros(2, np.float32)
    try:
        pair = np.asarray(given, np.float32)
    except (TypeError, ValueError):
        pair = np.empty(0, np.float32)
    if pair.shape != (2,) or not (np.abs(pair) <= 1).all():
        raise ValueError(f'initial_location must be "random", "center" or a pair (x, y) in [-1, 1], got {given!r}')
    return pair
