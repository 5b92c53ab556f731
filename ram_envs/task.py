"""What `ram_envs.env` asks of a task: the rules of N episodes advanced together."""

from __future__ import annotations

from operator import attrgetter
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from ram_envs.streams import start_streams
from ram_envs.view import View

_Facts = dict[str, tuple[NDArray, NDArray[np.bool_] | None]]


class Task:
    """The rules of N episodes. `ram_envs.env` makes Gymnasium's environments of it.

    Args:
        num_envs: N.

    Attributes:
        observation_space, action_space: those of a single environment.
        terminated: (N,), whether each episode is over.
    """

    reset_options: ClassVar[tuple[str, ...]] = ()  # What `begin` knows.
    state_names: ClassVar[tuple[str, ...]] = ("streams", "terminated")  # The arrays that the next steps depend on.
    render_fps: ClassVar[int] = 4
    observation_space: spaces.Space
    action_space: spaces.Space

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.streams = np.zeros(num_envs, np.uint64)  # See `ram_envs.streams`.
        self.terminated = np.zeros(num_envs, np.bool_)

    def seed(self, keys: NDArray[np.uint64], where: NDArray[np.bool_]) -> None:
        """Give the environments of the mask `where` (N,) new random streams, keyed by keys (m,)."""
        self.streams[where] = start_streams(keys)

    def restart(self) -> None:
        """Begin anew what all environments share, such as a pass over the images."""

    def begin(self, where: NDArray[np.bool_], options: dict[str, Any]) -> None:
        """Begin a new episode in each environment of the mask `where` (N,)."""
        raise NotImplementedError

    def step(self, action: Any, num_actions: int | None, where: NDArray[np.bool_] | None) -> None:
        """Take one step in the environments of the mask `where` (None: all); num_actions is N, None for a single action.

        Raises:
            ValueError: a bad action; nothing has changed then.
        """
        raise NotImplementedError

    def reward(self) -> NDArray[np.float64]:
        """(N,), the reward of the last step; 0 where an episode has just begun."""
        raise NotImplementedError

    def observe(self) -> Any:
        """What the agents see: a new array (N, ...), or a dict of such."""
        raise NotImplementedError

    def info(self) -> _Facts:
        """Facts about the current step: each with the mask (N,) of the environments where it holds, None for all."""
        raise NotImplementedError

    def view(self, env: int, action: Any = None) -> View:
        """What there is to draw of environment `env`; action is what it was last sent, None where an episode has just begun."""
        raise NotImplementedError

    def get_state(self) -> dict[str, Any]:
        """Everything that the next steps depend on, as copies; pickles."""
        return {name: attrgetter(name)(self).copy() for name in self.state_names}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on where `get_state` was called, in a task made with the same arguments."""
        for name in self.state_names:
            attrgetter(name)(self)[...] = state[name]
