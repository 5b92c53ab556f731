"""Images per second of `RAM.learn`, environment included, beside the bare network on ready-made glimpses.

The bare network is the same policy: forward over all steps, the same losses, backward, the same optimizer step, the same batch.
What it lacks is the environment, the sampling of actions, SB3's loop and its logging. Both take turns in one process, one thread.

The environments stay on the CPU whatever the device; "environment" is the part of the wall's time in which the network waits for
them.

python benchmarks/training.py
python benchmarks/training.py --json results/training.json
python benchmarks/training.py --device cuda --batches 512 2048 --ids GlimpseClutteredMNIST-v0
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
from stable_baselines3.common.vec_env import VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn
from torch import Tensor

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
    parser.add_argument("--device", default="cpu", help="of torch (default: cpu)")
    parser.add_argument("--ids", nargs="+", default=IDS, help="the environments")
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES, help="numbers of environments side by side")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = {
        f"{env_id}, batch {batch}": compare(env_id, batch, options.device) for env_id in options.ids for batch in options.batches
    }
    print("| images per second | bare network | RAM.learn | ratio | environment |\n|---|---|---|---|---|")
    for name, row in results.items():
        print(f"| {name} | {row['bare']:,} | {row['learn']:,} | {row['ratio']} | {row['environment']:.0%} |")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def compare(env_id: str, batch: int, device: str = "cpu") -> dict[str, float]:
    """Medians over turns."""
    env = TimedEnv(make_vec_env(env_id, batch))
    model = RAM("RAMPolicy", env, seed=0, device=device, learning_rate=1e-4)
    steps = ram_envs.ENVIRONMENTS[env_id]["num_glimpses"]
    clock = time.process_time if device == "cpu" else time.perf_counter
    learn, bare = learner(model, env, steps, clock), bare_network(model, steps, clock)
    learn(), bare()
    turns = [(bare(), *learn()) for _ in range(ROUNDS)]
    return {
        "bare": round(statistics.median(turn[0] for turn in turns)),
        "learn": round(statistics.median(turn[1] for turn in turns)),
        "ratio": round(statistics.median(turn[1] / turn[0] for turn in turns), 3),
        "environment": round(statistics.median(turn[2] for turn in turns), 3),
    }


class TimedEnv(VecEnvWrapper):
    """Counts the seconds spent in the environments."""

    seconds = 0.0

    def reset(self) -> VecEnvObs:
        """See SB3's `VecEnv`."""
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        """See SB3's `VecEnv`."""
        start = time.perf_counter()
        result = self.venv.step_wait()
        self.seconds += time.perf_counter() - start
        return result


def learner(model: RAM, env: TimedEnv, num_glimpses: int, clock: Callable[[], float]) -> Callable[[], tuple[float, float]]:
    """Runs `RAM.learn` for a turn; returns images per second, and the environment's share of the time."""

    def run() -> tuple[float, float]:
        start, wall, spent = clock(), time.perf_counter(), env.seconds
        model.learn(UPDATES * model.n_envs * num_glimpses, reset_num_timesteps=False)
        return UPDATES * model.n_envs / (clock() - start), (env.seconds - spent) / (time.perf_counter() - wall)

    return run


def bare_network(model: RAM, steps: int, clock: Callable[[], float]) -> Callable[[], float]:
    """Runs the network's own work for a turn; returns images per second."""
    batch = model.n_envs
    with torch.device(model.device):
        glimpses = torch.rand(steps, batch, *model.observation_space["glimpse"].shape)  # type: ignore[index]
        locations = torch.rand(steps, batch, 2) * 2 - 1
        labels = torch.randint(10, (steps, batch))
        returns, everywhere = torch.rand(steps, batch), torch.ones(steps, batch)
    policy = model.policy

    def update() -> Tensor:
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
        return loss

    def run() -> float:
        start = clock()
        for _ in range(UPDATES):
            loss = update()
        loss.item()  # Waits for the device.
        return UPDATES * batch / (clock() - start)

    return run


if __name__ == "__main__":
    main()
