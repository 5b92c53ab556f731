"""Make the pictures of the docs: one PNG and one looping GIF of each environment.

python -m ram_envs.gallery                             # all of them, into docs/images
python -m ram_envs.gallery GlimpseCatch-v0 --out here  # one of them, elsewhere

No learned agent is at work: a script that knows the whole scene looks where most has not been seen yet, and says the true class
with the last glimpse; in Catch eye and paddle follow the ball. The same data and versions of the libraries give the same bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ram_envs import ENVIRONMENTS
from ram_envs.catch import Catch, GlimpseCatch
from ram_envs.classification import GlimpseClassification
from ram_envs.datasets import DataError, ImageSet, load_images
from ram_envs.video import import_imageio, write_video

HOLD_SECONDS = 1.5  # For the last picture of an episode.
_IMAGES = ({"index": 0}, {"index": 1}, {"index": 4})  # Options of reset; fewer games, because they are longer.
_BALLS = ({"ball_column": 9, "ball_speed": 1}, {"ball_column": 15, "ball_speed": -1})
_FORGETTING = 0.15  # The share of a seen pixel that is left to see.
_INKS = np.array([[255, 224, 130], [130, 224, 255], [255, 150, 170]], np.float32)
_PAPERS = np.array([[60, 40, 110], [110, 40, 30], [15, 80, 70]], np.float32)


def make_pictures(env_id: str, folder: Path, dataset: Any = None) -> list[Path]:
    """Write <env_id>.png, a late step of an episode, and <env_id>.gif, some episodes, and return their paths.

    Args:
        env_id: a registered environment of this package.
        folder: where to write.
        dataset: shown instead of the environment's own; None: its own.

    Raises:
        DataError: the images can't be loaded.
        gymnasium.error.DependencyNotInstalled: imageio or pygame is missing.
    """
    env = gym.make(env_id, render_mode="rgb_array", **picture_options(env_id, dataset))
    openings = _BALLS if env.unwrapped.num_images is None else _IMAGES  # type: ignore[attr-defined]
    episodes = [play(env, options) for options in openings]
    env.close()
    still, moving = folder / f"{env_id}.png", folder / f"{env_id}.gif"
    write_video(moving, episodes, env.unwrapped.metadata["render_fps"], HOLD_SECONDS)
    import_imageio().imwrite(still, episodes[0][len(episodes[0]) * 2 // 3])
    return [still, moving]


def picture_options(env_id: str, dataset: Any = None) -> dict[str, Any]:
    """The options of the pictures that differ from the environment's own; dataset as for `make_pictures`."""
    if ENVIRONMENTS[env_id]["task"] != "classification":
        return {}
    options: dict[str, Any] = {"split": "test"}
    if env_id == "GlimpseClassification-v0":
        return {**options, "dataset": two_digits(load_images(dataset or "mnist", "test")), "num_scales": 2}
    return options if dataset is None else {**options, "dataset": dataset}


def two_digits(digits: ImageSet, number: int = 10) -> ImageSet:
    """Coloured images (number, 3, 28, 56) of a digit and the next, and what they make together: own images to show."""
    first = np.arange(number)
    ink = np.concatenate([digits.images[first], digits.images[first + 1]], axis=-1)[:, None] / np.float32(255)
    colour = first % len(_INKS)
    inks, papers = _INKS[colour, :, None, None], _PAPERS[colour, :, None, None]
    images = (papers + ink * (inks - papers)).astype(np.uint8)
    return ImageSet("two digits", images, 10 * digits.labels[first] + digits.labels[first + 1], 100)


def play(env: gym.Env, reset_options: dict[str, Any]) -> list[NDArray[np.uint8]]:
    """The pictures (H, W, 3) of one episode, the first before any action."""
    task: Any = env.unwrapped.task  # type: ignore[attr-defined]
    env.reset(seed=0, options=reset_options)
    pictures: list[Any] = [env.render()]
    for action in follow_ball(task) if isinstance(task, Catch) else read(task):
        env.step(action)
        pictures.append(env.render())
    return pictures


def read(task: GlimpseClassification) -> Iterator[NDArray[np.float32]]:
    """Actions (2 + K,), location and scores: look where most is left to see, and say the true class with the last."""
    unseen, size = _ink(task), task.gaze.retina.glimpse_size
    while not task.terminated[0]:
        left, top = task.gaze.retina.corners(task.gaze.locations)[0][0, 0]
        unseen[max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] *= _FORGETTING
        column, row = _best_place(unseen, _hat(size))
        location = 2 * (np.array([column, row]) + size / 2) / unseen.shape[::-1] - 1
        scores = np.full(task.choices["class"], -1.0)
        # Before the last action the class does not count: its bar is invisible.
        scores[task.labels[0]] = 1 if task.steps[0] == task.num_glimpses - 1 else -0.999
        yield np.concatenate([location, scores]).astype(np.float32)


def follow_ball(task: Catch) -> Iterator[Any]:
    """Actions of Catch, and with a retina those that look at the ball as well."""
    while not task.terminated[0]:
        column, row = task.ball[0] + (task.speed[0], 1)
        column = task.width - 1 - abs(task.width - 1 - abs(column))  # It bounces off the sides.
        move = 1 + np.sign(column - task.paddle[0])
        if isinstance(task, GlimpseCatch):
            # A hair beside the pixel's middle, where rounding would decide at which pixel the patches begin.
            location = 2 * (np.array([column, row]) + 0.51) / (task.width, task.height) - 1
            yield {"location": location.astype(np.float32), "move": move}
        else:
            yield move


def _ink(task: GlimpseClassification) -> NDArray[np.float32]:
    """What there is to see (H, W): the difference from the background where the image probably is, elsewhere 0."""
    scene = task.frame(0).scene
    contrast = np.abs(scene - np.median(scene, axis=(-2, -1), keepdims=True)).reshape(-1, *scene.shape[-2:]).mean(axis=0)
    height, width = task.images.images.shape[-2:]
    left, top = _best_place(contrast, np.ones((height, width), np.float32))
    ink, inside = np.zeros_like(contrast), np.s_[top : top + height, left : left + width]
    ink[inside] = contrast[inside]
    return ink


def _best_place(values: NDArray, weights: NDArray) -> tuple[int, int]:
    """Left and top of the window with weights (h, w) that covers most of the values (H, W)."""
    sums = np.einsum("yxij,ij->yx", sliding_window_view(values, weights.shape), weights)
    top, left = np.unravel_index(sums.argmax(), sums.shape)
    return int(left), int(top)


def _hat(size: int) -> NDArray[np.float32]:
    """Weights (size, size) that are highest in the middle."""
    slope = 1 - np.abs(np.linspace(-1, 1, size + 2, dtype=np.float32)[1:-1])
    return np.outer(slope, slope)


def main(arguments: list[str] | None = None, prog: str = "python -m ram_envs.gallery") -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="*", metavar="ID", help="environments; all where none is named")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="the folder to write to")
    options = parser.parse_args(arguments)
    for env_id in options.ids:
        if env_id not in ENVIRONMENTS:
            parser.error(f"{env_id!r} is not one of {', '.join(ENVIRONMENTS)}")
    for env_id in options.ids or [name for name, own in ENVIRONMENTS.items() if "flatten_observation" not in own]:
        try:
            print(*make_pictures(env_id, options.out))
        except DataError as error:
            print(f"{env_id}: no pictures, because its images can't be loaded: {error}", file=sys.stderr)
        except gym.error.DependencyNotInstalled as error:
            parser.error(str(error))


if __name__ == "__main__":
    main()
