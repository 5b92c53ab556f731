"""Wrappers for libraries that make the environments themselves and leave no room for their options."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium import spaces

from ram_envs.actions import ActionCodec


class ActionFormat(gym.ActionWrapper, gym.utils.RecordConstructorArgs):
    """Takes actions of another format for an environment with Dict actions; the same as its option `action_format`.

    rl_zoo3's files of hyperparameters name it, because rl_zoo3 gives their `env_kwargs` to the environments that it trains in and
    not to those that it evaluates in. Elsewhere the option is the shorter way.

    Args:
        env: an environment of ours with the default action_format="dict".
        action_format: one of `ram_envs.actions.ACTION_FORMATS`. The grid of locations is the environment's `location_grid`.

    Raises:
        ValueError: unknown format, or an environment without Dict actions.
    """

    def __init__(self, env: gym.Env, action_format: str) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, action_format=action_format)
        super().__init__(env)
        if not isinstance(env.action_space, spaces.Dict):
            name = type(env.unwrapped).__name__ if env.spec is None else env.spec.id
            raise ValueError(f"env must have Dict actions (action_format='dict'), got {name} with {env.action_space}")
        task: Any = env.unwrapped
        codec = task.task.codec
        self._codec = ActionCodec(codec.choices, action_format, codec.location_grid)
        self.action_space = self._codec.space

    def action(self, action: Any) -> dict[str, Any]:
        """The Dict action for an action of the format.

        Raises:
            ValueError: it is misshaped, not finite or out of range.
        """
        locations, choices = self._codec.decode(action)
        return {"location": locations[0], **{name: values[0] for name, values in choices.items()}}
