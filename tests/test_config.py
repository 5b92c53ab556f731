import json
import os
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

import few_games
import numpy as np
import yaml
from stable_baselines3 import PPO

import ram_envs
from ram_envs.agents import RAM, get_algorithm, register_algorithm
from ram_envs.agents.training.config import RunConfig, change, merge, read_args, read_hyperparams, run_of
from ram_envs.agents.training.settings import HYPERPARAMS, read_file
from ram_envs.datasets import DATA_FOLDER_VARIABLE

assert few_games.EPISODES  # It registers FewGames-v0.
HAS_MNIST = bool(os.environ.get(DATA_FOLDER_VARIABLE))


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
    bare, _ = read_hyperparams(RunConfig("CartPole-v1", "", "ram_random"))
    assert bare == {
        **get_algorithm("ram_random").hyperparams,
        **{"n_timesteps": 10**6, "n_envs": 128, "matmul_precision": "highest"},
    }


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


def test_a_gpu_that_there_is_not_is_no_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert RunConfig("GlimpseCatch-v0", device="auto").device == "auto"
    for device in ("cuda", "cuda:1"):
        with pytest.raises(ValueError, match=f'device must be "cpu" or "auto" where torch finds no GPU, got {device!r}'):
            RunConfig("GlimpseCatch-v0", device=device)


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


def told(env_id, algo="ram", **asked):
    """Hyperparameters, options and what is said of them."""
    lines = []
    hyperparams, env_kwargs = read_hyperparams(RunConfig(env_id, "", algo, **asked), lines.append)
    return hyperparams, env_kwargs, " ".join(lines)


def test_hyperparameters_made_for_the_environment_need_no_word():
    assert told("GlimpseMNIST-v0", env_kwargs={"dataset": "mnist-5k"})[2] == ""
    assert told("GlimpseCatch-v0", "dqn")[2] == told("Catch-v0", "ppo")[2] == ""


@pytest.fixture
def halves():
    """A data set of 200 wide images, black on the left and white on the right."""
    images = np.zeros((200, 50, 70), np.uint8)
    images[:, :, 35:] = 255
    ram_envs.register_dataset("halves of the test", lambda split: (images, np.arange(200) % 4), overwrite=True)
    return {"dataset": "halves of the test"}


def test_images_of_ones_own_have_glimpses_that_fit_and_statistics_of_their_own(halves):
    hyperparams, env_kwargs, line = told("GlimpseClassification-v0", env_kwargs=halves)
    assert (env_kwargs["glimpse_size"], env_kwargs["num_scales"]) == (12, 3)  # 12, 24 and 48 pixels: 48 is above 0.65 * 70.
    look = hyperparams["policy_kwargs"]
    assert look["location_input"] == "saliency" and hyperparams["location_reward"] == "gain"
    assert 0.3 < look["glimpse_mean"] < 0.5  # Half of the image is white, and beyond it all is black.
    assert look["glimpse_std"][0] > look["glimpse_std"][2] > 0.2
    assert "3 patches of 12x12 pixels for scenes of 50x70" in line and f"mean {look['glimpse_mean']}" in line
    chosen, env_kwargs, _ = told(
        "GlimpseClassification-v0",
        env_kwargs={**halves, "glimpse_size": 20},
        hyperparams={"policy_kwargs.glimpse_mean": 0.25},
        n_timesteps=999,
    )
    assert (env_kwargs["glimpse_size"], env_kwargs["num_scales"]) == (20, 3)  # 20, 40 and 80.
    assert (chosen["policy_kwargs"]["glimpse_mean"], chosen["n_timesteps"]) == (0.25, 999)
    _, env_kwargs, line = told("GlimpseClassification-v0", "cnn", env_kwargs=halves)
    assert (env_kwargs["glimpse_size"], line) == ("scene", "")


def test_many_images_are_seen_for_ten_epochs_at_least():
    many, *_ = told("GlimpseClassification-v0", env_kwargs={"dataset": "mnist", "num_glimpses": 3}) if HAS_MNIST else (None,)
    assert many is None or many["n_timesteps"] == 10 * 50_000 * 3
    few, *_ = told("GlimpseClassification-v0", "cnn", env_kwargs={"dataset": "mnist-5k"})
    assert few["n_timesteps"] == 200_000  # As the file has it: 50 epochs.


def test_other_images_on_an_id_of_mnists_are_measured(halves):
    hyperparams, env_kwargs, line = told("GlimpseMNIST-v0", env_kwargs=halves)
    assert hyperparams["policy_kwargs"]["glimpse_mean"] > 0.3 and "glimpse_size" not in env_kwargs
    assert hyperparams["n_timesteps"] == told("GlimpseMNIST-v0", env_kwargs={"dataset": "mnist-5k"})[0]["n_timesteps"]
    assert "glimpses have mean" in line


def test_environments_without_an_entry_take_the_nearest():
    discrete, _, line = told("GlimpseMNISTDiscrete-v0", "ppo")
    assert (discrete["frame_stack"], discrete["n_steps"]) == (7, 7) and "policy" not in discrete
    assert line == "ppo on GlimpseMNISTDiscrete-v0: hyperparameters of ppo for GlimpseMNIST-v0"
    game, env_kwargs, line = told("FewGames-v0")
    assert (game["class_loss"], env_kwargs) == ("reinforce", {})
    assert len(game["policy_kwargs"]["glimpse_std"]) == 3 and "of ram for GlimpseCatch-v0" in line
    fashion, env_kwargs, line = told("GlimpseFashionMNIST-v0", env_kwargs={"dataset": "mnist-5k"})
    assert fashion["location_reward"] == "gain" and env_kwargs.keys() == {"dataset", "warp", "affine"}


def test_algorithms_without_a_file_take_that_of_their_class_and_others_their_own_defaults():
    register_algorithm("ram of the test", type("MyRAM", (RAM,), {}), policy="RAMPolicy")
    hyperparams, _, line = told("GlimpseMNIST-v0", "ram of the test")
    assert hyperparams == told("GlimpseMNIST-v0")[0]
    assert line == "ram of the test on GlimpseMNIST-v0: hyperparameters of ram for GlimpseMNIST-v0"
    register_algorithm("ppo of the test", type("MyPPO", (PPO,), {}))
    assert told("GlimpseCatch-v0", "ppo of the test")[0]["n_steps"] == 23
    register_algorithm("loop of the test", lambda env, seed: iter(()))
    hyperparams, _, line = told("GlimpseCatch-v0", "loop of the test")
    assert hyperparams == {"n_timesteps": 10**6, "n_envs": 128, "matmul_precision": "highest"}
    assert "the algorithm's own defaults" in line


def test_rollouts_meant_for_one_environment_are_shared_by_all():
    """SB3's PPO takes 2,048 steps of each environment, and then 64 at a time ten times."""
    hyperparams, _, line = told("CartPole-v1", "ppo")
    assert (hyperparams["n_envs"], hyperparams["n_steps"]) == (128, 16) and line.endswith("with n_steps=16 for 128 environments")
    assert told("CartPole-v1", "ppo", n_envs=4)[0]["n_steps"] == 512
    assert told("CartPole-v1", "ppo", hyperparams={"n_steps": 99})[0]["n_steps"] == 99
    assert told("CartPole-v1", "a2c")[0]["n_steps"] == 5


def test_a_path_too_long_for_files_names_no_run():
    assert run_of("x" * 5000) is None


def test_a_runs_hyperparameters_have_the_names_of_today(tmp_path):
    look = {"scan_steps": 7, "path_start": [[0.5, 0.5]], "core": "lstm"}
    stored = {"config": {}, "hyperparams": {"n_envs": 4, "policy_kwargs": look}}
    (tmp_path / "args.yml").write_text(yaml.safe_dump(stored), "utf-8")
    assert read_args(tmp_path)["hyperparams"] == {"n_envs": 4, "policy_kwargs": {"path_steps": 7, "core": "lstm"}}
