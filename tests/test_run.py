import errno
import json
import os
import platform
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import yaml
from few_games import EPISODES
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise

from ram_envs.agents import get_algorithm, load_pretrained, make_vec_env, register_algorithm
from ram_envs.agents.training.callbacks import Stopped as BySignal
from ram_envs.agents.training.config import (
    RunConfig,
    current_commit,
    describe_machine,
    name_processor,
    new_folder,
    unfinished_run,
)
from ram_envs.agents.training.run import load_agent, open_run, parse_hyperparams, run

NET = {"policy_kwargs": {"net_arch": [8]}}
OFF_POLICY = {"learning_starts": 20, "batch_size": 8, "buffer_size": 100, "train_freq": 4, **NET}
SMALL = {
    "ram": {"policy_kwargs.core_size": 16},
    "ppo": {"n_steps": 4, "batch_size": 16, "n_epochs": 2, **NET},
    "a2c": NET,
    "recurrent_ppo": {"n_steps": 4, "batch_size": 16, "n_epochs": 1, "policy_kwargs": {"lstm_hidden_size": 8}},
    "episode_ppo": {"n_steps": 4, "n_epochs": 2, "n_minibatches": 2, "policy_kwargs.core_size": 8},
    "episode_a2c": {"policy_kwargs.core_size": 8},
    "dqn": OFF_POLICY,
    "sac": OFF_POLICY,
    "td3": OFF_POLICY,
}
DIGITS = {
    "env": "GlimpseMNIST-v0",
    "env_kwargs": {"dataset": "mnist-5k", "num_glimpses": 3},
    "n_timesteps": 12 * 32,
    "n_envs": 32,
}
TIMED = {"train_seconds", "train_cpu_seconds", "episodes_per_second", "frames_per_second"}
TESTED = {"test_episodes", "test_error", "success_rate", "mean_reward", "mean_length", "error_along_mean_path"}
BOX = spaces.Box(-1, 1, (3,))


def config(folder, algo="episode_a2c", **changes):
    given = {"env": "FewGames-v0", "n_timesteps": 160, "n_envs": 4, "evaluations": 4, "hyperparams": SMALL.get(algo, {})}
    return RunConfig(folder=folder, algo=algo, **{**given, "device": "cpu", "figures": False, **changes})


def test_what_a_run_leaves(tmp_path):
    result = run(config(tmp_path / "run", seed=2, command="as it was asked"))
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        *("args.yml", "result.json", "best_model.zip", "model.zip", "evaluations.npz", "FewGames-v0.zip", "FewGames-v0")
    }
    assert json.loads((tmp_path / "run/result.json").read_text("utf-8")) == result
    zoo = tmp_path / "run/FewGames-v0"  # What rl_zoo3 reads.
    assert yaml.safe_load((zoo / "args.yml").read_text("utf-8")) == {"env_kwargs": result["env_kwargs"]}
    assert yaml.safe_load((zoo / "config.yml").read_text("utf-8")) == result["hyperparams"]
    assert (tmp_path / "run/FewGames-v0.zip").read_bytes() == (tmp_path / "run/model.zip").read_bytes()
    asked = {"env", "algo", "preset", "seed", "command", "hyperparams", "env_kwargs"}
    facts = {"n_timesteps", "validation_error", "last_validation_error", "commit", "machine", "torch"}
    assert result.keys() == TIMED | TESTED | asked | facts
    assert (result["env"], result["algo"], result["seed"]) == ("FewGames-v0", "episode_a2c", 2)
    assert result["command"] == "as it was asked"
    assert (result["n_timesteps"], result["test_episodes"], result["mean_length"]) == (160, EPISODES["test"], 5.0)
    assert result["test_error"] == pytest.approx(100 * (1 - result["success_rate"]), abs=1e-3)
    assert result["mean_reward"] == result["success_rate"]
    assert result["env_kwargs"] == {"action_format": "multidiscrete", "location_grid": 3, "grid_extent": 0.25}
    assert result["hyperparams"]["policy_kwargs"]["core_size"] == 8
    curve = np.load(tmp_path / "run/evaluations.npz")
    assert curve["timesteps"].tolist() == [40, 80, 120, 160]
    assert {curve[name].shape for name in ("results", "ep_lengths", "successes")} == {(4, EPISODES["validation"])}
    assert {curve[name].shape for name in ("train_seconds", "cpu_seconds")} == {(4,)}
    errors = 100 * (1 - curve["successes"].mean(axis=1))
    assert result["validation_error"] == pytest.approx(errors.min())
    assert result["last_validation_error"] == pytest.approx(errors[-1])


def test_a_finished_run_is_not_done_again(tmp_path):
    asked = config(tmp_path / "run")
    result = run(asked)
    (tmp_path / "run/model.zip").unlink()
    assert run(replace(asked, num_threads=2, progress=True, command="again")) == result
    assert not (tmp_path / "run/model.zip").exists()


def test_the_test_split_can_be_left_alone(tmp_path):
    result = run(config(tmp_path, "ram", **DIGITS, test=False, figures=True))
    assert not TESTED & result.keys()
    assert {path.name for path in tmp_path.iterdir()} > {"glimpses.png", "learning_curve.png"}


def test_a_film_shows_games_of_the_split(tmp_path, monkeypatch):
    films = []
    monkeypatch.setattr(
        "ram_envs.agents.training.run.record", lambda *args, **kwargs: films.append((args[2].name, kwargs["seed"]))
    )
    asked = config(tmp_path / "test", n_timesteps=40, evaluations=1, figures=True)
    run(asked)
    run(replace(asked, folder=tmp_path / "validation", test=False))
    assert [name for name, _ in films] == ["games.gif"] * 2
    assert films[0] != films[1]


def test_algorithms_that_see_whole_scenes_have_no_path_to_draw(tmp_path):
    run(config(tmp_path, "fc64", **{**DIGITS, "env_kwargs": {"dataset": "mnist-5k"}}, figures=True, test=False))
    assert (tmp_path / "learning_curve.png").exists()
    assert not (tmp_path / "glimpses.png").exists()


def test_the_report_is_told_and_ends_the_run(tmp_path):
    told = []
    run(config(tmp_path / "run"), lambda *values: told.append(values))
    curve = np.load(tmp_path / "run/evaluations.npz")
    errors = 100 * (1 - curve["successes"].mean(axis=1))
    assert told == list(zip(curve["timesteps"].tolist(), errors.tolist(), strict=True))
    with pytest.raises(Stopped):
        run(config(tmp_path / "pruned"), stop_at(1))
    assert not (tmp_path / "pruned/result.json").exists()


@pytest.mark.parametrize("algo", ["ppo", "ram"])
def test_minutes_of_cpu_time(tmp_path, algo):
    hyperparams = {**SMALL[algo], "learning_rate": "lin_0.001", **({"class_loss": "reinforce"} if algo == "ram" else {})}
    changes = {"minutes": 0.02, "clock": "cpu", "evaluations": 3, "hyperparams": hyperparams, "n_timesteps": None}
    result = run(config(tmp_path / "run", algo, **changes))
    curve = np.load(tmp_path / "run/evaluations.npz")
    assert min(result["train_cpu_seconds"], curve["cpu_seconds"][-1]) >= 1.2
    assert 1 <= len(curve["cpu_seconds"]) <= 4
    model = get_algorithm(algo).load(tmp_path / "run/model.zip", device="cpu")
    assert 0 <= model.policy.optimizer.param_groups[0]["lr"] < 1e-3  # How it falls: see test_callbacks.py.
    assert model.num_timesteps == result["n_timesteps"] == curve["timesteps"][-1]


class Stopped(Exception):
    pass


def stop_at(steps):
    """A report that ends the run."""

    def stop(now, error):
        if now >= steps:
            raise Stopped

    return stop


def test_minutes_are_resumed(tmp_path):
    asked = config(tmp_path / "run", minutes=0.015, clock="cpu", evaluations=9, n_timesteps=None)
    told = []

    def stop(steps, error):
        told.append(steps)
        if len(told) == 2:
            raise Stopped

    with pytest.raises(Stopped):
        run(asked, stop)
    result = run(asked)
    curve = np.load(tmp_path / "run/evaluations.npz")
    assert curve["timesteps"][0] == told[0]
    assert (np.diff(curve["timesteps"]) > 0).all()
    assert (np.diff(curve["cpu_seconds"]) > 0).all()
    assert result["train_cpu_seconds"] >= 0.9
    assert 2 <= len(curve["timesteps"]) <= 10


@pytest.mark.parametrize("algo", ["ppo", "dqn"])
def test_frames_are_stacked_for_training_evaluation_test_and_film(tmp_path, algo, monkeypatch):
    films = []
    monkeypatch.setattr("ram_envs.agents.training.run.record", lambda *args, **kwargs: films.append(kwargs["frame_stack"]))
    result = run(config(tmp_path, algo, hyperparams={**SMALL[algo], "frame_stack": 3}, evaluations=1, figures=algo == "dqn"))
    assert result["hyperparams"]["frame_stack"] == 3
    assert "frame_stack" not in result["env_kwargs"]
    model = get_algorithm(algo).load(tmp_path / "model.zip", device="cpu")
    assert model.observation_space["glimpse"].shape == (3, 6, 18)
    assert films == ([3] if algo == "dqn" else [])


@pytest.mark.parametrize("algo", ["a2c", "sac", "td3"])
def test_results_of_others(tmp_path, algo):
    """What models write into their hyperparameters is not in the way of the result."""
    result = run(config(tmp_path, algo, evaluations=1))
    assert yaml.safe_load((tmp_path / "args.yml").read_text("utf-8"))["hyperparams"] == result["hyperparams"]
    assert 0 <= result["test_error"] <= 100


@pytest.mark.parametrize("algo", ["ram", "episode_ppo"])
def test_a_resumed_run_equals_an_unbroken_one(tmp_path, algo, capsys):
    changes = DIGITS if algo == "ram" else {}
    unbroken = run(config(tmp_path / "unbroken", algo, **changes))
    broken = config(tmp_path / "broken", algo, **changes)
    with pytest.raises(Stopped):
        run(broken, stop_at(100))
    assert (tmp_path / "broken/checkpoint.npz").exists()
    told = []
    resumed = run(broken, lambda steps, error: told.append(steps))
    assert "Resuming after" in capsys.readouterr().out
    assert min(told) > 40  # Not from the beginning.
    assert {k: v for k, v in resumed.items() if k not in TIMED} == {k: v for k, v in unbroken.items() if k not in TIMED}
    for name in ("model.zip", "best_model.zip"):
        one, other = (get_algorithm(algo).load(tmp_path / folder / name, device="cpu") for folder in ("unbroken", "broken"))
        for (part, first), second in zip(one.policy.state_dict().items(), other.policy.state_dict().values(), strict=True):
            assert torch.equal(first, second), part
    first, second = (np.load(tmp_path / folder / "evaluations.npz") for folder in ("unbroken", "broken"))
    for name in ("timesteps", "results", "successes"):
        np.testing.assert_array_equal(first[name], second[name])
    assert {path.name for path in (tmp_path / "broken").iterdir()} == {path.name for path in (tmp_path / "unbroken").iterdir()}


def test_a_run_names_all_machines_that_it_was_on(tmp_path):
    asked = config(tmp_path / "run")
    for _ in range(2):
        with pytest.raises(Stopped):
            run(asked, stop_at(100))
    path = tmp_path / "run/args.yml"
    stored = yaml.safe_load(path.read_text("utf-8"))
    [here] = stored["machines"]
    path.write_text(yaml.safe_dump({**stored, "machines": ["another machine"]}), encoding="utf-8")
    assert run(asked)["machine"] == f"another machine, then {here}"


def test_a_run_that_was_stopped_before_its_first_checkpoint_begins_anew(tmp_path):
    asked = config(tmp_path / "run")
    with pytest.raises(Stopped):
        run(asked, stop_at(1))
    assert run(asked)["n_timesteps"] == 160
    assert np.load(tmp_path / "run/evaluations.npz")["timesteps"].tolist() == [40, 80, 120, 160]


def test_a_trained_agent_is_where_training_begins(tmp_path):
    run(config(tmp_path / "first", evaluations=1, test=False))
    changes = {"trained_agent": str(tmp_path / "first/model.zip"), "n_timesteps": 40, "evaluations": 1, "test": False}
    assert run(config(tmp_path / "second", **changes))["n_timesteps"] == 40
    before, after = (
        get_algorithm("episode_a2c").load(tmp_path / name / "model.zip", device="cpu") for name in ("first", "second")
    )
    moved = (before.policy.value_head.weight - after.policy.value_head.weight).abs().max().item()
    assert 0 < moved < 0.01  # Two steps of 0.0007.


def test_algorithms_of_ones_own(tmp_path):
    @register_algorithm("always", action_format="multidiscrete")
    def always(env, seed, move=0):
        env.reset()
        steps, action = 0, np.array([2, 2, move])
        while True:
            env.step(np.tile(action, (env.num_envs, 1)))
            steps += env.num_envs
            yield steps, lambda obs, state, episode_start, deterministic: (np.tile(action, (len(episode_start), 1)), state)

    @register_algorithm("slow_ppo", action_format="discrete", hyperparams={"n_steps": 5, "batch_size": 10})
    def slow_ppo(env, seed, **hyperparams):
        return PPO("MultiInputPolicy", env, learning_rate=1e-6, seed=seed, **hyperparams)

    still = run(config(tmp_path / "still", "always", hyperparams={"move": 1}, evaluations=1))
    gone = run(config(tmp_path / "gone", "always", hyperparams={"move": 0}, evaluations=1))
    assert (still["hyperparams"]["move"], still["n_timesteps"]) == (1, 160)
    assert gone["test_error"] != still["test_error"]
    assert run(config(tmp_path / "slow", "slow_ppo", evaluations=1))["hyperparams"]["n_steps"] == 5
    limited = run(config(tmp_path / "limited", "always", minutes=0.001, n_timesteps=None, evaluations=1, test=False))
    assert limited["n_timesteps"] > 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("seed", 5), ("n_timesteps", 200), ("minutes", 1), ("env_kwargs", {"size": 8})),
        *(("hyperparams", {"n_steps": 6}), ("algo", "ppo")),
    ],
)
def test_another_run_in_the_same_folder_is_refused(tmp_path, name, value):
    asked = config(tmp_path / "run", n_timesteps=40, evaluations=1, test=False)
    run(asked)
    with pytest.raises(ValueError, match=rf"run holds a run with {name}=.*, asked for was .*: take another folder or remove it"):
        open_run(replace(asked, **{name: value}))


def test_one_process_is_at_work_in_a_folder(tmp_path):
    told = []

    def again(steps, error):
        with pytest.raises(BlockingIOError, match=r"another process is at work in .*run: wait for it or stop it"):
            run(config(tmp_path / "run"))
        told.append(steps)

    run(config(tmp_path / "run"), again)
    assert len(told) == 4


@pytest.mark.parametrize(("signum", "algo"), [(signal.SIGTERM, "ppo"), (signal.SIGINT, "dqn")])
def test_a_signal_saves_and_the_run_resumes(tmp_path, signum, algo):
    """Twice at once, as `make` sends it: to the group and to its child."""
    unbroken, handler = run(config(tmp_path / "unbroken", algo)), lambda *args: None
    before = signal.signal(signum, handler)
    with pytest.raises(BySignal) as stopped:
        run(config(tmp_path / "run", algo), lambda steps, error: [os.kill(os.getpid(), signum) for _ in range(2)])
    assert (stopped.value.signum, signal.signal(signum, before)) == (signum, handler)
    assert (tmp_path / "run/checkpoint.npz").exists()
    resumed = run(config(tmp_path / "run", algo))
    assert {k: v for k, v in resumed.items() if k not in TIMED} == {k: v for k, v in unbroken.items() if k not in TIMED}


def test_a_later_signal_ends_at_once(tmp_path, monkeypatch):
    times = iter((0.0, 0.0, 2.0))
    monkeypatch.setattr("time.monotonic", lambda: next(times))
    before = signal.signal(signal.SIGTERM, lambda *args: None)
    told = []

    def twice(steps, error):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        told.append(steps)

    with pytest.raises(BySignal):
        run(config(tmp_path / "run"), twice)
    signal.signal(signal.SIGTERM, before)
    assert not told
    assert not (tmp_path / "run/checkpoint.npz").exists()


def test_a_full_disk_on_the_way_costs_no_run(tmp_path, monkeypatch):
    asked, replace_file, steps = config(tmp_path / "run"), os.replace, []

    def full(old, new):
        if len(steps) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace_file(old, new)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        run(asked, lambda now, error: steps.append(now))
    monkeypatch.undo()
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {"args.yml", "best_model.zip", "evaluations.npz", "checkpoint.npz", "checkpoint_previous.npz", "FewGames-v0"}
    resumed = []
    run(asked, lambda now, error: resumed.append(now))
    assert resumed == [*steps[2:], 160]


def test_a_trained_agent_brings_its_hyperparameters_and_its_seed_does_not(tmp_path):
    first = run(config(tmp_path / "first", "ppo", seed=1, env_kwargs={"size": 7}, evaluations=1))
    asked = RunConfig("FewGames-v0", tmp_path / "second", "ppo", seed=2, n_timesteps=32, trained_agent=str(tmp_path / "first"))
    opened = open_run(asked)
    assert opened.hyperparams == {**first["hyperparams"], "n_timesteps": 32}
    assert opened.env_kwargs == first["env_kwargs"]
    env = make_vec_env("FewGames-v0", 4, frame_stack=opened.frame_stack, **opened.env_kwargs)
    model, best = load_agent(opened, env), get_algorithm("ppo").load(tmp_path / "first/best_model.zip", device="cpu")
    assert (model.seed, best.seed) == (2, 1)
    for one, other in zip(model.policy.state_dict().values(), best.policy.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    changed = replace(asked, hyperparams={"policy_kwargs.net_arch": [9]})
    with pytest.raises(ValueError, match=r"best_model.zip holds no weights of this PPO with these hyperparameters"):
        load_agent(open_run(changed), env)
    with pytest.raises(ValueError, match="is an agent of the algorithm ppo, got algo='a2c'"):
        open_run(replace(asked, algo="a2c"))
    with pytest.raises(ValueError, match="preset can't be given for a trained agent"):
        replace(asked, preset="best")


def test_a_zip_from_elsewhere_needs_trust(tmp_path):
    env = make_vec_env("FewGames-v0", 4, action_format="multidiscrete")
    PPO("MultiInputPolicy", env, n_steps=8, batch_size=8, seed=1, learning_rate=0.5, device="cpu").save(tmp_path / "foreign.zip")
    asked = RunConfig(
        "FewGames-v0", tmp_path / "run", "ppo", n_timesteps=64, n_envs=4, trained_agent=str(tmp_path / "foreign.zip")
    )
    with pytest.raises(ValueError, match=r"foreign.zip holds pickled code, which runs when it is loaded: give --trust if"):
        run(asked)
    assert not (tmp_path / "run").exists()
    trusted = replace(asked, trust=True, seed=5, evaluations=1, figures=False, test=False)
    model = load_agent(open_run(trusted), env)
    assert (model.learning_rate, model.seed, model.n_steps) == (0.5, 5, 8)
    assert run(trusted)["hyperparams"] == {"n_timesteps": 64, "n_envs": 4, "matmul_precision": "highest"}  # SB3 knows the others.
    with pytest.raises(ValueError, match=r"gamma can't be changed: .*foreign.zip has its own hyperparameters"):
        replace(trusted, hyperparams={"gamma": 0.5})


def test_runs_of_other_versions_are_not_resumed(tmp_path):
    (tmp_path / "args.yml").write_text(yaml.safe_dump({"options": {"env": "GlimpseMNIST-v0"}, "settings": {}}), encoding="utf-8")
    with pytest.raises(ValueError, match="is of another version of ram-envs, which can't be resumed"):
        run(config(tmp_path))
    (tmp_path / "args.yml").write_text("config: {env: [", encoding="utf-8")
    with pytest.raises(ValueError, match=r"args.yml is damaged"):
        run(config(tmp_path))
    (tmp_path / "checkpoint.pkl").write_bytes(b"a pickle")
    with pytest.raises(ValueError, match="has a checkpoint of another version of ram-envs"):
        run(config(tmp_path))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"algo": "fc64"}, ValueError, "fc64 can't learn FewGames-v0: it needs an option num_glimpses"),
        ({"algo": "sac", "env": "Catch-v0"}, ValueError, r"it takes Box actions, got Discrete\(3\)"),
        ({"hyperparams": {"gamma.a": 1}}, ValueError, "gamma.a can't be set: gamma is 1, which has no entries"),
        ({"hyperparams": {"gama": 1}}, TypeError, "gama"),
        (
            {"hyperparams": {"n_timesteps": -5}, "n_timesteps": None},
            ValueError,
            "n_timesteps must be a whole number of at least 1, got -5",
        ),
        ({"hyperparams": {"n_envs": "4"}, "n_envs": None}, ValueError, "n_envs must be a whole number of at least 1, got '4'"),
        ({"n_envs": 161}, ValueError, "n_timesteps must be at least n_envs, one step of each environment, got 160 and 161"),
        ({"trained_agent": "nowhere.zip"}, FileNotFoundError, "there is no trained agent nowhere.zip"),
        ({"device": "foo"}, ValueError, "device must be .auto. or torch's .* or another, got 'foo'"),
        ({"trained_agent": __file__}, ValueError, r"test_run.py is no saved model: those are zips that"),
        ({"env_kwargs": {"sise": 6}}, TypeError, "sise"),
        (
            {"preset": "fast"},
            ValueError,
            "preset must be one of those that episode_a2c.yml has for FewGames-v0, none",
        ),
    ],
)
def test_what_can_not_be_run_is_named_before_anything_is_written(tmp_path, changes, error, message):
    hyperparams = changes.pop("hyperparams", {}) if "trained_agent" in changes else {"gamma": 1, **changes.pop("hyperparams", {})}
    with pytest.raises(error, match=message):
        run(config(tmp_path / "run", **changes, hyperparams=hyperparams))
    assert not (tmp_path / "run").exists()


def test_a_loaded_agent_is_told_of_scenes_of_another_size():
    env = make_vec_env("GlimpseClutteredMNIST-v0", 2, dataset="mnist-5k", canvas_size=80)
    asked = open_run(RunConfig("GlimpseClutteredMNIST-v0", "nowhere", trained_agent="pretrained"))
    with pytest.raises(ValueError, match=r"scene_size must be that of the environment's scenes, \[80, 80\], got \[60, 60\]"):
        load_agent(asked, env)
    asked = open_run(RunConfig("GlimpseCatch-v0", "nowhere", trained_agent="pretrained", seed=7))
    model = load_agent(asked, make_vec_env("GlimpseCatch-v0", 2, **asked.env_kwargs))
    stored = load_pretrained("GlimpseCatch-v0")
    assert (model.seed, stored.seed) == (7, None)
    for one, other in zip(model.policy.state_dict().values(), stored.policy.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_runs_are_numbered_and_the_newest_unfinished_is_found(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no unfinished run with a checkpoint in .* of ram on A-v0"):
        unfinished_run(tmp_path, {"env": "A-v0"})
    folders = [new_folder(tmp_path, "ram", "A-v0") for _ in range(12)]
    assert [folder.name for folder in folders[:2]] == ["A-v0_1", "A-v0_2"]
    assert folders[-1].name == "A-v0_12"
    for number, folder in enumerate(folders[8:]):
        stored = {"env": "A-v0", "folder": "moved", "seed": number, "device": "cuda", "trust": True, "algo": "ram"}
        (folder / "args.yml").write_text(yaml.safe_dump({"config": stored}), encoding="utf-8")
    for folder in folders[8:11]:  # The last one never began.
        (folder / "checkpoint_previous.npz").write_bytes(b"")
    asked = {"env": "A-v0", "device": "cpu"}
    found = unfinished_run(tmp_path, asked)
    wanted = {"env": "A-v0", "folder": str(folders[10]), "seed": 2, "device": "cpu", "trust": False, "algo": "ram"}
    assert found == wanted  # Not _9: numbers, not names.
    assert unfinished_run(tmp_path, {**asked, "seed": 1})["folder"] == str(folders[9])  # What is asked, not the newest.
    with pytest.raises(ValueError, match=r"nothing to resume as asked: .*A-v0_11 holds a run with seed=2, asked for was 7"):
        unfinished_run(tmp_path, {**asked, "seed": 7})
    assert unfinished_run(tmp_path, {**asked, "folder": str(folders[8])})["seed"] == 0
    with pytest.raises(FileNotFoundError, match=r"no unfinished run with a checkpoint in .*A-v0_12"):
        unfinished_run(tmp_path, {**asked, "folder": str(folders[11])})
    (folders[10] / "result.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"A-v0_11 holds a finished run: there is nothing to resume"):
        unfinished_run(tmp_path, {**asked, "folder": str(folders[10])})
    assert unfinished_run(tmp_path, asked)["folder"] == str(folders[9])
    assert new_folder(tmp_path, "ram", "B-v0").name == "B-v0_1"


@pytest.mark.parametrize("env_id", ["../../x-v0", "module:ALE/Pong-v5", "..", "a/../../b-v0"])
def test_a_run_folder_lies_in_the_log_folder(tmp_path, env_id):
    for _ in range(2):
        folder = new_folder(tmp_path / "logs", "../ram", env_id)
        assert folder.resolve().parent.parent == (tmp_path / "logs").resolve()
    assert folder.name.endswith("_2")


def test_runs_that_begin_at_once_have_folders_of_their_own(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: new_folder(tmp_path, "ram", "A-v0"), range(64)))
    assert {folder.name for folder in folders} == {f"A-v0_{number}" for number in range(1, 65)}


def test_arguments_of_an_algorithm():
    given = {"learning_rate": "lin_2.0", "gamma": 0.9, "policy": "MlpPolicy", "policy_kwargs": {"core": "lstm"}}
    parsed = parse_hyperparams({**given, "n_envs": 4, "n_timesteps": 9, "frame_stack": 2, "matmul_precision": "highest"}, BOX)
    assert parsed.pop("learning_rate")(0.25) == 0.5
    assert parsed == {"gamma": 0.9, "policy": "MlpPolicy", "policy_kwargs": {"core": "lstm"}}


def test_action_noise():
    normal = parse_hyperparams({"noise_type": "normal", "noise_std": 0.3, "gamma": 0.9}, BOX)
    assert normal.keys() == {"action_noise", "gamma"}
    assert isinstance(normal["action_noise"], NormalActionNoise)
    np.random.seed(0)  # noqa: NPY002 (what SB3 draws from)
    drawn = np.array([normal["action_noise"]() for _ in range(2000)])
    assert drawn.shape == (2000, 3)
    assert drawn.std(axis=0).tolist() == pytest.approx([0.3] * 3, rel=0.1)
    assert np.abs(drawn.mean(axis=0)).max() < 0.03
    other = parse_hyperparams({"noise_type": "ornstein-uhlenbeck", "noise_std": 0.1}, BOX)["action_noise"]
    assert isinstance(other, OrnsteinUhlenbeckActionNoise)
    for bad in ({"noise_type": "pink", "noise_std": 0.1}, {"noise_type": "normal"}):
        with pytest.raises(ValueError, match=r"noise_type must be one of \('normal', 'ornstein-uhlenbeck'\), beside noise_std"):
            parse_hyperparams(bad, BOX)


def test_commit(tmp_path):
    assert current_commit(tmp_path) is None

    def git(*words):
        names = ["-c", "user.name=A", "-c", "user.email=a@b.c"]
        subprocess.run(["git", "-C", str(tmp_path), *names, *words], check=True, capture_output=True)

    git("init")
    published, read = ("results/a.jsonl", "docs/a.md", "docs/images/a.png"), ("a.py", "docs/examples/a.py")
    for name in (*published, *read):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one", encoding="utf-8")
    git("add", "."), git("commit", "-m", "One")
    commit = current_commit(tmp_path)
    assert len(commit) == 40
    for name in published:
        (tmp_path / name).write_text("three", encoding="utf-8")
    (tmp_path / "untracked").touch()
    assert current_commit(tmp_path) == commit
    for name in read:
        (tmp_path / name).write_text("three", encoding="utf-8")
        assert current_commit(tmp_path) == f"{commit}-dirty"
        (tmp_path / name).write_text("one", encoding="utf-8")


def test_the_machine_is_described(tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name\t: Babbage 1837 @ 1 Hz\n", encoding="utf-8")
    assert name_processor(tmp_path / "cpuinfo") == "Babbage 1837 @ 1 Hz"
    assert name_processor(tmp_path / "none") == platform.processor() or platform.machine()
    assert describe_machine(torch.device("cpu")).endswith(f", {torch.get_num_threads()} torch thread(s), cpu")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device.index}")
    assert describe_machine(torch.device("cuda", 1)).endswith(" torch thread(s), card 1")


@pytest.mark.parametrize("was_there", [True, False])
def test_a_run_that_can_not_begin_leaves_the_folders_that_were_there(tmp_path, was_there):
    mine = tmp_path / "mine"
    if was_there:
        mine.mkdir()
    with pytest.raises(ValueError, match="n_timesteps must be at least n_envs"):
        run(RunConfig(env="GlimpseCatch-v0", folder=mine / "run", n_timesteps=1, n_envs=2))
    assert mine.exists() == was_there
    assert not (mine / "run").exists()
