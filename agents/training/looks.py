"""Why an agent looks where it looks: what a split's looks have in common, what they follow, and what they are worth.

They are worth what the agent loses without them: each episode again, looked at along the mean path of all episodes, or where
another episode was looked at. The first glimpse, which the environment places, stays where it is.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread
from numpy.typing import NDArray
from stable_baselines3.common import logger
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from ram_envs import EpochOrder, Frame, env_defaults

from ..vec_env import check_spaces, info_array, make_vec_env
from .evaluation import EVAL_ENVS, TEST_SEED, make_split
from .figures import play, plot_glimpses
from .look_figures import plot_episode, plot_looks

_BINS = 30  # Of a heat map, along the scene's longer side, at most.
_LOGGED_EPISODES, _LOGGED_IMAGES = 500, 4  # Of an evaluation's pictures in TensorBoard.
_DPI = 110
Measured = dict[str, Any]  # Ready for JSON.


@dataclass(frozen=True, eq=False)
class Looks:
    """Where an agent looked in M episodes of at most T steps, and what it chose after each glimpse.

    After an episode's end locations and places are NaN, and the last choice stands.
    """

    locations: NDArray[np.float32]  # (M, T, 2), where each glimpse was taken, x first, in [-1, 1]
    places: NDArray[np.float64] | None  # (M, T, 2), of what there is to be found, in [-1, 1]; None where they are not known
    choices: NDArray[np.int64]  # (M, T), of the class or the move
    labels: NDArray[np.int64] | None  # (M,), the right choice at every step; None where there is no such thing
    successes: NDArray[np.bool_]  # (M,)
    scene_shape: tuple[int, ...]  # ([C,] H, W)

    @property
    def error(self) -> float:
        """In %."""
        return 100 * (1 - float(self.successes.mean()))

    @property
    def mean_path(self) -> NDArray[np.float32]:
        """The mean location of each glimpse over the episodes that have it: (T, 2)."""
        return _mean(self.locations).astype(np.float32)

    def in_pixels(self, locations: NDArray) -> NDArray[np.float64]:
        """Locations (..., 2) in [-1, 1] as columns and rows of the scene."""
        return (locations + 1.0) / 2 * self.scene_shape[:-3:-1]

    def heat_maps(self) -> NDArray[np.float64]:
        """The share of each glimpse's looks that falls into each of at most 30 x 30 cells of the scene: (T, rows, columns)."""
        sides = np.array(self.scene_shape[-2:])
        bins = np.ceil(sides * min(1, _BINS / sides.max())).astype(int)
        maps = []
        for looks in self.locations.swapaxes(0, 1):  # (M, 2)
            x, y = looks[~np.isnan(looks[:, 0])].T
            maps.append(np.histogram2d(y, x, bins, range=((-1, 1), (-1, 1)))[0] / max(len(x), 1))
        return np.stack(maps)


def gather_looks(
    model: BaseAlgorithm,
    env_id: str,
    env_kwargs: dict[str, Any],
    split: str = "validation",
    *,
    frame_stack: int = 1,
    instead: NDArray[np.floating] | None = None,
    most: int | None = None,
) -> Looks:
    """Run a model on a split as `evaluate_on_test` does, with greedy locations and choices, and keep where it looks.

    Args:
        model, env_id, env_kwargs, frame_stack: as for `evaluate_on_test`.
        split: "train", "validation" or "test".
        instead: locations (T, 2), or (M, T, 2), in [-1, 1], that take the place of the model's own from the second glimpse on;
            where they are NaN, as behind the end of all episodes, the one before stays.
        most: the number of episodes, from the first; None: all of the split.

    Raises:
        ValueError: the environment is not seen through a retina of `ram_envs`, or the model learned in one with other spaces.
    """
    own = make_vec_env(env_id, frame_stack=frame_stack, **env_kwargs)
    check_spaces(model, own)
    codec = _task_of(own, env_id).codec
    # Actions of the format "box" can hold any location.
    form = {"action_format": "box"} if "action_format" in env_defaults(env_id) else {}
    kwargs, most_envs = {**env_kwargs, **form}, min(EVAL_ENVS, most or EVAL_ENVS)
    env, num_episodes, seed = make_split(own, env_id, split, kwargs, most_envs, frame_stack)
    task, num_envs = _task_of(env, env_id), env.num_envs
    num_episodes, num_steps = min(num_episodes, most or num_episodes), task.max_episode_steps
    locations = np.full((num_episodes, num_steps, 2), np.nan, np.float32)
    places, choices = np.full(locations.shape, np.nan), np.zeros(locations.shape[:2], np.int64)
    labels, successes = np.zeros(num_episodes, np.int64), np.zeros(num_episodes, np.bool_)
    path = None if instead is None else _held(np.broadcast_to(instead, locations.shape))
    envs, order = np.arange(num_envs), EpochOrder(num_episodes, num_envs)
    quota = (num_episodes + envs) // num_envs  # Of each environment.
    rounds, step = np.zeros(num_envs, np.int64), np.zeros(num_envs, np.int64)
    over, state = np.ones(num_envs, np.bool_), None
    env.seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(TEST_SEED)
        obs: Any = env.reset()
        while (counts := rounds < quota).any():
            which, when = order.index(envs, rounds)[counts], step[counts]
            locations[which, when] = task.gaze.locations[counts]
            if (found := task.object_places()) is not None:
                places[which, when] = found[counts]
            actions, state = model.predict(obs, state, episode_start=over, deterministic=True)
            ahead, chosen = codec.decode(actions, num_envs)  # (N, 2), and (N,) each
            choices[which, when] = next(iter(chosen.values()))[counts]
            if path is not None:
                ahead[counts] = path[which, np.minimum(when + 1, num_steps - 1)]
            obs, _, over, infos = env.step(task.codec.encode(ahead, **chosen))
            successes[which] = info_array(infos, "is_success")[counts]
            if task.has_labels:
                labels[which] = info_array(infos, "label")[counts]
            rounds, step = rounds + over, np.where(over, 0, step + 1)
    unseen = np.isnan(locations[..., 0])  # (M, T), after an episode that ended early: its choice stands.
    last = np.take_along_axis(choices, (~unseen).sum(axis=1, keepdims=True) - 1, axis=1)
    known = None if np.isnan(places).all() else places
    labelled = labels if task.has_labels else None
    return Looks(locations, known, np.where(unseen, last, choices), labelled, successes, task.scene_shape)


def describe(looks: Looks) -> Measured:
    """What looks come to, ready for JSON: errors in %, and for each glimpse a number in lists of T.

    - "error": of the episodes;
    - "error_after_glimpse": of the class of the highest score after each glimpse, where there are labels;
    - "mean_path": in [-1, 1]; "spread": the root of the mean squared distance from it, in pixels;
    - where the place of what there is to be found is known, "distance": the mean distance from it in pixels, and "slope": the
      pixels by which the look moves for each pixel of that place, along x and y together. 0: the look does not heed it, 1: it
      follows; None where it is always in one place.
    """
    measured: Measured = {"episodes": len(looks.locations), "error": round(looks.error, 4)}
    if looks.labels is not None:
        measured["error_after_glimpse"] = _rounded(100 * (looks.choices != looks.labels[:, None]).mean(axis=0), 4)
    seen = looks.in_pixels(looks.locations)  # (M, T, 2)
    away = seen - _mean(seen)
    measured |= {"mean_path": _rounded(looks.mean_path), "spread": _rounded(np.sqrt(_mean((away**2).sum(-1))))}
    if looks.places is not None:
        places = looks.in_pixels(looks.places)
        moved = places - _mean(places)
        together, varies = (_mean((moved * other).sum(-1)) for other in (away, moved))  # (T,) each
        measured["slope"] = _rounded(np.divide(together, varies, out=np.full_like(varies, np.nan), where=varies > 0))
        measured["distance"] = _rounded(_mean(np.linalg.norm(seen - places, axis=-1)))
    return measured


def measure(model: BaseAlgorithm, env_id: str, env_kwargs: dict[str, Any], split: str, **kwargs: Any) -> tuple[Looks, Measured]:
    """The looks of a model on a split, what they come to, and what they are worth; the arguments are those of `gather_looks`.

    Returns:
        the looks, and beside what `describe` says of them the errors in % without them: "error_along_mean_path" where every
        episode is looked at along the mean path of all, "error_at_anothers_looks" where each is looked at as the next one was.
    """
    how: Any = (model, env_id, env_kwargs, split)
    looks = gather_looks(*how, **kwargs)
    paths = {"along_mean_path": looks.mean_path, "at_anothers_looks": np.roll(looks.locations, -1, axis=0)}
    without = {f"error_{name}": gather_looks(*how, instead=path, **kwargs).error for name, path in paths.items()}
    return looks, {"env": env_id, "split": split, **describe(looks), **{name: round(error, 4) for name, error in without.items()}}


def error_along_mean_path(
    model: BaseAlgorithm, env_id: str, env_kwargs: dict[str, Any], split: str = "test", frame_stack: int = 1
) -> float | None:
    """The error in % of a model whose looks are replaced by the mean path of all, see `measure`.

    None where there is nothing to replace: environments that are not seen through a retina of ours, or at one glimpse.
    """
    task = find_task(make_vec_env(env_id, **env_kwargs))
    if task is None or task.max_episode_steps < 2:
        return None
    how: Any = (model, env_id, env_kwargs, split)
    path = gather_looks(*how, frame_stack=frame_stack).mean_path
    return round(gather_looks(*how, instead=path, frame_stack=frame_stack).error, 4)


def watch_episode(
    model: BaseAlgorithm, env_id: str, env_kwargs: dict[str, Any], split: str, index: int, frame_stack: int = 1
) -> tuple[list[Frame], NDArray[np.float32] | None]:
    """Run a model on one image of a split, or on the game with the seed `index`.

    Returns:
        T + 1 frames, one before each action and one after the last; and for a model with a saliency (`location_input`) its scores
        (T, k, m, m) of the retina's cells, the narrowest patch first, else None.

    Raises:
        ValueError: the environment is not seen through a retina of `ram_envs`, or there is no such image.
    """
    task = _task_of(make_vec_env(env_id, **env_kwargs), env_id)
    options = {"index": index} if task.num_images else None
    env: Any = gym.make(env_id, **{**env_kwargs, **task.evaluation(split).env_kwargs})
    saliency = getattr(getattr(model, "acting_policy", None), "saliency", None)
    scores: list[torch.Tensor] = []  # (1, k m m) each
    hook = saliency and saliency.register_forward_hook(lambda module, inputs, _: scores.append(module.scores(*inputs)))
    actions = play(model, env, seed=index, options=options, frame_stack=frame_stack)
    frames = [env.unwrapped.frame(action=action) for action in actions]
    if not hook:
        return frames, None
    hook.remove()
    num_scales, size = len(frames[0].look.glimpse), -(-frames[0].look.glimpse.shape[-1] // 2)
    return frames, torch.cat(scores).reshape(-1, num_scales, size, size).cpu().numpy()


def describe_episode(frames: Sequence[Frame], scores: NDArray | None) -> Measured:
    """What `watch_episode` gives, ready for JSON: the "label" (None: there is none) and, for each glimpse, what was "said" after
    it, its "locations" in [-1, 1] and, with scores, column and row of the "most_salient" place, the middle of the best cell.
    """
    last, looks = frames[-1], [frame.look for frame in frames[:-1] if frame.look is not None]
    measured: Measured = {"label": None if last.truth is None else last.names[last.truth]}
    measured["said"] = [last.names[frame.choice] for frame in frames[1:] if frame.choice is not None]
    measured["locations"] = _rounded(np.stack([look.location for look in looks]))
    if scores is not None:
        best = [np.unravel_index(one.argmax(), one.shape) for one in scores]  # Scale, row, column.
        pairs = zip(looks, best, strict=True)
        places = [look.corners[k] + (2 * np.array([column, row]) + 1) * 2**k for look, (k, row, column) in pairs]
        measured["most_salient"] = np.stack(places).tolist()
    return measured


def show_looks(
    model: BaseAlgorithm,
    env_id: str,
    env_kwargs: dict[str, Any],
    out: Path,
    *,
    split: str = "validation",
    index: Sequence[int] = (),
    frame_stack: int = 1,
    most: int | None = None,
) -> Measured:
    """Measure a split's looks and draw them: looks_<id>.png, and looks_<id>_<i>.png of each image, or game's seed, i in `index`.

    `most` is that of `gather_looks`.

    Returns:
        what `measure` says, what `describe_episode` says of each in "index", and the paths of the "pictures".

    Raises:
        ValueError: see `gather_looks` and `watch_episode`.
    """
    name, figures, shown = f"looks_{env_id.rpartition(':')[2].replace('/', '-')}", {}, []
    for one in index:  # First: whether there are such images is known at once.
        frames, scores = watch_episode(model, env_id, env_kwargs, split, one, frame_stack)
        shown.append({"index": one, **describe_episode(frames, scores)})
        label = shown[-1]["label"]
        what = f"the game with seed {one}" if label is None else f"image {one} of {split} (label {label})"
        figures[f"{name}_{one}.png"] = plot_episode(frames, scores, f"{env_id}, {what}: what is said after each glimpse")
    looks, measured = measure(model, env_id, env_kwargs, split, frame_stack=frame_stack, most=most)
    figures[f"{name}.png"] = _plot(looks, measured, f"{env_id}: looks in {len(looks.locations)} episodes of {split}")
    out.mkdir(parents=True, exist_ok=True)
    for file, figure in figures.items():
        figure.savefig(out / file, dpi=_DPI)
    return {**measured, "index": shown, "pictures": [str(out / file) for file in figures]}


class LooksCallback(BaseCallback):
    """After each evaluation, heat maps of 500 validation episodes and the glimpses of four images go to TensorBoard.

    Args:
        env_id, env_kwargs, frame_stack: of the environments that the model learns in, as for `make_vec_env`; it does nothing
            where these are not seen through a retina of `ram_envs`.
    """

    def __init__(self, env_id: str, env_kwargs: dict[str, Any], frame_stack: int = 1) -> None:
        super().__init__()
        self.env_id, self.env_kwargs, self.frame_stack = env_id, env_kwargs, frame_stack

    def _on_step(self) -> bool:
        task = find_task(self.training_env)
        if task is None:
            return True
        how: dict[str, Any] = {
            "env_id": self.env_id,
            "env_kwargs": self.env_kwargs,
            "split": "validation",
            "frame_stack": self.frame_stack,
        }
        looks = gather_looks(self.model, **how, most=_LOGGED_EPISODES)
        title = f"{self.env_id}: looks in {len(looks.locations)} episodes of validation, after {self.num_timesteps} steps"
        values: dict[str, Any] = {"looks/heat_maps": logger.Figure(_plot(looks, describe(looks), title), close=True)}
        if task.num_images:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "glimpses.png")
                indices = range(min(_LOGGED_IMAGES, len(looks.locations)))
                plot_glimpses([watch_episode(self.model, index=one, **how)[0] for one in indices], path)
                values["looks/glimpses"] = logger.Image(imread(path)[..., :3], "HWC")
        log_to_tensorboard(self.model, values)
        return True


def log_hyperparams(model: BaseAlgorithm, hyperparams: dict[str, Any], metrics: dict[str, float]) -> None:
    """Tell TensorBoard, where it is in use, what was reached with which hyperparameters: "policy_kwargs.core" is one of them."""
    flat: dict[str, Any] = {}
    for name, value in hyperparams.items():
        flat |= {f"{name}.{entry}": part for entry, part in value.items()} if isinstance(value, dict) else {name: value}
    plain = {name: value if isinstance(value, bool | int | float | str) else json.dumps(value) for name, value in flat.items()}
    log_to_tensorboard(model, {"hparams": logger.HParam(plain, metrics), **metrics})


def _plot(looks: Looks, measured: Measured, title: str) -> Figure:
    return plot_looks(looks.heat_maps(), looks.in_pixels(looks.mean_path), looks.scene_shape, measured, title)


def log_to_tensorboard(model: BaseAlgorithm, values: dict[str, Any]) -> None:
    """Write values to TensorBoard alone, where it is in use: SB3's other logs take no pictures."""
    for output in model.logger.output_formats:
        if isinstance(output, logger.TensorBoardOutputFormat):
            output.write(values, dict.fromkeys(values, ()), model.num_timesteps)


def find_task(env: VecEnv) -> Any:
    """The task behind environments that are seen through a retina of `ram_envs`; None: they are not."""
    task = env.get_attr("task")[0] if env.has_attr("task") else None
    return task if hasattr(task, "gaze") and hasattr(task, "codec") else None


def _task_of(env: VecEnv, env_id: str) -> Any:
    task = find_task(env)
    if task is None:
        raise ValueError(f"env must be seen through a retina of ram_envs, got {env_id}: there are no looks")
    return task


def _mean(values: NDArray) -> NDArray[np.float64]:
    """The mean over episodes (M, ...), without the NaN behind their ends; NaN where there is nothing else."""
    known = ~np.isnan(values)
    return np.where(known, values, 0.0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan)


def _held(locations: NDArray[np.floating]) -> NDArray[np.floating]:
    """Locations (M, T, 2) with the last one in place of the NaN behind an episode's end."""
    steps = np.where(np.isnan(locations[..., 0]), 0, np.arange(locations.shape[1]))
    return np.take_along_axis(locations, np.maximum.accumulate(steps, axis=1)[..., None], axis=1)


def _rounded(values: NDArray, decimals: int = 3) -> list[Any]:
    """As JSON has numbers; None for NaN."""
    return np.where(np.isnan(values), None, values.astype(np.float64).round(decimals)).tolist()  # type: ignore[call-overload]
