"""What stands beside stored weights: where they come from, how good they are, and how that was measured."""

from __future__ import annotations

from collections import Counter
from typing import Any

from agents.ram import RAM

_NEEDED = ("test_error", "test_episodes", "validation_error", "n_timesteps", "seed", "command", "commit", "torch", "machine")


def model_card(model: RAM, env_id: str, result: dict[str, Any], num_bytes: int) -> str:
    """The card as Markdown.

    Args:
        model: the agent.
        env_id: the environment it was trained in.
        result: what its run's result.json holds; beside it perhaps "validation_episodes" and "chosen_from", the seeds of the runs
            of which it was the best on validation.
        num_bytes: the size of the weights' file.

    Raises:
        ValueError: the result lacks something.
    """
    if missing := [name for name in _NEEDED if name not in result]:
        raise ValueError(f"result must hold {', '.join(_NEEDED)}, lacks {', '.join(missing)}")
    rows = {**_measured(result), **_trained(result), **_network(model)}
    table = "\n".join(f"| {name} | {_escaped(text)} |" for name, text in rows.items())
    return f"""# {env_id}

RAM, the recurrent attention agent of ram-envs, trained in `{env_id}`.

| | |
|---|---|
{table}
| file | `{env_id}.safetensors`, {num_bytes / 1e6:.2f} MB, float32 |

```python
from agents import load_pretrained

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
    chosen = f"{result['validation_error']:g} %"
    if "validation_episodes" in result:
        chosen += f" of {result['validation_episodes']:,} {what}"
    rows = {
        "test error": f"{result['test_error']:g} % of {result['test_episodes']:,} {what}",
        "validation error": chosen,
        "protocol": "the model that was best on validation, tested once: one pass, greedy locations and choices",
    }
    if "dataset" in result:
        rows["data"] = f"{result['dataset']}: {result['dataset_size']:,} images to learn from; validation and test have others"
    if result.get("env_kwargs"):
        rows["options of the environment"] = _pairs(result["env_kwargs"])
    if len(result.get("chosen_from", ())) > 1:
        rows["chosen"] = f"by the validation error, of the seeds {', '.join(map(str, sorted(result['chosen_from'])))}"
    return rows


def _trained(result: dict[str, Any]) -> dict[str, str]:
    rows = {"steps of the environment": f"{result['n_timesteps']:,}"}
    if "train_cpu_seconds" in result:
        rows["CPU seconds"] = f"{result['train_cpu_seconds']:,.0f}"
    return {
        **rows,
        "seed": str(result["seed"]),
        "command": f"`{result['command']}`",
        "commit": f"`{result['commit']}`",
        "torch": result["torch"],
        "machine": result["machine"],
    }


def _network(model: RAM) -> dict[str, str]:
    policy = model.policy
    parts: Counter[str] = Counter()
    for name, weights in policy.named_parameters():
        parts[name.partition(".")[0]] += weights.numel()
    shapes = ", ".join(f"{name} {space.shape}" for name, space in model.observation_space.items())  # type: ignore[attr-defined]
    return {
        "sees": shapes,
        "chooses": f"a location, {', '.join(f'{name} of {size}' for name, size in policy.choices.items())}",
        "network": f"core {policy.core_name}, {policy.core_size} units; glimpse network {policy.network_name}",
        "parameters": f"{parts.total():,}: {', '.join(f'{name} {number:,}' for name, number in parts.items())}",
    }


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"`{name}={value!r}`" for name, value in values.items())


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
