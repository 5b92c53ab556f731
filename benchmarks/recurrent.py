"""Frames per CPU second of `EpisodePPO` beside sb3-contrib's RecurrentPPO at equal settings, environment included.

Equal are: the native vector environment and its number N, the actions (one Box), steps to an update (one episode of each
environment), epochs, gradient steps to an epoch and so frames to each, the glimpse network (128 and 256 units), an LSTM of 256,
linear heads, float32. RecurrentPPO is there twice:

- "shared": actor and critic share its LSTM, as in `EpisodePPO`. The same network, so the same arithmetic.
- "two LSTMs": its default, where the critic has an LSTM of its own.

All three take turns in one process, one thread; a ratio is the median over the turns. Needs `pip install "ram-envs[contrib]"`.

python benchmarks/recurrent.py
python benchmarks/recurrent.py --envs GlimpseCatch-v0 --num-envs 64 --json results/recurrent.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.base_class import BaseAlgorithm

import ram_envs  # noqa: F401 (registers the environments)
from agents import EpisodePPO, GlimpseExtractor, make_vec_env

STEPS = {"GlimpseCatch-v0": 23, "GlimpseMNIST-v0": 7}  # Of an episode.
EPOCHS = 4
DEFAULT_BATCH = 128  # RecurrentPPO's own.
SHARED = {"shared_lstm": True, "enable_critic_lstm": False}
SETTINGS: dict[str, Any] = {
    "learning_rate": 3e-4,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "n_epochs": EPOCHS,
    "seed": 0,
    "device": "cpu",
}


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", nargs="+", default=list(STEPS), choices=STEPS)
    parser.add_argument("--num-envs", nargs="+", type=int, default=[16, 64, 256], help="N (default: 16 64 256)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (default: 5)")
    parser.add_argument("--frames", type=int, default=6000, help="about so many in a turn (default: 6000)")
    parser.add_argument("--precision", choices=("highest", "high", "medium"), default="highest", help="of float32 products")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision(options.precision)
    print("| environment | N | frames to a gradient step | EpisodePPO | shared | two LSTMs | ratio to shared | to two LSTMs |")
    print("|---|---|---|---|---|---|---|---|")
    rows = []
    for env_id in options.envs:
        for num_envs in options.num_envs:
            for minibatches in splits(env_id, num_envs):
                row = compare(env_id, num_envs, minibatches, options.rounds, options.frames)
                print("| " + " | ".join(f"{value:,}" if isinstance(value, int) else str(value) for value in row.values()) + " |")
                rows.append(row)
    if options.json:
        options.json.write_text(json.dumps({"precision": options.precision, "rows": rows}, indent=2) + "\n")


def splits(env_id: str, num_envs: int) -> list[int]:
    """Gradient steps to an epoch: 4, and as many as RecurrentPPO's default batch size makes."""
    by_default = -(-num_envs * STEPS[env_id] // DEFAULT_BATCH)
    return sorted({4, by_default} - {number for number in (4, by_default) if number > num_envs})


def compare(env_id: str, num_envs: int, minibatches: int, rounds: int, frames: int) -> dict[str, Any]:
    """Medians over turns."""
    batch = -(-num_envs * STEPS[env_id] // minibatches)
    models = (
        episode_ppo(env_id, num_envs, minibatches),
        recurrent_ppo(env_id, num_envs, batch, **SHARED),
        recurrent_ppo(env_id, num_envs, batch),
    )
    for model in models:
        frames_per_second(model, 1)
    updates = max(1, round(frames / (num_envs * STEPS[env_id])))
    turns = [[frames_per_second(model, updates * num_envs * STEPS[env_id]) for model in models] for _ in range(rounds)]
    ours, shared, two = (round(statistics.median(turn[i] for turn in turns)) for i in range(3))
    return {
        "env": env_id,
        "num_envs": num_envs,
        "batch": batch,
        "episode_ppo": ours,
        "shared": shared,
        "two_lstms": two,
        "ratio_to_shared": round(statistics.median(turn[0] / turn[1] for turn in turns), 2),
        "ratio_to_two_lstms": round(statistics.median(turn[0] / turn[2] for turn in turns), 2),
    }


def episode_ppo(env_id: str, num_envs: int, minibatches: int) -> EpisodePPO:
    """Ours."""
    env = make_vec_env(env_id, num_envs, seed=0)
    return EpisodePPO("RecurrentPolicy", env, n_minibatches=minibatches, policy_kwargs={"core": "lstm"}, **SETTINGS)


def recurrent_ppo(env_id: str, num_envs: int, batch: int, **kwargs: Any) -> RecurrentPPO:
    """Theirs."""
    kwargs = {"features_extractor_class": GlimpseExtractor, "lstm_hidden_size": 256, "net_arch": [], **kwargs}
    return RecurrentPPO(
        "MultiInputLstmPolicy",
        make_vec_env(env_id, num_envs, seed=0),
        n_steps=STEPS[env_id],
        batch_size=batch,
        policy_kwargs=kwargs,
        **SETTINGS,
    )


def frames_per_second(model: BaseAlgorithm, frames: int) -> float:
    """Learns for a turn; frames per CPU second."""
    before, start = model.num_timesteps, time.process_time()
    model.learn(frames, reset_num_timesteps=False)
    return (model.num_timesteps - before) / (time.process_time() - start)


if __name__ == "__main__":
    main()
