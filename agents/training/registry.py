"""The algorithms that can be trained and compared by name: ours, Stable-Baselines3's, sb3-contrib's, and the user's own."""

from __future__ import annotations

import copy
import importlib
import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import yaml
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from ram_envs import DictActions, env_defaults, parse_pairs

from ..recurrent import old_names
from .generator import GeneratorAlgorithm

PROJECT = Path(__file__).resolve().parents[2]
_INSTALLED = PROJECT / "agents" / "hyperparams"
HYPERPARAMS = _INSTALLED if _INSTALLED.is_dir() else PROJECT / "hyperparams"
# rl_zoo3 evaluates in environments without the env_kwargs of its files, so those hold the format of actions as a wrapper.
ACTION_WRAPPER = "ram_envs.actions.ActionFormat"
ANY_ACTIONS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete)
FORMATS = {"box": spaces.Box, "discrete": spaces.Discrete, "multidiscrete": spaces.MultiDiscrete}
EXTRAS = {"sb3_contrib": "contrib"}  # Packages that only some algorithms need, and the extra that brings them.
# Whose hyperparameters other environments with glimpses take: those with labels, and the rest.
OWN_IMAGES, GAMES = "GlimpseClassification-v0", "GlimpseCatch-v0"
_MNIST = ("mnist", "mnist-5k")  # For whose glimpses the files have mean and deviation.
_SMALL_GLIMPSE, _FINE_GLIMPSE, _LARGE_SCENE = 8, 12, 40  # Pixels to a side; the finer one for scenes of the last and above.
_IN_SIGHT = 0.65  # The widest patch is at least this share of the scene's longer side.
_EPOCHS = 10  # At least, of images of one's own.
_SHORTEST_ROLLOUT = 16
WHOLE_SCENE = {"num_scales": 1, "num_glimpses": 1, "initial_location": "center", "glimpse_size": "scene"}


@dataclass(frozen=True)
class Algorithm:
    """How to make, load and feed an algorithm.

    Args:
        name: as in `--algo`; its hyperparameters lie in hyperparams/<name>.yml.
        summary: what it is, in one sentence.
        target: the class of a Stable-Baselines3 algorithm or where to import it from ("package:Class"), a function
            (env, seed=, **hyperparams) that returns one, or a generator of that form, see `register_algorithm`.
        policy: the policy's name; "Input" in it stands for "MultiInput" with Dict observations and "Mlp" with others.
        actions: the action spaces that it takes.
        action_format: the format in which environments of ours are made for it, where the user names none; None: their default,
            which `make_vec_env` offers as one Box.
        hyperparams: those that define it; hyperparams/<name>.yml comes on top.
        sees_scene: it classifies the whole scene, seen at one glimpse, and learns from the labels.
        uses_labels: where there are labels it learns the class from them, not from the reward alone.
    """

    name: str
    summary: str
    target: str | Callable[..., Any]
    policy: str = "InputPolicy"
    actions: tuple[type[spaces.Space], ...] = ANY_ACTIONS
    action_format: str | None = None
    hyperparams: dict[str, Any] = field(default_factory=dict)
    sees_scene: bool = False
    uses_labels: bool = False

    def resolve(self) -> Callable[..., Any]:
        """The class or function.

        Raises:
            ImportError: it needs a package that is not installed; the message names the `pip install`.
        """
        if not isinstance(self.target, str):
            return self.target
        module, name = self.target.split(":")
        try:
            return getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            package = module.partition(".")[0]
            raise ImportError(
                f"the algorithm {self.name!r} needs the package {package}: pip install 'ram-envs[{EXTRAS.get(package, 'train')}]'"
            ) from error

    def env_kwargs(self, env_id: str, env_kwargs: dict[str, Any]) -> dict[str, Any]:
        """The environment's options with what the algorithm needs; makes no environment.

        Raises:
            ValueError: the two don't fit; the message says why.
        """
        defaults = env_defaults(env_id)
        if not self.sees_scene:
            # An id may have a format of its own, such as GlimpseMNISTDiscrete-v0.
            is_free = self.action_format and defaults.get("action_format") == "dict"
            return {**({"action_format": self.action_format} if is_free else {}), **env_kwargs}
        for option in WHOLE_SCENE:
            if option not in defaults:
                raise ValueError(f"{self.name} can't learn {env_id}: it needs an option {option} to see the whole scene at once")
            if option in env_kwargs:
                raise ValueError(f"{self.name} sees the whole scene at one glimpse: leave {option}={env_kwargs[option]!r} out")
        return {**env_kwargs, **WHOLE_SCENE}

    def rollout(self, settings: Settings, n_envs: int) -> dict[str, int]:
        """{"n_steps"}, where there are no settings: SB3's own default is meant for one environment, and so divided by n_envs."""
        target: Any = None if settings.hyperparams else self.resolve()
        default = inspect.signature(target).parameters.get("n_steps") if inspect.isclass(target) else None
        if default is None or not isinstance(default.default, int):
            return {}
        steps = max(default.default // n_envs, min(default.default, _SHORTEST_ROLLOUT))
        settings.source += f", with n_steps={steps} for {n_envs} environments" if steps != default.default else ""
        return {"n_steps": steps}

    def reason_against(self, action_space: spaces.Space, has_labels: bool) -> str | None:
        """Why it can't learn in an environment, or None.

        Args:
            action_space: of a single environment. `DictActions` fit every algorithm: the environment has all formats of actions.
            has_labels: whether the environment tells the right first choice at every step.
        """
        if self.sees_scene and not has_labels:
            return "it learns from the labels of whole images, and there are none"
        if isinstance(action_space, (DictActions, *self.actions)):
            return None
        names = " or ".join(space.__name__ for space in self.actions)
        formats = " or ".join(f"action_format:{name}" for name, space in FORMATS.items() if space in self.actions)
        return f"it takes {names} actions, got {action_space}; some environments have others with --env-kwargs {formats}"

    def make(self, env: VecEnv, hyperparams: dict[str, Any], seed: int, **kwargs: Any) -> BaseAlgorithm:
        """A new model; kwargs are SB3's `device` and `tensorboard_log`.

        Raises:
            ValueError: it can't learn in this environment; the message says why.
        """
        needs_labels = self.sees_scene and env.has_attr("has_labels")
        if reason := self.reason_against(env.action_space, needs_labels and env.get_attr("has_labels")[0]):
            raise ValueError(f"{self.name} can't learn in this environment: {reason}")
        hyperparams = copy.deepcopy(hyperparams)  # Models write into their policy_kwargs.
        target: Any = self.resolve()
        if inspect.isgeneratorfunction(target):
            return GeneratorAlgorithm(target, env, hyperparams, seed=seed, **kwargs)
        is_class = inspect.isclass(target)
        if not is_class:
            return target(env, seed=seed, **kwargs, **hyperparams)
        kind = "MultiInput" if isinstance(env.observation_space, spaces.Dict) else "Mlp"
        policy = hyperparams.pop("policy", self.policy.replace("Input", kind))
        return target(policy, env, seed=seed, **kwargs, **hyperparams)

    def load(self, path: Any, env: VecEnv | None = None, **kwargs: Any) -> BaseAlgorithm:
        """A saved model; path and kwargs are those of SB3's `load`.

        Raises:
            ValueError: the algorithm is a function that makes models, and there is no environment to make one for.
        """
        target: Any = self.resolve()
        if inspect.isgeneratorfunction(target):
            return GeneratorAlgorithm.load(path, env=env, **kwargs)
        if not inspect.isclass(target):
            if env is None:
                raise ValueError(f"loading a model of {self.name!r} takes an environment: pass env")
            target = type(target(env, seed=0, **self.hyperparams))
        with old_names():
            return target.load(path, env=env, **kwargs)


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
        for name, how in _HOW.items():
            if re.sub(r"\..*:", ":", how["target"]) in classes:
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


def register_algorithm(name: str, target: Any = None, summary: str = "", **kwargs: Any) -> Any:
    """Let `train_agent.py --algo` and the comparison know an algorithm; a decorator where `target` is left out.

    A class of a Stable-Baselines3 algorithm, or a function (env, seed=, **hyperparams) that returns a model, is used as it is. A
    generator function of that form is a training loop of your own: it acts in `env`, an SB3 `VecEnv`, learns, and from time to
    time yields (steps so far, predict), where predict(observations, state, episode_start, deterministic) gives (actions, state).

    Args:
        name: how it will be called.
        target: the algorithm.
        summary: what it is, in one sentence; by default the first line of its docstring.
        **kwargs: see `Algorithm`.

    Raises:
        ValueError: there is an algorithm of this name, or an unknown format of actions.
    """
    if name in _ALGORITHMS:
        raise ValueError(f"name must be new, there is an algorithm {name!r} already")
    if kwargs.get("action_format") not in (None, *FORMATS):
        raise ValueError(f"action_format must be one of {tuple(FORMATS)} or None, got {kwargs['action_format']!r}")
    if target is None:
        return lambda function: register_algorithm(name, function, summary, **kwargs)
    docstring = "" if isinstance(target, str) else inspect.getdoc(target) or ""
    _ALGORITHMS[name] = Algorithm(name, summary or docstring.partition("\n")[0], target, **kwargs)
    return target


def get_algorithm(name: str) -> Algorithm:
    """The algorithm of this name; "module:Class" names one that nobody has registered, as `register_algorithm` takes it.

    Raises:
        ValueError: there is none.
        ImportError: there is no such module.
    """
    if name not in _ALGORITHMS and ":" in name:
        module, _, attribute = name.partition(":")
        if not callable(getattr(importlib.import_module(module), attribute, None)):
            raise ValueError(f"algo must be a class or a function of the module {module}, got {name!r}")
        register_algorithm(name, name)
    if name not in _ALGORITHMS:
        raise ValueError(f"algo must be one of {algorithm_names()}, got {name!r}")
    return _ALGORITHMS[name]


def algorithm_names() -> tuple[str, ...]:
    """The names of all algorithms."""
    return tuple(_ALGORITHMS)


def _whole_scene(glimpse_network: str, hidden_size: int, core_size: int) -> dict[str, Any]:
    look = {"glimpse_network": glimpse_network, "core": "none", "hidden_size": hidden_size, "core_size": core_size}
    return {**_RAM, "sees_scene": True, "hyperparams": {"policy_kwargs": look}}


_RAM = {"target": "ram_envs.agents.ram:RAM", "policy": "RAMPolicy", "uses_labels": True}
_GRID = {"action_format": "multidiscrete"}
_BOX = {"actions": (spaces.Box,), "action_format": "box"}
_HOW: dict[str, dict[str, Any]] = {
    "ram": _RAM,
    "ram_random": {**_RAM, "hyperparams": {"policy_kwargs": {"location_policy": "random"}}},
    "fc64": _whole_scene("fc", 64, 64),
    "fc256": _whole_scene("fc", 256, 256),
    "conv": _whole_scene("conv", 8, 256),
    "cnn": _whole_scene("cnn", 16, 128),
    "episode_ppo": {"target": "ram_envs.agents.episode_ppo:EpisodePPO", "policy": "RecurrentPolicy", **_GRID},
    "episode_a2c": {"target": "ram_envs.agents.episode_ppo:EpisodeA2C", "policy": "RecurrentPolicy", **_GRID},
    "recurrent_ppo": {"target": "sb3_contrib:RecurrentPPO", "policy": "InputLstmPolicy", **_GRID},
    "ppo": {"target": "stable_baselines3:PPO", **_GRID},
    "a2c": {"target": "stable_baselines3:A2C", **_GRID},
    "dqn": {"target": "stable_baselines3:DQN", "actions": (spaces.Discrete,), "action_format": "discrete"},
    "sac": {"target": "stable_baselines3:SAC", **_BOX},
    "td3": {"target": "stable_baselines3:TD3", **_BOX},
}
_SUMMARIES = {
    "ram": "The recurrent attention agent, location learned by REINFORCE.",
    "ram_random": "The recurrent attention agent that looks at random places.",
    "fc64": "Two layers of 64 units that see the whole scene (the paper's FC 2x64).",
    "fc256": "Two layers of 256 units that see the whole scene (the paper's FC 2x256).",
    "conv": "8 filters of 10x10 at stride 5, then 256 units, on the whole scene (the paper's conv).",
    "cnn": "A small modern residual CNN on the whole scene: what can be reached without a narrow gaze.",
    "episode_ppo": "PPO with a recurrent core over whole episodes (ours), location on a grid.",
    "episode_a2c": "A2C with a recurrent core over whole episodes (ours), location on a grid.",
    "recurrent_ppo": "sb3-contrib's PPO with an LSTM, location on a grid.",
    "ppo": "SB3's PPO, location on a grid.",
    "a2c": "SB3's A2C, location on a grid.",
    "dqn": "SB3's DQN, location and class as one number.",
    "sac": "SB3's SAC, location and scores as one Box.",
    "td3": "SB3's TD3, location and scores as one Box.",
}
_ALGORITHMS = {name: Algorithm(name, summary, **_HOW[name]) for name, summary in _SUMMARIES.items()}


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
