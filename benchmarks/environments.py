"""Environment steps per second, beside Gymnasium's own native CartPole-v1 in the same run.

python benchmarks/environments.py            # prints the tables
python benchmarks/environments.py --json results/environments.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym

import ram_envs

REFERENCE = "CartPole-v1"
BATCHES = (1, 16, 256, 1024)
ROUNDS = 7  # Environments take turns this many times; the median of a turn's ratio to CartPole's turn counts.
SECONDS = 0.4  # A turn.


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    ids = [REFERENCE, *filter(has_data, ram_envs.ENVIRONMENTS)]
    results: dict[str, Any] = {}
    for num_envs in BATCHES:
        results[f"vector, {num_envs}"] = compare({env_id: stepper(make_native(env_id, num_envs), num_envs) for env_id in ids})
    results["single make"] = compare({env_id: stepper(gym.make(env_id), None) for env_id in ids})
    results["import seconds more than gymnasium, numpy"] = import_cost()
    show(results, ids)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def has_data(env_id: str) -> bool:
    """Whether the environment's images are to be had here; says so if not."""
    try:
        gym.make(env_id)
    except ram_envs.DataError as error:
        print(f"{env_id} is left out: {error}", file=sys.stderr)
        return False
    return True


def compare(steppers: dict[str, Callable[[float], float]]) -> dict[str, dict[str, float]]:
    """Steps per second of each (median of the turns) and the ratio to the reference (median of the turns' ratios)."""
    turns = [{env_id: stepper(SECONDS) for env_id, stepper in steppers.items()} for _ in range(ROUNDS)]
    return {
        env_id: {
            "steps_per_second": round(statistics.median(turn[env_id] for turn in turns)),
            "ratio": round(statistics.median(turn[env_id] / turn[REFERENCE] for turn in turns), 3),
        }
        for env_id in steppers
    }


def make_native(env_id: str, num_envs: int) -> gym.vector.VectorEnv:
    """The natively batched environment."""
    return gym.make_vec(env_id, num_envs=num_envs, vectorization_mode="vector_entry_point")


def stepper(env: Any, num_envs: int | None) -> Callable[[float], float]:
    """Steps an environment for so many seconds with actions drawn before; returns steps per second.

    `num_envs` is None for a single environment, which needs its resets done.
    """
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(64)]
    env.reset(seed=0)

    def run(seconds: float) -> float:
        count, start = 0, time.perf_counter()
        while (spent := time.perf_counter() - start) < seconds:
            for action in actions:
                _, _, terminated, truncated, _ = env.step(action)
                if num_envs is None and (terminated or truncated):
                    env.reset()
            count += len(actions)
        return count * (num_envs or 1) / spent

    run(SECONDS)  # Compiles and warms up.
    return run


def import_cost() -> float:
    """Median seconds that `import ram_envs` takes more than `import gymnasium, numpy`, in fresh processes by turns."""

    def seconds(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - start

    plain = "import gymnasium, numpy"
    return round(statistics.median(seconds(f"{plain}, ram_envs") - seconds(plain) for _ in range(9)), 3)


def show(results: dict[str, Any], ids: list[str]) -> None:
    """Print Markdown: steps per second, and behind them the ratio to the reference."""
    rows = {name: row for name, row in results.items() if isinstance(row, dict)}
    print(f"| steps per second (ratio to {REFERENCE}) | {' | '.join(rows)} |")
    print("|---" * (len(rows) + 1) + "|")
    for env_id in ids:
        cells = [f"{row[env_id]['steps_per_second']:,} ({row[env_id]['ratio']})" for row in rows.values()]
        print(f"| {env_id} | {' | '.join(cells)} |")
    for name in results.keys() - rows.keys():
        print(f"\n{name}: {results[name]}")


if __name__ == "__main__":
    main()
