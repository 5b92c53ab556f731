import json

import pytest

pytest.importorskip("torch")

from ram_envs.benchmarks.speed import main
from ram_envs.benchmarks.speed_agents import splits
from ram_envs.benchmarks.timing import median, per_second, take_turns

QUICK = ["--rounds", "1"]


def test_medians_of_speeds_and_of_ratios():
    speeds = {"ours": iter([9.0, 10.0, 30.0, 20.0]), "reference": iter([1.0, 10.0, 10.0, 40.0])}
    turns = take_turns({name: own.__next__ for name, own in speeds.items()}, rounds=3)  # The first turns warm up.
    assert {name: own.tolist() for name, own in turns.items()} == {"ours": [10, 30, 20], "reference": [10, 10, 40]}
    assert median(turns["ours"]) == 20
    assert median(turns["ours"] / turns["reference"]) == 1
    assert per_second(list, 6, iter([1.0, 3.0]).__next__)() == 3


def test_environments_beside_cartpole(tmp_path, capsys):
    table = tmp_path / "speed.jsonl"
    options = ["--envs", "GlimpseCatch-v0", "--num-envs", "2", "--seconds", "0.01", "--json", str(table)]
    rows = main(["environments", *QUICK, *options])
    assert [(row.get("env"), row["run"]) for row in rows] == [
        ("CartPole-v1", "environments_vector_2"),
        ("GlimpseCatch-v0", "environments_vector_2"),
        ("CartPole-v1", "environments_single"),
        ("GlimpseCatch-v0", "environments_single"),
        (None, "environments_import"),
    ]
    assert all(row["ratio"] == 1.0 for row in rows if row.get("env") == "CartPole-v1")
    assert all(row["steps_per_second"] > 0 for row in rows if "env" in row)
    assert "| GlimpseCatch-v0 | " in capsys.readouterr().out
    published = [json.loads(line) for line in table.read_text("utf-8").splitlines()]
    assert len(published) == len(rows)
    assert all(row["command"].startswith("python benchmarks/speed.py environments --rounds 1 ") for row in published)
    assert all({"commit", "machine"} <= row.keys() for row in published)


def test_training_beside_the_bare_network(capsys):
    (row,) = main(["training", *QUICK, "--envs", "GlimpseMNIST-v0", "--num-envs", "8", "--updates", "1"])
    assert (row["env"], row["run"], row["num_envs"]) == ("GlimpseMNIST-v0", "training_batch_8", 8)
    assert row["bare"] > 0
    assert row["ratio"] == pytest.approx(row["learn"] / row["bare"], rel=0.1)
    assert 0 < row["environment"] < 1
    assert "| ratio | environment |" in capsys.readouterr().out


def test_episode_ppo_beside_recurrent_ppo():
    pytest.importorskip("sb3_contrib")
    assert splits("GlimpseMNIST-v0", 64) == [4]  # 64 x 7 frames in 4 batches of 112.
    assert splits("GlimpseCatch-v0", 64) == [4, 12]
    assert splits("GlimpseCatch-v0", 2) == [1]
    (row,) = main(["recurrent", *QUICK, "--envs", "GlimpseMNIST-v0", "--num-envs", "3", "--frames", "21"])
    assert (row["run"], row["batch"], row["precision"]) == ("recurrent_vector_3_batch_21", 21, "highest")
    assert row["episode_ppo"] > 0
    assert row["ratio_to_shared"] == pytest.approx(row["episode_ppo"] / row["shared"], rel=0.1)
    assert row["ratio_to_two_lstms"] == pytest.approx(row["episode_ppo"] / row["two_lstms"], rel=0.1)


def test_steps_on_canvases_beside_a_convolution(tmp_path):
    rows = main(["canvas", *QUICK, "--sizes", "60", "64", "--plot", str(tmp_path / "canvas.png")])
    names = [f"canvas_{what}_{size}x{size}" for what in ("vector_1", "vector_16", "convolution") for size in (60, 64)]
    assert [row["run"] for row in rows] == names
    assert all(row["microseconds"] > 0 for row in rows)
    assert (tmp_path / "canvas.png").stat().st_size > 0
