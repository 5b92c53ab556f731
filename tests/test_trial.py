import pytest

pytest.importorskip("torch")

import yaml
from test_training import config, few_games  # noqa: F401 (an autouse fixture)

from agents import get_algorithm
from agents.training import run_trial
from agents.trial import HYPERPARAMS, Trial, open_run, read_settings


@pytest.mark.parametrize(
    ("name", "value"),
    [("seed", 5), ("n_timesteps", 200), ("env_kwargs", {"size": 8}), ("params", {"n_steps": 6}), ("algo", "ppo"), ("minutes", 1)],
)
def test_another_run_in_the_same_folder_is_refused(tmp_path, name, value):
    asked = config(str(tmp_path / "run"), params={"n_steps": 5})
    open_run(Trial(**asked))
    with pytest.raises(ValueError, match=rf"run holds a run with {name}=.*, asked for was .*: take another folder or remove it"):
        run_trial({**asked, name: value})


def test_settings_come_from_three_places(tmp_path):
    def read(algo, **changes):
        return read_settings(Trial(env="GlimpseCatch-v0", folder="", algo=algo, **changes))

    tuned = yaml.safe_load((HYPERPARAMS / "ram_random.yml").read_text())["GlimpseCatch-v0"]
    settings = read("ram_random")
    assert settings == {"location_policy": "random", **tuned}
    changed = read("ram_random", params={"policy_kwargs.core": "gru", "gamma": 0.5}, n_timesteps=7, n_envs=3)
    assert changed == {
        **{**settings, "gamma": 0.5, "n_timesteps": 7, "n_envs": 3},
        "policy_kwargs": {**settings["policy_kwargs"], "core": "gru"},
    }
    bare = read_settings(Trial(env="GlimpseClassification-v0", folder="", algo="fc64"))
    assert bare == {**get_algorithm("fc64").settings, "n_timesteps": 10**6, "n_envs": 128, "matmul_precision": "highest"}
    result = run_trial(config(tmp_path, "ram", params={"policy_kwargs.core": "gru", "policy_kwargs.core_size": 8}))
    assert result["settings"]["policy_kwargs"]["location_gain"] == 1.0  # As in the file.
    model = get_algorithm("ram").load(tmp_path / "model.zip", device="cpu")
    assert (model.policy.core_name, model.policy.core_size) == ("gru", 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithm": "ppo"}, "config may hold env, folder, algo, .*, got 'algorithm'"),
        ({"algo": "a3c"}, "algo must be one of .*, got 'a3c'"),
        ({"n_timesteps": 0}, "n_timesteps must be at least 1, got 0"),
        ({"n_envs": -1}, "n_envs must be at least 1, got -1"),
        ({"minutes": 0}, "minutes must be above 0, got 0"),
        ({"minutes": -2.0}, "minutes must be above 0, got -2.0"),
        ({"evaluations": 0}, "evaluations must be at least 1, got 0"),
        ({"eval_freq": 0}, "eval_freq must be at least 1, got 0"),
        ({"clock": "gpu"}, r"clock must be one of \('wall', 'cpu'\), got 'gpu'"),
        ({"algo": "fc64"}, "fc64 can't learn GlimpseCatch-v0"),
        ({"params": {"learning_rate.a": 1}}, "learning_rate.a can't be set: learning_rate is 'lin_.*', which has no entries"),
    ],
)
def test_bad_configs_are_named_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        run_trial(config(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_what_is_needed_is_named(tmp_path):
    for name in ("env", "folder"):
        asked = config(tmp_path / "run")
        del asked[name]
        with pytest.raises(ValueError, match=f"config must hold {name}"):
            run_trial(asked)
