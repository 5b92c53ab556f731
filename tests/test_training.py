import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import yaml
from stable_baselines3 import PPO

from agents import algorithms, evaluation, get_algorithm, register_algorithm, training
from agents.training import describe_machine, run_trial
from ram_envs import load_images

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


@pytest.fixture(autouse=True)
def few_games(monkeypatch):
    """And torch as it was."""
    monkeypatch.setitem(evaluation.GAME_EVALUATIONS, "validation", (20, 10**6))
    monkeypatch.setitem(evaluation.GAME_EVALUATIONS, "test", (30, 2 * 10**6))
    precision = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(precision)


@pytest.fixture
def pictures(monkeypatch):
    """What is drawn, by file name: without the time that drawing takes."""
    drawn = {}

    def film(model, env_id, path, **options):
        drawn[path.name] = options

    monkeypatch.setattr(training, "record", film)
    monkeypatch.setattr(training, "plot_glimpses", lambda episodes, path: drawn.update({path.name: episodes}))
    monkeypatch.setattr(training, "plot_learning_curve", lambda *values: drawn.update({values[3].name: values}))
    return drawn


def config(folder, algo="episode_a2c", **changes):
    return {
        "env": "GlimpseCatch-v0",
        "algo": algo,
        "folder": folder,
        "n_timesteps": 160,
        "n_envs": 4,
        "evaluations": 4,
        "env_kwargs": {"size": 6},
        "params": SMALL.get(algo, {}),
        "device": "cpu",
        "figures": False,
        **changes,
    }


def test_what_a_run_leaves(tmp_path):
    result = run_trial(config(tmp_path / "run", seed=2, command="as it was asked"))
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        *("args.yml", "result.json", "best_model.zip", "model.zip", "evaluations.npz")
    }
    assert json.loads((tmp_path / "run/result.json").read_text()) == result
    assert result.keys() == TIMED | {
        *("env", "algo", "preset", "seed", "n_timesteps", "validation_error", "last_validation_error", "command", "commit"),
        *(
            "machine",
            "torch",
            "settings",
            "env_kwargs",
            "test_episodes",
            "test_error",
            "success_rate",
            "mean_reward",
            "mean_length",
        ),
    }
    assert (result["env"], result["algo"], result["seed"], result["command"]) == (
        *("GlimpseCatch-v0", "episode_a2c", 2),
        "as it was asked",
    )
    assert (result["n_timesteps"], result["test_episodes"], result["mean_length"]) == (160, 30, 5.0)
    assert result["test_error"] == pytest.approx(100 * (1 - result["success_rate"]), abs=1e-3)
    assert result["mean_reward"] == result["success_rate"]
    assert result["env_kwargs"] == {"size": 6, "action_format": "multidiscrete"}
    assert result["settings"]["policy_kwargs"]["core_size"] == 8
    curve = np.load(tmp_path / "run/evaluations.npz")
    assert curve["timesteps"].tolist() == [40, 80, 120, 160]
    assert {curve[name].shape for name in ("results", "ep_lengths", "successes")} == {(4, 20)}
    assert {curve[name].shape for name in ("train_seconds", "cpu_seconds")} == {(4,)}
    errors = 100 * (1 - curve["successes"].mean(axis=1))
    assert result["validation_error"] == pytest.approx(errors.min())
    assert result["last_validation_error"] == pytest.approx(errors[-1])


def test_a_finished_run_is_not_done_again(tmp_path, monkeypatch):
    asked = config(tmp_path / "run")
    result = run_trial(asked)
    monkeypatch.setattr(training, "train", None)
    assert run_trial({**asked, "num_threads": 2, "progress": True, "command": "again"}) == result


@pytest.mark.parametrize(
    ("changes", "algo", "picture"), [({}, "episode_a2c", "games.gif"), (DIGITS, "ram", "glimpses.png")], ids=["games", "images"]
)
@pytest.mark.parametrize("figures", [False, True])
def test_the_test_split_can_be_left_alone(tmp_path, monkeypatch, pictures, changes, algo, picture, figures):
    asked, make_split = [], evaluation.make_split

    def note(env_id, split, *arguments):
        asked.append(split)
        return make_split(env_id, split, *arguments)

    monkeypatch.setattr(evaluation, "make_split", note), monkeypatch.setattr(training, "make_split", note)
    monkeypatch.delitem(evaluation.GAME_EVALUATIONS, "test")
    result = run_trial(config(tmp_path / "run", algo, **changes, test=False, figures=figures))
    assert set(asked) == {"validation"}
    assert not {"test_error", "test_episodes", "success_rate", "mean_reward", "mean_length"} & result.keys()
    assert pictures.keys() == ({picture, "learning_curve.png"} if figures else set())
    if figures and algo != "ram":
        assert pictures[picture] == {"seed": 10**6, "size": 6, "action_format": "multidiscrete"}


def test_pictures(tmp_path, pictures):
    run_trial(config(tmp_path / "games", figures=True))
    assert pictures["games.gif"] == {"seed": 2 * 10**6, "size": 6, "action_format": "multidiscrete"}
    episodes, cpu_seconds, errors, _, title = pictures["learning_curve.png"]
    curve = np.load(tmp_path / "games/evaluations.npz")
    assert episodes.tolist() == [8, 16, 24, 32]  # Of 5 steps.
    np.testing.assert_array_equal(cpu_seconds, curve["cpu_seconds"])
    np.testing.assert_allclose(errors, 100 * (1 - curve["successes"].mean(axis=1)))
    assert title == "episode_a2c on GlimpseCatch-v0, seed 0"
    run_trial(config(tmp_path / "digits", "ram", **DIGITS, figures=True))
    assert pictures["glimpses.png"].labels == [str(label) for label in load_images("mnist-5k", "test").labels[:8]]


def test_the_report_is_told_and_ends_the_trial(tmp_path):
    told = []
    run_trial(config(tmp_path / "run"), lambda *values: told.append(values))
    curve = np.load(tmp_path / "run/evaluations.npz")
    errors = 100 * (1 - curve["successes"].mean(axis=1))
    assert told == list(zip(curve["timesteps"].tolist(), errors.tolist(), strict=True))

    class Pruned(Exception):
        pass

    def prune(steps, error):
        raise Pruned(steps)

    with pytest.raises(Pruned, match="40"):
        run_trial(config(tmp_path / "pruned"), prune)
    assert not (tmp_path / "pruned/result.json").exists()


@pytest.mark.parametrize("algo", ["ppo", "ram"])
def test_minutes_of_cpu_time(tmp_path, algo):
    params = {**SMALL[algo], "learning_rate": "lin_0.001", **({"class_loss": "reinforce"} if algo == "ram" else {})}
    changes = {"minutes": 0.005, "clock": "cpu", "evaluations": 3, "params": params, "n_timesteps": None}
    result = run_trial(config(tmp_path / "run", algo, **changes))
    assert result["train_cpu_seconds"] >= 0.3
    curve = np.load(tmp_path / "run/evaluations.npz")
    assert curve["cpu_seconds"][0] >= 0.1
    assert curve["cpu_seconds"][-1] >= 0.3
    assert 1 <= len(curve["cpu_seconds"]) <= 4
    model = get_algorithm(algo).load(tmp_path / "run/model.zip", device="cpu")
    assert 0 <= model.policy.optimizer.param_groups[0]["lr"] < 1e-3  # How it falls: see test_callbacks.py.
    assert model.num_timesteps == result["n_timesteps"] == curve["timesteps"][-1]


def test_minutes_go_on_after_an_interruption(tmp_path):
    asked = config(tmp_path / "run", minutes=0.015, clock="cpu", evaluations=9, n_timesteps=None)
    told = []

    def stop(steps, error):
        told.append(steps)
        if len(told) == 2:
            raise Stopped

    with pytest.raises(Stopped):
        run_trial(asked, stop)
    result = run_trial(asked)
    curve = np.load(tmp_path / "run/evaluations.npz")
    assert curve["timesteps"][0] == told[0]
    assert (np.diff(curve["timesteps"]) > 0).all()
    assert (np.diff(curve["cpu_seconds"]) > 0).all()
    assert result["train_cpu_seconds"] >= 0.9
    assert 2 <= len(curve["timesteps"]) <= 10


@pytest.mark.parametrize("algo", ["ppo", "dqn"])
def test_frames_are_stacked_for_training_evaluation_and_test(tmp_path, pictures, algo):
    result = run_trial(config(tmp_path, algo, params={**SMALL[algo], "frame_stack": 3}, figures=True))
    assert result["env_kwargs"]["frame_stack"] == 3
    assert "frame_stack" not in result["settings"]
    model = get_algorithm(algo).load(tmp_path / "model.zip", device="cpu")
    assert model.observation_space["glimpse"].shape == (3, 6, 18)
    assert pictures["games.gif"]["frame_stack"] == 3


@pytest.mark.parametrize("algo", ["a2c", "sac", "td3", "fc64"])
def test_results_of_others(tmp_path, pictures, algo):
    """What models write into their settings is not in the way of the result."""
    changes = {**DIGITS, "env_kwargs": {"dataset": "mnist-5k"}, "figures": True} if algo == "fc64" else {}
    result = run_trial(config(tmp_path, algo, **changes))
    kept = yaml.safe_load((tmp_path / "args.yml").read_text())
    assert kept["settings"] == result["settings"]
    assert 0 <= result["test_error"] <= 100


class Stopped(Exception):
    pass


@pytest.mark.parametrize("algo", ["ram", "ppo", "dqn", "recurrent_ppo", "episode_ppo"])
def test_an_interrupted_run_equals_an_unbroken_one(tmp_path, algo, capsys):
    if algo == "recurrent_ppo":
        pytest.importorskip("sb3_contrib")
    changes = DIGITS if algo == "ram" else {}
    asked = [config(tmp_path / name, algo, **changes) for name in ("unbroken", "broken")]
    unbroken = run_trial(asked[0])

    def stop(steps, error):
        if steps >= 100:
            raise Stopped

    with pytest.raises(Stopped):
        run_trial(asked[1], stop)
    assert (tmp_path / "broken/checkpoint.pkl").exists()
    told = []
    resumed = run_trial(asked[1], lambda steps, error: told.append(steps))
    assert "Going on after" in capsys.readouterr().out
    assert min(told) > 40  # Not from the beginning.
    assert {k: v for k, v in resumed.items() if k not in TIMED} == {k: v for k, v in unbroken.items() if k not in TIMED}
    for name in ("model.zip", "best_model.zip"):
        one, other = (get_algorithm(algo).load(tmp_path / run / name, device="cpu") for run in ("unbroken", "broken"))
        for (part, first), second in zip(one.policy.state_dict().items(), other.policy.state_dict().values(), strict=True):
            assert torch.equal(first, second), part
    first, second = (np.load(tmp_path / run / "evaluations.npz") for run in ("unbroken", "broken"))
    for name in ("timesteps", "results", "successes"):
        np.testing.assert_array_equal(first[name], second[name])
    assert not (tmp_path / "broken/checkpoint.pkl").exists()


def test_a_run_names_all_machines_that_it_was_on(tmp_path, monkeypatch):
    def stop(steps, error):
        if steps >= 100:
            raise Stopped

    asked = config(tmp_path / "run")
    monkeypatch.setattr(training, "name_processor", lambda: "first")
    for _ in range(2):
        with pytest.raises(Stopped):
            run_trial(asked, stop)
    monkeypatch.setattr(training, "name_processor", lambda: "second")
    machine = run_trial(asked)["machine"]
    assert [part.split(",")[0] for part in machine.split(", then ")] == ["first", "second"]


def test_a_run_that_was_stopped_before_its_first_checkpoint_begins_anew(tmp_path):
    def stop(steps, error):
        raise Stopped

    asked = config(tmp_path / "run")
    with pytest.raises(Stopped):
        run_trial(asked, stop)
    assert run_trial(asked)["n_timesteps"] == 160
    assert np.load(tmp_path / "run/evaluations.npz")["timesteps"].tolist() == [40, 80, 120, 160]


def test_a_trained_agent_is_where_training_begins(tmp_path):
    run_trial(config(tmp_path / "first"))
    changes = {"trained_agent": str(tmp_path / "first/model.zip"), "n_timesteps": 40}
    assert run_trial(config(tmp_path / "second", **changes))["n_timesteps"] == 40
    before, after = (
        get_algorithm("episode_a2c").load(tmp_path / name / "model.zip", device="cpu") for name in ("first", "second")
    )
    moved = (before.policy.value_head.weight - after.policy.value_head.weight).abs().max().item()
    assert 0 < moved < 0.01  # Two steps of 0.0007.


@pytest.fixture
def registry(monkeypatch):
    """What a test registers is forgotten."""
    monkeypatch.setattr(algorithms, "_ALGORITHMS", dict(algorithms._ALGORITHMS))


def test_algorithms_of_ones_own(tmp_path, registry):
    @register_algorithm("always", action_format="multidiscrete")
    def always(env, seed, move=0):
        env.reset()
        steps, action = 0, np.array([2, 2, move])
        while True:
            env.step(np.tile(action, (env.num_envs, 1)))
            steps += env.num_envs
            yield steps, lambda obs, state, episode_start, deterministic: (np.tile(action, (len(episode_start), 1)), state)

    @register_algorithm("shy_ppo", action_format="discrete", settings={"n_steps": 5, "batch_size": 10})
    def shy_ppo(env, seed, **settings):
        return PPO("MultiInputPolicy", env, learning_rate=1e-6, seed=seed, **settings)

    still = run_trial(config(tmp_path / "still", "always", params={"move": 1}))
    gone = run_trial(config(tmp_path / "gone", "always", params={"move": 0}))
    assert (still["settings"]["move"], still["n_timesteps"]) == (1, 160)
    assert gone["test_error"] != still["test_error"]
    assert run_trial(config(tmp_path / "shy", "shy_ppo"))["settings"]["n_steps"] == 5
    limited = run_trial(config(tmp_path / "limited", "always", minutes=0.001, n_timesteps=None))
    assert limited["n_timesteps"] > 0


def test_the_machine_is_described_with_its_gpu(monkeypatch):
    assert describe_machine(torch.device("cpu")).endswith(f", {torch.get_num_threads()} torch thread(s), cpu")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device.index}")
    assert describe_machine(torch.device("cuda", 1)).endswith(" torch thread(s), card 1")
