import json
import platform
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("stable_baselines3")

import yaml
from gymnasium import spaces
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise

from agents import runs

BOX = spaces.Box(-1, 1, (3,))


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


def test_two_runs_that_begin_at_once_have_folders_of_their_own(tmp_path, monkeypatch):
    listed = runs._runs

    def list_and_be_overtaken(*where):
        known = listed(*where)
        if not known:
            (tmp_path / "ram" / "A-v0_1").mkdir(parents=True)
        return known

    monkeypatch.setattr(runs, "_runs", list_and_be_overtaken)
    assert runs.new_run(tmp_path, "ram", "A-v0").name == "A-v0_2"


def test_hyperparameters_are_read_for_one_environment(tmp_path):
    file = tmp_path / "ram.yml"
    file.write_text("A-v0: &a\n  learning_rate: lin_0.5\n  n_envs: 3\nB-v0:\n  <<: *a\n  n_envs: 4\n")
    assert runs.read_hyperparams(file, "A-v0") == {"learning_rate": "lin_0.5", "n_envs": 3}
    assert runs.read_hyperparams(file, "B-v0") == {"learning_rate": "lin_0.5", "n_envs": 4}
    assert runs.read_hyperparams(file, "C-v0") == {}
    assert runs.read_hyperparams(tmp_path / "none.yml", "A-v0") == {}


def test_presets(tmp_path):
    file = tmp_path / "ram.yml"
    file.write_text("A-v0: {n_envs: 3}\nA-v0/paper: {n_envs: 4}\nA-v0/best: {n_envs: 5}\nB-v0: {n_envs: 6}\n")
    assert runs.read_hyperparams(file, "A-v0") == {"n_envs": 3}
    assert runs.read_hyperparams(file, "A-v0", "best") == {"n_envs": 5}
    for env_id, known in (("A-v0", r"\['paper', 'best'\]"), ("B-v0", "none")):
        with pytest.raises(ValueError, match=rf"preset must be one of .*ram.yml has for {env_id}, {known}, got 'fast'"):
            runs.read_hyperparams(file, env_id, "fast")


def test_merged_settings():
    first = {"a": 1, "net": {"core": "lstm", "size": 8, "deep": {"x": 1}}, "b": {"c": 1}}
    second = {"net": {"size": 16, "deep": {"y": 2}}, "b": 5, "new": {"z": 3}}
    kept = json.dumps([first, second])
    assert runs.merge(first, second) == {
        "a": 1,
        "net": {"core": "lstm", "size": 16, "deep": {"x": 1, "y": 2}},
        "b": 5,
        "new": {"z": 3},
    }
    assert json.dumps([first, second]) == kept


def test_changed_settings():
    settings = {"a": 1, "net": {"core": "lstm", "size": 8}}
    params = {"net.core": "gru", "net.deep.er": 2, "a": 3, "new.entry": 4}
    assert runs.change(settings, params) == {"a": 3, "net": {"core": "gru", "size": 8, "deep": {"er": 2}}, "new": {"entry": 4}}
    assert runs.change(settings, {"net": {"size": 1}}) == {"a": 1, "net": {"size": 1}}  # All of it.
    assert settings == {"a": 1, "net": {"core": "lstm", "size": 8}}
    with pytest.raises(ValueError, match=r"a\.b can't be set: a is 1, which has no entries"):
        runs.change(settings, {"a.b": 2})


def test_schedules():
    schedule = runs.parse_schedule("lin_0.5")
    assert [schedule(1.0), schedule(0.5), schedule(0.0)] == [0.5, 0.25, 0.0]
    assert runs.parse_schedule(0.1) == 0.1
    assert runs.parse_schedule("MlpPolicy") == "MlpPolicy"
    parsed = runs.parse_settings({"learning_rate": "lin_2.0", "gamma": 0.9, "policy_kwargs": {"core": "lstm"}}, BOX)
    assert parsed.pop("learning_rate")(0.25) == 0.5
    assert parsed == {"gamma": 0.9, "policy_kwargs": {"core": "lstm"}}


def test_action_noise():
    normal = runs.parse_settings({"noise_type": "normal", "noise_std": 0.3, "gamma": 0.9}, BOX)
    assert normal.keys() == {"action_noise", "gamma"}
    assert isinstance(normal["action_noise"], NormalActionNoise)
    np.random.seed(0)  # noqa: NPY002 (what SB3 draws from)
    drawn = np.array([normal["action_noise"]() for _ in range(2000)])
    assert drawn.shape == (2000, 3)
    assert drawn.std(axis=0).tolist() == pytest.approx([0.3] * 3, rel=0.1)
    assert np.abs(drawn.mean(axis=0)).max() < 0.03
    other = runs.parse_settings({"noise_type": "ornstein-uhlenbeck", "noise_std": 0.1}, BOX)["action_noise"]
    assert isinstance(other, OrnsteinUhlenbeckActionNoise)
    for bad in ({"noise_type": "pink", "noise_std": 0.1}, {"noise_type": "normal"}):
        with pytest.raises(ValueError, match=r"noise_type must be one of \('normal', 'ornstein-uhlenbeck'\), beside noise_std"):
            runs.parse_settings(bad, BOX)


def test_yaml_keeps_the_order(tmp_path):
    runs.write_yaml(tmp_path / "args.yml", {"z": 1, "a": [0.1, None], "m": {"y": True, "b": "x"}})
    assert (tmp_path / "args.yml").read_text().startswith("z: 1\na:\n")
    assert yaml.safe_load((tmp_path / "args.yml").read_text()) == {"z": 1, "a": [0.1, None], "m": {"y": True, "b": "x"}}


def test_commit(tmp_path):
    assert runs.current_commit(tmp_path) is None

    def git(*words):
        names = ["-c", "user.name=A", "-c", "user.email=a@b.c"]
        subprocess.run(["git", "-C", str(tmp_path), *names, *words], check=True, capture_output=True)

    git("init")
    (tmp_path / "file").write_text("one")
    git("add", "."), git("commit", "-m", "One")
    commit = runs.current_commit(tmp_path)
    assert len(commit) == 40
    (tmp_path / "file").write_text("two")
    assert runs.current_commit(tmp_path) == f"{commit}-dirty"


def test_the_processor_has_a_name(monkeypatch):
    assert runs.name_processor().strip()
    monkeypatch.setattr(Path, "read_text", lambda self, encoding: "processor : 0\nmodel name\t: Babbage 1837 @ 1 Hz\n")
    assert runs.name_processor() == "Babbage 1837 @ 1 Hz"

    def fail(self, encoding):
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", fail)
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert runs.name_processor() == platform.machine()
