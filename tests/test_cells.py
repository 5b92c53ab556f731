import argparse
from pathlib import Path

import pytest

pytest.importorskip("torch")

from benchmarks.cells import Cell, describe, difference, require_positive, tell

CELL = Cell("GlimpseCatch-v0/ram_seed1", "ram", Path("runs/a"), ("--env", "GlimpseCatch-v0", "--seed", "1", "--folder", "runs/a"))


def test_a_cell_is_a_process_of_train_agent_with_its_log_in_its_folder():
    job = CELL.job(["my_algorithms"])
    assert Path(job.command[1]).name == "train_agent.py"
    assert job.command[2:] == (*CELL.arguments, "--imports", "my_algorithms")
    assert (job.name, job.log) == (CELL.name, Path("runs/a/log.txt"))
    assert CELL.job([]).command[2:] == CELL.arguments
    trial = CELL.trial()
    assert (trial.env, trial.seed, trial.folder) == ("GlimpseCatch-v0", 1, "runs/a")


def test_what_differs_is_named():
    kept = {"gamma": 0.9, "n_envs": 2}
    assert difference(kept, {**kept, "env_kwargs": {"size": 12}}) is None
    assert difference(kept, {"n_envs": 2}) == "gamma=0.9, its settings have None"
    assert difference(kept, {**kept, "clip_range": 0.2}) == "clip_range=None, its settings have 0.2"


def test_results_and_failures_in_words(capsys):
    result = {"success_rate": 0.98765, "n_timesteps": 14_000_000, "train_cpu_seconds": 280.4}
    assert describe(result) == "success 98.77 %, 14,000,000 steps, 280 CPU seconds"
    assert tell({}) == 0
    assert tell({CELL: "it broke"}) == 1
    err = capsys.readouterr().err
    assert err == f"\nGlimpseCatch-v0/ram_seed1 failed. The end of {Path('runs/a/log.txt')}:\nit broke\n"


def test_numbers_must_be_above_0(capsys):
    parser = argparse.ArgumentParser()
    options = argparse.Namespace(jobs=2, minutes=None, other_seeds=0)
    require_positive(parser, options, ("jobs", "minutes"))
    with pytest.raises(SystemExit):
        require_positive(parser, options, ("jobs", "minutes", "other_seeds"))
    assert "--other-seeds must be above 0, got 0" in capsys.readouterr().err
