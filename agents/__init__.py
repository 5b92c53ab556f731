"""The recurrent attention agent (Mnih et al. 2014) as a Stable-Baselines3 algorithm, and others to compare it with.

What is named here is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import Any

_NAMES = {
    "ram": "RAM",
    "policy": "RAMPolicy",
    "episode_ppo": "EpisodeA2C EpisodePPO RecurrentPolicy",
    "extractor": "GlimpseExtractor",
    "vec_env": "GymnasiumVecEnv make_vec_env",
    "pretrained": "load_pretrained pretrained_hyperparams pretrained_ids save_pretrained",
    "training.registry": "algorithm_names get_algorithm register_algorithm",
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
