"""Trained agents that come with the package, one for an environment, as safetensors: to load one runs no code out of its file."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from stable_baselines3.common.type_aliases import GymEnv
from torch import Tensor

from .policy import RAMPolicy, RAMPolicyOptions, current_names
from .ram import RAM, RAMHyperparams
from .vec_env import ScoresBox

PRETRAINED = "pretrained"  # Stands for an agent of this package where else a saved model's path does.
WEIGHTS = Path(__file__).parent / "weights"
FORMAT = 2
# Options of the policy that say how it learns and not what it is.
_NOT_STORED = {"optimizer_class", "optimizer_kwargs"}
_NEEDED = ("test_error", "test_episodes", "validation_error", "n_timesteps", "seed", "command", "commit", "torch", "machine")


@dataclass(frozen=True)
class Config:
    """What a file holds beside the weights."""

    format: int
    env_id: str
    env_kwargs: dict[str, Any]  # Options of the environment.
    frame_stack: int  # `make_vec_env`'s.
    matmul_precision: str  # torch's; the figure on the card was measured with it.
    observations: dict[str, dict[str, Any]]  # Each part's Box.
    actions: dict[str, Any]  # A Box, or the choices of a `ScoresBox`.
    policy_kwargs: dict[str, Any]
    hyperparams: dict[str, Any]  # `RAMHyperparams`, for those who continue learning.


def pretrained_ids(folder: str | Path | None = None) -> tuple[str, ...]:
    """The environments for which there is a trained agent, in the package or in a folder of your own."""
    return tuple(sorted(path.stem for path in Path(folder or WEIGHTS).glob("*.safetensors")))


def load_pretrained(
    env_id: str, env: GymEnv | VectorEnv | None = None, device: torch.device | str = "auto", folder: str | Path | None = None
) -> RAM:
    """A trained agent, ready to `predict`; to let it continue learning, give it environments.

    Args:
        env_id: one of `pretrained_ids(folder)`.
        env: a single environment, an SB3 `VecEnv` or a Gymnasium vector environment with the spaces that it learned in.
        device: as in Stable-Baselines3.
        folder: where `save_pretrained` wrote; None: the package's own.

    Raises:
        ValueError: there is none for `env_id`, the file is none that this version can read, or `env` does not fit.
    """
    config, weights = _read(env_id, folder)
    try:
        model = _make_model(config, device)
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        MemoryError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(f"the agent for env_id={env_id!r} can't be made on device={str(device)!r}: {error}") from error
    _set_weights(model, env_id, weights)
    if env is not None:
        vec_env = model._wrap_env(env)
        model.n_envs = vec_env.num_envs
        model.set_env(vec_env)
    return model


def _make_model(config: Config, device: torch.device | str) -> RAM:
    model = RAM(policy_kwargs=config.policy_kwargs, device=device, _init_setup_model=False, **config.hyperparams)
    model.observation_space = spaces.Dict({name: _make_box(**part) for name, part in config.observations.items()})
    model.action_space = ScoresBox(**config.actions) if "choices" in config.actions else _make_box(**config.actions)
    model._setup_model()
    return model


def load_pretrained_weights(model: RAM, env_id: str) -> RAM:
    """The model itself, made with `pretrained_hyperparams`, with the trained agent's weights.

    Raises:
        ValueError: as in `load_pretrained`, or the model has another network.
    """
    _set_weights(model, env_id, _read(env_id, None)[1])
    return model


def pretrained_hyperparams(env_id: str, folder: str | Path | None = None) -> dict[str, Any]:
    """What the agent was made and trained with, in the form of hyperparams/ram.yml; "env_kwargs" are its environment's options.

    Raises:
        ValueError: as in `load_pretrained`.
    """
    config = _read(env_id, folder)[0]
    names = ("policy_kwargs", "env_kwargs", "matmul_precision", *(("frame_stack",) if config.frame_stack > 1 else ()))
    return {**config.hyperparams, **{name: getattr(config, name) for name in names}}


def save_pretrained(model: RAM, folder: str | Path, env_id: str, result: dict[str, Any]) -> Path:
    """Write <env_id>.safetensors, and beside it <env_id>.md, which says where it comes from and how good it is.

    Args:
        model: a RAM with the package's own policy, cores and glimpse networks.
        folder: where to write.
        env_id: the environment it was trained in.
        result: what its run's result.json holds.

    Returns:
        the path of the weights.

    Raises:
        ValueError: something of the model can't be stored as plain values, or the result lacks something.
    """
    if not re.fullmatch(r"[\w.-]+", env_id):
        raise ValueError(f"env_id must consist of letters, digits, '.', '_' and '-' to name a file, got {env_id!r}")
    config = _describe(model, env_id, result)
    tensors = {name: tensor.cpu() for name, tensor in model.acting_policy.state_dict().items()}
    weights = {name: (one.float() if one.is_floating_point() else one).clone().contiguous() for name, one in tensors.items()}
    content = save(weights, {"config": json.dumps(asdict(config))})
    card = _card(model, env_id, result, len(content))
    path = Path(folder) / f"{env_id}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.with_suffix(".md").write_text(card, "utf-8")
    return path


def _set_weights(model: RAM, env_id: str, weights: dict[str, Tensor]) -> None:
    try:
        model.policy.load_state_dict(weights)
        model.acting_policy.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"the weights for env_id={env_id!r} are those of another network than policy_kwargs make") from error


def _describe(model: RAM, env_id: str, result: dict[str, Any]) -> Config:
    if type(model.policy) is not RAMPolicy:
        raise ValueError(f"model must have a RAMPolicy to be stored, got {type(model.policy).__name__}: keep it with model.save")
    policy_kwargs = {**vars(model.policy.options), "scene_size": model.policy.scene_size}
    given = result.get("hyperparams", {})
    hyperparams = {field.name: getattr(model, field.name) for field in fields(RAMHyperparams)}
    hyperparams |= {name: given[name] for name, value in hyperparams.items() if callable(value) and name in given}  # "lin_0.1".
    assert isinstance(model.observation_space, spaces.Dict)
    actions = model.action_space
    return Config(
        format=FORMAT,
        env_id=env_id,
        env_kwargs=_plain_dict(result.get("env_kwargs", {})),
        frame_stack=given.get("frame_stack", 1),
        matmul_precision=given.get("matmul_precision", "highest"),
        observations={name: _describe_box(name, part) for name, part in model.observation_space.items()},
        actions={"choices": actions.choices} if hasattr(actions, "choices") else _describe_box("the actions", actions),
        policy_kwargs=_plain_dict({name: value for name, value in policy_kwargs.items() if name not in _NOT_STORED}),
        hyperparams=_plain_dict(hyperparams),
    )


def _plain_dict(values: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives them back."""
    plain = {}
    for name, value in values.items():
        try:
            plain[name] = json.loads(json.dumps(value))
        except TypeError as error:
            message = f"{name} must be numbers, text, lists or dicts to be stored, got {value!r}: keep it with model.save"
            raise ValueError(message) from error
    return plain


def _describe_box(name: str, space: spaces.Space) -> dict[str, Any]:
    if not isinstance(space, spaces.Box) or space.dtype != np.float32:
        raise ValueError(f"{name} must be a Box of float32 to be stored, got {space}")
    low, high = (ends.tolist() if (ends != ends.flat[0]).any() else float(ends.flat[0]) for ends in (space.low, space.high))
    return {"shape": list(space.shape), "low": low, "high": high}


def _make_box(shape: list[int], low: Any, high: Any) -> spaces.Box:
    with np.errstate(over="raise"):
        return spaces.Box(np.full(shape, low, np.float32), np.full(shape, high, np.float32))


def _read(env_id: str, folder: str | Path | None) -> tuple[Config, dict[str, Tensor]]:
    known, env_id = pretrained_ids(folder), env_id.rpartition(":")[2]  # "module:id" too, as `gymnasium.make` takes it.
    if env_id not in known:
        raise ValueError(f"env_id must be one with weights ({', '.join(known) or 'there are none'}), got {env_id!r}")
    path = Path(folder or WEIGHTS) / f"{env_id}.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            metadata, weights = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config = json.loads(metadata.get("config", "{}"))
    except (SafetensorError, RecursionError, ValueError) as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
    return _parse(path, _current(config) if isinstance(config, dict) else {}), weights


def _current(config: dict[str, Any]) -> dict[str, Any]:
    """The config of a file of an earlier version as one of today's."""
    if isinstance(config.get("policy_kwargs"), dict):
        config["policy_kwargs"] = current_names(config["policy_kwargs"])
    names = ("settings", "policy_kwargs", "env_kwargs")
    if config.get("format") != 1 or not all(isinstance(config.get(name), dict) for name in names):
        return config
    hyperparams, policy_kwargs = config.pop("settings"), config["policy_kwargs"]
    policy_kwargs.setdefault("location_policy", hyperparams.pop("location_policy", "learned"))
    new = {"format": FORMAT, "frame_stack": config["env_kwargs"].pop("frame_stack", 1)}
    return {**config, **new, "hyperparams": hyperparams, "policy_kwargs": policy_kwargs}


def _parse(path: Path, config: dict[str, Any]) -> Config:
    """Nothing unknown gets any further: what a file names may only be what `save_pretrained` writes."""
    if config.get("format") != FORMAT:
        raise ValueError(f"{path} must have the format {FORMAT} for this version of ram-envs, got {config.get('format')!r}")
    names, policy_names, hyperparams = ({field.name for field in fields(of)} for of in (Config, RAMPolicyOptions, RAMHyperparams))
    _check_names(path, "config", config, names)
    if missing := sorted(names - set(config)):
        raise ValueError(f"config in {path} must hold {', '.join(sorted(names))}, lacks {', '.join(missing)}")
    for field in fields(Config):
        kind = str(field.type).partition("[")[0]
        if type(config[field.name]).__name__ != kind:
            raise ValueError(f"{field.name} in {path} must be of the type {kind}, got {config[field.name]!r}")
    parsed = Config(**config)
    _check_names(path, "policy_kwargs", parsed.policy_kwargs, policy_names - _NOT_STORED)
    _check_names(path, "hyperparams", parsed.hyperparams, hyperparams)
    if parsed.env_id != path.stem:
        raise ValueError(f"{path} must hold an agent for {path.stem}, got one for {parsed.env_id!r}")
    return parsed


def _check_names(path: Path, what: str, values: dict[str, Any], known: set[str]) -> None:
    if unknown := sorted(set(values) - known):
        raise ValueError(f"{what} in {path} may hold {', '.join(sorted(known))}, got {unknown} too")


def _card(model: RAM, env_id: str, result: dict[str, Any], num_bytes: int) -> str:
    """What stands beside stored weights, as Markdown: where they come from, how good they are, and how that was measured."""
    if missing := [name for name in _NEEDED if name not in result]:
        raise ValueError(f"result must hold {', '.join(_NEEDED)}, lacks {', '.join(missing)}")
    rows = {**_measured(result), **_trained(result), **_network(model)}
    table = "\n".join("| {} | {} |".format(name, text.replace("|", "\\|")) for name, text in rows.items())
    return f"""# {env_id}

RAM, the recurrent attention agent of ram-envs, trained in `{env_id}`.

| | |
|---|---|
{table}
| file | `{env_id}.safetensors`, {num_bytes / 1e6:.2f} MB, float32 |

```python
from ram_envs.agents import load_pretrained

model = load_pretrained("{env_id}")
```

The test error again:

```bash
python train_agent.py -i pretrained --env {env_id} --eval-only
```
"""


def _measured(result: dict[str, Any]) -> dict[str, str]:
    """How good it is, on what, and how that was measured."""
    what = "images" if "dataset" in result else "games"
    of_how_many = f" of {result['validation_episodes']:,} {what}" if "validation_episodes" in result else ""
    rows = {
        "test error": f"{result['test_error']:g} % of {result['test_episodes']:,} {what}",
        "validation error": f"{result['validation_error']:g} %{of_how_many}",
        "protocol": "the model that was best on validation, tested once: one pass, greedy locations and choices",
    }
    if "dataset" in result:
        rows["data"] = f"{result['dataset']}: {result['dataset_size']:,} images to learn from; validation and test have others"
    if result.get("env_kwargs"):
        rows["options of the environment"] = ", ".join(f"`{name}={value!r}`" for name, value in result["env_kwargs"].items())
    if len(result.get("chosen_from", ())) > 1:
        rows["chosen"] = f"by the validation error, of the seeds {', '.join(map(str, sorted(result['chosen_from'])))}"
    return rows


def _trained(result: dict[str, Any]) -> dict[str, str]:
    rows = {"steps of the environment": f"{result['n_timesteps']:,}"}
    if "train_cpu_seconds" in result:
        rows["CPU seconds"] = f"{result['train_cpu_seconds']:,.0f}"
    rows |= {"seed": str(result["seed"]), "command": f"`{result['command']}`", "commit": f"`{result['commit']}`"}
    return {**rows, "torch": result["torch"], "machine": result["machine"]}


def _network(model: RAM) -> dict[str, str]:
    policy, seen = model.policy, model.observation_space
    parts: Counter[str] = Counter()
    for name, weights in policy.named_parameters():
        parts[name.partition(".")[0]] += weights.numel()
    return {
        "sees": ", ".join(f"{name} {space.shape}" for name, space in seen.items()),  # type: ignore[attr-defined]
        "chooses": f"a location, {', '.join(f'{name} of {size}' for name, size in policy.choices.items())}",
        "network": f"core {policy.options.core}, {policy.core_size} units; glimpse network {policy.options.glimpse_network}",
        "parameters": f"{parts.total():,}: {', '.join(f'{name} {number:,}' for name, number in parts.items())}",
    }
