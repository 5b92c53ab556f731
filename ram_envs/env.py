"""Gymnasium's environments of a task: what they share, and `GlimpseEnv`, the batch of one."""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

from ram_envs.catch import Catch, GlimpseCatch
from ram_envs.classification import GlimpseClassification
from ram_envs.frame import Frame
from ram_envs.rendering import RENDER_MODES, Renderer
from ram_envs.sampling import draw_keys
from ram_envs.task import Evaluation, Task

_TASKS: dict[str, type[Task]] = {"classification": GlimpseClassification, "catch": GlimpseCatch, "whole-catch": Catch}
_KINDS: dict[Any, tuple[str, tuple[type, ...]]] = {  # Of options: how they are called, and what is taken for one.
    int: ("a whole number", (int, np.integer)),
    float: ("a number", (int, float, np.integer, np.floating)),
    bool: ("True or False", (bool, np.bool_)),
    str: ("text", (str,)),
}
_EVERY = np.ones(1, np.bool_)
_KEYS = {"left": 0x40000050, "right": 0x4000004F}  # SDL's numbers of the arrow keys.
_LOCATION_KEYS = ("qwe", "asd", "zxc")  # Where each lies on the keyboard, the gaze goes in the scene.


def register_task(name: str, task_class: type[Task]) -> None:
    """Give a task a name, in this process, by which environments of it are made; see `ram_envs.task`.

    Raises:
        ValueError: the name is taken.
        TypeError: not a class made from `Task`.
    """
    if name in _TASKS and _TASKS[name] is not task_class:
        raise ValueError(f"name must be a new one, got {name!r}: there is such a task already")
    if not (isinstance(task_class, type) and issubclass(task_class, Task)):
        raise TypeError(f"task_class must be a class made from ram_envs.Task, got {task_class!r}")
    _TASKS[name] = task_class


def register_env(env_id: str, task_class: type[Task], *, reward_threshold: float | None = None, **options: Any) -> None:
    """Register a task of your own as an environment, in this process: for `gymnasium.make`, `make_vec` and `train_agent.py`.

    Args:
        env_id: such as "SumMNIST-v0".
        task_class: see `ram_envs.Task`.
        reward_threshold: the mean reward at which the task counts as solved; None: none is said.
        **options: of the task, in place of its constructor's defaults.

    Raises:
        ValueError: there is a task of this name already, or the task has no such option.
        TypeError: not a class made from `Task`.
    """
    register_task(env_id, task_class)
    if unknown := sorted(set(options) - set(_parameters(task_class))):
        raise ValueError(f"{unknown[0]} is not an option of {task_class.__name__}: {', '.join(_parameters(task_class))}")
    gym.register(
        env_id,
        entry_point="ram_envs.env:GlimpseEnv",
        vector_entry_point="ram_envs.vector_env:GlimpseVectorEnv",
        reward_threshold=reward_threshold,
        kwargs={"task": env_id, **options},
    )


def env_defaults(env_id: str) -> dict[str, Any]:
    """Every option of a registered id with its default, and no environment made; {} for environments of others.

    Raises:
        gymnasium.error.NameNotFound: there is no such id.
    """
    module, _, name = env_id.rpartition(":")
    if module:  # As `gymnasium.make` takes ids.
        importlib.import_module(module)
    spec = gym.spec(name)
    if spec.entry_point not in ("ram_envs.env:GlimpseEnv", GlimpseEnv):
        return {}
    made_with = dict(spec.kwargs)
    parameters = _parameters(_TASKS[made_with.pop("task", "classification")])
    made_with.pop("flatten_observation", None)
    return {name: parameter.default for name, parameter in parameters.items()} | made_with


_YAML_WORDS = {"true": True, "false": False, "null": None}


def parse_pairs(pairs: Iterable[str]) -> dict[str, Any]:
    """Options as they are written on a command line: ["size:12", "name:x"] as {"size": 12, "name": "x"}: a value is a Python
    literal, a "dict(net_arch=[64, 64])" of such as rl_zoo3 writes it, true, false or null as in YAML, or else text.

    Raises:
        ValueError: a name or the colon is missing, or a dict(...) holds something else than literals.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        name, colon, text = pair.partition(":")
        if not name or not colon:
            raise ValueError(f"{pair!r} must have the form NAME:VALUE")
        try:
            values[name] = ast.literal_eval(_CallsOfDict().visit(ast.parse(text.strip(), mode="eval")))
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            if text.lstrip().startswith("dict("):
                raise ValueError(f"{pair!r} must hold numbers, text, lists and dicts alone: no code is run") from error
            values[name] = _YAML_WORDS.get(text.strip(), text)
    return values


class _CallsOfDict(ast.NodeTransformer):
    """Turns `dict(a=1)`, as rl_zoo3 writes it, into the literal `{"a": 1}`."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        names = [keyword.arg for keyword in node.keywords]
        if not isinstance(node.func, ast.Name) or node.func.id != "dict" or node.args or None in names:
            return node
        return ast.Dict([ast.Constant(name) for name in names], [keyword.value for keyword in node.keywords])


class TaskEnv:
    """What the environments of one and of N share: they tell of their task by these names.

    Attributes:
        task: the rules.
        spec: Gymnasium's, with the length of the longest episode as `max_episode_steps`.
        scene_shape, choices, choice_names, has_labels, success_name, dataset, split, num_images: the task's, see `ram_envs.Task`.
    """

    _renderer: Renderer | None = None  # Gymnasium closes what could not be made, too.
    _spec: EnvSpec | None = None
    _time_limit: int | None = None  # The user's own.

    def _take_up(
        self, task: str, num_envs: int, options: dict[str, Any], render_mode: str | None, flatten_observation: bool
    ) -> None:
        if render_mode is not None and render_mode not in RENDER_MODES:
            raise ValueError(f"render_mode must be None or one of {RENDER_MODES}, got {render_mode!r}")
        self.render_mode = render_mode
        self.task = _make_task(task, num_envs, options)
        self._space, self._observe = self.task.observation_space, self.task.observe  # Of a single environment; (N, ...).
        if _check_kind("flatten_observation", flatten_observation, bool):
            self._space, self._observe = spaces.flatten_space(self._space), self._observe_flat
        self.metadata: dict[str, Any] = {"render_modes": [*RENDER_MODES], "render_fps": self.task.render_fps}
        self.scene_shape, self.choices, self.choice_names = self.task.scene_shape, self.task.choices, self.task.choice_names
        self.has_labels, self.dataset = self.task.has_labels, self.task.dataset
        self.success_name = self.task.success_name
        self.split, self.num_images = self.task.split, self.task.num_images
        if render_mode is not None:
            self._renderer = Renderer(self.task, render_mode)
        self._is_seeded = False

    def evaluation(self, split: str) -> Evaluation:
        """How agents are evaluated on "train", "validation" or "test", see `Task.evaluation`."""
        return self.task.evaluation(split)

    def glimpse_statistics(self) -> tuple[float, list[float]]:
        """The mean of glimpses at random places, and their standard deviation at each scale, see `Task.glimpse_statistics`."""
        return self.task.glimpse_statistics()

    def frame(self, env: int = 0, action: Any = None) -> Frame:
        """What there is to draw of an environment now, see `Task.frame`."""
        return self.task.frame(env, action)

    def _take_spec(self, spec: EnvSpec | None) -> None:
        """Gymnasium's makers set it: here it also says how long the longest episode is."""
        self._spec = copy.copy(spec)
        if self._spec is not None:
            self._spec.max_episode_steps = self._time_limit or self.task.max_episode_steps
            if self._renderer is not None:
                self._renderer.set_title(self._spec.id)

    spec = property(attrgetter("_spec"), _take_spec)

    @contextmanager
    def _unchanged_if_refused(self, options: dict[str, Any]) -> Iterator[None]:
        """A reset whose options the task refuses seeds nothing either."""
        names = ("_np_random", "_np_random_seed", "_is_seeded")
        before = (self.task.get_state(), {name: getattr(self, name) for name in names}) if options else None
        try:
            yield
        except ValueError:
            if before is not None:
                self.task.set_state(before[0])
                vars(self).update(before[1])
            raise

    def _observe_flat(self) -> NDArray:
        """What the agents see, each in one row: (N, D)."""
        observations = self.task.observe()
        parts = observations.values() if isinstance(observations, dict) else (observations,)
        return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)

    def _pictures(self) -> tuple[NDArray[np.uint8], ...] | None:
        if self._renderer is None:
            spec: Any = getattr(self, "spec", None)
            name = type(self).__name__ if spec is None else spec.id
            gym.logger.warn(f'{name} was made without a render mode, such as render_mode="rgb_array": render() draws nothing')
            return None
        return self._renderer.render()


class GlimpseEnv(TaskEnv, gym.Env):
    """One environment of a task, for `gym.make`; it also has what `TaskEnv` says.

    Args:
        task: "classification", "catch", "whole-catch", or a name given to `register_task`.
        render_mode: None, "rgb_array" or "human", see `render`.
        flatten_observation: the observation is one array, as Gymnasium's `FlattenObservation` makes it.
        **options: the task's own arguments, see `GlimpseClassification`, `GlimpseCatch` and `Catch`.

    Raises:
        TypeError: an option that the task does not have.
        ValueError: an option out of range.
    """

    metadata: dict[str, Any] = {"render_modes": [*RENDER_MODES], "render_fps": 4}  # noqa: RUF012 (each instance has its own)

    def __init__(
        self,
        task: str = "classification",
        render_mode: str | None = None,
        flatten_observation: bool = False,
        **options: Any,
    ) -> None:
        self._take_up(task, 1, options, render_mode, flatten_observation)
        self.observation_space, self.action_space = self._space, self.task.action_space
        self._needs_reset = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; `options={"index": i}` shows image i.

        Raises:
            ValueError: an unknown option, or an index out of range; nothing has changed then.
        """
        options = check_reset_options(options, self.task.reset_options)
        with self._unchanged_if_refused(options):
            super().reset(seed=seed)
            if seed is not None or not self._is_seeded:
                self.task.seed(draw_keys(self.np_random, 1), _EVERY)
                self._is_seeded = True
            self.task.begin(_EVERY, options)
        self._needs_reset = False
        if self._renderer is not None:
            self._renderer.begin(_EVERY)
        return take(self._observe(), 0), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Look at the location given.

        Raises:
            ValueError: the action is misshaped, not finite or out of range; the episode continues as if nothing had been sent.
            gymnasium.error.ResetNeeded: the episode is over.
        """
        if self._needs_reset:
            raise gym.error.ResetNeeded("there is no episode under way: call reset() before step()")
        reward = float(self.task.step(action, None, None)[0])
        self._needs_reset = terminated = bool(self.task.terminated[0])
        if self._renderer is not None:
            self._renderer.step(action, None, ~_EVERY)
        return take(self._observe(), 0), reward, terminated, False, self._info()

    def render(self) -> Any:
        """The picture (H, W, 3) of the current step; in the mode "human" the window shows it, as it does after each step anyway.

        Raises:
            gymnasium.error.ResetNeeded: there is nothing to draw before the first reset.
        """
        pictures = self._pictures()
        return None if pictures is None else pictures[0]

    def close(self) -> None:
        """Close the window."""
        if self._renderer is not None:
            self._renderer.close()

    def get_keys_to_action(self) -> dict[tuple[int, ...], Any]:
        """Keys and the actions they stand for, as `gymnasium.utils.play` asks for them.

        Q W E, A S D and Z X C look at the places where they lie, digits and the arrow keys choose; held together they do both.
        No location is the scene's centre, no choice the middle of "left, stay, right" and the first of others. What S stands for
        is the `noop`.
        """
        name, size = next(iter(self.task.choices.items()))
        names = self.task.choice_names
        first = names.index("stay") if "stay" in names else 0
        choices = {(): first} | {(ord(str(i)),): i for i in range(min(size, 10))}
        choices |= {(key,): names.index(word) for word, key in _KEYS.items() if word in names}
        codec = getattr(self.task, "codec", None)
        if codec is None:  # There is no gaze to move.
            return {keys or (ord("s"),): choice for keys, choice in choices.items()}
        others = {other: np.zeros(1, np.int64) for other in self.task.choices}
        actions: dict[tuple[int, ...], Any] = {}
        for keys, choice in choices.items():
            for row, letters in enumerate(_LOCATION_KEYS):
                for column, letter in enumerate(letters):
                    location = np.array([[column - 1, row - 1]], np.float32) * 2 / 3
                    action = take(codec.encode(location, **{**others, name: np.array([choice])}), 0)
                    actions[(ord(letter), *keys)] = action
                    if keys and letter == "s":
                        actions[keys] = action
        return actions

    def _info(self) -> dict[str, Any]:
        return {name: values[0].item() for name, (values, _) in self.task.info().items()}


@contextmanager
def fits_memory(num_envs: int) -> Iterator[None]:
    """What is made within is refused where the memory does not hold it."""
    try:
        yield
    except MemoryError as error:
        raise ValueError(f"num_envs={num_envs} with these options needs more memory than there is: {error}") from error


def take(observations: Any, env: int) -> Any:
    """The observation of one environment out of those of the batch."""
    if isinstance(observations, dict):
        return {name: values[env] for name, values in observations.items()}
    return observations[env]


def check_reset_options(options: dict[str, Any] | None, allowed: tuple[str, ...]) -> dict[str, Any]:
    """A copy of reset's options.

    Raises:
        ValueError: they are no dict, or hold something else.
    """
    if options is not None and not isinstance(options, dict):
        raise ValueError(f"options of reset() must be a dict, got {options!r}")
    for name in options or ():
        if name not in allowed:
            raise ValueError(f"options of reset() may hold {allowed}, got {name!r}")
    return dict(options or {})


def _make_task(name: str, num_envs: int, options: dict[str, Any]) -> Task:
    if not isinstance(name, str) or name not in _TASKS:
        raise ValueError(f"task must be one of {tuple(_TASKS)}, got {name!r}")
    task_class: Any = _TASKS[name]
    known, hints = _parameters(task_class), dict[str, Any]()
    for constructor in _constructors(task_class):
        hints = {**get_type_hints(constructor), **hints}
    for option in options:
        if option not in known:
            words = f"got an unexpected keyword argument {option!r}"  # Python's, for which Gymnasium's clients look.
            options_are = f"{option!r} is not an option of this environment; its options are: {', '.join(known)}"
            raise TypeError(f"{words}: {options_are}")
    options = {option: _check_kind(option, value, hints.get(option, Any)) for option, value in options.items()}
    with fits_memory(num_envs):
        task = task_class(num_envs, **options)
    task.options = options
    return task


def _constructors(task_class: type[Task]) -> list[Any]:
    """The constructor, and while one takes **options of its parent, the parent's."""
    found: list[Any] = []
    for one in (vars(cls)["__init__"] for cls in task_class.__mro__[:-1] if "__init__" in vars(cls)):
        found.append(one)
        if inspect.Parameter.VAR_KEYWORD not in {parameter.kind for parameter in inspect.signature(one).parameters.values()}:
            break
    return found


def _parameters(task_class: type[Task]) -> dict[str, inspect.Parameter]:
    """The options of a task: its constructor's arguments."""
    parameters: dict[str, inspect.Parameter] = {}
    for constructor in _constructors(task_class):
        parameters = {**inspect.signature(constructor).parameters, **parameters}
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {name: one for name, one in parameters.items() if one.kind in named and name not in ("self", "num_envs")}


def _check_kind(name: str, value: Any, hint: Any) -> Any:
    """The value as Python's own int, float, bool or str, where the option is annotated with one of them."""
    hints = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kind: Any = next((kind for kind in (int, float, bool) if kind in hints), str if hint is str else None)
    if kind is None or isinstance(value, tuple(one for one in hints if one is not kind and isinstance(one, type))):
        return value
    words, types = _KINDS[kind]
    if not isinstance(value, types) or (kind is not bool and isinstance(value, bool)):
        others = "".join({type(None): " or None", str: " or text"}.get(one, "") for one in hints if one is not kind)
        raise ValueError(f"{name} must be {words}{others}, got {value!r}")
    try:
        plain = kind(value)
        if kind is int:
            np.int64(plain)  # What compiled loops count with.
        return plain
    except OverflowError as error:
        raise ValueError(f"{name} must be {words} that 64 bits can hold, got {value!r}") from error
