"""A Stable-Baselines3 `VecEnv` over any Gymnasium vector environment, and what makes Dict actions known to SB3."""

from __future__ import annotations

import importlib
import inspect
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecMonitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn
from torch.utils._pytree import tree_map

_MISSING = object()
_Info = dict[str, Any]  # As Gymnasium's vector environments give it: arrays (N,), and masks (N,) of where they hold.


def make_vec_env(env_id: str, n_envs: int = 1, seed: int | None = None, frame_stack: int = 1, **env_kwargs: Any) -> VecMonitor:
    """`gymnasium.make_vec` for Stable-Baselines3: the natively batched environment where there is one, monitored.

    Args:
        env_id: a registered id; "module:id" imports the module first.
        n_envs: N.
        seed: environment i is seeded with seed + i at the first reset.
        frame_stack: this number of the last observations side by side along the last axis (SB3's `VecFrameStack`), for agents
            without a memory.
        **env_kwargs: options of the environment.

    Raises:
        ValueError: n_envs, seed or frame_stack is out of range; the message names it.
    """
    for name, given, least in (("n_envs", n_envs, 1), ("seed", seed or 0, 0), ("frame_stack", frame_stack, 1)):
        if isinstance(given, bool) or not isinstance(given, (int, np.integer)) or given < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, got {given!r}")
    mode: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}
    if not _resets_at_once(env_id):
        mode = {"vectorization_mode": "sync", "vector_kwargs": mode}
    batch = GymnasiumVecEnv(gym.make_vec(env_id, n_envs, **mode, **env_kwargs))
    vec_env = Monitor(VecFrameStack(batch, frame_stack) if frame_stack > 1 else batch)
    if seed is not None:
        vec_env.seed(seed)
    return vec_env


def wrap_env(env: Any, wrap: Callable[[Any], VecEnv]) -> VecEnv:
    """What SB3's `wrap` makes of an environment, a Gymnasium vector environment too; Dict actions are offered as a Box."""
    if isinstance(env, VectorEnv):
        env = Monitor(GymnasiumVecEnv(env))
    vec_env = wrap(env)
    if hasattr(vec_env.action_space, "as_box"):  # No wrapper: SB3 compares those of training and evaluation one by one.
        vec_env.action_space = vec_env.action_space.as_box()
    return vec_env


def check_spaces(model: Any, env: Any) -> None:
    """Whether a model may act in environments: lengths alone may agree where columns stand for something else.

    Raises:
        ValueError: its spaces, where it has any, are others than theirs; the message shows both.
    """
    for name in ("observation_space", "action_space"):
        own, theirs = getattr(model, name, None), getattr(env, name)
        if own is not None and own != theirs:
            raise ValueError(f"the model's {name} must be that of the environments it acts in, {theirs}, got {own}")


class GymnasiumVecEnv(VecEnv):
    """Gives Stable-Baselines3 a Gymnasium vector environment as it is, without a Python call for each environment.

    Environments in the autoreset modes SAME_STEP (which is what SB3 does) and DISABLED behave just as SB3 expects. In NEXT_STEP
    they do as long as all episodes end together; where they do not, each episode begins with one step whose action is ignored,
    and a warning says so.

    SB3 knows no Dict actions. Where a space of actions has a Box form (`as_box`, see `ram_envs.DictActions`), that is offered,
    and its actions go to the environment, which understands them.

    Args:
        env: the vector environment. `make_vec_env` has returns logged as well, as SB3's `VecMonitor` does.
    """

    def __init__(self, env: VectorEnv) -> None:
        self.env = env
        self.autoreset_mode = env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        self._actions: Any = None
        self._is_batch_of_singles = isinstance(env.unwrapped, (SyncVectorEnv, AsyncVectorEnv))
        action_space: Any = env.single_action_space
        self._has_dict = hasattr(action_space, "as_box")
        super().__init__(env.num_envs, env.single_observation_space, action_space.as_box() if self._has_dict else action_space)

    @property
    def spec(self) -> Any:
        return self.env.spec

    def reset(self) -> VecEnvObs:
        obs, info = self.env.reset(seed=self._next_seed(), options=self._next_options())
        self.reset_infos = Infos(self.num_envs, info)  # type: ignore[assignment]
        self._reset_seeds()
        self._reset_options()
        return obs

    def step_async(self, actions: NDArray) -> None:
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Observations, rewards (N,), dones (N,) and `Infos`."""
        actions = self._actions
        if self._has_dict and self._is_batch_of_singles:  # They batch Dict actions, and take nothing else.
            actions = self.action_space.to_dict(actions)  # type: ignore[attr-defined]
        obs, rewards, terminated, truncated, info = self.env.step(actions)
        dones = terminated | truncated
        if not dones.any():
            return obs, rewards.astype(np.float32), dones, Infos(self.num_envs, info, truncated)  # type: ignore[return-value]
        infos = Infos(self.num_envs, info, truncated & ~terminated, dones)
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            infos.end(info["final_info"], info["final_obs"])
            self._note_resets(dones, {name: values for name, values in info.items() if name not in _FINAL})
        else:
            infos.end(info, {i: tree_map(itemgetter(i), obs) for i in np.flatnonzero(dones).tolist()})
            obs, reset_info = self._begin_episodes(obs, dones, actions)
            self._note_resets(dones, reset_info)
        return obs, rewards.astype(np.float32), dones, infos  # type: ignore[return-value]

    def close(self) -> None:
        self.env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of each environment; of a natively batched one, the batch's own for each."""
        batch: Any = self.env.unwrapped
        values = batch.get_attr(attr_name) if self._is_batch_of_singles else [getattr(batch, attr_name)] * self.num_envs
        return [values[i] for i in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of all environments; a natively batched one can't set it for some alone."""
        chosen = set(self._get_indices(indices))
        batch: Any = self.env.unwrapped
        if self._is_batch_of_singles:
            batch.set_attr(attr_name, [value if i in chosen else old for i, old in enumerate(batch.get_attr(attr_name))])
        elif len(chosen) == self.num_envs:
            setattr(batch, attr_name, value)
        else:
            raise ValueError("a natively batched environment sets an attribute for all of its environments only")

    def env_method(self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any) -> list[Any]:
        """Call a method of each environment; of a natively batched one, once for all."""
        batch: Any = self.env.unwrapped
        if self._is_batch_of_singles:
            results = batch.call(method_name, *method_args, **method_kwargs)
        else:
            results = [getattr(batch, method_name)(*method_args, **method_kwargs)] * self.num_envs
        return [results[i] for i in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """Whether each environment is wrapped; a natively batched one never is."""
        batch = self.env.unwrapped
        return [isinstance(batch, SyncVectorEnv) and is_wrapped(batch.envs[i], wrapper_class) for i in self._get_indices(indices)]

    def get_images(self) -> Sequence[NDArray | None]:
        """One picture of each environment."""
        return list(self.env.render() or [None] * self.num_envs)  # type: ignore[arg-type]

    def _note_resets(self, dones: NDArray[np.bool_], info: _Info) -> None:
        """What the resets of the environments of the mask (N,) told."""
        new: Any = Infos(self.num_envs, info)
        self.reset_infos = new if dones.all() else [new[i] if dones[i] else old for i, old in enumerate(self.reset_infos)]

    def _begin_episodes(self, obs: Any, dones: NDArray[np.bool_], actions: Any) -> tuple[Any, _Info]:
        """Reset what is done, where the environment has not done so itself."""
        if self.autoreset_mode == AutoresetMode.DISABLED:
            return self.env.reset(options={"reset_mask": dones})
        if dones.all():
            obs, *_, info = self.env.step(actions)  # The actions are ignored.
            return obs, info
        warnings.warn(
            "episodes of this vector environment end at different times and it resets at the next step: the first action of "
            "each episode is ignored. Make it with autoreset_mode=AutoresetMode.SAME_STEP to avoid that.",
            stacklevel=5,
        )
        return obs, {}

    def _next_seed(self) -> Any:
        """What was set with `seed`: one number where environment i has that number + i, as all vector environments take it."""
        first = self._seeds[0]
        if first is None:
            return self._seeds if any(self._seeds) else None
        return first if self._seeds == [first + i for i in range(self.num_envs)] else self._seeds

    def _next_options(self) -> dict[str, Any] | None:
        """What was set with `set_options`: an option that differs between environments as an array (N,)."""
        first = self._options[0]
        if all(options == first for options in self._options):
            return first or None
        if any(options.keys() != first.keys() for options in self._options):
            raise ValueError(f"set_options must give all environments the same names of options, got {self._options}")
        return {name: np.array([options[name] for options in self._options]) for name in first}


_FINAL = ("final_obs", "_final_obs", "final_info", "_final_info")


class Infos(Sequence):
    """The infos of N environments: the list of dicts that SB3 wants, made when somebody reads it.

    Args:
        num_envs: N.
        info: as Gymnasium's vector environments give it.
        truncated: (N,), whether a time limit ended the episode ("TimeLimit.truncated"); None: there was no step.
        dones: (N,), whether the episode ended; None: nowhere.
    """

    def __init__(
        self, num_envs: int, info: _Info, truncated: NDArray[np.bool_] | None = None, dones: NDArray[np.bool_] | None = None
    ) -> None:
        self._num_envs, self._info = num_envs, info
        self.truncated, self._dones = truncated, dones
        self._final_info: _Info = {}
        self._final_obs: Any = None  # By environment.
        self._episodes: tuple[NDArray, NDArray, float] | None = None
        self._dicts: list[dict[str, Any]] | None = None

    def end(self, final_info: _Info, final_obs: Any) -> None:
        """Episodes ended: with this info, and these observations by environment."""
        self._final_info, self._final_obs = final_info, final_obs

    def note_episodes(self, returns: NDArray, lengths: NDArray, seconds: float) -> None:
        """The return (N,) and length (N,) of the episodes that ended, after this time."""
        self._episodes = returns, lengths, seconds
        if self._dicts is not None and self._dones is not None:  # Somebody has read them, and may have changed them.
            for env in np.flatnonzero(self._dones).tolist():
                self._dicts[env]["episode"] = self._episode(env)

    def array(self, name: str, default: Any = _MISSING) -> NDArray:
        """A fact about each environment, (N,); of those whose episode ended, about that one.

        Raises:
            KeyError: it is not told of all of them, and there is no default.
        """
        if name == "TimeLimit.truncated" and self.truncated is not None:
            return self.truncated
        values, told = _fact(self._info, name)
        if self._dones is not None and self._final_info is not self._info:
            at_end, told_at_end = _fact(self._final_info, name)
            told = np.where(self._dones, told_at_end, told)
            if at_end is not None:
                values = at_end if values is None else np.where(self._dones, at_end, values)
        if np.all(told):
            return values
        if default is _MISSING:
            raise KeyError(name)
        return np.where(np.broadcast_to(told, self._num_envs), values, default)

    def ended(self, most: int) -> tuple[list[dict[str, Any]], list[bool]]:
        """What SB3's `VecMonitor` says of the last episodes that ended, and whether each was a success, where that is told."""
        envs: list[int] = [] if self._dones is None else np.flatnonzero(self._dones)[-most:].tolist()
        episodes = [] if self._episodes is None else [self._episode(env) for env in envs]
        successes = self.array("is_success", None)[envs].tolist() if envs else []
        return episodes, [success for success in successes if success is not None]

    def __len__(self) -> int:
        return self._num_envs

    def __getitem__(self, index: Any) -> Any:
        if self._dicts is None:
            self._dicts = self._split()
        return self._dicts[index]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self[:])

    def _split(self) -> list[dict[str, Any]]:
        if self.truncated is None:
            return _split_info(self._info, self._num_envs)
        infos = _split_info({**self._info, "TimeLimit.truncated": self.truncated}, self._num_envs)
        if self._dones is None:
            return infos
        final_infos = _split_info(self._final_info, self._num_envs) if self._final_info is not self._info else infos
        for env in np.flatnonzero(self._dones).tolist():
            infos[env] = {**final_infos[env], "TimeLimit.truncated": bool(self.truncated[env])}
            infos[env]["terminal_observation"] = self._final_obs[env]
            if self._episodes is not None:
                infos[env]["episode"] = self._episode(env)
        return infos

    def _episode(self, env: int) -> dict[str, Any]:
        assert self._episodes is not None
        returns, lengths, seconds = self._episodes
        return {"r": returns[env], "l": lengths[env], "t": seconds}


def _fact(info: _Info, name: str) -> tuple[Any, Any]:
    """A fact (N,), and where it is told: a mask (N,), or True or False for all."""
    return info.get(name), name in info and info.get(f"_{name}", True)


def info_array(infos: Any, name: str, default: Any = _MISSING) -> NDArray:
    """`Infos.array`, of any list of dicts too."""
    if isinstance(infos, Infos):
        return infos.array(name, default)
    return np.array([info[name] if default is _MISSING else info.get(name, default) for info in infos])


def stack_infos(infos: Sequence[Any], name: str) -> NDArray:
    """A fact about each environment at T steps, (T, N); KeyError where one does not tell it."""
    return np.stack([info_array(step, name) for step in infos])


class Monitor(VecMonitor):
    """SB3's `VecMonitor`, which leaves the infos unread."""

    def step(self, actions: NDArray) -> VecEnvStepReturn:
        self.venv.step_async(actions)
        return self.step_wait()

    def step_wait(self) -> VecEnvStepReturn:
        obs, rewards, dones, infos = self.venv.step_wait()
        self.episode_returns += rewards
        self.episode_lengths += 1
        if dones.any():
            seconds = round(time.time() - self.t_start, 6)
            infos.note_episodes(self.episode_returns.copy(), self.episode_lengths.copy(), seconds)  # type: ignore[attr-defined]
            self.episode_count += int(dones.sum())
            self.episode_returns[dones] = self.episode_lengths[dones] = 0
        return obs, rewards, dones, infos


class ScoresBox(spaces.Box):
    """A Box (2 + K + ...,) of a location and the scores of choices, as it is known from a stored agent.

    Args:
        choices: what there is to choose and from how many, such as {"class": 10, "stop": 2}.
    """

    def __init__(self, choices: dict[str, int]) -> None:
        self.choices = dict(choices)
        super().__init__(-1.0, 1.0, (2 + sum(choices.values()),), np.float32)

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) and [*getattr(other, "choices", self.choices).items()] == [*self.choices.items()]

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, choices={self.choices})"


def _resets_at_once(env_id: str) -> bool:
    """Whether the environment is batched natively and can reset at the last step of an episode, as SB3 wants it."""
    module, _, name = env_id.rpartition(":")
    if module:
        importlib.import_module(module)
    entry_point: Any = gym.spec(name).vector_entry_point
    if isinstance(entry_point, str):
        entry_point = gym.envs.registration.load_env_creator(entry_point)
    return entry_point is not None and "autoreset_mode" in inspect.signature(entry_point).parameters


def _split_info(info: _Info, num_envs: int) -> list[dict[str, Any]]:
    """Gymnasium's info of arrays with masks as one dict for each environment."""
    infos: list[dict[str, Any]] = [{} for _ in range(num_envs)]
    for name, values in info.items():
        if name.startswith("_") or name in _FINAL:
            continue
        mask = info.get(f"_{name}")
        if isinstance(values, dict):
            values = _split_info(values, num_envs)
        elif isinstance(values, np.ndarray) and values.ndim == 1:
            values = values.tolist()
        if mask is None or mask.all():
            for one, value in zip(infos, values):  # noqa: B905 (strict costs as much as the loop)
                one[name] = value
        else:
            for i in np.flatnonzero(mask):
                infos[i][name] = values[i]
    return infos
