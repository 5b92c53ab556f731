"""Draw the learning curves of several runs into one picture.

python docs/curves.py docs/images/catch_curves.png "LSTM, seed 0=logs/ram/GlimpseCatch-v0_1" "ReLU=logs/ram/GlimpseCatch-v0_2"
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure


def main(out: Path, runs: dict[str, Path]) -> None:
    """Draw the share of successes on validation against the steps of the environment, for run folders by their label."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    axis = figure.subplots()
    for label, folder in runs.items():
        curve = np.load(folder / "evaluations.npz")
        axis.plot(curve["timesteps"] / 1e6, 100 * curve["successes"].mean(axis=1), marker=".", label=label)
    axis.set_xlabel("million steps of the environment")
    axis.set_ylabel("success on validation, %")
    axis.set_ylim(0, 101)
    axis.grid(True, alpha=0.3)
    figure.legend(loc="outside right center")
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), {label: Path(folder) for label, folder in (pair.split("=", 1) for pair in sys.argv[2:])})
