import json
from dataclasses import replace

import pytest

pytest.importorskip("torch")

import yaml

from ram_envs.agents import get_algorithm
from ram_envs.agents.training.config import HYPERPARAMS, RunConfig, change, merge, read_file, read_hyperparams


def test_hyperparameters_come_from_three_places():
    config = RunConfig("GlimpseCatch-v0", "", "ram_random")
    tuned = yaml.safe_load((HYPERPARAMS / "ram_random.yml").read_text("utf-8"))["GlimpseCatch-v0"]
    hyperparams, env_kwargs = read_hyperparams(config)
    look = {**tuned["policy_kwargs"], "location_policy": "random"}
    assert (hyperparams, env_kwargs) == ({**tuned, "policy_kwargs": look}, {})
    changes = {"policy_kwargs.core": "gru", "gamma": 0.5}
    changed, env_kwargs = read_hyperparams(replace(config, hyperparams=changes, env_kwargs={"size": 8}, n_timesteps=7, n_envs=3))
    assert changed == {
        **{**hyperparams, "gamma": 0.5, "n_timesteps": 7, "n_envs": 3},
        "policy_kwargs": {**hyperparams["policy_kwargs"], "core": "gru"},
    }
    assert env_kwargs == {"size": 8}
    bare, _ = read_hyperparams(RunConfig("GlimpseClassification-v0", "", "fc64"))
    assert bare == {**get_algorithm("fc64").hyperparams, "n_timesteps": 10**6, "n_envs": 128, "matmul_precision": "highest"}


def test_options_of_the_environment_come_from_three_places():
    config = RunConfig("GlimpseClutteredMNIST-v0", "")
    assert read_hyperparams(config)[1] == {"warp": 1.5}  # As in the file.
    assert read_hyperparams(replace(config, env_kwargs={"warp": 0.5, "num_glimpses": 4}))[1] == {"warp": 0.5, "num_glimpses": 4}
    assert read_hyperparams(RunConfig("GlimpseMNIST-v0", "", "ppo"))[1] == {"action_format": "multidiscrete"}
    other = RunConfig("GlimpseMNIST-v0", "", "ppo", env_kwargs={"action_format": "box"})
    assert read_hyperparams(other)[1] == {"action_format": "box"}


def test_frames_to_stack_are_a_hyperparameter():
    hyperparams, env_kwargs = read_hyperparams(RunConfig("GlimpseMNIST-v0", "", "ppo", hyperparams={"frame_stack": 3}))
    assert hyperparams["frame_stack"] == 3
    assert "frame_stack" not in env_kwargs
    with pytest.raises(ValueError, match="env_kwargs can't hold frame_stack, which is a hyperparameter: -params frame_stack:"):
        RunConfig("GlimpseMNIST-v0", "", "ppo", env_kwargs={"frame_stack": 3})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algo": "a3c"}, "algo must be one of .*, got 'a3c'"),
        ({"n_timesteps": 0}, "n_timesteps must be at least 1, got 0"),
        ({"n_envs": -1}, "n_envs must be at least 1, got -1"),
        ({"minutes": 0}, "minutes must be a number above 0, got 0"),
        ({"minutes": -2.0}, "minutes must be a number above 0, got -2.0"),
        ({"evaluations": 0}, "evaluations must be at least 1, got 0"),
        ({"eval_freq": 0}, "eval_freq must be at least 1, got 0"),
        ({"clock": "gpu"}, r"clock must be one of \('wall', 'cpu'\), got 'gpu'"),
        ({"algo": "ppo", "trained_agent": "pretrained"}, "is an agent of the algorithm \"ram\", got algo='ppo'"),
    ],
)
def test_bad_values_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(**{"env": "GlimpseCatch-v0", "folder": "", **changes})


def test_hyperparameters_are_read_for_one_environment(tmp_path):
    file = tmp_path / "ram.yml"
    file.write_text("A-v0: &a\n  learning_rate: lin_0.5\n  n_envs: 3\nB-v0:\n  <<: *a\n  n_envs: 4\n", encoding="utf-8")
    assert read_file(file, "A-v0") == {"learning_rate": "lin_0.5", "n_envs": 3}
    assert read_file(file, "B-v0") == {"learning_rate": "lin_0.5", "n_envs": 4}
    assert read_file(file, "C-v0") == {}
    assert read_file(tmp_path / "none.yml", "A-v0") == {}


def test_a_module_before_the_id_changes_nothing_and_rl_zoo3s_dicts_are_read(tmp_path):
    path = tmp_path / "ppo.yml"
    path.write_text('Catch-v0: {policy_kwargs: "dict(net_arch=[8, dict(pi=[4])])", policy: MlpPolicy}')
    expected = {"policy_kwargs": {"net_arch": [8, {"pi": [4]}]}, "policy": "MlpPolicy"}
    assert read_file(path, "Catch-v0") == read_file(path, "ram_envs:Catch-v0") == expected


def test_presets(tmp_path):
    file = tmp_path / "ram.yml"
    file.write_text("A-v0: {n_envs: 3}\nA-v0/paper: {n_envs: 4}\nA-v0/best: {n_envs: 5}\nB-v0: {n_envs: 6}\n", encoding="utf-8")
    assert read_file(file, "A-v0") == {"n_envs": 3}
    assert read_file(file, "A-v0", "best") == {"n_envs": 5}
    for env_id, known in (("A-v0", r"\['paper', 'best'\]"), ("B-v0", "none")):
        with pytest.raises(ValueError, match=rf"preset must be one of .*ram.yml has for {env_id}, {known}, got 'fast'"):
            read_file(file, env_id, "fast")


@pytest.mark.parametrize(
    "wrappers", ["ram_envs.actions.ActionFormat", [{"gymnasium.wrappers.TimeLimit": {"max_episode_steps": 3}}]]
)
def test_other_wrappers_are_refused(wrappers, tmp_path):
    file = tmp_path / "ppo.yml"
    file.write_text(yaml.safe_dump({"A-v0": {"env_wrapper": wrappers}}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"env_wrapper must be a list of ram_envs\.actions\.ActionFormat.*alone"):
        read_file(file, "A-v0")


def test_merged_hyperparameters():
    first = {"a": 1, "net": {"core": "lstm", "size": 8, "deep": {"x": 1}}, "b": {"c": 1}}
    second = {"net": {"size": 16, "deep": {"y": 2}}, "b": 5, "new": {"z": 3}}
    before = json.dumps([first, second])
    assert merge(first, second) == {
        "a": 1,
        "net": {"core": "lstm", "size": 16, "deep": {"x": 1, "y": 2}},
        "b": 5,
        "new": {"z": 3},
    }
    assert json.dumps([first, second]) == before


def test_changed_hyperparameters():
    hyperparams = {"a": 1, "net": {"core": "lstm", "size": 8}}
    changes = {"net.core": "gru", "net.deep.er": 2, "a": 3, "new.entry": 4}
    assert change(hyperparams, changes) == {"a": 3, "net": {"core": "gru", "size": 8, "deep": {"er": 2}}, "new": {"entry": 4}}
    assert change(hyperparams, {"net": {"size": 1}}) == {"a": 1, "net": {"size": 1}}  # All of it.
    assert hyperparams == {"a": 1, "net": {"core": "lstm", "size": 8}}
    with pytest.raises(ValueError, match=r"a\.b can't be set: a is 1, which has no entries"):
        change(hyperparams, {"a.b": 2})
