"""Run folders: where a training run keeps what it was asked, what it learned and what came of it."""

from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from gymnasium import spaces
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.utils import LinearSchedule

_NOISES = {"normal": NormalActionNoise, "ornstein-uhlenbeck": OrnsteinUhlenbeckActionNoise}

# rl_zoo3 evaluates in environments without the env_kwargs of its files, so those hold the format of actions as a wrapper.
ACTION_WRAPPER = "ram_envs.wrappers.ActionFormat"


def new_run(log_folder: Path, algo: str, env_id: str) -> Path:
    """Make the folder of the next run, such as logs/ram/GlimpseMNIST-v0_3."""
    while True:
        number = max((number for number, _ in _runs(log_folder, algo, env_id)), default=0) + 1
        folder = log_folder / algo / f"{env_id}_{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:  # Another run, begun at the same moment, was faster.
            continue
        return folder


def unfinished_run(log_folder: Path, algo: str, env_id: str) -> Path:
    """The newest run that was begun and has no result.

    Raises:
        FileNotFoundError: there is none.
    """
    runs = [folder for _, folder in sorted(_runs(log_folder, algo, env_id))]
    for folder in reversed(runs):
        if (folder / "args.yml").is_file() and not (folder / "result.json").exists():
            return folder
    raise FileNotFoundError(f"there is no unfinished run of {algo} on {env_id} in {log_folder}: start one without --resume")


def read_hyperparams(path: Path, env_id: str, preset: str | None = None) -> dict[str, Any]:
    """The settings for one environment out of a file in rl_zoo3's form; {} where there are none.

    Of rl_zoo3's "env_wrapper" `ACTION_WRAPPER` is known, and read as the env_kwargs that it stands for.

    Args:
        path: the file.
        env_id: the environment.
        preset: other settings for it, which the file holds as "<env_id>/<preset>".

    Raises:
        ValueError: the file has no such preset, or there is another wrapper, which environments that are batched natively can't
            have.
    """
    tuned = yaml.safe_load(path.read_text()) if path.exists() else {}
    if preset is not None and f"{env_id}/{preset}" not in tuned:
        known = [name.removeprefix(f"{env_id}/") for name in tuned if name.startswith(f"{env_id}/")]
        raise ValueError(f"preset must be one of those that {path.name} has for {env_id}, {known or 'none'}, got {preset!r}")
    settings = dict(tuned.get(f"{env_id}/{preset}" if preset else env_id, {}))
    if "env_wrapper" in settings:
        settings["env_kwargs"] = {**_wrapper_options(settings.pop("env_wrapper")), **settings.get("env_kwargs", {})}
    return settings


def merge(settings: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """Both together; where both have a value the second's counts, entry by entry where it is a dict."""
    merged = {**settings, **others}
    for name in settings.keys() & others.keys():
        if isinstance(settings[name], dict) and isinstance(others[name], dict):
            merged[name] = merge(settings[name], others[name])
    return merged


def change(settings: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The settings with new values; "policy_kwargs.core" changes one entry of the dict "policy_kwargs", "policy_kwargs" all.

    Raises:
        ValueError: a name goes into something that has no entries.
    """
    changed = dict(settings)
    for name, value in params.items():
        first, _, rest = name.partition(".")
        if rest:
            entries = changed.get(first, {})
            if not isinstance(entries, dict):
                raise ValueError(f"{name} can't be set: {first} is {entries!r}, which has no entries")
            value = change(entries, {rest: value})
        changed[first] = value
    return changed


def parse_settings(settings: dict[str, Any], action_space: spaces.Space) -> dict[str, Any]:
    """rl_zoo3's "lin_0.001" as a schedule that falls to 0, its noise_type and noise_std as action noise; the rest as it is.

    Raises:
        ValueError: a noise type that is not known, or one without noise_std.
    """
    parsed = {name: parse_schedule(value) for name, value in settings.items() if not name.startswith("noise_")}
    if "noise_type" in settings:
        if settings["noise_type"] not in _NOISES or "noise_std" not in settings:
            raise ValueError(f"noise_type must be one of {tuple(_NOISES)}, beside noise_std, got {settings['noise_type']!r}")
        ones = np.ones(action_space.shape or (1,))
        parsed["action_noise"] = _NOISES[settings["noise_type"]](0 * ones, settings["noise_std"] * ones)
    return parsed


def parse_schedule(value: Any) -> Any:
    """rl_zoo3's "lin_0.001" as a schedule; anything else as it is."""
    if isinstance(value, str) and value.startswith("lin_"):
        return LinearSchedule(float(value.removeprefix("lin_")), 0.0, 1.0)
    return value


def write_yaml(path: Path, values: dict[str, Any]) -> None:
    """Write plain values, in their order."""
    path.write_text(yaml.safe_dump(values, sort_keys=False))


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Write result.json."""
    path.write_text(json.dumps(result, indent=2) + "\n")


def current_commit(folder: Path) -> str | None:
    """The commit checked out in the folder, with "-dirty" behind it where files differ; None outside git."""
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def name_processor() -> str:
    """The processor's name as far as it is known, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()  # Linux; elsewhere `platform` knows it.
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), "") or platform.processor() or platform.machine()


def _wrapper_options(wrappers: Any) -> dict[str, Any]:
    """The environment's options that rl_zoo3's env_wrapper, [{ACTION_WRAPPER: options}], stands for."""
    if not isinstance(wrappers, list) or any(not isinstance(one, dict) or list(one) != [ACTION_WRAPPER] for one in wrappers):
        raise ValueError(f"env_wrapper must be a list of {ACTION_WRAPPER}: {{action_format: ...}} alone, got {wrappers!r}")
    return {name: value for one in wrappers for name, value in one[ACTION_WRAPPER].items()}


def _runs(log_folder: Path, algo: str, env_id: str) -> list[tuple[int, Path]]:
    numbered = []
    for folder in (log_folder / algo).glob(f"{env_id}_*"):
        number = folder.name.removeprefix(f"{env_id}_")
        if number.isdigit():
            numbered.append((int(number), folder))
    return numbered
