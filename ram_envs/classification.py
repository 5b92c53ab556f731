"""Classify an image seen through the retina: N episodes advanced together (Mnih et al. 2014, section 4.1)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ram_envs.actions import ActionCodec
from ram_envs.datasets import SPLITS, load_images
from ram_envs.frame import Frame, in_unit_range, look_of, scores_of
from ram_envs.retina import Gaze
from ram_envs.sampling import IMAGE_ORDERS, EpochOrder, draw_keys, draw_uniform, start_streams
from ram_envs.scenes import SceneMaker
from ram_envs.task import Evaluation, Task

_SCENE_STREAM = np.uint64(0x5CE4E)  # Sets the streams that scenes are made from apart from those of the rest.
_SCENE_METHODS = ("make_scenes", "advance")


class GlimpseClassification(Task):
    """The rules of the task, written once for N environments.

    An episode takes `num_glimpses` steps. It begins with a glimpse at the initial location; each step looks at the location
    given. The class counts at the last step only: reward 1 when it is right, else 0.

    A task of your own changes `make_scenes`, `advance` and `class_names`, see docs/own-task.md.

    Args:
        num_envs: N.
        dataset: the name of a data set, a pair of arrays (images, labels), or an `ImageSet`; see `ram_envs.datasets`.
        split: "train", "validation" or "test". In the latter two everything at random in a scene, and the first location, is
            fixed by the split and the image's index, so that a figure measured there depends neither on the seed nor on the
            number of environments.
        canvas_size: the side in pixels of a blank canvas on which the image lies at a random place; None: no canvas.
        num_clutter: pieces cut out of other images of the split and added at random places.
        clutter_size: the side of such a piece in pixels.
        warp: in the split "train" each image is bent at random by up to this number of pixels, so that no epoch repeats another,
            see `ram_envs.scenes.warp`; 0: images as they are.
        affine: in the split "train" each image is turned, stretched and slanted at random as a whole: what is seen (x, y) from
            its middle is what lay at (x, y) + A (x, y), where the four entries of A are at most this (0.1: turned by up to about
            6 degrees, stretched by up to a tenth).
        glimpse_size: g, the side of a glimpse in pixels; "scene": the longer side of the scene.
        num_scales: k, the number of patches, each twice as wide as the one before.
        num_glimpses: T, the glimpses seen before the class counts; with `stop_action` the most that can be seen.
        glimpse_cost: what each glimpse after the first takes off the reward.
        initial_location: where the first glimpse is taken: "random" (uniform over the scene), "center", or a pair (x, y) in
            [-1, 1].
        stop_action: each action also holds a "stop", 0 or 1. At 1 the episode ends there and then, without another glimpse,
            and the class given counts.
        zoom_action: with each location the agent also chooses a "zoom" out of `num_zooms`: at zoom z all patches are 2^z times
            as wide. The first glimpse has zoom 0.
        num_zooms: Z, used with `zoom_action`.
        image_order: "random" draws every image anew; "shuffled" shows each image exactly once in an epoch, in random order;
            "sequential" does so in the order of the data set.
        action_format: "dict", "box", "multidiscrete" or "discrete", see `ram_envs.actions`.
        location_grid: G, the locations to a side in the discrete formats.
        grid_extent: E, from 0.001 to 1: there the grid fills [-E, E]^2, the scene or only the middle of it.

    Raises:
        ValueError: an argument is out of range; the message names it.
        DataError: the images are not available.
    """

    class_names: ClassVar[tuple[str, ...]] = ()  # Of a task whose classes are not those of its images.
    num_images: int
    split: str
    has_labels = True
    reset_options = ("index",)
    state_names = (*Task.state_names, "index", "labels", "episodes", "steps", "correct", "costs", "scenes", *Gaze.state_names)

    def __init__(
        self,
        num_envs: int = 1,
        *,
        dataset: Any = "mnist",
        split: str = "train",
        canvas_size: int | None = None,
        num_clutter: int = 0,
        clutter_size: int = 8,
        warp: float = 0.0,
        affine: float = 0.0,
        glimpse_size: int | str = 8,
        num_scales: int = 1,
        num_glimpses: int = 7,
        glimpse_cost: float = 0.0,
        initial_location: str | tuple[float, float] = "random",
        stop_action: bool = False,
        zoom_action: bool = False,
        num_zooms: int = 3,
        image_order: str = "random",
        action_format: str = "dict",
        location_grid: int = 5,
        grid_extent: float = 1.0,
    ) -> None:
        if image_order not in IMAGE_ORDERS:
            raise ValueError(f"image_order must be one of {IMAGE_ORDERS}, got {image_order!r}")
        self.images = load_images(dataset, split)
        _check_numbers(num_glimpses, glimpse_cost, warp, affine, max(self.images.images.shape[-2:]))
        self.dataset, self.split, self.num_images = self.images.name, split, len(self.images.labels)
        self._loaded_by = dataset if isinstance(dataset, str) else None  # A name, which has other splits too.
        self.image_order, self.num_glimpses, self.glimpse_cost = image_order, num_glimpses, float(glimpse_cost)
        self.max_episode_steps = num_glimpses
        bent = (warp, affine) if split == "train" else (0.0, 0.0)
        self.scene_maker = SceneMaker(self.images.images, canvas_size, num_clutter, clutter_size, *bent)
        self.scene_shape = self.scene_maker.shape
        zooms = num_zooms if zoom_action else 1
        retina = (self.scene_shape, glimpse_size, num_scales, zooms, self.images.images.dtype)
        self.gaze = Gaze(num_envs, initial_location, *retina)
        further = ({"stop": 2} if stop_action else {}) | ({"zoom": zooms} if zoom_action else {})
        self.choice_names = self.class_names or self.images.class_names or tuple(map(str, range(self.images.num_classes)))
        self.choices = {"class": len(self.choice_names), **further}
        self.codec = ActionCodec(self.choices, action_format, location_grid, grid_extent)
        self.observation_space, self.action_space = self.gaze.space, self.codec.space
        self.num_envs, self._envs = num_envs, np.arange(num_envs)
        self._order = EpochOrder(self.num_images, num_envs) if image_order == "sequential" else None
        self.streams, self.terminated = np.zeros(num_envs, np.uint64), np.zeros(num_envs, np.bool_)
        self.scenes = self.gaze.scenes
        self.index = np.zeros(num_envs, np.int64)  # The image that each environment shows.
        self.labels = np.zeros(num_envs, np.int64)
        self.episodes = np.zeros(num_envs, np.int64)  # Episodes begun in this order of images.
        self.steps = np.zeros(num_envs, np.int64)
        self.correct = np.zeros(num_envs, np.bool_)
        self.costs: NDArray[np.floating] = np.zeros(num_envs)  # Of the last step.

    def seed(self, keys: NDArray[np.uint64], where: NDArray[np.bool_]) -> None:
        """Give the environments of the mask `where` (N,) new random streams, keyed by keys (m,)."""
        super().seed(keys, where)
        self.episodes[where] = 0
        if self.image_order == "shuffled":
            self._order = EpochOrder(self.num_images, self.num_envs, key=int(keys[0]))

    def restart(self) -> None:
        """Begin the epoch over the images again, for all environments."""
        if self.image_order == "sequential":
            self.episodes[:] = 0

    def begin(self, where: NDArray[np.bool_], options: dict[str, Any]) -> None:
        """Begin a new episode in each environment of the mask `where` (N,).

        `options["index"]`, a number or (N,) numbers, says which image to show.
        """
        index_options = self._check_index(options)
        # Three draws for each episode, whether they are used or not, and a stream of its own for the scene: options do not
        # shift the streams.
        scene_streams = start_streams(self.streams[where] ^ _SCENE_STREAM)
        draws, self.streams[where] = draw_uniform(self.streams[where], 3)
        if index_options is not None:
            index = index_options[where]
        elif self._order is not None:
            index = self._order.index(self._envs[where], self.episodes[where])
        else:
            index = (draws[:, 0] * self.num_images).astype(np.int64)
        if self.split != "train":
            keys = index.astype(np.uint64)
            draws, _ = draw_uniform(start_streams(keys), 3)
            scene_streams = _fixed_streams(index, self.split)
        self.index[where] = index
        self.labels[where] = self.images.labels[index]
        self.make_scenes(self._envs[where], index, scene_streams)
        self.gaze.begin(where, draws[:, 1:])
        self.episodes[where] += 1
        self.steps[where] = 0
        self.costs[where] = 0
        self.correct[where] = self.terminated[where] = False

    def make_scenes(self, envs: NDArray[np.int64], index: NDArray[np.int64], streams: NDArray[np.uint64]) -> None:
        """Make `scenes[envs]` for episodes that begin, of the images index (m,); their `labels` are set already.

        All that is random comes from the streams (m,): `ram_envs.draw_uniform(streams, n)` gives (m, n) numbers in [0, 1), and
        `ram_envs.start_streams(streams)` further streams.
        """
        self.scene_maker.make(index, streams, self.scenes, envs, self.gaze.retina.margin)

    def advance(self, where: NDArray[np.bool_] | None) -> None:
        """Change the scenes of the environments of the mask `where` (N,), None for all, before the next look: nothing here."""

    def step(self, action: Any, num_actions: int | None, where: NDArray[np.bool_] | None) -> NDArray[np.float64]:
        """Look at the next location in the environments of the mask `where` (None: all); see `ActionCodec.decode`."""
        locations, choices = self.codec.decode(action, num_actions)
        if where is None:
            self.steps += 1
        else:
            self.steps += where
        self.terminated = self.steps == self.num_glimpses
        looking = where
        if "stop" in choices:
            stopped = choices["stop"] == 1
            if where is not None:
                stopped &= where
            self.terminated |= stopped
            looking = ~stopped if where is None else where & ~stopped
        self.advance(looking)
        self.gaze.look(locations, choices.get("zoom"), looking)
        self.correct = self.terminated & (choices["class"] == self.labels)
        if self.glimpse_cost:
            self.costs = self.glimpse_cost * ~self.terminated
        return self.correct - self.costs

    def observe(self) -> dict[str, NDArray[np.float32]]:
        """See `Gaze.observe`."""
        return self.gaze.observe()

    def info(self) -> dict[str, tuple[NDArray, NDArray[np.bool_] | None]]:
        """The image's label and index, and whether the episode is over and the class was right."""
        return {"label": (self.labels, None), "index": (self.index, None), "is_success": (self.correct, None)}

    def frame(self, env: int = 0, action: Any = None) -> Frame:
        """The scene, the retina's look at it, and the class scores of the last action."""
        scores, choices = scores_of(self.codec, action)
        terminated = bool(self.terminated[env])
        lines = [f"glimpse {self.steps[env] + (not terminated)} of {self.num_glimpses}"]
        if terminated and choices:
            lines += ["stopped"] * choices.get("stop", 0)
            lines.append(f"said {self.choice_names[choices['class']][:8]}: {'right' if self.correct[env] else 'wrong'}")
        return Frame(
            scene=in_unit_range(self.gaze.retina.inner(self.scenes[env])),
            look=look_of(self.gaze, self.scenes, env),
            lines=(*lines, f"reward {self.correct[env] - self.costs[env]:g}"),
            names=self.choice_names,
            scores=scores,
            choice=choices.get("class"),
            truth=int(self.labels[env]),
        )

    def object_places(self) -> NDArray[np.float64] | None:
        """The middle of the image on its canvas, see `Task.object_places`; known in the splits whose scenes do not change.

        A task of your own that makes or moves its scenes itself says where, or None is returned.
        """
        own = any(getattr(type(self), name, None) is not getattr(GlimpseClassification, name, None) for name in _SCENE_METHODS)
        if own or self.split == "train" or self.scene_shape == self.images.images.shape[1:]:
            return None
        return self.scene_maker.places(_fixed_streams(self.index, self.split))

    def evaluation(self, split: str) -> Evaluation:
        """Each image of the split once, in order.

        Raises:
            ValueError: there is no such split, or it has other classes; arrays are only the split as which they were given.
        """
        if split not in SPLITS:
            raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
        if self._loaded_by is None and split != self.split:
            raise ValueError(
                f"split must be {self.split!r}, got {split!r}: the arrays given as dataset have no other splits; give a function "
                "that loads each split a name with ram_envs.register_dataset, and make the environment with dataset=<name>"
            )
        images = self.images if self._loaded_by is None else load_images(self._loaded_by, split)
        classes, own = (one.class_names or one.num_classes for one in (images, self.images))
        if classes != own:
            raise ValueError(
                f"split must have the classes of {self.split!r}, {own}, got {split!r} with {classes}: every ImageSet that the "
                f"data set {self._loaded_by!r} loads must state the same num_classes and class_names"
            )
        return Evaluation({"split": split, "image_order": "sequential"}, len(images.labels), None)

    def glimpse_statistics(self) -> tuple[float, list[float]]:
        """See `Task.glimpse_statistics`."""

        def fill(scenes: NDArray, rng: np.random.Generator) -> None:
            index, envs = rng.integers(self.num_images, size=len(scenes)), np.arange(len(scenes))
            self.scene_maker.make(index, start_streams(draw_keys(rng, len(scenes))), scenes, envs, self.gaze.retina.margin)

        return self.gaze.retina.statistics(fill)

    def get_state(self) -> dict[str, Any]:
        """Everything that the next steps depend on, as copies; pickles."""
        return {"order_key": None if self._order is None else self._order.key, **super().get_state()}

    def state_bounds(self) -> dict[str, tuple[Any, Any]]:
        """See `Task.state_bounds`."""
        last = {"index": self.num_images - 1, "labels": self.choices["class"] - 1, "steps": self.num_glimpses, "episodes": 2**62}
        return {**{name: (0, most) for name, most in last.items()}, **self.gaze.state_bounds()}

    def set_state(self, state: dict[str, Any]) -> None:
        """See `Task.set_state`."""
        key = state.get("order_key") if isinstance(state, dict) else None
        if key is not None and (type(key) is not int or not 0 <= key < 2**64):
            raise ValueError(f"state['order_key'] must be a whole number below 2**64 or None, got {key!r}")
        super().set_state(state)
        if key is not None:
            self._order = EpochOrder(self.num_images, self.num_envs, key)

    def _check_index(self, options: dict[str, Any]) -> NDArray[np.int64] | None:
        """`options["index"]` as (N,), None where it is not given."""
        if "index" not in options:
            return None
        index = np.asarray(options["index"])
        if index.dtype.kind not in "iu" or index.shape not in ((), (self.num_envs,)):
            raise ValueError(f"options['index'] must be a whole number or {self.num_envs} of them, got {options['index']!r}")
        if index.min() < 0 or index.max() >= self.num_images:
            raise ValueError(f"options['index'] must lie in 0..{self.num_images - 1}, got {options['index']!r}")
        return np.broadcast_to(index, self.num_envs).astype(np.int64)


def _fixed_streams(index: NDArray[np.int64], split: str) -> NDArray[np.uint64]:
    """The streams (m,) that the scenes of these images are made from in a split whose scenes do not change."""
    return start_streams(start_streams(index.astype(np.uint64) ^ _SCENE_STREAM) + np.uint64(SPLITS.index(split)))


def _check_numbers(num_glimpses: int, glimpse_cost: float, warp: float, affine: float, longer_side: int) -> None:
    if num_glimpses < 1:
        raise ValueError(f"num_glimpses must be at least 1, got {num_glimpses!r}")
    if not 0 <= glimpse_cost < np.inf:
        raise ValueError(f"glimpse_cost must be a number of at least 0, got {glimpse_cost!r}")
    if not 0 <= warp <= longer_side:
        raise ValueError(f"warp must be from 0 to {longer_side} pixels, the longer side of the images, got {warp!r}")
    if not 0 <= affine < 1:
        raise ValueError(f"affine must be in [0, 1), got {affine!r}")
