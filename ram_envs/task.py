"""What a task is: the rules of N episodes advanced together. `ram_envs.env` makes Gymnasium's environments of it.

A task of your own is a class like `ram_envs.GlimpseClassification`, or made from it: its constructor takes the number of
environments and its options by name, it has the attributes and methods below, and `ram_envs.register_env("Mine-v0", Mine)` makes
it an environment. See docs/own-task.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from ram_envs.datasets import SPLITS
from ram_envs.frame import Frame
from ram_envs.sampling import start_streams

# Games have no images to be split: number of episodes, and a seed that training never uses.
_GAMES = {"train": (2_000, 0), "validation": (2_000, 1_000_000), "test": (10_000, 2_000_000)}
_Facts = dict[str, tuple[NDArray, NDArray[np.bool_] | None]]


@dataclass(frozen=True)
class Evaluation:
    """How agents are evaluated on a split."""

    env_kwargs: dict[str, Any]  # What the environments need beside the options of those that the agent learned in.
    num_episodes: int
    seed: int | None  # Of the environments; None: the episodes do not depend on it.


def seeded_evaluation(split: str) -> Evaluation:
    """The evaluation of games, and of other people's environments: a number of episodes from a seed of the split.

    Raises:
        ValueError: `split` is not "train", "validation" or "test".
    """
    if split not in _GAMES:
        raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
    return Evaluation({}, *_GAMES[split])


class Task:
    """The rules of N episodes.

    Attributes:
        num_envs: N.
        options: those that the environment was made with (the environment sets them); copies are made with them.
        observation_space, action_space: those of a single environment.
        streams: (N,), the state of each environment's random stream, see `ram_envs.sampling`.
        terminated: (N,), whether each episode is over.
        scene_shape: ([C,] H, W) of the scene in pixels.
        choices: what there is to choose beside the location, and from how many, such as {"class": 10, "stop": 2}.
        choice_names: the names of the first choice's values.
        has_labels: whether the fact "label" tells the right first choice at every step.
        success_name: what successes are called where "error" is not the word for their lack, such as "balls caught".
        max_episode_steps: the steps of the longest episode, None where there is no longest.
        dataset, split, num_images: the images' data set and split, and how many there are; None where there are no images.
    """

    reset_options: ClassVar[tuple[str, ...]] = ()  # What `begin` knows.
    state_names: ClassVar[tuple[str, ...]] = ("streams", "terminated")  # The arrays that the next steps depend on.
    render_fps: ClassVar[int] = 4
    num_envs: int
    options: dict[str, Any]
    observation_space: spaces.Space
    action_space: spaces.Space
    streams: NDArray[np.uint64]
    terminated: NDArray[np.bool_]
    scene_shape: tuple[int, ...]
    choices: dict[str, int]
    choice_names: tuple[str, ...]
    has_labels: bool = False
    success_name: str | None = None
    max_episode_steps: int | None = None
    dataset: str | None = None
    split: str | None = None
    num_images: int | None = None

    def mask(self, where: Any) -> NDArray[np.bool_]:
        """A mask (N,) of environments; None: all.

        Raises:
            ValueError: it is none.
        """
        if where is None:
            return np.ones(self.num_envs, np.bool_)
        if not isinstance(where, np.ndarray) or where.dtype != np.bool_ or where.shape != (self.num_envs,):
            raise ValueError(f"where must be a mask ({self.num_envs},) of truths, or None for all, got {where!r}")
        return where

    def seed(self, keys: NDArray[np.uint64], where: NDArray[np.bool_]) -> None:
        """Give the environments of the mask `where` (N,) new random streams, keyed by keys (m,)."""
        self.streams[where] = start_streams(keys)

    def restart(self) -> None:
        """Begin anew what all environments share, such as an epoch over the images."""

    def begin(self, where: NDArray[np.bool_], options: dict[str, Any]) -> None:
        """Begin a new episode in each environment of the mask `where` (N,).

        Raises:
            ValueError: an option out of range; nothing has changed then.
        """
        raise NotImplementedError

    def step(self, action: Any, num_actions: int | None, where: NDArray[np.bool_] | None) -> NDArray[np.float64]:
        """Take one step in the environments of the mask `where` (None: all); num_actions is N, None for a single action.

        Returns:
            the rewards (N,); those of other environments do not count.

        Raises:
            ValueError: a bad action; nothing has changed then.
        """
        raise NotImplementedError

    def observe(self) -> Any:
        """What the agents see: a new array (N, ...), or a dict of such."""
        raise NotImplementedError

    def info(self) -> _Facts:
        """Facts about the current step, the same at each: with the mask (N,) of the environments where it holds, None for all."""
        raise NotImplementedError

    def frame(self, env: int = 0, action: Any = None) -> Frame:
        """What there is to draw of environment `env`; action is what it was last sent, None where an episode has just begun."""
        raise NotImplementedError

    def object_places(self) -> NDArray[np.float64] | None:
        """The middle of what there is to be found now: (N, 2) in [-1, 1], x first; None where that is not known."""
        return None

    def evaluation(self, split: str) -> Evaluation:
        """How to evaluate on "train", "validation" or "test": each image once, or a number of games.

        Raises:
            ValueError: there is no such split; arrays given as `dataset` have no others.
        """
        return seeded_evaluation(split)

    def glimpse_statistics(self) -> tuple[float, list[float]]:
        """The mean of glimpses at random places of 1,000 scenes of this split, and their standard deviation at each scale.

        Raises:
            ValueError: the scene is seen whole.
        """
        raise ValueError(f"{type(self).__name__} shows no glimpses: the scene is seen whole")

    def get_state(self) -> dict[str, Any]:
        """Everything that the next steps depend on, as copies; pickles."""
        return {name: attrgetter(name)(self).copy() for name in self.state_names}

    def state_bounds(self) -> dict[str, tuple[Any, Any]]:
        """The least and the largest value of states out of `state_names` that are used as places in arrays."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue where `get_state` was called, in a task made with the same arguments.

        Raises:
            ValueError: the state is that of another task, or out of its bounds; nothing has changed then.
        """
        bounds = self.state_bounds()
        own = {name: attrgetter(name)(self) for name in self.state_names}
        checked = {name: check_state(state, name, array, *bounds.get(name, ())) for name, array in own.items()}
        for name, array in checked.items():
            own[name][...] = array

    def __reduce__(self) -> Any:
        """A copy is made anew and given the state: it loads its data set by name, and its scenes have the room they need."""
        return _make_copy, (type(self), self.num_envs, self.options, self.get_state())


def check_state(state: Any, name: str, own: NDArray, low: Any = None, high: Any = None) -> NDArray:
    """`state[name]`, which must be an array as one's `own`, within bounds where there are any.

    Raises:
        ValueError: it is something else; the message says what.
    """
    if not isinstance(state, Mapping) or name not in state:
        held = list(state) if isinstance(state, Mapping) else type(state).__name__
        raise ValueError(f"state must hold {name!r}, as get_state gives it, got {held}")
    given = np.asarray(state[name], None if isinstance(state[name], np.ndarray) else object)
    if given.shape != own.shape or given.dtype.kind != own.dtype.kind:
        kinds = [f"{array.dtype} of the shape {array.shape}" for array in (own, given)]
        raise ValueError(f"state[{name!r}] must be {kinds[0]} in environments made like these, got {kinds[1]}")
    if low is not None and not ((given >= low) & (given <= high)).all():
        raise ValueError(f"state[{name!r}] must lie between {low} and {high}, got {given!r}")
    return given


def _make_copy(task_class: type[Task], num_envs: int, options: dict[str, Any], state: dict[str, Any]) -> Task:
    task: Any = task_class
    copy = task(num_envs, **options)
    copy.options = options
    copy.set_state(state)
    return copy
