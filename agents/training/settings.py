"""The hyperparameters for an environment: out of hyperparams/<algo>.yml, or the nearest ones, fitted to its scenes and images."""

from __future__ import annotations

import inspect
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import yaml

from ram_envs import env_defaults, parse_pairs

from .registry import TARGETS, Algorithm

PROJECT = Path(__file__).resolve().parents[2]
_INSTALLED = PROJECT / "agents" / "hyperparams"
HYPERPARAMS = _INSTALLED if _INSTALLED.is_dir() else PROJECT / "hyperparams"
# rl_zoo3 evaluates in environments without the env_kwargs of its files, so those hold the format of actions as a wrapper.
ACTION_WRAPPER = "ram_envs.actions.ActionFormat"
# Whose hyperparameters other environments with glimpses take: those with labels, and the rest.
OWN_IMAGES, GAMES = "GlimpseClassification-v0", "GlimpseCatch-v0"
_MNIST = ("mnist", "mnist-5k")  # For whose glimpses the files have mean and deviation.
_SMALL_GLIMPSE, _FINE_GLIMPSE, _LARGE_SCENE = 8, 12, 40  # Pixels to a side; the finer one for scenes of the last and above.
_IN_SIGHT = 0.65  # The widest patch is at least this share of the scene's longer side.
_EPOCHS = 10  # At least, of images of one's own.
_SHORTEST_ROLLOUT = 16


@dataclass
class Settings:
    """Hyperparameters for an environment as a file has them, and in words where they come from if that is not plain."""

    hyperparams: dict[str, Any]
    source: str = ""


def find_settings(algorithm: Algorithm, env_id: str, own: dict[str, Any], env_kwargs: dict[str, Any]) -> Settings:
    """The hyperparameters for an environment, its own or the nearest ones.

    An algorithm without a file takes that of the class which it is made from. An environment without an entry takes that of the
    id with other actions and flat observations, or if there are glimpses that of `OWN_IMAGES` or, without labels, `GAMES`. For
    images that are not MNIST the mean and deviation of the glimpses are measured. With the entry of `OWN_IMAGES` training takes
    `_EPOCHS` epochs at least, and in that environment itself the glimpses fit the scene, where `env_kwargs` name none.

    Args:
        algorithm: the algorithm.
        env_id: the environment.
        own: what the algorithm's file has for it; {} for nothing.
        env_kwargs: the user's options of the environment.
    """
    has_other_images = env_kwargs.get("dataset", _MNIST[0]) not in _MNIST
    if own and env_id != OWN_IMAGES and not has_other_images:
        return Settings(own)
    file, defaults, hyperparams, used, said = _file_of(algorithm), env_defaults(env_id), own, env_id, []
    if not hyperparams and defaults:
        hyperparams, used = _nearest(file, env_id, defaults, env_kwargs)
        said = [f"hyperparameters of {file.stem} for {used}"]
    if not hyperparams:
        return Settings({}, f"the algorithm's own defaults, as hyperparams/ has nothing for {algorithm.name} here")
    if used not in (OWN_IMAGES, GAMES) and not has_other_images:
        return Settings(hyperparams, said[0])
    options = {**hyperparams.get("env_kwargs", {}), **env_kwargs}
    env: Any = gym.make(env_id, **options).unwrapped
    if used == OWN_IMAGES:
        steps = 1 if algorithm.sees_scene else env.spec.max_episode_steps
        hyperparams["n_timesteps"] = max(
            hyperparams.get("n_timesteps", 1_000_000), _EPOCHS * (env.num_images or 0) * (steps or 0)
        )
    if env_id == OWN_IMAGES and not algorithm.sees_scene:
        said.append(_fit_glimpses(hyperparams, env.scene_shape, env_kwargs))
        env = gym.make(env_id, **{**options, **hyperparams["env_kwargs"]}).unwrapped
    try:
        mean, stds = env.glimpse_statistics()
    except ValueError:  # A task that measures none.
        mean, stds = 0.0, [1.0]
    mean, std = round(mean, 3), [max(round(std, 3), 0.001) for std in stds]
    if _set_statistics(hyperparams, {"glimpse_mean": mean, "glimpse_std": std if len(std) > 1 else std[0]}):
        said.append(f"glimpses have mean {mean} and deviation {std}")
    return Settings(hyperparams, "; ".join(said))


def rollout(algorithm: Algorithm, settings: Settings, n_envs: int) -> dict[str, int]:
    """{"n_steps"}, where there are no settings: SB3's own default is meant for one environment, and so divided by n_envs."""
    target: Any = None if settings.hyperparams else algorithm.resolve()
    default = inspect.signature(target).parameters.get("n_steps") if inspect.isclass(target) else None
    if default is None or not isinstance(default.default, int):
        return {}
    steps = max(default.default // n_envs, min(default.default, _SHORTEST_ROLLOUT))
    settings.source += f", with n_steps={steps} for {n_envs} environments" if steps != default.default else ""
    return {"n_steps": steps}


def read_file(path: Path, env_id: str, preset: str | None = None) -> dict[str, Any]:
    """The hyperparameters for one environment out of a file in rl_zoo3's form; {} where there are none.

    Of rl_zoo3's "env_wrapper" only `ACTION_WRAPPER` is known, and read as the env_kwargs that it stands for.

    Args:
        path: the file.
        env_id: the environment; of "module:id" the id counts.
        preset: other hyperparameters for it, which the file holds as "<env_id>/<preset>".

    Raises:
        ValueError: the file has no such preset, or names another wrapper, which natively batched environments can't have.
    """
    env_id = env_id.rpartition(":")[2]
    try:
        entries = (yaml.safe_load(path.read_text("utf-8")) if path.exists() else None) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    if not isinstance(entries, dict) or not all(isinstance(name, str) and isinstance(entries[name], dict) for name in entries):
        raise ValueError(f"{path} must hold hyperparameters for each environment, id: {{name: value}}, got {entries!r}")
    if preset is not None and f"{env_id}/{preset}" not in entries:
        known = [name.removeprefix(f"{env_id}/") for name in entries if name.startswith(f"{env_id}/")]
        raise ValueError(f"preset must be one of those that {path.name} has for {env_id}, {known or 'none'}, got {preset!r}")
    hyperparams = dict(entries.get(f"{env_id}/{preset}" if preset else env_id, {}))
    written = [f"{name}:{value}" for name, value in hyperparams.items() if isinstance(value, str) and value.startswith("dict(")]
    hyperparams |= parse_pairs(written)  # "dict(net_arch=[64, 64])", as rl_zoo3 has it.
    wrappers, env_kwargs = hyperparams.pop("env_wrapper", []), hyperparams.get("env_kwargs", {})
    fits = isinstance(wrappers, list) and all(isinstance(one, dict) and list(one) == [ACTION_WRAPPER] for one in wrappers)
    if not fits or not all(isinstance(one[ACTION_WRAPPER], dict) for one in wrappers):
        raise ValueError(f"env_wrapper must be a list of {ACTION_WRAPPER}: {{action_format: ...}} alone, got {wrappers!r}")
    if not isinstance(env_kwargs, dict):
        raise ValueError(f"env_kwargs in {path} must be names and values, got {env_kwargs!r}")
    for one in wrappers:
        hyperparams["env_kwargs"] = {**one[ACTION_WRAPPER], **hyperparams.get("env_kwargs", {})}
    return hyperparams


def _nearest(file: Path, env_id: str, defaults: dict[str, Any], env_kwargs: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The hyperparameters that a file has for the id most like this one, and that id."""
    used = re.sub(r"(Box|Discrete)-v", "-v", env_id.rpartition(":")[2])
    hyperparams = read_file(file, used)
    if not hyperparams and "glimpse_size" in defaults:
        has_labels = getattr(gym.make(env_id, **env_kwargs).unwrapped, "has_labels", False)
        used = OWN_IMAGES if has_labels else GAMES
        hyperparams = read_file(file, used)
    own_format = defaults.get("action_format") != "dict"
    if own_format:
        hyperparams.pop("policy", None)  # That for flat observations is another.
    options = {name: value for name, value in hyperparams.pop("env_kwargs", {}).items() if name in defaults}
    if own_format:
        options.pop("action_format", None)
    return hyperparams | ({"env_kwargs": options} if options else {}), used


def _file_of(algorithm: Algorithm) -> Path:
    """Its own file, or that of the first of our algorithms from whose class it is made."""
    own = HYPERPARAMS / f"{algorithm.name}.yml"
    target: Any = None if own.exists() else algorithm.resolve()
    if inspect.isclass(target):
        classes = [f"{one.__module__.partition('.')[0]}:{one.__name__}" for one in target.__mro__]
        for name, where in TARGETS.items():
            if re.sub(r"\..*:", ":", where) in classes:
                return HYPERPARAMS / f"{name}.yml"
    return own


def _fit_glimpses(hyperparams: dict[str, Any], shape: tuple[int, ...], env_kwargs: dict[str, Any]) -> str:
    """Set `glimpse_size` and `num_scales` for scenes of a shape ([C,] H, W), where the user's options name none; says so."""
    longer = max(shape[-2:])
    size = env_kwargs.get("glimpse_size", _FINE_GLIMPSE if longer >= _LARGE_SCENE else _SMALL_GLIMPSE)
    first = longer if size == "scene" else size
    scales = env_kwargs.get("num_scales", 1 + max(math.ceil(math.log2(_IN_SIGHT * longer / first)), 0))
    hyperparams["env_kwargs"] = {**hyperparams.get("env_kwargs", {}), "glimpse_size": size, "num_scales": scales}
    return f"{scales} patches of {size}x{size} pixels for scenes of {'x'.join(map(str, shape[-2:]))}"


def _set_statistics(hyperparams: dict[str, Any], values: dict[str, Any]) -> bool:
    """Set "glimpse_mean" and "glimpse_std" wherever they are; returns whether they are anywhere."""
    is_set = False
    for name, value in hyperparams.items():
        if name in values:
            hyperparams[name], is_set = values[name], True
        elif isinstance(value, dict):
            is_set |= _set_statistics(value, values)
    return is_set
