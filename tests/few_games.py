"""Catch on a small screen, evaluated on few games: an environment of the user's own, for tests of training."""

from dataclasses import replace

import gymnasium as gym

import ram_envs

EPISODES = {"validation": 20, "test": 30}


class FewGames(ram_envs.GlimpseCatch):
    def evaluation(self, split):
        return replace(super().evaluation(split), num_episodes=EPISODES[split])


ram_envs.register_task("few-games", FewGames)
gym.register(
    "FewGames-v0",
    entry_point="ram_envs.env:GlimpseEnv",
    vector_entry_point="ram_envs.vector_env:GlimpseVectorEnv",
    kwargs={"task": "few-games", "size": 6},
)
