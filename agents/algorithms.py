"""The algorithms that can be trained and compared by name: ours, Stable-Baselines3's, sb3-contrib's, and the user's own."""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from agents.evaluation import has_images
from agents.loops import LoopAlgorithm
from agents.vec_env import is_location_and_choice

ANY_ACTIONS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete)
FORMATS = {"box": spaces.Box, "discrete": spaces.Discrete, "multidiscrete": spaces.MultiDiscrete}
EXTRAS = {"sb3_contrib": "contrib"}  # Packages that only some algorithms need, and the extra that brings them.


@dataclass(frozen=True)
class Algorithm:
    """How to make, load and feed an algorithm.

    Args:
        name: as in `--algo`; its settings lie in hyperparams/<name>.yml.
        summary: what it is, in one sentence.
        target: the class of a Stable-Baselines3 algorithm or where to import it from ("package:Class"), a function
            (env, seed=, **settings) that returns one, or a generator of that form, see `register_algorithm`.
        policy: the policy's name; "Input" in it stands for "MultiInput" with Dict observations and "Mlp" with others.
        actions: the action spaces that it takes.
        action_format: the format in which environments of ours are made for it, where the user names none; None: their default,
            which `make_vec_env` turns into one Box.
        settings: what makes it what it is; hyperparams/<name>.yml comes on top.
        sees_scene: it classifies the whole scene, seen at one glimpse, and learns from the labels.
        uses_labels: where there are labels it learns the class from them, not from the reward alone.
    """

    name: str
    summary: str
    target: str | Callable[..., Any]
    policy: str = "InputPolicy"
    actions: tuple[type[spaces.Space], ...] = ANY_ACTIONS
    action_format: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
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

    def env_options(self, env_id: str, env_kwargs: dict[str, Any]) -> dict[str, Any]:
        """The environment's options with what the algorithm needs.

        Raises:
            ValueError: the two don't fit; the message says what does.
        """
        if reason := self.reason_against(env_id, env_kwargs):
            raise ValueError(f"{self.name} can't learn {env_id}: {reason}")
        if self.sees_scene:
            return {**env_kwargs, **_whole_scene(self.name, env_id, env_kwargs)}
        if self.action_format and "action_format" not in env_kwargs and _has_formats(env_id, env_kwargs):
            return {**env_kwargs, "action_format": self.action_format}
        return env_kwargs

    def reason_against(self, env_id: str, env_kwargs: dict[str, Any] | None = None) -> str | None:
        """Why it can't learn this environment in any format of actions; None: it can."""
        if self.sees_scene and not has_images(env_id):
            return "it learns from the labels of whole images, and there are none"
        if not self.sees_scene:
            space = _space(env_id, env_kwargs or {})
            if not is_location_and_choice(space) and not isinstance(space, self.actions):
                return f"it takes {_names(self.actions)} actions, and {env_id} has {space}"
        return None

    def check(self, env: VecEnv) -> None:
        """See that it can act in this environment.

        Raises:
            ValueError: it can't; the message names the format of actions to use.
        """
        if not isinstance(env.action_space, self.actions):
            formats = " or ".join(f'action_format="{name}"' for name, space in FORMATS.items() if space in self.actions)
            raise ValueError(
                f"{self.name} takes {_names(self.actions)} actions, got {env.action_space}: make the environment with {formats} "
                f"(--env-kwargs action_format:{next(name for name, space in FORMATS.items() if space in self.actions)})"
            )

    def make(self, env: VecEnv, settings: dict[str, Any], seed: int, **kwargs: Any) -> BaseAlgorithm:
        """A new model; kwargs are SB3's `device` and `tensorboard_log`."""
        self.check(env)
        settings = copy.deepcopy(settings)  # Models write into their policy_kwargs.
        target: Any = self.resolve()
        if inspect.isgeneratorfunction(target):
            return LoopAlgorithm(target, env, settings, seed=seed, **kwargs)
        is_class = inspect.isclass(target)
        if not is_class:
            return target(env, seed=seed, **kwargs, **settings)
        kind = "MultiInput" if isinstance(env.observation_space, spaces.Dict) else "Mlp"
        policy = settings.get("policy", self.policy.replace("Input", kind))
        others = {name: value for name, value in settings.items() if name != "policy"}
        return target(policy, env, seed=seed, **kwargs, **others)

    def load(self, path: Any, env: VecEnv | None = None, **kwargs: Any) -> BaseAlgorithm:
        """A saved model; path and kwargs are those of SB3's `load`.

        Raises:
            ValueError: the algorithm is a function that makes models, and there is no environment to make one for.
        """
        target: Any = self.resolve()
        if inspect.isgeneratorfunction(target):
            return LoopAlgorithm.load(path, env=env, **kwargs)
        if not inspect.isclass(target):
            if env is None:
                raise ValueError(f"to load a model of {self.name!r} takes an environment: pass env")
            target = type(target(env, seed=0, **self.settings))
        return target.load(path, env=env, **kwargs)


def register_algorithm(name: str, target: Any = None, summary: str = "", **kwargs: Any) -> Any:
    """Let `train_agent.py --algo` and the comparison know an algorithm; as a decorator where `target` is left out.

    A class of a Stable-Baselines3 algorithm, or a function (env, seed=, **settings) that returns a model, is used as it is. A
    generator function of that form is a training loop of your own: it acts in `env`, an SB3 `VecEnv`, learns, and every so often
    yields (steps so far, predict), where predict(observations, state, episode_start, deterministic) gives (actions, state).

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
    """The algorithm of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in _ALGORITHMS:
        raise ValueError(f"algo must be one of {algorithm_names()}, got {name!r}")
    return _ALGORITHMS[name]


def algorithm_names() -> tuple[str, ...]:
    """All that can be had by name."""
    return tuple(_ALGORITHMS)


def _has_formats(env_id: str, env_kwargs: dict[str, Any]) -> bool:
    """Whether the environment offers its actions in several formats."""
    return is_location_and_choice(_space(env_id, env_kwargs))


def _space(env_id: str, env_kwargs: dict[str, Any]) -> spaces.Space:
    """The actions in the environment's own format."""
    others = ("action_format", "frame_stack")  # The second is `make_vec_env`'s.
    env = gym.make(env_id, **{name: value for name, value in env_kwargs.items() if name not in others})
    env.close()
    return env.action_space


def _names(actions: tuple[type[spaces.Space], ...]) -> str:
    return " or ".join(space.__name__ for space in actions)


def _whole_scene(name: str, env_id: str, env_kwargs: dict[str, Any]) -> dict[str, Any]:
    """The options that show the scene at one glimpse, as wide as it is."""
    fixed = {"num_scales": 1, "num_glimpses": 1, "initial_location": "center"}
    for option in (*fixed, "glimpse_size"):
        if option in env_kwargs:
            raise ValueError(f"{name} sees the whole scene at one glimpse: leave {option}={env_kwargs[option]!r} out")
    env = gym.make(env_id, **env_kwargs)
    task: Any = env.unwrapped
    height, width = task.task.scene_maker.shape[-2:]
    env.close()
    return {**fixed, "glimpse_size": max(height, width)}


_ALGORITHMS: dict[str, Algorithm] = {}

register_algorithm(
    "ram",
    "agents.ram:RAM",
    "The recurrent attention agent, location learned by REINFORCE.",
    policy="RAMPolicy",
    uses_labels=True,
)
register_algorithm(
    "ram_random",
    "agents.ram:RAM",
    "The recurrent attention agent that looks at random places.",
    policy="RAMPolicy",
    settings={"location_policy": "random"},
    uses_labels=True,
)
for _name, _summary, _layers in (
    ("fc64", "Two layers of 64 units that see the whole scene (the paper's FC 2x64).", ("fc", 64, 64)),
    ("fc256", "Two layers of 256 units that see the whole scene (the paper's FC 2x256).", ("fc", 256, 256)),
    ("conv", "8 filters of 10x10 at stride 5, then 256 units, on the whole scene (the paper's conv).", ("conv", 8, 256)),
    ("cnn", "A small modern residual CNN on the whole scene: what can be had without a narrow gaze.", ("cnn", 16, 128)),
):
    _network, _hidden, _core = _layers
    register_algorithm(
        _name,
        "agents.ram:RAM",
        _summary,
        policy="RAMPolicy",
        sees_scene=True,
        uses_labels=True,
        settings={"policy_kwargs": {"glimpse_network": _network, "core": "none", "hidden_size": _hidden, "core_size": _core}},
    )
register_algorithm(
    "episode_ppo",
    "agents.episodes:EpisodePPO",
    "PPO with a recurrent core over whole episodes (ours), location on a grid.",
    policy="RecurrentPolicy",
    action_format="multidiscrete",
)
register_algorithm(
    "episode_a2c",
    "agents.episodes:EpisodeA2C",
    "A2C with a recurrent core over whole episodes (ours), location on a grid.",
    policy="RecurrentPolicy",
    action_format="multidiscrete",
)
register_algorithm(
    "recurrent_ppo",
    "sb3_contrib:RecurrentPPO",
    "sb3-contrib's PPO with an LSTM, location on a grid.",
    policy="InputLstmPolicy",
    action_format="multidiscrete",
)
register_algorithm("ppo", "stable_baselines3:PPO", "SB3's PPO, location on a grid.", action_format="multidiscrete")
register_algorithm("a2c", "stable_baselines3:A2C", "SB3's A2C, location on a grid.", action_format="multidiscrete")
register_algorithm(
    "dqn",
    "stable_baselines3:DQN",
    "SB3's DQN, location and class as one number.",
    actions=(spaces.Discrete,),
    action_format="discrete",
)
for _name in ("sac", "td3"):
    register_algorithm(
        _name,
        f"stable_baselines3:{_name.upper()}",
        f"SB3's {_name.upper()}, location and scores as one Box.",
        actions=(spaces.Box,),
        action_format="box",
    )
