import json

import pytest

pytest.importorskip("stable_baselines3")

from agents import runs


def test_runs_are_numbered_and_the_newest_unfinished_is_found(tmp_path):
    with pytest.raises(FileNotFoundError, match="no unfinished run of ram on A-v0"):
        runs.unfinished_run(tmp_path, "ram", "A-v0")
    folders = [runs.new_run(tmp_path, "ram", "A-v0") for _ in range(11)]
    assert [folder.name for folder in folders[:2]] == ["A-v0_1", "A-v0_2"]
    assert folders[-1].name == "A-v0_11"
    for folder in folders[8:]:
        (folder / "args.yml").write_text("{}")
    assert runs.unfinished_run(tmp_path, "ram", "A-v0") == folders[10]  # Not _9: numbers, not names.
    runs.write_result(folders[10] / "result.json", {"error": 1.5})
    assert json.loads((folders[10] / "result.json").read_text()) == {"error": 1.5}
    assert runs.unfinished_run(tmp_path, "ram", "A-v0") == folders[9]
    assert runs.new_run(tmp_path, "ram", "B-v0").name == "B-v0_1"


def test_hyperparameters_and_schedules(tmp_path):
    file = tmp_path / "ram.yml"
    file.write_text("A-v0:\n  learning_rate: lin_0.5\n  n_envs: 3\n")
    assert runs.read_hyperparams(file, "A-v0") == {"learning_rate": "lin_0.5", "n_envs": 3}
    assert runs.read_hyperparams(file, "C-v0") == {}
    schedule = runs.parse_schedule("lin_0.5")
    assert [schedule(1.0), schedule(0.5), schedule(0.0)] == [0.5, 0.25, 0.0]
    assert runs.parse_schedule(0.1) == 0.1


def test_commit(tmp_path):
    assert runs.current_commit(tmp_path) is None
