"""Long runs: memory, open files and steps per CPU second, told ten times; they should stay as they are.

python tests/soak.py environment --steps 100000000   # 256 cluttered environments with zooms
python tests/soak.py training --minutes 60           # RAM, with evaluations and checkpoints
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import gymnasium as gym

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # Where train_agent.py is.

import ram_envs  # noqa: F401
from train_agent import main as train

TIMES = 10


def tell(steps, seconds):
    pages = int(Path("/proc/self/statm").read_text("utf-8").split()[1])
    memory = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    files = len(os.listdir("/proc/self/fd"))
    print(f"{steps:,} steps: {memory:.1f} MiB, {files} files, {steps / seconds:,.0f} steps per CPU second", flush=True)


def environment(num_steps, num_envs=256):
    env = gym.make_vec("GlimpseClutteredMNIST-v0", num_envs, zoom_action=True)
    env.reset(seed=0)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(64)]
    for _ in range(TIMES):
        start, rounds = time.process_time(), -(-num_steps // (TIMES * num_envs * len(actions)))
        for action in actions * rounds:
            env.step(action)
        tell(rounds * len(actions) * num_envs, time.process_time() - start)


def training(minutes):
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(TIMES):
            start = time.process_time()
            options = ["--minutes", str(minutes / TIMES), "--clock", "cpu", "--num-threads", "1", "--no-test", "-f", folder]
            tell(train([*options, "--env", "GlimpseCatch-v0"])["n_timesteps"], time.process_time() - start)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("environment", "training"))
    parser.add_argument("--steps", type=int, default=100_000_000)
    parser.add_argument("--minutes", type=float, default=60)
    options = parser.parse_args()
    environment(options.steps) if options.what == "environment" else training(options.minutes)
