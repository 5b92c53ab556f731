"""Run folders as train_agent.py leaves them, for tests of what is published."""

import json

import numpy as np

from ram_envs.benchmarks.results import folder_of, publish

SUCCESSES = np.array([[0, 0, 0, 1], [1, 0, 1, 1]])  # Of two evaluations of four episodes.


def finish_run(folder, env_id, algo="ram", seed=0, error=2.0, reward=1, length=7, **changes):
    """A run with two evaluations; `reward` is that of a success."""
    folder.mkdir(parents=True)
    result = {"env": env_id, "algo": algo, "preset": None, "seed": seed, "validation_error": error, "test_error": error}
    result |= {
        "success_rate": 1 - error / 100,
        "n_timesteps": 7_000_000,
        "train_cpu_seconds": 180.0 + seed,
        "train_seconds": 181.0,
    }
    result |= {
        "command": f"python train_agent.py --seed {seed}",
        "commit": "c0ffee",
        "machine": "2 cores, cpu",
        "torch": "2.13.0",
    }
    result |= {"env_kwargs": {}, "hyperparams": {}}
    if "MNIST" in env_id:
        result |= {"dataset": "mnist", "dataset_size": 50_000}
    (folder / "result.json").write_text(json.dumps({**result, **changes}), encoding="utf-8")
    np.savez(
        folder / "evaluations.npz",
        timesteps=[3_500_000, 7_000_000 + 1000 * seed],
        train_seconds=[90.123456, 181.0],
        cpu_seconds=[90.0, 180.0 + seed],
        successes=SUCCESSES,
        results=SUCCESSES * reward,
        ep_lengths=np.full((2, 4), length),
    )


def publish_run(table, run, env_id, seed=0, facts=None, **changes):
    """Such a run, published in a table."""
    folder = table.parent / "runs" / folder_of(env_id) / run
    finish_run(folder, env_id, seed=seed, **changes)
    publish(folder, table, run, **(facts or {}))
