"""What a look costs on larger and larger images, beside a convolution over the whole image (Mnih et al. 2014, section 1).

The environment's step is timed without the making of scenes: episodes are long. The convolution is the first layer of the paper's
network, 8 filters of 10x10 at stride 5, over the same images.

python benchmarks/canvas.py
python benchmarks/canvas.py --json results/benchmarks/canvas.json --plot docs/images/canvas.png
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from matplotlib.figure import Figure

import ram_envs  # noqa: F401 (registers the environments)

SIZES = (60, 100, 200, 400, 1000)
BATCHES = (1, 16)
ROUNDS = 15  # Sizes take turns this many times; the medians count.
STEPS = 400  # Of a turn.
CONVOLUTIONS = 4


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--plot", type=Path, help="also draw them there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, Callable[[int], Callable[[], float]]] = {
        **{f"a step, {batch} environments": lambda size, batch=batch: stepper(size, batch) for batch in BATCHES},  # type: ignore[misc]
        "the convolution": convolver,
    }
    results = {name: compare(make) for name, make in rows.items()}
    print(f"| microseconds for an image | {' | '.join(f'{size}x{size}' for size in SIZES)} | largest / smallest |")
    print("|---" * (len(SIZES) + 2) + "|")
    for name, costs in results.items():
        cells = " | ".join(f"{costs[size]:.2f}" for size in SIZES)
        print(f"| {name} | {cells} | {max(costs.values()) / min(costs.values()):.2f} |")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    if options.plot:
        plot(results, options.plot)


def compare(make: Callable[[int], Callable[[], float]]) -> dict[int, float]:
    """The median microseconds of each size, the sizes taking turns."""
    timed = {size: make(size) for size in SIZES}
    turns = [{size: run() for size, run in timed.items()} for _ in range(ROUNDS)]
    return {size: round(1e6 * statistics.median(turn[size] for turn in turns), 3) for size in SIZES}


def stepper(size: int, num_envs: int) -> Callable[[], float]:
    """Takes steps on canvases of a size; returns seconds for one step of one environment."""
    options: dict[str, Any] = {"canvas_size": size, "num_glimpses": 10**9}
    env = gym.make_vec("GlimpseTranslatedMNIST-v0", num_envs=num_envs, **options)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(STEPS)]
    env.reset(seed=0)

    def run() -> float:
        start = time.process_time()
        for action in actions:
            env.step(action)
        return (time.process_time() - start) / STEPS / num_envs

    run()
    return run


def convolver(size: int) -> Callable[[], float]:
    """Convolves images of a size; returns seconds for one."""
    layer, image = torch.nn.Conv2d(1, 8, 10, stride=5), torch.rand(1, 1, size, size)

    def run() -> float:
        with torch.no_grad():
            start = time.process_time()
            for _ in range(CONVOLUTIONS):
                layer(image)
            return (time.process_time() - start) / CONVOLUTIONS

    run()
    return run


def plot(results: dict[str, dict[int, float]], path: Path) -> None:
    """Draw the costs against the size."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axis = figure.subplots()
    for name, costs in results.items():
        axis.plot(list(costs), list(costs.values()), marker="o", label=name)
    axis.set_xlabel("side of the image in pixels")
    axis.set_ylabel("microseconds for an image")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks(SIZES, [str(size) for size in SIZES])
    axis.minorticks_off()
    axis.grid(True, alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
