import json
import os
import pickle
import re
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from conftest import DATASET, make, make_vec
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import LinearSchedule

from ram_envs import agents
from ram_envs.agents import RAM, RAMPolicy, load_pretrained, make_vec_env, pretrained_hyperparams, pretrained_ids, save_pretrained
from ram_envs.agents.policy import ReLUCore
from ram_envs.agents.pretrained import WEIGHTS
from ram_envs.agents.training.evaluation import evaluate_on_test
from ram_envs.datasets import DATA_FOLDER_VARIABLE

T = 3
SMALL = {"hidden_size": 8, "core_size": 16}
RESULT = {
    "env": "GlimpseMNIST-v0",
    "algo": "ram",
    "seed": 3,
    "dataset": "mnist",
    "dataset_size": 50_000,
    "n_timesteps": 14_000_000,
    "validation_error": 0.9,
    "test_error": 0.81,
    "test_episodes": 10_000,
    "command": "python train_agent.py --seed 3",
    "commit": "0123abc",
    "torch": "2.13.0",
    "machine": "2 cores",
    "hyperparams": {"learning_rate": "lin_0.002", "matmul_precision": "medium"},
    "env_kwargs": {"num_glimpses": T},
}


def vec_env(num_envs=8, **kwargs):
    return make_vec_env("GlimpseMNIST-v0", num_envs, **{"dataset": DATASET, "num_glimpses": T, **kwargs})


def make_model(env=None, policy_kwargs=None, **kwargs):
    return RAM("RAMPolicy", env or vec_env(), seed=0, device="cpu", policy_kwargs={**SMALL, **(policy_kwargs or {})}, **kwargs)


def play(model, env):
    """The actions (T, N, ...) of one greedy episode."""
    obs, state, actions = env.reset(), None, []
    for step in range(T):
        starts = np.full(env.num_envs, step == 0)
        chosen, state = model.predict(obs, state, episode_start=starts, deterministic=True)
        obs, *_ = env.step(chosen)
        actions.append(chosen)
    return np.stack(actions)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Holds one agent."""
    folder = tmp_path_factory.mktemp("weights")
    save_pretrained(make_model(), folder, "GlimpseMNIST-v0", RESULT)
    return folder


def tampered(folder, to, drop=(), **changes):
    """A copy of the file with another config and without some weights."""
    path = folder / "GlimpseMNIST-v0.safetensors"
    with safe_open(path, framework="pt") as file:
        config = json.loads(file.metadata()["config"])
    weights = {name: tensor for name, tensor in load_file(path).items() if name not in drop}
    save_file(weights, to / path.name, {"config": json.dumps({**config, **changes})})


def load(*args, **kwargs):
    return load_pretrained(*args, device="cpu", **kwargs)


@pytest.mark.parametrize(
    ("policy_kwargs", "env_kwargs", "kwargs"),
    [
        ({"path_steps": 5, "location_scale": 0.03, "glimpse_mean": 0.1, "glimpse_std": [0.3]}, {}, {"class_loss_steps": "last"}),
        ({"location_input": "saliency"}, {"canvas_size": 40}, {"location_reward": "gain"}),
        ({"core": "lstm", "location_gradient": "full", "baseline_gradient": "full"}, {"action_format": "box"}, {"n_epochs": 2}),
        ({"glimpse_network": "cnn", "core": "gru"}, {"glimpse_size": 12, "num_scales": 2}, {"gamma": 0.9, "n_steps": 2}),
        ({"location_policy": "random"}, {"stop_action": True, "zoom_action": True, "num_scales": 2}, {}),
    ],
)
def test_what_is_loaded_is_what_was_saved(tmp_path, policy_kwargs, env_kwargs, kwargs):
    model = make_model(vec_env(**env_kwargs), policy_kwargs, **kwargs)
    save_pretrained(model, tmp_path, "GlimpseMNIST-v0", RESULT)
    loaded = load("GlimpseMNIST-v0", folder=tmp_path)
    weights = loaded.policy.state_dict()
    assert weights.keys() == model.policy.state_dict().keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.policy.state_dict().items())
    assert loaded.policy.scene_size == model.policy.scene_size
    assert loaded.policy.options == replace(model.policy.options, scene_size=model.policy.scene_size)
    assert loaded.policy.choices == model.policy.choices
    for name, value in {"class_loss": "cross_entropy", **kwargs}.items():
        assert getattr(loaded, name) == value
    obs = vec_env(4, **env_kwargs).reset()
    torch.manual_seed(0)
    expected = model.predict(obs, deterministic=True)[0]
    torch.manual_seed(0)
    np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], expected)


def test_whole_episodes_are_played_alike(folder):
    model = make_model()
    assert load("GlimpseMNIST-v0", folder=folder).get_env() is None
    shown = {"image_order": "sequential", "split": "test"}
    played = [play(agent, vec_env(20, **shown)) for agent in (model, load("GlimpseMNIST-v0", folder=folder))]
    np.testing.assert_array_equal(*played)


def test_it_can_be_evaluated_saved_and_loaded(folder, tmp_path):
    loaded = load("GlimpseMNIST-v0", folder=folder)
    env = vec_env(20, split="test", image_order="sequential")
    assert evaluate_policy(loaded, env, n_eval_episodes=40) == evaluate_policy(make_model(), env, n_eval_episodes=40)
    loaded.save(tmp_path / "model.zip")
    again = RAM.load(tmp_path / "model.zip", env=vec_env(4), device="cpu")
    np.testing.assert_array_equal(play(again, env), play(loaded, env))
    again.learn(4 * T)
    assert again.num_timesteps == 4 * T


@pytest.mark.parametrize("kind", ["vec_env", "vector", "single"])
def test_with_environments_it_continues_learning(folder, kind):
    env = {"vec_env": lambda: vec_env(16), "vector": lambda: make_vec(16, num_glimpses=T), "single": lambda: make(num_glimpses=T)}
    model = load("GlimpseMNIST-v0", env[kind](), folder=folder)
    before = model.policy.class_head.weight.detach().clone()
    assert model.learn(16 * T).num_timesteps == 16 * T
    assert not torch.equal(model.policy.class_head.weight, before)


def test_the_learning_rates_schedule_is_kept(tmp_path):
    model = make_model(learning_rate=LinearSchedule(0.002, 0.0, 1.0), ent_coef=0.01)
    save_pretrained(model, tmp_path, "GlimpseMNIST-v0", RESULT)
    loaded = load("GlimpseMNIST-v0", folder=tmp_path)
    assert [loaded.lr_schedule(left) for left in (1.0, 0.5, 0.0)] == [0.002, 0.001, 0.0]
    assert loaded.ent_coef == 0.01
    hyperparams = pretrained_hyperparams("GlimpseMNIST-v0", tmp_path)
    assert hyperparams["learning_rate"] == "lin_0.002"
    assert (hyperparams["env_kwargs"], hyperparams["matmul_precision"]) == ({"num_glimpses": T}, "medium")
    assert hyperparams["policy_kwargs"]["hidden_size"] == 8
    assert "frame_stack" not in hyperparams
    with pytest.raises(ValueError, match="learning_rate must be numbers, text, lists or dicts to be stored, got LinearSchedule"):
        save_pretrained(model, tmp_path, "GlimpseMNIST-v0", {**RESULT, "hyperparams": {}})


def test_of_a_model_with_a_weight_average_that_is_kept(tmp_path):
    model = make_model(weight_average=1.0).learn(3 * 8 * T)
    save_pretrained(model, tmp_path, "GlimpseMNIST-v0", RESULT)
    loaded = load("GlimpseMNIST-v0", vec_env(20), folder=tmp_path)
    shown = {"image_order": "sequential", "split": "test"}
    np.testing.assert_array_equal(play(loaded, vec_env(20, **shown)), play(model, vec_env(20, **shown)))
    assert loaded.weight_average == 1.0
    for name, kept in model.acting_policy.state_dict().items():
        assert torch.equal(loaded.policy.state_dict()[name], kept), name  # It continues from there.


def test_environments_that_do_not_fit_are_refused(folder):
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        load("GlimpseMNIST-v0", vec_env(glimpse_size=12), folder=folder)


class OwnCore(ReLUCore):
    pass


class OwnPolicy(RAMPolicy):
    pass


def test_what_can_not_be_stored_is_refused(tmp_path):
    def save(model, env_id="GlimpseMNIST-v0", result=RESULT):
        save_pretrained(model, tmp_path, env_id, result)

    with pytest.raises(ValueError, match=r"core must be numbers, text, lists or dicts to be stored, got <class .*OwnCore'>"):
        save(make_model(policy_kwargs={"core": OwnCore}))
    with pytest.raises(ValueError, match="model must have a RAMPolicy to be stored, got OwnPolicy"):
        save(RAM(OwnPolicy, vec_env(), device="cpu", policy_kwargs=SMALL))
    with pytest.raises(ValueError, match=r"env_id must consist of letters, .*, got '\.\./other'"):
        save(make_model(), "../other")
    with pytest.raises(ValueError, match=r"result must hold .*, lacks test_error, commit"):
        save(make_model(), result={name: RESULT[name] for name in RESULT if name not in ("test_error", "commit")})
    assert not list(tmp_path.iterdir())


def test_ids_without_weights_are_named_beside_those_with(folder, tmp_path):
    assert pretrained_ids(folder) == ("GlimpseMNIST-v0",)
    with pytest.raises(ValueError, match=r"env_id must be one with weights \(GlimpseMNIST-v0\), got 'Catch-v0'"):
        load("Catch-v0", folder=folder)
    assert pretrained_ids(tmp_path / "nowhere") == ()
    with pytest.raises(ValueError, match=r"env_id must be one with weights \(there are none\), got '\.\./x'"):
        load("../x", folder=tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 3}, "must have the format 2 for this version of ram-envs, got 3"),
        ({"run": "rm"}, r"config in .* may hold .*, got \['run'\] too"),
        ({"env_id": "Catch-v0"}, "must hold an agent for GlimpseMNIST-v0, got one for 'Catch-v0'"),
        ({"policy_kwargs": {**SMALL, "optimizer_class": "SGD"}}, r"policy_kwargs in .* got \['optimizer_class'\] too"),
        ({"policy_kwargs": {**SMALL, "core": "os.system"}}, "core must be one of .*, got 'os.system'"),
        ({"policy_kwargs": {**SMALL, "core_size": 17}}, "are those of another network than policy_kwargs make"),
        ({"hyperparams": {"tensorboard_log": "somewhere"}}, r"hyperparams in .* got \['tensorboard_log'\] too"),
        ({"hyperparams": {"learning_rate": ["lin_0.1"]}}, r"the agent for .* can't be made on device='cpu': .*\['lin_0.1'\]"),
        ({"hyperparams": 5}, "hyperparams in .* must be of the type dict, got 5"),
        (
            {"observations": {"location": {"shape": [2], "low": -1.0, "high": 1e99}}},
            "can't be made on device='cpu': overflow encountered",
        ),
        ({"matmul_precision": None}, "matmul_precision in .* must be of the type str, got None"),
        ({"drop": ["class_head.bias"]}, "are those of another network than policy_kwargs make"),
    ],
)
def test_files_that_are_not_ours_are_refused(folder, tmp_path, changes, message):
    tampered(folder, tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        load("GlimpseMNIST-v0", folder=tmp_path)


def test_files_without_a_config_or_not_whole_are_refused(folder, tmp_path):
    path = tmp_path / "GlimpseMNIST-v0.safetensors"
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(ValueError, match=r"must have the format 2 .*, got None"):
        load("GlimpseMNIST-v0", folder=tmp_path)
    save_file({"weight": torch.ones(2)}, path, {"config": '{"format": 2}'})
    with pytest.raises(ValueError, match=r"config in .* must hold .*, lacks actions, env_id, "):
        load("GlimpseMNIST-v0", folder=tmp_path)
    path.write_bytes((folder / path.name).read_bytes()[:-100])
    with pytest.raises(ValueError, match="is not a whole safetensors file"):
        load("GlimpseMNIST-v0", folder=tmp_path)


def test_loading_unpickles_nothing(folder, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("something was unpickled")

    for module, name in (
        (pickle, "load"),
        (pickle, "loads"),
        (pickle, "Unpickler"),
        (torch, "load"),
        (torch.serialization, "load"),
    ):
        monkeypatch.setattr(module, name, refuse)
    with pytest.raises(AssertionError):
        torch.load(folder / "GlimpseMNIST-v0.safetensors")
    model = load("GlimpseMNIST-v0", folder=folder)
    assert model.policy.options.hidden_size == 8


def test_the_card_says_where_it_comes_from(folder):
    text = (folder / "GlimpseMNIST-v0.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| ([^|]+) \| (.+) \|$", text, re.MULTILINE))
    assert rows["test error"] == "0.81 % of 10,000 images"
    assert rows["validation error"] == "0.9 %"
    assert rows["data"] == "mnist: 50,000 images to learn from; validation and test have others"
    assert rows["options of the environment"] == f"`num_glimpses={T}`"
    assert rows["steps of the environment"] == "14,000,000"
    assert (rows["seed"], rows["commit"], rows["command"]) == ("3", "`0123abc`", "`python train_agent.py --seed 3`")
    assert rows["sees"] == "glimpse (1, 8, 8), location (2,)"
    assert rows["chooses"] == "a location, class of 10"
    # Glimpse network 64*8+8 + 2*8+8 + 16*16+16, core 32*16+16, heads 16*2+2, 16*10+10 and 16+1.
    assert rows["parameters"] == ("1,565: glimpse_network 816, core 528, location_head 34, class_head 170, baseline_head 17")
    assert rows["file"] == "`GlimpseMNIST-v0.safetensors`, 0.01 MB, float32"
    assert "python train_agent.py -i pretrained --env GlimpseMNIST-v0 --eval-only\n" in text
    assert 'load_pretrained("GlimpseMNIST-v0")' in text


def test_the_card_of_a_game_and_of_a_choice(tmp_path):
    env = make_vec_env("GlimpseCatch-v0", 2)
    result = {name: value for name, value in RESULT.items() if not name.startswith(("dataset", "env"))}
    result |= {"validation_episodes": 2000, "chosen_from": [0, 3, 4], "command": "a | b"}
    save_pretrained(make_model(env, class_loss="reinforce"), tmp_path, "GlimpseCatch-v0", result)
    text = (tmp_path / "GlimpseCatch-v0.md").read_text("utf-8")
    assert "| test error | 0.81 % of 10,000 games |" in text
    assert "| validation error | 0.9 % of 2,000 games |" in text
    assert "| chosen | by the validation error, of the seeds 0, 3, 4 |" in text
    assert "| command | `a \\| b` |" in text
    assert "| data |" not in text
    assert load("GlimpseCatch-v0", env, folder=tmp_path).class_loss == "reinforce"


@pytest.mark.parametrize("env_id", pretrained_ids())
def test_the_packages_own_have_the_figure_of_their_card(env_id):
    card = (WEIGHTS / f"{env_id}.md").read_text("utf-8")
    hyperparams = pretrained_hyperparams(env_id)
    assert hyperparams == pretrained_hyperparams(f"ram_envs:{env_id}")
    model = load(env_id)
    assert f'load_pretrained("{env_id}")' in card
    if "| data | mnist: " in card and not os.environ.get(DATA_FOLDER_VARIABLE):
        pytest.skip("the figure is that of the whole of MNIST")
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(hyperparams["matmul_precision"])
    error = evaluate_on_test(model, env_id, hyperparams["env_kwargs"])["test_error"]
    torch.set_float32_matmul_precision(precision)
    assert f"| test error | {error:g} % of " in card


def config_of(folder, env_id):
    with safe_open(folder / f"{env_id}.safetensors", framework="pt") as file:
        return json.loads(file.metadata()["config"])


@pytest.mark.parametrize("env_id", pretrained_ids())
def test_the_packages_own_are_written_again_in_todays_format(env_id, tmp_path):
    model = load(env_id)
    assert config_of(WEIGHTS, env_id)["format"] == 1
    hyperparams = pretrained_hyperparams(env_id)
    result = {**RESULT, "env_kwargs": hyperparams["env_kwargs"], "hyperparams": hyperparams}
    save_pretrained(model, tmp_path, env_id, result)
    config = config_of(tmp_path, env_id)
    assert config["format"] == 2
    today = pretrained_hyperparams(env_id, tmp_path)  # With the defaults of what there was not then.
    assert hyperparams.pop("policy_kwargs").items() <= today["policy_kwargs"].items()
    assert hyperparams.items() <= today.items()
    again = load(env_id, folder=tmp_path)
    obs, state, other = {}, None, None
    rng = np.random.default_rng(0)
    for _ in range(3):
        for name, space in model.observation_space.items():
            obs[name] = rng.uniform(space.low, space.high, (4, *space.shape)).astype(np.float32)
        actions, state = model.predict(obs, state, deterministic=True)
        same, other = again.predict(obs, other, deterministic=True)
        np.testing.assert_array_equal(actions, same)


def test_stacked_observations_are_kept(tmp_path):
    model = make_model(vec_env(frame_stack=2))
    result = {**RESULT, "hyperparams": {"frame_stack": 2}}
    save_pretrained(model, tmp_path, "GlimpseMNIST-v0", result)
    assert pretrained_hyperparams("GlimpseMNIST-v0", tmp_path)["frame_stack"] == 2
    load("GlimpseMNIST-v0", vec_env(frame_stack=2), folder=tmp_path)


def test_each_card_has_weights():
    assert sorted(path.stem for path in WEIGHTS.glob("*.md")) == sorted(pretrained_ids())


def test_all_is_exported():
    assert agents.load_pretrained is load_pretrained
    assert {"load_pretrained", "pretrained_ids", "pretrained_hyperparams", "save_pretrained"} <= set(agents.__all__)
