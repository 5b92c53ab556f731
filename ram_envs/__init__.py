"""Gymnasium environments in which an agent sees only through a small retina that it moves itself.

Importing this package registers the environments: `gymnasium.make("GlimpseMNIST-v0")`. The heavy parts are imported when they
are first used.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

from gymnasium.envs.registration import register

__version__ = "0.2.0"

_EXPORTS = {
    "ActionFormat": "actions",
    "BoxActions": "actions",
    "Catch": "catch",
    "DataError": "datasets",
    "DictActions": "actions",
    "EpochOrder": "sampling",
    "Evaluation": "task",
    "Frame": "frame",
    "GlimpseCatch": "catch",
    "GlimpseClassification": "classification",
    "GlimpseEnv": "env",
    "GlimpseVectorEnv": "vector_env",
    "ImageSet": "datasets",
    "Look": "frame",
    "Retina": "retina",
    "Task": "task",
    "Window": "rendering",
    "dataset_names": "datasets",
    "draw": "drawing",
    "draw_uniform": "sampling",
    "draw_glimpse": "drawing",
    "draw_scene": "drawing",
    "env_defaults": "env",
    "from_folder": "folders",
    "glimpses": "retina",
    "load_idx": "mnist",
    "load_images": "datasets",
    "parse_pairs": "env",
    "register_dataset": "datasets",
    "register_env": "env",
    "register_task": "env",
    "seeded_evaluation": "task",
    "start_streams": "sampling",
    "write_video": "video",
}
__all__ = [*_EXPORTS, "ENVIRONMENTS"]

_MNIST = {"task": "classification", "dataset": "mnist"}
_TRANSLATED = {**_MNIST, "canvas_size": 60, "glimpse_size": 12, "num_scales": 3, "num_glimpses": 8}

# Every registered id and the options that make it; the rest are the task's defaults.
ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "GlimpseMNIST-v0": {**_MNIST, "glimpse_size": 8, "num_scales": 1, "num_glimpses": 7},
    "GlimpseTranslatedMNIST-v0": _TRANSLATED,
    "GlimpseClutteredMNIST-v0": {**_TRANSLATED, "num_clutter": 4},
    "GlimpseClutteredMNIST100-v0": {**_TRANSLATED, "canvas_size": 100, "num_clutter": 8, "num_scales": 4},
    "GlimpseFashionMNIST-v0": {"task": "classification", "dataset": "fashion-mnist"},
    "GlimpseClassification-v0": {"task": "classification"},
    "GlimpseCatch-v0": {"task": "catch"},
    "Catch-v0": {"task": "whole-catch"},
}
# For who takes an id alone: observations flat in one Box, actions as one Box or one number, such as GlimpseMNISTDiscrete-v0.
ENVIRONMENTS |= {
    f"{env_id.removesuffix('-v0')}{form.capitalize()}-v0": {**options, "action_format": form, "flatten_observation": True}
    for env_id, options in ENVIRONMENTS.items()
    if options["task"] != "whole-catch"
    for form in ("box", "discrete")
}
ENVIRONMENTS["CatchDiscrete-v0"] = {**ENVIRONMENTS["Catch-v0"], "flatten_observation": True}
# Of an episode: what the agent of Mnih et al. 2014 reached.
_REWARD_THRESHOLDS = {
    "GlimpseMNIST": 0.9893,
    "GlimpseTranslatedMNIST": 0.988,
    "GlimpseClutteredMNIST": 0.9596,
    "GlimpseClutteredMNIST100": 0.9189,
    "GlimpseCatch": 0.85,
}

for _id, _options in ENVIRONMENTS.items():
    register(
        id=_id,
        entry_point="ram_envs.env:GlimpseEnv",
        vector_entry_point="ram_envs.vector_env:GlimpseVectorEnv",
        reward_threshold=_REWARD_THRESHOLDS.get(re.sub("(Box|Discrete)?-v0", "", _id)),
        kwargs=_options,
    )


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"ram_envs.{_EXPORTS[name]}"), name)
