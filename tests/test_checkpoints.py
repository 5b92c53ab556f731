"""A run that was stopped goes on as if nothing had been, bit for bit, with every kind of algorithm."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import LinearSchedule

from agents import RAM, get_algorithm, make_vec_env
from agents.callbacks import Stopwatch, TimedEvalCallback
from agents.checkpoints import ResumeCallback, resume

N = 4
MNIST = ("GlimpseMNIST-v0", {"dataset": "mnist-5k", "num_glimpses": 3, "image_order": "shuffled"})
CATCH = ("GlimpseCatch-v0", {"size": 6, "location_grid": 2, "paddle_start": "random"})
NET = {"policy_kwargs": {"net_arch": [8]}}
OFF_POLICY = {"learning_starts": 16, "batch_size": 8, "buffer_size": 100, **NET}
PPO = {"n_steps": 4, "batch_size": 8, "n_epochs": 2, **NET}  # Rollouts that end in mid-episode.
LSTM = {"policy_kwargs": {"lstm_hidden_size": 8, "net_arch": [8]}}
CASES = {
    "ram": ("ram", MNIST, {"learning_rate": LinearSchedule(1e-3, 0, 1)}),
    "ram of several epochs": ("ram", CATCH, {"class_loss": "reinforce", "n_epochs": 2, "n_minibatches": 2, "n_steps": 4}),
    "ram_random": ("ram_random", MNIST, {}),
    "cnn": ("cnn", ("GlimpseMNIST-v0", {"dataset": "mnist-5k", "image_order": "shuffled"}), {}),
    "episode_ppo": ("episode_ppo", CATCH, {"n_steps": 4, "n_minibatches": 2, "policy_kwargs": {"core_size": 8}}),
    "episode_a2c": ("episode_a2c", MNIST, {"n_steps": 2, "policy_kwargs": {"core": "gru", "core_size": 8}}),
    "recurrent_ppo": ("recurrent_ppo", CATCH, {**PPO, **LSTM, "learning_rate": LinearSchedule(1e-3, 0, 1)}),
    "ppo": ("ppo", CATCH, PPO),
    "ppo with frames": ("ppo", ("GlimpseMNIST-v0", {**MNIST[1], "frame_stack": 3}), PPO),
    "a2c": ("a2c", CATCH, {"n_steps": 3, **NET}),
    "dqn": ("dqn", CATCH, {**OFF_POLICY, "exploration_fraction": 0.5, "target_update_interval": 20}),
    "dqn with frames": ("dqn", ("GlimpseCatch-v0", {**CATCH[1], "frame_stack": 2}), OFF_POLICY),
    "sac": ("sac", CATCH, OFF_POLICY),
    "td3": ("td3", ("GlimpseCatch-v0", {**CATCH[1], "frame_stack": 2}), OFF_POLICY),
}
TOTAL, EVERY, STOP = 160, 40, 100  # Steps; stopped after two checkpoints, in mid-rollout where there are rollouts.


class StopAt(BaseCallback):
    def _on_step(self):
        return self.model.num_timesteps < STOP


def make_env(case, split="train"):
    algo, (env_id, env_kwargs), _ = CASES[case]
    if "MNIST" in env_id and split != "train":
        env_kwargs = {**env_kwargs, "split": split, "image_order": "sequential"}
    return make_vec_env(env_id, N, **get_algorithm(algo).env_options(env_id, env_kwargs))


def make_evaluation(case, folder):
    folder.mkdir(exist_ok=True)
    options = {"eval_seed": 5, "n_eval_episodes": 8, "log_path": str(folder), "verbose": 0}
    return TimedEvalCallback(Stopwatch(), make_env(case, "validation"), eval_steps=EVERY, **options)


def learn(case, model, evaluation, path, *others):
    keeper = ResumeCallback(path, evaluation)
    left = TOTAL - model.num_timesteps
    return model.learn(left, [evaluation, keeper, *others], reset_num_timesteps=model.num_timesteps == 0)


def make_model(case):
    algorithm = get_algorithm(CASES[case][0])
    return algorithm.make(make_env(case), {**algorithm.settings, **CASES[case][2]}, seed=3, device="cpu")


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_equals_an_unbroken_one(case, tmp_path):
    if case == "recurrent_ppo":
        pytest.importorskip("sb3_contrib")
    unbroken = learn(case, make_model(case), make_evaluation(case, tmp_path / "one"), tmp_path / "one.pkl")
    learn(case, make_model(case), make_evaluation(case, tmp_path / "two"), tmp_path / "two.pkl", StopAt())
    torch.manual_seed(99), np.random.seed(99)  # noqa: NPY002 (what happens in between must not matter)
    evaluation = make_evaluation(case, tmp_path / "two")
    model = resume(get_algorithm(CASES[case][0]).load, tmp_path / "two.pkl", make_env(case), evaluation, device="cpu")
    assert EVERY <= model.num_timesteps < STOP
    resumed = learn(case, model, evaluation, tmp_path / "two.pkl")
    assert resumed.num_timesteps == unbroken.num_timesteps
    parameters = [one.get_parameters() for one in (unbroken, resumed)]
    assert_same(*parameters, "parameters")
    first, second = (np.load(tmp_path / name / "evaluations.npz") for name in ("one", "two"))
    for name in ("timesteps", "results", "ep_lengths", "successes"):
        np.testing.assert_array_equal(first[name], second[name])
    assert (np.diff(second["train_seconds"]) > 0).all()


def assert_same(one, other, where):
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for name in one:
            assert_same(one[name], other[name], f"{where} {name}")
    elif isinstance(one, (list, tuple)):
        for i, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where} {i}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where
