"""The files in hyperparams/ are understood by rl_zoo3, by the algorithms and by train_agent.py alike."""

import argparse
import inspect
import sys

import gymnasium as gym
import pytest

pytest.importorskip("stable_baselines3")

import yaml
from conftest import options

from ram_envs import ActionFormat
from ram_envs.agents import RAM, algorithm_names, get_algorithm, make_vec_env
from ram_envs.agents.recurrent import parse_schedule
from ram_envs.agents.training.config import RunConfig, read_hyperparams
from ram_envs.agents.training.run import parse_hyperparams
from ram_envs.agents.training.settings import ACTION_WRAPPER, HYPERPARAMS, read_file
from ram_envs.benchmarks.paper import TASKS

# Those called "search" hold what hyperparameters are drawn from.
FILES = {
    path.stem: yaml.safe_load(path.read_text("utf-8")) for path in HYPERPARAMS.glob("*.yml") if not path.stem.startswith("search")
}
ENTRIES = [(algo, env_id) for algo, entries in FILES.items() for env_id in entries]
# rl_zoo3's name of each algorithm that it has.
ZOO = {"a2c": "a2c", "dqn": "dqn", "ppo": "ppo", "recurrent_ppo": "ppo_lstm", "sac": "sac", "td3": "td3"}
ZOO_ENTRIES = [(algo, env_id) for algo, env_id in ENTRIES if algo in ZOO]
# What rl_zoo3 keeps from the algorithm. It reads env_kwargs as well and then evaluates without them: no file may hold them.
ZOO_HYPERPARAMS = {"n_timesteps", "n_envs", "env_wrapper", "frame_stack", "noise_type", "noise_std"}
ZOO_SCHEDULES = {"learning_rate", "clip_range", "clip_range_vf"}  # Where it reads "lin_0.001".


def algorithm_class(algo):
    """The class that the hyperparameters go to."""
    if algo == "recurrent_ppo":
        pytest.importorskip("sb3_contrib")
    return get_algorithm(algo).resolve()


def small(entry):
    """Changes with which two environments and little memory are enough."""
    changes = {"batch_size": entry["n_steps"]} if {"batch_size", "n_steps"} <= entry.keys() else {}
    changes |= {"buffer_size": 100} if "buffer_size" in entry else {}
    return changes | ({"n_minibatches": 2} if "n_minibatches" in entry else {})


def test_each_file_is_an_algorithms():
    assert FILES.keys() <= set(algorithm_names())
    assert ZOO.keys() <= FILES.keys()


@pytest.mark.parametrize(("algo", "env_id"), ENTRIES)
def test_keys_and_schedules(algo, env_id):
    """That our own algorithms know their keys, see below: a model is made."""
    assert env_id.partition("/")[0] in gym.registry
    entry = FILES[algo][env_id]
    if algo in ZOO:
        assert entry.keys() <= ZOO_HYPERPARAMS | inspect.signature(algorithm_class(algo)).parameters.keys()
    assert entry["n_timesteps"] >= 1 and entry["n_envs"] >= 1
    for name, value in entry.items():
        if isinstance(value, str) and value.startswith("lin_"):
            schedule = parse_schedule(value)
            assert schedule(1.0) > schedule(0.5) > schedule(0.0) == 0.0
            assert name in ZOO_SCHEDULES or algo not in ZOO


@pytest.mark.parametrize(("algo", "env_id"), ZOO_ENTRIES)
def test_the_policy_and_the_actions_are_written_out_for_rl_zoo3(algo, env_id):
    entry = FILES[algo][env_id]
    assert entry["policy"] in algorithm_class(algo).policy_aliases
    assert f"{ActionFormat.__module__}.{ActionFormat.__name__}" == ACTION_WRAPPER
    if env_id != "Catch-v0":  # Which has Discrete actions alone.
        form = get_algorithm(algo).action_format
        [[(wrapper, options)]] = [list(one.items()) for one in entry["env_wrapper"]]
        assert (wrapper, options["action_format"]) == (ACTION_WRAPPER, form)
        assert options.keys() <= {"action_format", "location_grid", "grid_extent"}  # Which it takes as the environment does.
        assert read_file(HYPERPARAMS / f"{algo}.yml", env_id)["env_kwargs"] == options


@pytest.mark.parametrize(("algo", "env_id"), ENTRIES)
def test_each_entry_makes_a_model(algo, env_id):
    algorithm_class(algo)
    changes, (env_id, _, preset) = small(FILES[algo][env_id]), env_id.partition("/")
    config = RunConfig(env_id, "", algo, preset or None, hyperparams=changes, env_kwargs=options(env_id, {}))
    hyperparams, env_kwargs = read_hyperparams(config)
    env = make_vec_env(env_id, 2, frame_stack=hyperparams.get("frame_stack", 1), **env_kwargs)
    model = get_algorithm(algo).make(env, parse_hyperparams(hyperparams, env.action_space), seed=0, device="cpu")
    actions, _ = model.predict(env.reset())
    env.step(actions)
    env.close()


class ZooRAM(RAM):
    """RAM as docs/algorithms.md gives it to rl_zoo3."""

    def __init__(self, *args, matmul_precision="highest", **kwargs):
        super().__init__(*args, **kwargs)


@pytest.mark.filterwarnings("ignore:Training and eval env are not of the same type")
@pytest.mark.parametrize("algo", [*ZOO, "ram"])
def test_rl_zoo3_trains_and_evaluates_with_the_file_as_it_is(algo, tmp_path, monkeypatch):
    manager = pytest.importorskip("rl_zoo3.exp_manager")
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setitem(manager.ALGOS, "ram", ZooRAM)
    env_id, zoo_name = "GlimpseCatch-v0", ZOO.get(algo, algo)
    experiment = manager.ExperimentManager(
        argparse.Namespace(),
        zoo_name,
        env_id,
        str(tmp_path),
        n_timesteps=92,  # Four games of 23 steps.
        eval_freq=46,
        n_eval_episodes=1,
        hyperparams={"n_envs": 2, **small(FILES[algo][env_id])},
        config=str(HYPERPARAMS / f"{algo}.yml"),
        device="cpu",
        verbose=0,
        log_interval=-2,  # Never.
    )
    model, _ = experiment.setup_experiment()
    experiment.learn(model)
    assert model.num_timesteps >= 92
    assert (tmp_path / zoo_name / f"{env_id}_1" / "evaluations.npz").exists()


PAPER = [(env_id, entry) for env_id, entry in FILES["ram"].items() if env_id.endswith("/paper")]


@pytest.mark.parametrize(("env_id", "entry"), PAPER, ids=lambda value: value if isinstance(value, str) else "")
def test_the_presets_called_paper_keep_to_the_papers_model(env_id, entry):
    look, is_game = entry["policy_kwargs"], "Catch" in env_id
    assert look.get("core", "relu") == ("lstm" if is_game else "relu")
    assert entry.get("class_loss", "cross_entropy") == ("reinforce" if is_game else "cross_entropy")
    assert is_game or entry["class_loss_steps"] == "last"
    free = {"n_timesteps", "n_envs", "policy", "learning_rate", "max_grad_norm", "weight_average", "ent_coef", "policy_kwargs"}
    assert entry.keys() <= free | {"class_loss", "class_loss_steps", "location_coef"}  # No std that falls: the variance is fixed.
    sizes = {"location_scale", "location_std", "glimpse_mean", "glimpse_std", "optimizer_kwargs", "location_gradient"}
    assert look.keys() <= sizes | ({"core", "baseline_gradient"} if is_game else set())


def test_every_row_of_the_paper_has_both_presets_and_the_best_look_no_more_than_the_task_allows():
    for env_id in TASKS:
        assert {f"{env_id}/paper", f"{env_id}/best"} <= FILES["ram"].keys()
        assert FILES["ram"][f"{env_id}/best"].get("env_kwargs", {}).keys() <= {"warp", "affine"}  # Of training images alone.
