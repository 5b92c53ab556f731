"""The recurrent attention agent (Mnih et al. 2014) as a Stable-Baselines3 algorithm, and others to compare it with.

What is named here is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {
    "RAM": "ram",
    "EpisodeA2C": "episode_ppo",
    "EpisodePPO": "episode_ppo",
    "GlimpseExtractor": "extractor",
    "GymnasiumVecEnv": "vec_env",
    "RAMPolicy": "policy",
    "RecurrentPolicy": "episode_ppo",
    "algorithm_names": "training.registry",
    "get_algorithm": "training.registry",
    "load_pretrained": "pretrained",
    "make_vec_env": "vec_env",
    "pretrained_hyperparams": "pretrained",
    "pretrained_ids": "pretrained",
    "register_algorithm": "training.registry",
    "save_pretrained": "pretrained",
}
__all__ = [*_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_EXPORTS[name]}", __name__), name)
