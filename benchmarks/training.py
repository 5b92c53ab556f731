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

import torch

import ram_envs
from agents import RAM, make_vec_env
from agents.distributions import location_log_prob
from agents.losses import baseline_loss, classification_loss, reinforce_loss

ROUNDS = 11
UPDATES = 20  # In a turn.
BATCHES = (128, 256)
IDS = ("GlimpseMNIST-v0", "GlimpseTranslatedMNIST-v0")


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = {f"{env_id}, batch {batch}": compare(env_id, batch) for env_id in IDS for batch in BATCHES}
    print("| images per second | bare network | RAM.learn | ratio |\n|---|---|---|---|")
    for name, row in results.items():
        print(f"| {name} | {row['bare']:,} | {row['learn']:,} | {row['ratio']} |")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def compare(env_id: str, batch: int) -> dict[str, float]:
    """Medians over turns."""
    model = RAM("RAMPolicy", make_vec_env(env_id, batch), seed=0, device="cpu", learning_rate=1e-4)
    steps = ram_envs.ENVIRONMENTS[env_id]["num_glimpses"]
    learn, bare = learner(model, steps), bare_network(model, steps)
    learn(), bare()
    turns = [(bare(), learn()) for _ in range(ROUNDS)]
    return {
        "bare": round(statistics.median(turn[0] for turn in turns)),
        "learn": round(statistics.median(turn[1] for turn in turns)),
        "ratio": round(statistics.median(turn[1] / turn[0] for turn in turns), 3),
    }


def learner(model: RAM, num_glimpses: int) -> Callable[[], float]:
    """Runs `RAM.learn` for a turn; returns images per CPU second."""

    def run() -> float:
        start = time.process_time()
        model.learn(UPDATES * model.n_envs * num_glimpses, reset_num_timesteps=False)
        return UPDATES * model.n_envs / (time.process_time() - start)

    return run


def bare_network(model: RAM, steps: int) -> Callable[[], float]:
    """Runs the network's own work for a turn; returns images per CPU second."""
    batch = model.n_envs
    glimpses = torch.rand(steps, batch, *model.observation_space["glimpse"].shape)  # type: ignore[index]
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
        means = torch.stack([output.location_mean for output in outputs])
        logits = torch.stack([output.logits[0] for output in outputs])
        values = torch.stack([output.value for output in outputs])
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
