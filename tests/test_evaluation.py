import gymnasium as gym
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from few_games import EPISODES
from stable_baselines3 import PPO

import ram_envs
from ram_envs.agents import make_vec_env
from ram_envs.agents.training.evaluation import evaluate_on_test, evaluation_of, make_split

DIGITS = {"dataset": "mnist-5k", "num_glimpses": 4}
PATH = np.array([[-0.8, 0.4], [0.0, 0.0], [0.4, -0.8], [0.8, 0.8]], np.float32)
CELLS = np.array([[0, 3], [2, 2], [3, 0], [4, 4]])  # The same places on a grid of 5 x 5: column and row.


class Scripted:
    """Looks along `PATH` and says class 3; draws a random number at each step."""

    def __init__(self, action_format="dict"):
        self.action_format, self.drawn = action_format, []

    def predict(self, obs, state=None, episode_start=None, deterministic=False):
        assert deterministic
        step = np.zeros(len(episode_start), int) if state is None else np.where(episode_start, 0, state)
        self.drawn.append(torch.rand(1).item())
        return self.actions(step), step + 1

    def actions(self, step):
        if self.action_format in ("dict", "box"):
            return np.concatenate([PATH[step], np.tile(np.eye(10, dtype=np.float32)[3], (len(step), 1))], axis=1)
        cells = np.column_stack([CELLS[step], np.full(len(step), 3)])
        return cells if self.action_format == "multidiscrete" else np.ravel_multi_index(cells.T, (5, 5, 10))


def test_splits_and_games():
    env = make_vec_env("GlimpseMNIST-v0", **DIGITS)
    shown, episodes, seed = make_split(env, "GlimpseMNIST-v0", "validation", DIGITS, n_envs=7, frame_stack=2)
    assert (shown.num_envs, episodes, seed) == (7, 500, None)
    assert (shown.get_attr("split")[0], shown.get_attr("num_images")[0]) == ("validation", 500)
    assert shown.observation_space["glimpse"].shape == (1, 8, 16)
    catch = make_vec_env("GlimpseCatch-v0")
    assert make_split(catch, "GlimpseCatch-v0", "validation", {}, 3)[1:] == (2000, 1_000_000)
    assert make_split(catch, "GlimpseCatch-v0", "test", {}, 3)[1:] == (10_000, 2_000_000)


def test_environments_of_others_are_evaluated_as_games_are():
    for split in ("train", "validation", "test"):
        assert evaluation_of(make_vec_env("CartPole-v1"), split) == ram_envs.seeded_evaluation(split)


def test_each_image_is_shown_once():
    env = make_split(make_vec_env("GlimpseMNIST-v0", **DIGITS), "GlimpseMNIST-v0", "test", DIGITS, n_envs=100)[0]
    env.reset()
    labels = []
    for _ in range(5 * 4):
        _, _, dones, infos = env.step(np.zeros((100, 12), np.float32))
        labels += [info["label"] for info in infos] if dones.all() else []
    assert labels == ram_envs.load_images("mnist-5k", "test").labels.tolist()


def test_every_test_image_counts_once(action_format):
    options = {**DIGITS, "action_format": action_format}
    share = float((ram_envs.load_images("mnist-5k", "test").labels == 3).mean())
    assert evaluate_on_test(Scripted(action_format), "GlimpseMNIST-v0", options) == {
        "test_episodes": 500,
        "test_error": pytest.approx(100 * (1 - share)),
        "success_rate": pytest.approx(share),
        "mean_reward": pytest.approx(share),
        "mean_length": 4.0,
    }


def test_what_is_drawn_does_not_depend_on_what_was_drawn_before():
    first, second = Scripted(), Scripted()
    before = torch.get_rng_state()
    evaluate_on_test(first, "GlimpseMNIST-v0", DIGITS)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    evaluate_on_test(second, "GlimpseMNIST-v0", DIGITS)
    assert first.drawn == second.drawn


def test_games_are_seeded():
    env = make_vec_env("FewGames-v0", 2, action_format="multidiscrete")
    model = PPO("MultiInputPolicy", env, n_steps=8, batch_size=16, seed=0, device="cpu")
    first = evaluate_on_test(model, "FewGames-v0", {"action_format": "multidiscrete"})
    assert first == evaluate_on_test(model, "FewGames-v0", {"action_format": "multidiscrete"})
    assert (first["test_episodes"], first["mean_length"]) == (EPISODES["test"], 5.0)
    assert first["success_rate"] == first["mean_reward"]


def test_stacked_frames():
    options = {**DIGITS, "action_format": "multidiscrete"}
    env = make_vec_env("GlimpseMNIST-v0", 4, frame_stack=3, **options)
    model = PPO("MultiInputPolicy", env, n_steps=8, batch_size=16, seed=0, device="cpu")
    assert evaluate_on_test(model, "GlimpseMNIST-v0", options, frame_stack=3)["test_episodes"] == 500


def test_tasks_of_ones_own_are_tested_on_their_own_images():
    """Not on those that they learn from."""
    gym.register(
        "MyDigits-v0",
        entry_point="ram_envs.env:GlimpseEnv",
        vector_entry_point="ram_envs.vector_env:GlimpseVectorEnv",
        kwargs={"task": "my-digits", "dataset": "mnist-5k", "num_glimpses": 2},
    )

    class MyDigits(ram_envs.GlimpseClassification):
        pass

    ram_envs.register_task("my-digits", MyDigits)
    shown, episodes, seed = make_split(make_vec_env("MyDigits-v0"), "MyDigits-v0", "test", {}, 50)
    assert (shown.get_attr("split")[0], episodes, seed) == ("test", 500, None)
    images = np.zeros((20, 9, 9), np.uint8), np.arange(20) % 10
    with pytest.raises(ValueError, match="register_dataset"):
        make_split(make_vec_env("MyDigits-v0", dataset=images), "MyDigits-v0", "test", {"dataset": images})
