from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")

from benchmarks.paper_tables import (
    gather,
    glimpses_table,
    main_table,
    others_table,
    runs_table,
    shorten_command,
    show_commit,
    show_shortfall,
)
from benchmarks.results import PublishedRun
from benchmarks.rows import TASKS, recipe_of
from benchmarks.scores import Summary

MNIST, TRANSLATED, CATCH = "GlimpseMNIST-v0", "GlimpseTranslatedMNIST-v0", "GlimpseCatch-v0"


def make_run(env_id, seed, error, algo="ram", preset="best", length=7, folder="tables", **env_kwargs):
    result = {"env": env_id, "algo": algo, "preset": preset, "seed": seed, "test_error": error, "env_kwargs": env_kwargs}
    result |= {"validation_error": error - 0.01, "n_timesteps": 7_000_000, "train_cpu_seconds": 60.4, "train_seconds": 70.6}
    result |= {"command": f"python train_agent.py --seed {seed} --folder x", "commit": 40 * "a", "machine": "2 cores"}
    if env_id != CATCH:
        result |= {"dataset": "mnist", "dataset_size": 50_000}
    recipe = recipe_of(result)
    return PublishedRun(result, {"length": np.array([length, length])}, Path(folder) / f"{recipe.run_name(seed)}.json")


def rows_of(table, name):
    """The cells behind the task's name."""
    return [list(row[1:]) for row in table.rows if row[0].startswith(name)]


def test_without_runs_there_are_the_figures_of_others():
    table = main_table({})
    assert table.header[-3:] == ["faithful", "best", "against the goal"]
    assert rows_of(table, "MNIST") == [["7", "1.07", "0.67", "0.60", "–", "–", "–"]]
    assert rows_of(table, "Catch") == [["24", "85", "89", "99", "–", "–", "–"]]
    assert len(table.rows) == 5
    assert rows_of(others_table({}), "Translated") == [
        ["FC 2x64", "6.42", "–"],
        ["FC 2x256", "2.63", "–"],
        ["convolutional", "1.62", "–"],
    ]


def test_means_deviations_and_shortfalls():
    # Deviations of the sample: root((0.03^2 + 0.01^2 + 0.02^2) / 2) = 0.026, and 1.
    errors = {MNIST: (0.58, 0.62, 0.63), CATCH: (0.0, 1.0, 2.0)}
    made = [make_run(env_id, seed, error) for env_id, own in errors.items() for seed, error in enumerate(own)]
    runs, left_out = gather([*made, make_run(MNIST, 0, 1.02, preset="paper"), make_run(TRANSLATED, 1, 0.92)])
    assert not left_out
    table = main_table(runs)
    assert rows_of(table, "MNIST")[0][-3:] == ["1.02 (1 seed)", "0.61 ± 0.03 (3 seeds)", "misses by 0.01"]
    assert rows_of(table, "Translated")[0][-3:] == ["–", "0.92 (1 seed)", "misses by 0.12 (1 of 3 seeds)"]
    assert rows_of(table, "Catch")[0][-3:] == ["–", "99.00 ± 1.00 (3 seeds)", "reached"]


@pytest.mark.parametrize(
    ("env_id", "mean", "shown"),
    [
        (MNIST, np.mean([0.59, 0.6, 0.61]), "reached"),
        (MNIST, 0.6033, "misses by less than 0.01"),
        (MNIST, 0.606, "misses by 0.01"),
        (CATCH, 98.5, "misses by 0.50"),
        (CATCH, 99.5, "reached"),
    ],
)
def test_how_far_from_the_goal(env_id, mean, shown):
    assert show_shortfall(TASKS[env_id], Summary(mean, 0.1, 3)) == shown


def test_fewer_glimpses_and_other_models():
    made = [
        make_run(MNIST, 0, 0.7, preset="paper", num_glimpses=6),
        make_run(MNIST, 0, 0.6),
        make_run(MNIST, 0, 0.65, num_glimpses=2),
    ]
    made.append(make_run(MNIST, 0, 1.5, algo="conv", preset=None, num_scales=1, num_glimpses=1))
    runs, _ = gather(made)
    rows = rows_of(glimpses_table(runs), "MNIST")
    assert rows[0] == ["2", "3.79", "–", "0.65 (1 seed)"]
    assert rows[-2:] == [["6", "1.12", "0.70 (1 seed)", "–"], ["7", "1.07", "–", "0.60 (1 seed)"]]
    assert not rows_of(glimpses_table(runs), "Catch")
    assert rows_of(others_table(runs), "MNIST") == [["FC 2x256", "1.69", "–"], ["convolutional", "1.21", "1.50 (1 seed)"]]


def test_every_run_with_its_command():
    made = [make_run(CATCH, 0, 1.0, length=23), make_run(MNIST, 1, 0.61), make_run(MNIST, 0, 0.62)]
    made.append(make_run(MNIST, 0, 0.7, length=2, num_glimpses=2))
    runs, _ = gather(made)
    table = runs_table(runs, lambda path: f"[{path.name}]")
    assert [row[1:3] for row in table.rows] == [
        ["ram_best", "0"],
        ["ram_best", "1"],
        ["ram_best_2glimpses", "0"],
        ["ram_best", "0"],
    ]
    first = [
        MNIST,
        "ram_best",
        "0",
        "0.61",
        "0.62",
        "60",
        "71",
        "20",
        "`--seed 0`",
        "`aaaaaaaaaa`",
        "2 cores",
        "[ram_best_seed0.json]",
    ]
    assert table.rows[0] == first
    assert len(table.header) == len(first)
    assert table.rows[2][7] == "70"  # 7 million steps of two glimpses are 3.5 million images.
    assert table.rows[3][3:8] == ["99.01", "99.00", "60", "71", "7.0 M frames"]


def test_runs_of_no_row_are_named():
    run = make_run(MNIST, 0, 0.6)
    run.result["env_kwargs"]["glimpse_size"] = 28
    runs, left_out = gather([run])
    assert not runs
    assert len(left_out) == 1 and "ram_best_seed0.json: glimpse_size=28" in left_out[0]


def test_a_seed_counts_once():
    with pytest.raises(ValueError, match=r"^a/.*json and b/.*json are both GlimpseMNIST-v0/ram_best_seed0: remove one"):
        gather([make_run(MNIST, 0, 0.6, folder="a"), make_run(MNIST, 0, 0.6, folder="b")])


def test_commands_without_places_and_short_commits():
    command = "python train_agent.py -f logs/a --env X --preset best --folder=b -P -params policy_kwargs.core:lstm -tb 'a b'"
    assert shorten_command(command) == "--env X --preset best -params policy_kwargs.core:lstm"
    assert shorten_command("python train_agent.py --seed 0 --folder") == "--seed 0"
    assert show_commit(40 * "b" + "-dirty") == "`bbbbbbbbbb-dirty`"
    assert show_commit(None) == "–"
