import random

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy

from ram_envs.agents import make_vec_env
from ram_envs.agents.training.generator import GeneratorAlgorithm

N = 8
GAME = {"size": 6, "action_format": "multidiscrete", "location_grid": 1}


def vec_env(num_envs=N, **kwargs):
    return make_vec_env("GlimpseCatch-v0", num_envs, **{**GAME, **kwargs})


class Bandit:
    """Counts what each move has earned in the game, wherever the ball is."""

    def __init__(self, env):
        self.env, self.num_steps = env, 0
        self.earned, self.tried = np.zeros(3), np.ones(3)
        self.obs = env.reset()

    def play(self, draws=5):
        for _ in range(draws):
            moves = np.random.randint(3, size=self.env.num_envs)  # noqa: NPY002 (what the seed of SB3 seeds)
            _, rewards, _, _ = self.env.step(np.stack([0 * moves, 0 * moves, moves], axis=1))
            np.add.at(self.earned, moves, rewards), np.add.at(self.tried, moves, 1)
            self.num_steps += self.env.num_envs

    def predict(self, obs, state, episode_start, deterministic):
        state = np.zeros(len(obs["location"])) if state is None else np.where(episode_start, 0, state)
        best = (self.earned / self.tried).argmax()
        return np.tile([0, 0, best], (len(obs["location"]), 1)), state + 1


def learn_moves(env, seed, draws=5):
    bandit = Bandit(env)
    while True:
        bandit.play(draws)
        yield bandit.num_steps, bandit.predict


def test_a_generator_runs_until_it_has_taken_its_steps():
    model = GeneratorAlgorithm(learn_moves, vec_env(), {"draws": 3}, seed=0)
    assert model.learn(100) is model
    assert model.num_timesteps == 120  # The first multiple of 3 * 8 from 100 on.
    assert model._current_progress_remaining == pytest.approx(1 - 120 / 100)
    closed = []

    def finite(env, seed):
        try:
            for steps in (5, 10):
                yield steps, None
        finally:
            closed.append(seed)

    assert GeneratorAlgorithm(finite, vec_env(), seed=7).learn(100).num_timesteps == 10  # It may end by itself.
    GeneratorAlgorithm(finite, vec_env(), seed=8).learn(5)
    assert closed == [7, 8]  # And is closed where it does not.


class Watch(BaseCallback):
    def __init__(self, stop_at=10**9):
        super().__init__()
        self.stop_at, self.events = stop_at, []

    def _on_training_start(self):
        self.events.append("start")

    def _on_rollout_start(self):
        self.events.append("rollout")

    def _on_step(self):
        self.events.append(self.num_timesteps)
        return self.num_timesteps < self.stop_at

    def _on_rollout_end(self):
        self.events.append("learned")

    def _on_training_end(self):
        self.events.append("end")


def test_callbacks_are_called_at_each_yield():
    watch = Watch()
    GeneratorAlgorithm(learn_moves, vec_env(), seed=0).learn(80, watch)
    assert watch.events == ["start", "rollout", 40, "learned", "rollout", 80, "learned", "end"]
    watch = Watch(stop_at=80)
    model = GeneratorAlgorithm(learn_moves, vec_env(), seed=0)
    model.learn(10**6, watch)
    assert model.num_timesteps == 80
    assert watch.events[-1] == "end"


def test_evaluation_checkpoints_and_progress_bar(tmp_path):
    evaluation = EvalCallback(
        vec_env(20), n_eval_episodes=40, eval_freq=1, log_path=str(tmp_path), best_model_save_path=str(tmp_path), verbose=0
    )
    checkpoints = CheckpointCallback(save_freq=1, save_path=str(tmp_path), name_prefix="loop")
    model = GeneratorAlgorithm(learn_moves, vec_env(), seed=0, tensorboard_log=str(tmp_path / "tb"))
    model.learn(120, [evaluation, checkpoints], progress_bar=True)
    assert np.load(tmp_path / "evaluations.npz")["results"].shape == (3, 40)
    assert sorted(path.name for path in tmp_path.glob("*.zip")) == [
        "best_model.zip",
        *("loop_120_steps.zip", "loop_40_steps.zip", "loop_80_steps.zip"),
    ]
    env = vec_env(50)
    env.seed(1)
    reward, _ = evaluate_policy(model, env, n_eval_episodes=50)
    assert 0 <= reward < 1


def test_save_and_load(tmp_path):
    env = vec_env(2)
    model = GeneratorAlgorithm(learn_moves, vec_env(), seed=0).learn(40)
    obs = env.reset()
    actions, state = model.predict(obs)
    for path in (tmp_path / "model", tmp_path / "model.zip", str(tmp_path / "model.zip")):
        model.save(path)
        assert [file.name for file in tmp_path.iterdir()] == ["model.zip"]
        loaded = GeneratorAlgorithm.load(path, env=env, device="cpu")
        np.testing.assert_array_equal(loaded.predict(obs)[0], actions)
    assert loaded.get_env() is env
    assert GeneratorAlgorithm.load(path).predict(obs)[0].tolist() == actions.tolist()  # There to predict.
    _, state = loaded.predict(obs, state, np.array([False, True]))
    assert state.tolist() == [2, 1]


def test_the_seed_seeds_everything():
    drawn, first = [], []

    def draw(env, seed):
        drawn.append((seed, random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: NPY002 (what SB3 seeds)
        first.append(env.reset()["glimpse"])
        yield 1, None

    for seed in (3, 3, 4):
        random.random(), torch.rand(1)
        GeneratorAlgorithm(draw, vec_env(paddle_start="random"), seed=seed).learn(1)
    assert drawn[0] == drawn[1]
    assert len({numbers[1:] for numbers in drawn}) == 2
    assert [numbers[0] for numbers in drawn] == [3, 3, 4]
    np.testing.assert_array_equal(first[0], first[1])
    assert (first[0] != first[2]).any()


def test_what_can_not_be_is_named(tmp_path):
    model = GeneratorAlgorithm(learn_moves, vec_env(), seed=0)
    with pytest.raises(AssertionError, match="learn first"):
        model.predict({"location": np.zeros((1, 2))})
    model.learn(1).save(tmp_path / "model")
    with pytest.raises(ValueError, match="a loaded model only predicts"):
        GeneratorAlgorithm.load(tmp_path / "model", env=vec_env()).learn(1)
