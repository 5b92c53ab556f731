"""Classify an image seen through the retina: N episodes advanced together (Mnih et al. 2014, section 4.1)."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from ram_envs.actions import ActionCodec
from ram_envs.datasets import load_images
from ram_envs.ordering import IMAGE_ORDERS, PassOrder
from ram_envs.retina import check_retina, glimpses
from ram_envs.streams import draw_uniform, start_streams


class GlimpseClassification:
    """The rules of the task, written once for N environments.

    An episode takes `num_glimpses` steps. It begins with a glimpse at the initial location; each step looks at the location
    given. The class counts at the last step only: reward 1 when it is right, else 0.

    Args:
        num_envs: N.
        dataset: see `ram_envs.datasets.load_images`.
        split: "train", "validation" or "test".
        glimpse_size: g, the side of a glimpse in pixels.
        num_scales: k, the number of patches, each twice as wide as the one before.
        num_glimpses: T, the glimpses seen before the class counts.
        initial_location: where the first glimpse is taken: "random" (uniform over the image), "center", or a pair (x, y) in
            [-1, 1]. In "validation" and "test" the random place is fixed by the image's index, so that a figure measured
            there depends neither on the seed nor on the number of environments.
        image_order: "random" draws every image anew; "shuffled" makes passes in random order, each image exactly once in a
            pass; "sequential" makes passes in order. See `ram_envs.ordering.PassOrder`.
        action_format: see `ram_envs.actions`.

    Raises:
        ValueError: an argument is out of range; the message names it.
        DataError: the images can't be had.
    """

    reset_options = ("index",)
    _STATE = ("streams", "index", "labels", "episodes", "steps", "terminated", "correct", "locations", "scenes")

    def __init__(
        self,
        num_envs: int = 1,
        *,
        dataset: str = "mnist",
        split: str = "train",
        glimpse_size: int = 8,
        num_scales: int = 1,
        num_glimpses: int = 7,
        initial_location: str | tuple[float, float] = "random",
        image_order: str = "random",
        action_format: str = "dict",
    ) -> None:
        if isinstance(num_glimpses, bool) or not isinstance(num_glimpses, int) or num_glimpses < 1:
            raise ValueError(f"num_glimpses must be a whole number of at least 1, got {num_glimpses!r}")
        if image_order not in IMAGE_ORDERS:
            raise ValueError(f"image_order must be one of {IMAGE_ORDERS}, got {image_order!r}")
        self.images = load_images(dataset, split)
        check_retina(glimpse_size, num_scales, self.images.images.shape[1:])
        self.num_envs, self.split, self.image_order = num_envs, split, image_order
        self.glimpse_size, self.num_scales = int(glimpse_size), int(num_scales)
        self.num_glimpses = num_glimpses
        self.initial_location = _check_initial_location(initial_location)
        self.codec = ActionCodec("class", self.images.num_classes, action_format)
        self.action_space = self.codec.space
        glimpse_shape = (self.num_scales, self.glimpse_size, self.glimpse_size)
        self.observation_space = spaces.Dict(
            {
                "glimpse": spaces.Box(0.0, 1.0, glimpse_shape, np.float32),
                "location": spaces.Box(-1.0, 1.0, (2,), np.float32),
            }
        )
        self._envs = np.arange(num_envs)
        self._order: PassOrder | None = None
        if image_order == "sequential":
            self._order = PassOrder(len(self.images.labels), num_envs)
        self.streams = np.zeros(num_envs, np.uint64)  # See `ram_envs.streams`.
        self.index = np.zeros(num_envs, np.int64)  # The image that each environment shows.
        self.labels = np.zeros(num_envs, np.int64)
        self.episodes = np.zeros(num_envs, np.int64)  # Episodes begun in this order of images.
        self.steps = np.zeros(num_envs, np.int64)
        self.terminated = np.zeros(num_envs, np.bool_)  # Whether each episode is over.
        self.correct = np.zeros(num_envs, np.bool_)
        self.locations = np.zeros((num_envs, 2), np.float32)  # Where the current glimpse is taken, l.
        self.scenes = np.zeros((num_envs, *self.images.images.shape[1:]), np.uint8)

    def seed(self, keys: NDArray[np.uint64], where: NDArray[np.bool_]) -> None:
        """Give the environments of the mask `where` (N,) new random streams, keyed by keys (m,)."""
        self.streams[where] = start_streams(keys)
        self.episodes[where] = 0
        if self.image_order == "shuffled":
            self._order = PassOrder(len(self.images.labels), self.num_envs, key=int(keys[0]))

    def restart(self) -> None:
        """Begin the pass over the images again, for all environments."""
        if self.image_order == "sequential":
            self.episodes[:] = 0

    def begin(self, where: NDArray[np.bool_], options: dict[str, Any]) -> None:
        """Begin a new episode in each environment of the mask `where` (N,).

        `options["index"]`, a number or (N,) numbers, says which image to show.
        """
        # Three draws for each episode, whether they are used or not: options do not shift the streams.
        index_options = self._check_index(options)
        draws, self.streams[where] = draw_uniform(self.streams[where], 3)
        if index_options is not None:
            index = index_options[where]
        elif self._order is not None:
            index = self._order.index(self._envs[where], self.episodes[where])
        else:
            index = (draws[:, 0] * len(self.images.labels)).astype(np.int64)
        if self.split != "train":
            draws, _ = draw_uniform(start_streams(index.astype(np.uint64)), 3)
        if self.initial_location is None:
            self.locations[where] = 2 * draws[:, 1:] - 1
        else:
            self.locations[where] = self.initial_location
        self.index[where] = index
        self.labels[where] = self.images.labels[index]
        if len(index) == self.num_envs:  # One copy instead of two; the indices are known to be good.
            np.take(self.images.images, index, axis=0, out=self.scenes, mode="clip")
        else:
            self.scenes[where] = self.images.images[index]
        self.episodes[where] += 1
        self.steps[where] = 0
        self.terminated = self.steps == self.num_glimpses
        self.correct[where] = False

    def step(self, action: Any, num_actions: int | None, where: NDArray[np.bool_] | None) -> None:
        """Look at the next location in the environments of the mask `where` (None: all); see `ActionCodec.decode`."""
        locations, choices = self.codec.decode(action, num_actions)
        if where is None:
            self.steps += 1
            self.locations[...] = locations
        else:
            self.steps += where
            self.locations[where] = locations[where]
        self.terminated = self.steps == self.num_glimpses
        self.correct = self.terminated & (choices == self.labels)

    def reward(self) -> NDArray[np.float64]:
        """(N,), the reward of the last step."""
        return self.correct.astype(np.float64)

    def observe(self) -> dict[str, NDArray[np.float32]]:
        """What each environment's agent sees: "glimpse" (N, k, g, g) in [0, 1] and "location" (N, 2) in [-1, 1]."""
        seen = glimpses(
            self.scenes,
            self.locations,
            glimpse_size=self.glimpse_size,
            num_scales=self.num_scales,
        )
        return {"glimpse": seen, "location": self.locations.copy()}

    def info(self) -> dict[str, tuple[NDArray, NDArray[np.bool_] | None]]:
        """Facts about the current step: each with the mask (N,) of the environments where it holds, None for all."""
        facts: dict[str, tuple[NDArray, NDArray[np.bool_] | None]] = {
            "label": (self.labels, None),
            "index": (self.index, None),
        }
        if self.terminated.any():
            facts["is_success"] = (self.correct, self.terminated)
        return facts

    def get_state(self) -> dict[str, Any]:
        """Everything that the next steps depend on, as copies; pickles."""
        key = None if self._order is None else self._order.key
        return {"order_key": key, **{name: getattr(self, name).copy() for name in self._STATE}}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on where `get_state` was called, in a task made with the same arguments."""
        if state["order_key"] is not None:
            self._order = PassOrder(len(self.images.labels), self.num_envs, state["order_key"])
        for name in self._STATE:
            setattr(self, name, state[name].copy())

    def _check_index(self, options: dict[str, Any]) -> NDArray[np.int64] | None:
        """`options["index"]` as (N,), None where it is not given."""
        if "index" not in options:
            return None
        size = len(self.images.labels)
        index = np.asarray(options["index"])
        if index.dtype.kind not in "iu" or index.shape not in ((), (self.num_envs,)):
            raise ValueError(f"options['index'] must be a whole number or {self.num_envs} of them, got {options['index']!r}")
        if index.min() < 0 or index.max() >= size:
            raise ValueError(f"options['index'] must lie in 0..{size - 1}, got {options['index']!r}")
        return np.broadcast_to(index, self.num_envs).astype(np.int64)


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
