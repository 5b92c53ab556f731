"""Draw how the pretrained agents look: docs/images/pretrained_<id>.png, as Figure 3 of the paper, or a video (.gif) of games.

python docs/figures.py
python docs/figures.py --weights my_weights --out pictures  # agents of your own, see docs/pretrained.md
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import gymnasium as gym
import torch

from ram_envs.agents import load_pretrained, pretrained_hyperparams, pretrained_ids
from ram_envs.agents.training.figures import plot_glimpses, record, watch
from ram_envs.mnist import StandInWarning

IMAGES = Path(__file__).parent / "images"


def draw(env_id: str, weights: Path | None, out: Path) -> Path:
    """The agent at the first eight test images, or at the first test games.

    Args:
        env_id: one of `pretrained_ids(weights)`.
        weights: the folder of the agents; None: the package's own.
        out: the folder of the pictures.

    Returns:
        the picture's path.
    """
    hyperparams = pretrained_hyperparams(env_id, weights)
    torch.set_float32_matmul_precision(hyperparams["matmul_precision"])
    model, env_kwargs = load_pretrained(env_id, folder=weights), hyperparams["env_kwargs"]
    env = gym.make(env_id, **env_kwargs).unwrapped
    if env.num_images:  # type: ignore[attr-defined]
        path = out / f"pretrained_{env_id}.png"
        plot_glimpses(watch(model, env_id, env_kwargs), path)
    else:
        path = out / f"pretrained_{env_id}.gif"
        record(model, env_id, path, seed=env.evaluation("test").seed, **env_kwargs)  # type: ignore[attr-defined]
    return path


def main(arguments: list[str] | None = None) -> None:
    """Draw all.

    Raises:
        StandInWarning: the agents learned on all of MNIST, and here a few digits would stand in for it.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="the folder of the agents (default: the package's own)")
    parser.add_argument("--out", type=Path, default=IMAGES, help="the folder of the pictures (default: docs/images)")
    options = parser.parse_args(arguments)
    env_ids = pretrained_ids(options.weights)
    if not env_ids:
        print(f"There are no weights in {options.weights}: nothing to draw")
    with warnings.catch_warnings():
        warnings.simplefilter("error", StandInWarning)
        for env_id in env_ids:
            print(f"{draw(env_id, options.weights, options.out)} written")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
