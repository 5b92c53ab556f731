"""Runs that are killed and resumed, again and again: each must end with the weights of an unbroken one, bit for bit.

python tests/kills.py             # 30 kills: in turn at a random moment, in the middle of a write, and by SIGTERM
python tests/kills.py --kills 90 --algo ppo --env GlimpseCatch-v0

Each run is resumed by its own command until it is finished; then another begins, until there were as many kills as wanted.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WAYS = ("at random", "while writing", "SIGTERM")


def command(options, folder):
    """A small run with many evaluations and checkpoints."""
    small = ["-n", "9600", "--n-envs", "100", "--eval-freq", "800", "--no-test", "--seed", "3", "--folder", str(folder)]
    return [sys.executable, "train_agent.py", "--algo", options.algo, "--env", options.env, *small]


def start(options, folder):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command(options, folder), cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(options, folder):
    output, _ = (run := start(options, folder)).communicate()
    if run.returncode:
        sys.exit(f"a run of {folder} ended with {run.returncode}: {output[-2000:]}")
    return digest(folder)


def digest(folder):
    """Of the weights at the end."""
    with zipfile.ZipFile(folder / "model.zip") as file:
        return hashlib.sha256(file.read("policy.pth")).hexdigest()


def stop(run, folder, way, rng):
    """Stop a run that learns; returns whether it was still running."""
    deadline = time.monotonic() + rng.uniform(0.0, 4.0)
    while not any(folder.glob("checkpoint*")) and run.poll() is None:
        time.sleep(0.01)
    while run.poll() is None:
        writes = any(folder.glob("*.partial")) or any(folder.glob("*new*"))
        if time.monotonic() > deadline and (writes or way != "while writing"):
            run.send_signal(signal.SIGTERM if way == "SIGTERM" else signal.SIGKILL)
            break
        time.sleep(0.0005)
    output = run.communicate()[0]
    # Before it learns, SIGTERM ends it at once; then it saves first.
    wanted = (0, -signal.SIGTERM, 128 + signal.SIGTERM) if way == "SIGTERM" else (0, -signal.SIGKILL)
    if run.returncode not in wanted:
        sys.exit(f"stopped by {way} in {folder}, it ended with {run.returncode}: {output[-2000:]}")
    return run.returncode != 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--algo", default="ram")
    parser.add_argument("--env", default="GlimpseCatch-v0")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options, rng = (parsed := parser.parse_args()), random.Random(parsed.seed)
    with tempfile.TemporaryDirectory() as place:
        unbroken, kills, runs = finish(options, Path(place, "unbroken")), 0, 0
        while kills < options.kills:
            folder, runs, before = Path(place, f"run_{runs}"), runs + 1, kills
            while kills < options.kills and stop(start(options, folder), folder, WAYS[kills % len(WAYS)], rng):
                kills += 1
            if finish(options, folder) != unbroken:
                sys.exit(f"run {runs}, stopped {kills - before} times, ended with other weights")
            print(f"run {runs}: stopped {kills - before} times, the same weights", flush=True)
    print(f"{kills} of {kills} stops resumed bit for bit, in {runs} runs of {options.algo} on {options.env}")


if __name__ == "__main__":
    main()
