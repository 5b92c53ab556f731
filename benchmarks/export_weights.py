"""Store the best of some finished runs in one environment as its pretrained agent: weights and card, in agents/weights.

The best has the lowest validation error, whatever the test errors are. The stored agent is loaded again and tested once: it must
have the test error of the run's result.json, else nothing is kept.

python benchmarks/export_weights.py logs/ram/GlimpseMNIST-v0_1 logs/ram/GlimpseMNIST-v0_2 logs/ram/GlimpseMNIST-v0_3
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ram_envs.agents import RAM, get_algorithm, load_pretrained, make_vec_env, pretrained_hyperparams, save_pretrained
from ram_envs.agents.pretrained import WEIGHTS
from ram_envs.agents.training.checkpoints import load_weights
from ram_envs.agents.training.config import RunConfig
from ram_envs.agents.training.evaluation import evaluate_on_test
from ram_envs.agents.training.run import Run, make_model

SAME = ("env", "env_kwargs", "algo", "dataset", "dataset_size")  # What the runs have in common, for errors to be comparable.
FILES = ("result.json", "best_model.zip", "evaluations.npz")  # Of a finished run.


def main(arguments: list[str] | None = None) -> Path:
    """Run the command line; returns the path of the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_FOLDER", help="finished runs of train_agent.py")
    parser.add_argument("--to", type=Path, default=WEIGHTS, help="where to write (default: agents/weights)")
    parser.add_argument("--device", default="cpu", help="where to test: what the run was tested on (default: cpu)")
    parser.add_argument("--num-threads", type=int, default=1, help="threads of torch (default: 1)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.num_threads)
    try:
        path = export(options.runs, options.to, options.device)
    except ValueError as error:
        parser.error(str(error))
    print(f"{path} written, with its card {path.with_suffix('.md').name}")
    return path


def export(runs: list[Path], to: Path, device: str) -> Path:
    """Write weights and card of the best run; returns the path of the weights."""
    folder, result = choose(runs)
    env_id = result["env"]
    with tempfile.TemporaryDirectory() as partial:
        written = save_pretrained(load_best(folder, result, device), partial, env_id, result)
        check_figure(env_id, Path(partial), result, device)
        to.mkdir(parents=True, exist_ok=True)
        for path in (written, written.with_suffix(".md")):
            shutil.copyfile(path, to / path.name)
    return to / written.name


def load_best(folder: Path, result: dict[str, Any], device: str) -> RAM:
    """A finished run's best model, made as the result says, with its weights; no code out of its file runs."""
    run = Run(RunConfig(result["env"], folder, device=device), result["commit"], result["hyperparams"], result["env_kwargs"])
    model: Any = make_model(run, get_algorithm("ram"), make_vec_env(result["env"], frame_stack=run.frame_stack, **run.env_kwargs))
    load_weights(model, folder / "best_model.zip")
    return model


def choose(runs: list[Path]) -> tuple[Path, dict[str, Any]]:
    """The folder with the lowest validation error, and its result with what the card says of the choice."""
    for path in (folder / name for folder in runs for name in FILES):
        if not path.is_file():
            raise ValueError(f"runs must be folders of finished runs, {path.parent} has no {path.name}")
    results = {folder: json.loads((folder / "result.json").read_text("utf-8")) for folder in runs}
    first, *others = results.values()
    for name, other in itertools.product(SAME, others):
        if other.get(name) != first.get(name):
            raise ValueError(f"runs must have the same {name}, got {first.get(name)!r} and {other.get(name)!r}")
    if first["algo"] != "ram":
        raise ValueError(f"runs must be of the algorithm ram, got {first['algo']}")
    best = min(results, key=lambda folder: results[folder]["validation_error"])
    with np.load(best / "evaluations.npz") as curve:
        episodes = curve["successes"].shape[1]
    return best, {**results[best], "validation_episodes": episodes, "chosen_from": [one["seed"] for one in results.values()]}


def check_figure(env_id: str, folder: Path, result: dict[str, Any], device: str) -> None:
    """See that the stored agent has the test error of its card."""
    hyperparams = pretrained_hyperparams(env_id, folder)
    torch.set_float32_matmul_precision(hyperparams["matmul_precision"])
    model = load_pretrained(env_id, device=device, folder=folder)
    again = evaluate_on_test(model, env_id, hyperparams["env_kwargs"], hyperparams.get("frame_stack", 1))
    if again["test_episodes"] != result["test_episodes"]:
        must = f"the stored agent must be tested on the {result['test_episodes']} episodes of its run"
        raise ValueError(f"{must}, there are {again['test_episodes']} here: is it the same data set?")
    if again["test_error"] != result["test_error"]:
        must = f"the stored agent must have the test error of its run, {result['test_error']} %, got {again['test_error']} %"
        there = f"it was tested with torch {result['torch']} on {result['machine']}"
        raise ValueError(f"{must}: {there}, and here with torch {torch.__version__} on {device}")


if __name__ == "__main__":
    main()
