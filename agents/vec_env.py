"""A Stable-Baselines3 `VecEnv` over any Gymnasium vector environment."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecMonitor
from stable_baselines3.common.vec_env.base_vec_env import (
    VecEnvIndices,
    VecEnvObs,
    VecEnvStepReturn,
)

LOOK_CHOICES = ("stop", "zoom")  # Choices about how to look, not what to answer.
_Infos = list[dict[str, Any]]


def make_vec_env(env_id: str, n_envs: int = 1, seed: int | None = None, frame_stack: int = 1, **env_kwargs: Any) -> VecMonitor:
    """`gymnasium.make_vec` for Stable-Baselines3: the natively batched environment where there is one, monitored.

    Args:
        env_id: a registered id.
        n_envs: N.
        seed: environment i is seeded with seed + i at the first reset.
        frame_stack: so many of the last observations side by side along the last axis (SB3's `VecFrameStack`), for agents
            without a memory.
        **env_kwargs: options of the environment.

    Raises:
        ValueError: frame_stack is below 1.
    """
    if frame_stack < 1:
        raise ValueError(f"frame_stack must be at least 1, got {frame_stack!r}")
    if gym.spec(env_id).vector_entry_point is not None:
        env = gym.make_vec(env_id, n_envs, autoreset_mode=AutoresetMode.SAME_STEP, **env_kwargs)
    else:
        mode = {"autoreset_mode": AutoresetMode.SAME_STEP}
        env = gym.make_vec(env_id, n_envs, vectorization_mode="sync", vector_kwargs=mode, **env_kwargs)
    vec_env: VecEnv = GymnasiumVecEnv(env)
    if frame_stack > 1:
        vec_env = VecFrameStack(vec_env, frame_stack)
    vec_env = VecMonitor(vec_env)
    if seed is not None:
        vec_env.seed(seed)
    return vec_env


class GymnasiumVecEnv(VecEnv):
    """Gives Stable-Baselines3 a Gymnasium vector environment as it is, without a Python call for each environment.

    Environments in the autoreset modes SAME_STEP (which is what SB3 does) and DISABLED behave just as SB3 expects. In NEXT_STEP
    they do as long as all episodes end together; where they do not, each episode begins with one step whose action is ignored,
    and a warning says so. A Dict action of "location" and Discrete choices is offered as one Box, see `action_as_box`.

    Args:
        env: the vector environment. Wrap the result in SB3's `VecMonitor` to have returns logged; `make_vec_env` does both.
    """

    def __init__(self, env: VectorEnv) -> None:
        self.env = env
        self.autoreset_mode = env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        self._actions: NDArray | None = None
        action_space = env.single_action_space
        self._splits_actions = is_location_and_choice(action_space)
        if self._splits_actions:
            action_space = action_as_box(action_space)
        super().__init__(env.num_envs, env.single_observation_space, action_space)

    @property
    def spec(self) -> Any:
        """The specification that the environment was made from."""
        return self.env.spec

    def reset(self) -> VecEnvObs:
        """Reset all environments, with the seeds and options set before."""
        obs, info = self.env.reset(seed=self._next_seed(), options=self._next_options())
        self.reset_infos = _split_info(info, self.num_envs)
        self._reset_seeds()
        self._reset_options()
        return obs

    def step_async(self, actions: NDArray) -> None:
        """Keep the actions (N, ...) for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Observations, rewards (N,), dones (N,) and one info for each environment, as SB3 wants them."""
        actions = self.to_env(self._actions)
        obs, rewards, terminated, truncated, info = self.env.step(actions)
        dones = terminated | truncated
        infos = _split_info({**info, "TimeLimit.truncated": truncated & ~terminated}, self.num_envs)
        if dones.any():
            obs = self._end_episodes(obs, dones, actions, info, infos)
        return obs, rewards.astype(np.float32), dones, infos

    def to_env(self, actions: Any) -> Any:
        """SB3's actions (N, ...) as the environments take them."""
        if not self._splits_actions:
            return actions
        assert isinstance(self.action_space, ScoresBox)
        return box_to_dict(self.action_space, actions)

    def close(self) -> None:
        """Close the environments."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of each environment; of a natively batched one, the batch's own for each."""
        indices = list(self._get_indices(indices))
        if isinstance(self.env.unwrapped, (SyncVectorEnv, AsyncVectorEnv)):
            values = self.env.unwrapped.get_attr(attr_name)
            return [values[i] for i in indices]
        return [getattr(self.env, attr_name)] * len(indices)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of all environments; a natively batched one can't set it for some alone."""
        chosen = set(self._get_indices(indices))
        if isinstance(self.env.unwrapped, (SyncVectorEnv, AsyncVectorEnv)):
            values = self.env.unwrapped.get_attr(attr_name)
            self.env.unwrapped.set_attr(attr_name, [value if i in chosen else old for i, old in enumerate(values)])
        elif len(chosen) == self.num_envs:
            setattr(self.env.unwrapped, attr_name, value)
        else:
            raise ValueError("a natively batched environment sets an attribute for all of its environments only")

    def env_method(self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any) -> list[Any]:
        """Call a method of each environment; of a natively batched one, once for all."""
        chosen = list(self._get_indices(indices))
        if isinstance(self.env.unwrapped, (SyncVectorEnv, AsyncVectorEnv)):
            results = self.env.unwrapped.call(method_name, *method_args, **method_kwargs)
            return [results[i] for i in chosen]
        return [getattr(self.env, method_name)(*method_args, **method_kwargs)] * len(chosen)

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """Whether each environment is wrapped; a natively batched one never is."""
        chosen = list(self._get_indices(indices))
        if isinstance(self.env.unwrapped, SyncVectorEnv):
            from stable_baselines3.common.env_util import is_wrapped

            return [is_wrapped(self.env.unwrapped.envs[i], wrapper_class) for i in chosen]
        return [False] * len(chosen)

    def get_images(self) -> Sequence[NDArray | None]:
        """One picture of each environment."""
        images: Any = self.env.render()
        return list(images or [None] * self.num_envs)

    def _end_episodes(self, obs: Any, dones: NDArray[np.bool_], actions: Any, info: dict[str, Any], infos: _Infos) -> Any:
        """Complete the infos of what is done, and return the observations that the next episodes begin with."""
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            final_obs, final_infos = info["final_obs"], _split_info(info["final_info"], self.num_envs)
            reset_infos = [dict(one) for one in infos]
            for i in np.flatnonzero(dones):
                final_infos[i]["TimeLimit.truncated"] = infos[i]["TimeLimit.truncated"]
                del reset_infos[i]["TimeLimit.truncated"]
                infos[i] = final_infos[i]
        else:
            final_obs = _split_obs(obs, dones)
            obs, reset_infos = self._begin_episodes(obs, dones, actions)
        for i in np.flatnonzero(dones):
            self.reset_infos[i] = reset_infos[i]
            infos[i]["terminal_observation"] = final_obs[i]
        return obs

    def _begin_episodes(self, obs: Any, dones: NDArray[np.bool_], actions: Any) -> tuple[Any, _Infos]:
        """Reset what is done, where the environment has not done so itself."""
        if self.autoreset_mode == AutoresetMode.DISABLED:
            obs, info = self.env.reset(options={"reset_mask": dones})
            return obs, _split_info(info, self.num_envs)
        if dones.all():
            obs, _, _, _, info = self.env.step(actions)  # The actions are ignored.
            return obs, _split_info(info, self.num_envs)
        warnings.warn(
            "episodes of this vector environment end at different times and it resets at the next step: the first action of "
            "each episode is ignored. Make it with autoreset_mode=AutoresetMode.SAME_STEP to avoid that.",
            stacklevel=5,
        )
        return obs, [{} for _ in range(self.num_envs)]

    def _next_seed(self) -> Any:
        """What was set with `seed`: one number where environment i has that number + i, as all vector environments take it."""
        first = self._seeds[0]
        if first is None and not any(self._seeds):
            return None
        if first is not None and self._seeds == [first + i for i in range(self.num_envs)]:
            return first
        return self._seeds

    def _next_options(self) -> dict[str, Any] | None:
        if any(options != self._options[0] for options in self._options):
            raise ValueError("set_options must give all environments of a Gymnasium vector environment the same options")
        return self._options[0] or None


class ScoresBox(spaces.Box):
    """A Box (2 + K + ...,) that stands for a location and choices: the location, then scores, the highest of which is chosen.

    Args:
        choices: what there is to choose and from how many, such as {"class": 10, "stop": 2}.
    """

    def __init__(self, choices: dict[str, int]) -> None:
        self.choices = dict(choices)
        super().__init__(-1.0, 1.0, (2 + sum(choices.values()),), np.float32)


def is_location_and_choice(space: spaces.Space) -> bool:
    """Whether actions are a Dict of "location" Box (2,) and one or more Discrete, such as "class"."""
    if not isinstance(space, spaces.Dict) or "location" not in space.spaces or len(space.spaces) < 2:
        return False
    others = [part for name, part in space.spaces.items() if name != "location"]
    return space["location"].shape == (2,) and all(isinstance(part, spaces.Discrete) for part in others)


def action_as_box(space: spaces.Space) -> ScoresBox:
    """The Box that stands for such a Dict. The first choice is the one that is not about how to look: "class" or "move"."""
    assert isinstance(space, spaces.Dict)
    sizes = {name: int(part.n) for name, part in space.spaces.items() if isinstance(part, spaces.Discrete)}
    looks = {name: sizes.pop(name) for name in LOOK_CHOICES if name in sizes}
    return ScoresBox({**sizes, **looks})


def box_to_dict(space: ScoresBox, actions: NDArray) -> dict[str, Any]:
    """The Dict actions for Box actions (2 + K,) or (N, 2 + K)."""
    parts, first = {"location": actions[..., :2]}, 2
    for name, size in space.choices.items():
        parts[name] = actions[..., first : first + size].argmax(-1)
        first += size
    return parts


class BoxAction(gym.ActionWrapper):
    """Offers a single environment's Dict of "location" and Discrete choices as one Box."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.action_space = action_as_box(env.action_space)

    def action(self, action: NDArray) -> dict[str, Any]:
        """The Dict action for a Box action (2 + K,)."""
        assert isinstance(self.action_space, ScoresBox)
        return box_to_dict(self.action_space, action)


def _split_obs(obs: Any, where: NDArray[np.bool_]) -> dict[int, Any]:
    """The observations of the environments of the mask `where`, one by one."""
    indices = np.flatnonzero(where).tolist()
    if isinstance(obs, dict):
        return {i: {name: values[i] for name, values in obs.items()} for i in indices}
    return {i: obs[i] for i in indices}


def _split_info(info: dict[str, Any], num_envs: int) -> _Infos:
    """Gymnasium's info of arrays with masks as one dict for each environment."""
    infos: _Infos = [{} for _ in range(num_envs)]
    for name, values in info.items():
        if name.startswith("_") or name in ("final_obs", "final_info"):
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
