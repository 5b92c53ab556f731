"""Images per second of `RAM.learn`, environment included, beside the bare network on ready-made glimpses.

The bare network is the same policy: forward over all steps, the same losses, backward, the same optimizer step, the same batch.
What it lacks is the environment, the sampling of actions, SB3's loop and its logging. Both take turns in one process, one thread.

python benchmarks/training.py
python benchmarks/training.py --json results/training.json
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
import numpy as np
import torch
from gymnasium.vector import AutoresetMode

import ram_envs
from agents import RAM
from agents.distributions import location_log_prob
from agents.losses import baseline_loss, classification_loss, reinforce_loss

ROUNDS = 11
UPDATES = 20  # In a turn.
BATCHES = (128, 256)
CASES: dict[str, dict[str, Any]] = {
    "28x28, 7 glimpses of 8x8, 1 scale": {"num_glimpses": 7, "glimpse_size": 8, "num_scales": 1},
    "60x60, 8 glimpses of 12x12, 3 scales": {"num_glimpses": 8, "glimpse_size": 12, "num_scales": 3},
}


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = {f"{name}, batch {batch}": compare(name, retina, batch) for name, retina in CASES.items() for batch in BATCHES}
    print("| images per second | bare network | RAM.learn | ratio |\n|---|---|---|---|")
    for name, row in results.items():
        print(f"| {name} | {row['bare']:,} | {row['learn']:,} | {row['ratio']} |")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def compare(name: str, retina: dict[str, Any], batch: int) -> dict[str, float]:
    """Medians over turns."""
    model = RAM("RAMPolicy", make_env(name, retina, batch), seed=0, device="cpu", learning_rate=1e-4)
    learn, bare = learner(model, retina["num_glimpses"]), bare_network(model, retina, batch)
    learn(), bare()
    turns = [(bare(), learn()) for _ in range(ROUNDS)]
    return {
        "bare": round(statistics.median(turn[0] for turn in turns)),
        "learn": round(statistics.median(turn[1] for turn in turns)),
        "ratio": round(statistics.median(turn[1] / turn[0] for turn in turns), 3),
    }


def make_env(name: str, retina: dict[str, Any], batch: int) -> gym.vector.VectorEnv:
    """The environments of a case; for 60x60 each digit lies in the middle of a larger canvas."""
    env = gym.make_vec(
        "GlimpseMNIST-v0",
        num_envs=batch,
        action_format="box",
        autoreset_mode=AutoresetMode.SAME_STEP,
        **retina,
    )
    if name.startswith("60x60"):
        task: ram_envs.GlimpseClassification = env.unwrapped.task  # type: ignore[attr-defined]
        canvas = np.pad(task.images.images[:10_000], ((0, 0), (16, 16), (16, 16)))
        task.images = ram_envs.ImageSet("60x60", canvas, task.images.labels[:10_000], 10)
        task.scenes = np.zeros((batch, 60, 60), np.uint8)
    return env


def learner(model: RAM, num_glimpses: int) -> Callable[[], float]:
    """Runs `RAM.learn` for a turn; returns images per CPU second."""

    def run() -> float:
        start = time.process_time()
        model.learn(UPDATES * model.n_envs * num_glimpses, reset_num_timesteps=False)
        return UPDATES * model.n_envs / (time.process_time() - start)

    return run


def bare_network(model: RAM, retina: dict[str, Any], batch: int) -> Callable[[], float]:
    """Runs the network's own work for a turn; returns images per CPU second."""
    steps, size = retina["num_glimpses"], retina["glimpse_size"]
    glimpses = torch.rand(steps, batch, retina["num_scales"], size, size)
    locations = torch.rand(steps, batch, 2) * 2 - 1
    labels = torch.randint(10, (steps, batch))
    returns, everywhere = torch.rand(steps, batch), torch.ones(steps, batch)
    policy = model.policy

    def update() -> None:
        state, outputs = policy.initial_state(batch), []
        for step in range(steps):
            output = policy({"glimpse": glimpses[step], "location": locations[step]}, state)
            state = output.state
            outputs.append(output)
        means, logits, values = (torch.stack(parts) for parts in list(zip(*outputs, strict=True))[:3])
        log_probs = location_log_prob(locations, means, policy.location_std)
        loss: Any = reinforce_loss(log_probs, returns - values, everywhere) * 1e-2
        loss = loss + baseline_loss(values, returns) + classification_loss(logits, labels, everywhere)
        policy.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), model.max_grad_norm)
        policy.optimizer.step()

    def run() -> float:
        start = time.process_time()
        for _ in range(UPDATES):
            update()
        return UPDATES * batch / (time.process_time() - start)

    return run


if __name__ == "__main__":
    main()
