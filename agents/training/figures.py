"""Pictures of an agent at work, drawn by `ram_envs`, and its learning curve."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain, cycle, islice, repeat
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env.stacked_observations import StackedObservations

import ram_envs
from ram_envs import draw_glimpse, draw_scene

from ..vec_env import make_vec_env
from .evaluation import TEST_SEED, make_split

_DIGITS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7))  # With which an error's ticks begin, on a logarithmic scale.
_MOST_TICKS, _FAR = 6, 3  # Errors that lie so many times apart have a logarithmic scale.
_POINTS: Any = {"textcoords": "offset points"}
_DPI = 110
# Pixels in the picture of glimpses: the side of a scene, the least and the largest one of a glimpse, and its border.
_SCENE, _GLIMPSE, _LARGEST_GLIMPSE, _BORDER = 192, 144, 256, 3
_GAP, _HEAD, _LABEL = 8, 30, 46
_LONGEST_NAME = 18  # Letters of a class beside its row.
_SEARCHED = 1_000  # Images among which failures are looked for.


def play(
    model: BaseAlgorithm,
    env: gym.Env,
    *,
    seed: int | None = None,
    options: dict[str, Any] | None = None,
    deterministic: bool = True,
    frame_stack: int = 1,
) -> Iterator[Any]:
    """Play one episode in a single environment: yields None when it has begun, then each action after its step.

    Args:
        model: chooses the actions.
        env: is reset with `seed` and `options`.
        deterministic: as for the model's `predict`.
        frame_stack: how many observations the model sees at once, as in `make_vec_env`.
    """
    stack = StackedObservations(1, frame_stack, env.observation_space)  # type: ignore[arg-type]
    obs: Any = stack.reset(_batch(env.reset(seed=seed, options=options)[0]))
    yield None
    state, start, over = None, np.ones(1, np.bool_), False
    while not over:
        actions, state = model.predict(obs, state, episode_start=start, deterministic=deterministic)
        seen, _, terminated, truncated, _ = env.step(actions[0])
        obs = stack.update(_batch(seen), np.zeros(1, np.bool_), [{}])[0]
        start, over = np.zeros(1, np.bool_), terminated or truncated
        yield actions[0]


def record(
    model: BaseAlgorithm,
    env_id: str,
    path: Path,
    *,
    num_episodes: int | None = None,
    index: Sequence[int] = (),
    seed: int = 0,
    deterministic: bool = True,
    frame_stack: int = 1,
    hold: float = 1.0,
    **env_kwargs: Any,
) -> int:
    """Record some episodes as a .gif or .mp4, with the environment's own `render_fps`.

    `frame_stack` and `env_kwargs` are those of the model's `make_vec_env`, `hold` is that of `ram_envs.write_video`.

    Args:
        num_episodes: how many; None: one for each of `index`, or 6.
        index: which images, or the seeds of which games, again from the first where there are more episodes; none: the episodes
            that follow from `seed`.

    Returns:
        the number of pictures written: one before each action, and the last of each episode.

    Raises:
        ValueError: the path has another ending, `num_episodes` is less than 1, or there is no such image.
    """
    number = (len(index) or 6) if num_episodes is None else num_episodes
    env = gym.make(env_id, render_mode="rgb_array", **env_kwargs)
    how: dict[str, Any] = {"deterministic": deterministic, "frame_stack": frame_stack}
    episodes = ([env.render() for _ in play(model, env, **how, **one)] for one in _openings(env, number, index, seed))
    pictures = ram_envs.write_video(path, episodes, env.unwrapped.metadata["render_fps"], hold)
    env.close()
    return pictures


def watch_in_window(
    model: BaseAlgorithm,
    env_id: str,
    *,
    num_episodes: int | None = None,
    index: Sequence[int] = (),
    seed: int = 0,
    frame_stack: int = 1,
    hold: float = 1.5,
    **env_kwargs: Any,
) -> int:
    """Show the model at work in a window, until that is closed, or Esc is pressed in it, or the episodes are over.

    Args:
        num_episodes: how many; None: until the window is closed.
        index, seed, frame_stack, **env_kwargs: see `record`.
        hold: the seconds for which the last picture of an episode is shown.

    Returns:
        the number of episodes that were played to their end.

    Raises:
        ValueError: `num_episodes` is less than 1, or there is no such image.
        gymnasium.error.Error: there is no screen.
    """
    env = gym.make(env_id, render_mode="rgb_array", **env_kwargs)
    fps = env.unwrapped.metadata["render_fps"]
    window, played = ram_envs.Window(env_id, fps), 0
    for one in _openings(env, num_episodes, index, seed):
        pictures = (env.render() for _ in play(model, env, frame_stack=frame_stack, **one))
        picture: Any = None
        for picture in chain(pictures, (picture for _ in range(round(hold * fps)))):
            window.show(picture, ends_by_escape=True)
            if window.is_closed:
                env.close()
                return played
        played += 1
    window.close()
    env.close()
    return played


def _openings(env: gym.Env, number: int | None, index: Sequence[int], seed: int) -> Iterator[dict[str, Any]]:
    """How each of a number of episodes (None: endlessly many) begins: what `play` takes beside model and environment."""
    if number is not None and number < 1:
        raise ValueError(f"the number of episodes must be at least 1, got {number}")
    has_images = getattr(env.unwrapped, "num_images", None) is not None
    openings = cycle({"seed": one, "options": {"index": one} if has_images else None} for one in index)
    return islice(openings if index else chain([{"seed": seed}], repeat({})), number)


def watch(
    model: BaseAlgorithm,
    env_id: str,
    env_kwargs: dict[str, Any],
    split: str = "test",
    index: Sequence[int] | None = None,
    frame_stack: int = 1,
) -> list[list[ram_envs.Frame]]:
    """Run the model on some images of a split, with greedy locations and choices.

    Args:
        index: the numbers of the images; None: those of `choose_images`.

    Returns:
        the frames of each episode: one before each action, and one at the end that holds the answer.

    Raises:
        ValueError: the data set has no such split, or not so many images.
    """
    evaluation = gym.make(env_id, **env_kwargs).unwrapped.evaluation(split)  # type: ignore[attr-defined]
    env: Any = gym.make(env_id, **{**env_kwargs, **evaluation.env_kwargs})
    episodes = []
    for image in choose_images(model, env_id, env_kwargs, split, frame_stack=frame_stack) if index is None else index:
        actions = play(model, env, seed=image, options={"index": image}, frame_stack=frame_stack)
        episodes.append([env.unwrapped.frame(action=action) for action in actions])
    return episodes


def choose_images(
    model: BaseAlgorithm, env_id: str, env_kwargs: dict[str, Any], split: str, number: int = 8, frame_stack: int = 1
) -> list[int]:
    """The numbers of a split's first images that the model gets right, and behind them of the first two that it gets wrong.

    They are looked for among the first 1,000 images; where these do not have so many of one kind, there are more of the other.

    Raises:
        ValueError: the data set has no such split.
    """
    env, episodes, seed = make_split(make_vec_env(env_id, **env_kwargs), env_id, split, env_kwargs, frame_stack=frame_stack)
    env.seed(seed)
    found: dict[bool, list[int]] = {True: [], False: []}

    def note(local: dict[str, Any], _: dict[str, Any]) -> None:
        if local["done"]:
            found[bool(local["info"]["is_success"])].append(int(local["info"]["index"]))

    with torch.random.fork_rng():
        torch.manual_seed(TEST_SEED)
        evaluate_policy(model, env, min(episodes, _SEARCHED), deterministic=True, callback=note)
    right, wrong = sorted(found[True]), sorted(found[False])
    num_wrong = max(min(2, len(wrong)), number - len(right))
    return right[: number - num_wrong] + wrong[:num_wrong]


def plot_glimpses(episodes: Sequence[Sequence[ram_envs.Frame]], path: Path) -> None:
    """Draw each episode's image and path, and beside it each glimpse as the eye sees it (as in Figure 3 of the paper).

    Args:
        episodes: the frames of each, as `watch` returns them. The last frame's look is left out: it comes after the last action.
        path: of the picture.
    """
    glimpse = np.array(next(frame.look.glimpse.shape for frame in episodes[0] if frame.look is not None))
    pixels = int(glimpse[-1]) << int(glimpse[0] - 1)  # A whole number for each pixel of the narrowest patch, where there is room.
    size = min(-(-_GLIMPSE // pixels) * pixels, _LARGEST_GLIMPSE) + 2 * _BORDER
    num_glimpses, side = max(len(frames) - 1 for frames in episodes), max(_SCENE, size)
    rows = [_draw_row(frames[:-1], num_glimpses, size, side) for frames in episodes]
    height, width = len(rows) * rows[0].shape[0], rows[0].shape[1]
    full_height, full_width = _HEAD + height, _LABEL + width
    figure = Figure(figsize=(full_width / _DPI, full_height / _DPI), dpi=_DPI)
    axis = figure.add_axes((_LABEL / full_width, 0, width / full_width, height / full_height))
    axis.imshow(np.concatenate(rows), interpolation="nearest", aspect="auto")
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0, top=True, labeltop=True, labelbottom=False, pad=6)
    columns = [side / 2, *(side + _GAP + size / 2 + t * (size + _GAP) for t in range(num_glimpses))]
    axis.set_xticks(columns, ["image and path", "glimpse 1", *map(str, range(2, num_glimpses + 1))])
    axis.set_yticks([side / 2 + n * (side + _GAP) for n in range(len(rows))], [_caption(frames[-1]) for frames in episodes])
    for text, frames in zip(axis.get_yticklabels(), episodes, strict=True):
        colour = "black" if frames[-1].choice == frames[-1].truth else "crimson"
        text.set(rotation=90, verticalalignment="center", multialignment="center", color=colour)
    _save(figure, path)


def plot_learning_curve(
    episodes: NDArray, cpu_seconds: NDArray, error: NDArray, path: Path, title: str, success: str | None = None
) -> None:
    """Draw the error of each evaluation against the training before it.

    Args:
        episodes, cpu_seconds: the number of training episodes (E,), and the CPU seconds (E,).
        error: (E,), in %.
        path: of the picture.
        title: what stands above it.
        success: what the rest of 100 % are called, such as "balls caught": they are drawn instead of the error.
    """
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    values, best = (error if success is None else 100 - error), int(np.argmin(error))
    for axis, progress, name in ((left, episodes, "training episodes"), (right, cpu_seconds, "CPU seconds")):
        axis.plot(progress, values, marker=".")
        axis.set_xlabel(name)
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.grid(True, which="both", alpha=0.3)
        axis.margins(y=0.15)  # Room for the label of the best.
        if success is None and error.max() > _FAR * error.min() > 0:
            axis.set_yscale("log")
            axis.yaxis.set_minor_formatter(NullFormatter())
            axis.yaxis.set_major_formatter("{x:g}")
            axis.set_yticks(_ticks(*axis.get_ylim()))
    left.xaxis.set_major_formatter(EngFormatter(sep=""))  # 1M in the place of 1000000.
    left.set_ylabel("validation error, %" if success is None else f"{success} on validation, %")
    late = episodes[best] > (episodes[0] + episodes[-1]) / 2
    where = {"ha": "right" if late else "left", "va": "top" if success is None else "bottom"}  # Where no line comes through.
    left.annotate(f"{values[best]:.2f}", (episodes[best], values[best]), (0, -5 if success is None else 5), **where, **_POINTS)
    figure.suptitle(title)
    _save(figure, path)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from low to high, on a logarithmic scale, as many as can be read."""
    ticks: list[float] = []
    for digits in _DIGITS:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        more = [digit * 10.0**decade for decade in decades for digit in digits if low <= digit * 10.0**decade <= high]
        if len(more) > _MOST_TICKS and len(ticks) > 1:
            break
        ticks = more
    return ticks


def _batch(obs: Any) -> Any:
    """A batch of one."""
    return {name: part[None] for name, part in obs.items()} if isinstance(obs, dict) else obs[None]


def _caption(last: ram_envs.Frame) -> str:
    """Answer and label."""
    assert last.choice is not None and last.truth is not None
    said, truth = (last.names[choice][:_LONGEST_NAME] for choice in (last.choice, last.truth))
    return f"said {said}\n{'right' if last.choice == last.truth else f'was {truth}'}"


def _draw_row(frames: Sequence[ram_envs.Frame], num_glimpses: int, size: int, side: int) -> NDArray[np.uint8]:
    """A scene with the path, side x side pixels, and right of it each frame's glimpse, at most size x size pixels."""
    row = np.full((side + _GAP, side + num_glimpses * (size + _GAP) + _GAP, 3), 255, np.uint8)
    row[:side, :side] = draw_scene(frames[0], [frame.look.location for frame in frames if frame.look is not None], side)
    for t, frame in enumerate(frames):
        picture = draw_glimpse(frame, size)
        top, left = (side - len(picture)) // 2, side + _GAP + t * (size + _GAP)
        row[top : top + len(picture), left : left + len(picture)] = picture
    return row


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI)
