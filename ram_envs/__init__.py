"""Gymnasium environments in which an agent sees only through a small retina that it moves itself.

Importing this package registers the environments: `gymnasium.make("GlimpseMNIST-v0")`. The heavy parts are imported when they
are first used.
"""

from __future__ import annotations

import importlib
from typing import Any

from gymnasium.envs.registration import register

__version__ = "0.1.0"

_EXPORTS = {
    "DataError": "datasets",
    "GlimpseClassification": "classification",
    "GlimpseEnv": "env",
    "GlimpseVectorEnv": "env",
    "ImageSet": "datasets",
    "glimpses": "retina",
    "load_images": "datasets",
    "patch_corners": "retina",
}
__all__ = [*_EXPORTS, "ENVIRONMENTS"]

# Every registered id and the options that make it; the rest are the task's defaults.
ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "GlimpseMNIST-v0": {
        "task": "classification",
        "dataset": "mnist",
        "glimpse_size": 8,
        "num_scales": 1,
        "num_glimpses": 7,
    },
}

for _id, _options in ENVIRONMENTS.items():
    register(
        id=_id,
        entry_point="ram_envs.env:GlimpseEnv",
        vector_entry_point="ram_envs.env:GlimpseVectorEnv",
        kwargs=_options,
    )


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"ram_envs.{_EXPORTS[name]}"), name)
