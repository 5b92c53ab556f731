"""Files that are whole or not there, and the checkpoint from which a stopped run resumes and ends as an unbroken one would.

A checkpoint is a .npz of arrays, one of them the JSON of all else, and behind it the SHA-256 of these bytes. To read one, or the
weights of a saved model, runs no code out of the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import shutil
import warnings
import zipfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import load_from_zip_file, recursive_getattr, recursive_setattr
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

CHECKPOINT, PREVIOUS = "checkpoint.npz", "checkpoint_previous.npz"  # In a run's folder.
FORMAT = 1
_TREE = "tree"  # The name of the array that holds the JSON.
_DIGEST_SIZE = 32
_PLAIN = (type(None), bool, int, float, str)
# Attributes that are set anew where a run resumes, and recurrent states, which are tensors.
_NEW, _STATES = {"tensorboard_log", "verbose", "start_time"}, ("_state", "_last_lstm_states")


@contextmanager
def written(path: Path) -> Iterator[BufferedRandom]:
    """A file for what shall be at `path`, which it takes when all is on the disk: a stop leaves the old file or the new one.

    Raises:
        OSError: it can't be written; the message names it.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.strerror and error.filename is None:  # Such as a disk that is full.
            raise OSError(error.errno, f"{path} can't be written: {error.strerror}") from error
        raise
    _sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file as `written` does."""
    with written(path) as file:
        file.write(text.encode())


def link(path: Path, other: Path) -> None:
    """Give a file another name, or copy it where the disk has no such names."""
    other.unlink(missing_ok=True)
    try:
        os.link(path, other)
    except OSError:
        shutil.copyfile(path, other)


def save_checkpoint(folder: Path, model: BaseAlgorithm, env: VecEnv, progress: dict[str, Any]) -> None:
    """Write what `restore` needs: weights, optimizer, random states, and environments in mid-episode that can be stored. The
    checkpoint before is kept.

    Args:
        folder: the run's.
        model: between two rollouts.
        env: its environments.
        progress: what else belongs to the run, such as its evaluations so far: plain values and arrays.
    """
    new = folder / "checkpoint_new.npz"
    with written(new) as file:
        arrays: dict[str, np.ndarray] = {}
        tree = json.dumps(_pack(_state_of(model, env, progress), arrays))
        np.savez(file, **arrays, **{_TREE: np.frombuffer(tree.encode(), np.uint8)})  # type: ignore[arg-type]
        file.flush()
        file.write(_digest(file, file.seek(0, os.SEEK_END)))
    if (folder / CHECKPOINT).exists():
        os.replace(folder / CHECKPOINT, folder / PREVIOUS)
    os.replace(new, folder / CHECKPOINT)
    _sync(folder)


def check_space(folder: Path, model: BaseAlgorithm, env: VecEnv, progress: dict[str, Any]) -> None:
    """See that the disk has room for what a run writes: the checkpoint, the one before, the next one, and the best model.

    Raises:
        OSError: it has not, or the folder can't be written to.
        TypeError: something of the model or the environments can't be stored.
    """
    arrays: dict[str, np.ndarray] = {}
    tree = _pack(_state_of(model, env, progress), arrays)
    if (buffer := getattr(model, "replay_buffer", None)) is not None:
        _pack(_buffer_state(buffer, None), arrays)
    weights = sum(part.nbytes for part in model.policy.parameters())  # An optimizer comes to keep twice that.
    size = len(json.dumps(tree)) + sum(array.nbytes for array in arrays.values()) + (0 if model.num_timesteps else 2 * weights)
    needed = (3 - len(checkpoints_in(folder))) * size + (0 if (folder / "best_model.zip").exists() else 3 * weights)
    probe = folder / "probe.partial"
    try:
        with probe.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, needed) if hasattr(os, "posix_fallocate") else file.write(b"\0")
    except OSError as error:
        needs = f"{folder} must take {needed / 1e6:.1f} MB of checkpoints and models"
        raise OSError(error.errno, f"{needs}: {error.strerror}") from error
    finally:
        probe.unlink(missing_ok=True)


def checkpoints_in(folder: Path) -> list[Path]:
    """What there is to resume from, the newest first."""
    return [folder / name for name in (CHECKPOINT, PREVIOUS) if (folder / name).exists()]


def remove_checkpoints(folder: Path) -> None:
    """A finished run needs none, nor what stops have left half written."""
    for path in (*folder.glob("checkpoint*.npz"), *folder.glob("*.partial")):
        path.unlink()


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """The newest checkpoint of a run that is whole, for `restore`; a warning tells of one that is not.

    Raises:
        ValueError: none is whole, or it is of another version.
    """
    problems = []
    for path in checkpoints_in(folder):
        try:
            state = _load(path)
        except (ValueError, OSError) as error:
            problems.append(str(error))
            continue
        if problems:
            warnings.warn(f"{problems[0]}: resuming from the one before, {path.name}", stacklevel=2)
        return state
    raise ValueError(f"{' and '.join(problems)}: the run can't be resumed, remove {folder} to begin anew")


def restore(state: dict[str, Any], model: BaseAlgorithm, env: Any) -> dict[str, Any]:
    """Set everything as it was at a checkpoint, and return the run's progress; `learn(..., reset_num_timesteps=False)` continues.

    A run may resume on another device, but then not bit for bit.

    Args:
        state: of `read_checkpoint`.
        model: made as that of the run was.
        env: its environments, made as those of the run.
    """
    _set_parameters(model, state["parameters"], state["variables"])
    vars(model).update(_on(model.device, state["attributes"]))
    if state["env"] is None:  # Episodes begin anew.
        model._last_obs = None
    else:
        env.reset()
        _set_env_state(env, state["env"])
        for name, value in state["states"].items():
            parts, kind = _on(model.device, value), type(getattr(model, name))
            setattr(model, name, kind(*parts) if hasattr(kind, "_fields") else parts)
    if state["buffer"] is not None:
        _set_buffer_state(model.replay_buffer, state["buffer"])  # type: ignore[attr-defined]
    model.action_space.np_random.bit_generator.state = state["exploration"]
    random.setstate(state["random"][0])
    np.random.set_state(state["random"][1])  # noqa: NPY002 (SB3 draws from it)
    torch.set_rng_state(state["random"][2])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    return state["progress"]


def load_weights(model: BaseAlgorithm, path: Path) -> None:
    """Set weights and optimizer of a model to those in a file of SB3's `save`, without its pickled part.

    Raises:
        ValueError: the file is damaged, or the weights are not those of this network.
    """
    try:
        _, parameters, variables = load_from_zip_file(path, device=model.device, load_data=False)
        _set_parameters(model, parameters, variables or {})
    except (ValueError, TypeError, RuntimeError, KeyError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path} holds no weights of this {type(model).__name__} with these hyperparameters: {why}") from error


def _state_of(model: BaseAlgorithm, env: VecEnv, progress: dict[str, Any]) -> dict[str, Any]:
    buffer = getattr(model, "replay_buffer", None)
    return {
        "format": FORMAT,
        "parameters": model.get_parameters(),
        "variables": {name: recursive_getattr(model, name) for name in model._get_torch_save_params()[1]},
        "attributes": _attributes(model),
        "states": {name: states and tuple(states) for name in _STATES if (states := getattr(model, name, ())) != ()},
        "buffer": None if buffer is None else _buffer_state(buffer, None if buffer.full else buffer.pos),
        "exploration": model.action_space.np_random.bit_generator.state,
        "random": [random.getstate(), np.random.get_state(), torch.get_rng_state()],  # noqa: NPY002 (SB3 draws from it)
        "cuda": torch.cuda.get_rng_state_all() if model.device.type == "cuda" else [],
        "env": _env_state(env),
        "progress": progress,
    }


def _attributes(model: BaseAlgorithm) -> dict[str, Any]:
    """What an algorithm counts and carries from step to step: its plain attributes. All others are made anew with the model."""
    modules, variables = model._get_torch_save_params()
    others = {*model._excluded_save_params(), *(name.partition(".")[0] for name in (*modules, *variables)), *_NEW, *_STATES}
    return {name: value for name, value in vars(model).items() if name not in others and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    """Whether it is a tensor (lists of tensors are views of weights), or numbers, text and arrays in lists, dicts and tuples."""
    leaves = tree_leaves(value, is_leaf=lambda part: isinstance(part, (dict, tuple)) and type(part) not in (dict, tuple))
    return isinstance(value, Tensor) or all(
        type(leaf) in _PLAIN or (isinstance(leaf, (np.ndarray, np.generic)) and leaf.dtype.kind in "biuf") for leaf in leaves
    )


def _set_parameters(model: BaseAlgorithm, parameters: dict[str, Any], variables: dict[str, Any]) -> None:
    model.set_parameters(parameters, device=model.device)
    for name, value in variables.items():
        if value is not None:
            recursive_setattr(model, f"{name}.data", value.data.to(model.device))


def _buffer_state(buffer: Any, size: int | None) -> dict[str, Any]:
    """The first `size` rows of a replay buffer (None: all), and its numbers, such as where the next row goes."""
    state: dict[str, Any] = {}
    for name, value in vars(buffer).items():
        if isinstance(value, (bool, int, float)):
            state[name] = value
        elif isinstance(value, np.ndarray):
            state[name] = value[:size]
        elif isinstance(value, dict) and value and all(isinstance(part, np.ndarray) for part in value.values()):
            state[name] = {part: rows[:size] for part, rows in value.items()}
    return state


def _set_buffer_state(buffer: Any, state: dict[str, Any]) -> None:
    for name, value in state.items():
        if isinstance(value, dict):
            for part, rows in value.items():
                getattr(buffer, name)[part][: len(rows)] = rows
        elif isinstance(value, np.ndarray):
            getattr(buffer, name)[: len(value)] = value
        else:
            setattr(buffer, name, value)


def _env_state(env: Any) -> list[Any] | None:
    """The state of a natively batched environment that has `get_state`, and of what `make_vec_env` puts around it."""
    if isinstance(env.unwrapped.env.unwrapped, (AsyncVectorEnv, SyncVectorEnv)) or not env.has_attr("get_state"):
        return None
    frames = [part.stacked_obs for part in _stacks(env)]
    return [env.env_method("get_state")[0], env.episode_returns, env.episode_lengths, frames]


def _set_env_state(env: Any, state: list[Any]) -> None:
    batch, env.episode_returns, env.episode_lengths, frames = state
    env.env_method("set_state", batch)
    for part, stacked in zip(_stacks(env), frames, strict=True):
        part.stacked_obs = stacked


def _stacks(env: Any) -> list[Any]:
    """What stacks frames: one object for each part of the observations."""
    if not isinstance(env.venv, VecFrameStack):
        return []
    stacked = env.venv.stacked_obs
    return list(getattr(stacked, "sub_stacked_observations", {"all": stacked}).values())


def _on(device: torch.device, value: Any) -> Any:
    return tree_map_only(Tensor, lambda part: part.to(device), value)


def _load(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END) - _DIGEST_SIZE
        digest = _digest(file, size) if size > 0 else None
        file.seek(max(size, 0))
        if file.read() != digest:
            raise ValueError(f"{path} is damaged: its bytes are not those that were written")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as arrays:
                state = _unpack(json.loads(arrays[_TREE].tobytes()), arrays)
            version = state.get("format")
        except (AttributeError, ArithmeticError, LookupError, TypeError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is no checkpoint: {error}") from error
    if version != FORMAT:
        raise ValueError(f"{path} must have the format {FORMAT} for this version of ram-envs, got {version!r}")
    return state


def _digest(file: BinaryIO, size: int) -> bytes:
    """The SHA-256 of the first `size` bytes."""
    return hashlib.sha256(np.memmap(file, np.uint8, "r", shape=(size,)).data).digest()


def _pack(value: Any, arrays: dict[str, np.ndarray], where: str = "") -> Any:
    """The value as JSON has it: lists stay lists, all else is {kind: content}; arrays go into `arrays`.

    Raises:
        TypeError: it holds something that is neither plain nor an array.
    """
    key = str(len(arrays))
    if type(value) in _PLAIN:
        return value
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return {"scalar": [value.dtype.str, value.item()]}
    if isinstance(value, Tensor):
        arrays[key] = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        return {"tensor": [key, str(value.dtype).removeprefix("torch."), list(value.shape)]}
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        arrays[key] = value
        return {"array": key}
    if isinstance(value, dict):
        return {"dict": [[_pack(name, arrays), _pack(part, arrays, f"{where}[{name!r}]")] for name, part in value.items()]}
    if type(value) not in (list, tuple, deque):
        raise TypeError(f"a checkpoint holds numbers, text, arrays, and lists and dicts of them, got {type(value)} for {where}")
    parts = [_pack(part, arrays, f"{where}[{i}]") for i, part in enumerate(value)]
    return parts if type(value) is list else {"tuple": parts} if type(value) is tuple else {"deque": [value.maxlen, *parts]}


def _unpack(packed: Any, arrays: Any) -> Any:
    if isinstance(packed, list):
        return [_unpack(part, arrays) for part in packed]
    if not isinstance(packed, dict):
        return packed
    [(kind, content)] = packed.items()
    if kind == "scalar":
        return np.dtype(content[0]).type(content[1])
    if kind == "array":
        return arrays[content]
    if kind == "tensor":
        data, dtype, shape = torch.from_numpy(arrays[content[0]]), getattr(torch, content[1]), content[2]
        return data.view(dtype).reshape(shape) if len(data) else torch.empty(shape, dtype=dtype)
    parts = _unpack(content, arrays)
    return dict(parts) if kind == "dict" else tuple(parts) if kind == "tuple" else deque(parts[1:], parts[0])


def _sync(folder: Path) -> None:
    """Have renames on the disk, where folders can be opened for that."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
