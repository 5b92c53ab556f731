"""The algorithms that can be trained and compared by name: ours, Stable-Baselines3's, sb3-contrib's, and the user's own."""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from ram_envs import DictActions, env_defaults

from ..recurrent import old_names
from .generator import GeneratorAlgorithm

ANY_ACTIONS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete)
FORMATS = {"box": spaces.Box, "discrete": spaces.Discrete, "multidiscrete": spaces.MultiDiscrete}
EXTRAS = {"sb3_contrib": "contrib"}  # Packages that only some algorithms need, and the extra that brings them.
WHOLE_SCENE = {"num_scales": 1, "num_glimpses": 1, "initial_location": "center", "glimpse_size": "scene"}

# What `Algorithm.make` itself gives an algorithm.
_NOT_HYPERPARAMS = ("policy", "env", "seed", "device", "tensorboard_log", "_init_setup_model")


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
            ValueError: it can't learn in this environment, or has no hyperparameter of a name; the message says why.
        """
        self._check_names(hyperparams)
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

    def _check_names(self, hyperparams: dict[str, Any]) -> None:
        parameters = inspect.signature(self.resolve()).parameters
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            return
        known = [name for name in parameters if name not in _NOT_HYPERPARAMS]
        if unknown := [name for name in hyperparams if name not in (*known, "policy")]:
            raise ValueError(f"{unknown[0]} is not a hyperparameter of {self.name}: {', '.join(known)}")

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
        try:
            target = getattr(importlib.import_module(module), attribute, None)
        except (ModuleNotFoundError, TypeError, ValueError) as error:  # The last two for names such as "" and ".a".
            raise ModuleNotFoundError(f"algo={name!r} can't be imported: {error}") from error
        if not callable(target):
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
TARGETS = {name: how["target"] for name, how in _HOW.items()}  # The classes of those that come with the package.
_ALGORITHMS = {name: Algorithm(name, summary, **_HOW[name]) for name, summary in _SUMMARIES.items()}
