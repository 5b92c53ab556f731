import numpy as np
import pytest

torch = pytest.importorskip("torch")

from conftest import DATASET
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import ConstantSchedule, LinearSchedule

from agents import RAM, make_vec_env
from agents.callbacks import (
    ResumeCallback,
    Stopwatch,
    TimedEvalCallback,
    TimedSchedule,
    TimeLimitCallback,
    resume,
)

N, T = 8, 3


def vec_env(**kwargs):
    options = {"dataset": DATASET, "action_format": "box", "num_glimpses": T, "image_order": "shuffled", **kwargs}
    return make_vec_env("GlimpseMNIST-v0", N, **options)


def make_evaluation(folder):
    return TimedEvalCallback(
        Stopwatch(),
        vec_env(split="validation", image_order="sequential"),
        n_eval_episodes=16,
        eval_freq=5 * T,
        log_path=str(folder),
        best_model_save_path=str(folder),
        verbose=0,
    )


class StopAt(BaseCallback):
    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def _on_step(self):
        return self.model.num_timesteps < self.steps


def test_evaluations_tell_the_training_time(tmp_path):
    evaluation = make_evaluation(tmp_path)
    RAM("RAMPolicy", vec_env(), seed=0, device="cpu").learn(N * T * 12, evaluation)
    saved = np.load(tmp_path / "evaluations.npz")
    assert saved["timesteps"].tolist() == [N * T * 5, N * T * 10, N * T * 12]  # The last one at the end.
    assert saved["results"].shape == (3, 16)
    assert (np.diff(saved["train_seconds"]) > 0).all()
    assert (np.diff(saved["cpu_seconds"]) > 0).all()
    assert evaluation.stopwatch.read()[0] == pytest.approx(saved["train_seconds"][-1], abs=0.01)
    assert (tmp_path / "best_model.zip").exists()


def test_a_resumed_run_equals_an_unbroken_one(tmp_path):
    def begin(folder):
        folder.mkdir()
        evaluation = make_evaluation(folder)
        keeper = ResumeCallback(folder / "checkpoint.pkl", N * T * 4, evaluation)
        return evaluation, keeper

    total = N * T * 20
    schedule = LinearSchedule(1e-3, 0, 1)
    evaluation, keeper = begin(tmp_path / "unbroken")
    unbroken = RAM("RAMPolicy", vec_env(), schedule, seed=3, device="cpu").learn(total, [evaluation, keeper])

    broken_evaluation, keeper = begin(tmp_path / "broken")
    callbacks = [broken_evaluation, keeper, StopAt(N * T * 10 + 1)]  # In mid-episode, after two checkpoints.
    env = vec_env()
    RAM("RAMPolicy", env, schedule, seed=3, device="cpu").learn(total, callbacks)
    torch.manual_seed(99), env.step(np.zeros((N, 12), np.float32))  # What happens in between must not matter.

    checkpoint = tmp_path / "broken" / "checkpoint.pkl"
    resumed_evaluation = make_evaluation(tmp_path / "broken")
    keeper = ResumeCallback(checkpoint, N * T * 4, resumed_evaluation)
    model = resume(RAM, checkpoint, vec_env(), resumed_evaluation, device="cpu")
    assert model.num_timesteps == N * T * 8
    model.learn(total - model.num_timesteps, [resumed_evaluation, keeper], reset_num_timesteps=False)
    for (name, one), other in zip(unbroken.policy.state_dict().items(), model.policy.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    first, second = (np.load(tmp_path / name / "evaluations.npz") for name in ("unbroken", "broken"))
    assert first["timesteps"].tolist() == second["timesteps"].tolist()
    np.testing.assert_array_equal(first["results"], second["results"])


def test_the_clock_ends_training_and_its_schedule(tmp_path):
    evaluation = make_evaluation(tmp_path)
    schedule = TimedSchedule(LinearSchedule(1.0, 0.0, 1.0))
    model = RAM("RAMPolicy", vec_env(), schedule, seed=0, device="cpu")
    limit = TimeLimitCallback(evaluation.stopwatch, 0.5)
    model.learn(10**9, [evaluation, limit])
    assert 0 < model.num_timesteps < 10**9
    assert evaluation.stopwatch.read()[0] >= 0.5
    assert schedule(1.0) < 0.2
    assert TimedSchedule(ConstantSchedule(3.0))(0.5) == 3.0


def test_stopwatch_leaves_pauses_out():
    watch = Stopwatch(wall=5.0, cpu=2.0)
    assert watch.read() == (5.0, 2.0)
    watch.start()
    sum(range(100_000))
    watch.pause()
    wall, cpu = watch.read()
    assert wall > 5.0
    assert cpu > 2.0
    sum(range(100_000))
    assert watch.read() == (wall, cpu)
