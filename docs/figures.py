"""Draw how the pretrained agents look: docs/images/pretrained_<id>.png, as Figure 3 of the paper, or a film (.gif) of games.

python docs/figures.py
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

import ram_envs  # noqa: F401 (registers the environments)
from agents import load_pretrained, pretrained_ids, pretrained_settings
from agents.evaluation import GAME_EVALUATIONS, has_images, watch
from agents.figures import plot_glimpses
from agents.film import record
from agents.pretrained import WEIGHTS
from ram_envs.mnist import StandInWarning

IMAGES = Path(__file__).parent / "images"


def draw(env_id: str) -> Path:
    """The agent at the first eight test images, or at the first test games; returns the picture's path."""
    settings = pretrained_settings(env_id)
    torch.set_float32_matmul_precision(settings["matmul_precision"])
    model, env_kwargs = load_pretrained(env_id), settings["env_kwargs"]
    path = IMAGES / f"pretrained_{env_id}.{'png' if has_images(env_id) else 'gif'}"
    if has_images(env_id):
        plot_glimpses(watch(model, env_id, env_kwargs), path)
    else:
        record(model, env_id, path, seed=GAME_EVALUATIONS["test"][1], **env_kwargs)
    return path


def main() -> None:
    """Draw all.

    Raises:
        StandInWarning: the agents saw all of MNIST, and here a few digits would stand in for it.
    """
    if not pretrained_ids():
        print(f"There are no weights in {WEIGHTS}: nothing to draw")
    with warnings.catch_warnings():
        warnings.simplefilter("error", StandInWarning)
        for env_id in pretrained_ids():
            print(f"{draw(env_id)} written")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
