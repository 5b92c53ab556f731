"""The scene's size, that a policy which looks at what is salient has to know."""

import pytest

pytest.importorskip("torch")

from agents import get_algorithm, make_vec_env
from agents.training import load_agent, run_trial
from agents.trial import Trial

DIGITS = {"dataset": "mnist-5k", "num_glimpses": 3}


def test_the_scene_has_the_size_that_the_model_takes_it_to_have(tmp_path):
    params = {"policy_kwargs.location_input": "saliency", "policy_kwargs.scene_size": 60}
    config = {
        "env": "GlimpseMNIST-v0",
        "folder": str(tmp_path),
        "n_envs": 32,
        "env_kwargs": DIGITS,
        "params": params,
        "figures": False,
    }
    with pytest.raises(ValueError, match=r"scene_size must be that of the environment's scenes, \[28, 28\], got 60"):
        run_trial(config)


@pytest.mark.parametrize("size", [28, 40])
def test_the_scenes_size_is_read_from_the_environment(size, tmp_path):
    env_kwargs = {**DIGITS, "canvas_size": size}
    config = {"env": "GlimpseTranslatedMNIST-v0", "folder": str(tmp_path), "n_timesteps": 32, "n_envs": 4}
    run_trial({**config, "env_kwargs": env_kwargs, "figures": False, "test": False, "evaluations": 1})
    policy = get_algorithm("ram").load(tmp_path / "model.zip", device="cpu").policy
    assert list(policy.scene_size) == [size, size]


def test_a_loaded_agent_is_told_of_scenes_of_another_size(tmp_path):
    env = make_vec_env("GlimpseClutteredMNIST-v0", 2, dataset="mnist-5k", canvas_size=80)
    trial = Trial("GlimpseClutteredMNIST-v0", str(tmp_path), trained_agent="pretrained")
    with pytest.raises(ValueError, match=r"scene_size must be that of the environment's scenes, \[80, 80\], got \[60, 60\]"):
        load_agent(trial, env)
