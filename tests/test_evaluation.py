import numpy as np
import pytest

torch = pytest.importorskip("torch")

from stable_baselines3 import PPO

from agents import make_vec_env
from agents.evaluation import has_images, make_split, split_options, task_of, test, watch
from ram_envs import glimpses, load_images

DIGITS = {"dataset": "mnist-5k", "num_glimpses": 4}
PATH = np.array([[-0.8, 0.4], [0.0, 0.0], [0.4, -0.8], [0.8, 0.8]], np.float32)  # Centres of a grid of 5 x 5.
test.__test__ = False  # Not one of ours.


class Scripted:
    """Looks along `PATH` and says class 3; draws a random number at each step."""

    def __init__(self, env, **others):
        self.codec, self.space, self.others = task_of(env).codec, env.action_space, others
        self.seen, self.starts, self.drawn = [], [], []

    def predict(self, obs, state=None, episode_start=None, deterministic=False):
        assert deterministic
        step = np.zeros(len(episode_start), int) if state is None else np.where(episode_start, 0, state)
        self.seen.append(obs), self.starts.append(episode_start.copy()), self.drawn.append(torch.rand(1).item())
        choices = {"class": np.full(len(step), 3), **{name: choose(step) for name, choose in self.others.items()}}
        actions = self.codec.encode(PATH[step], **choices)
        if isinstance(actions, dict):  # Which SB3 sends as one Box.
            scores = [2 * np.eye(2 if name == "stop" else 10)[actions[name]] - 1 for name in choices]
            actions = np.concatenate([actions["location"], *scores], axis=1).astype(np.float32)
        return actions, step + 1


def script(action_format="dict", **options):
    options = {**DIGITS, "action_format": action_format, **options}
    names = {"stop": lambda step: (step == 1).astype(int)} if options.get("stop_action") else {}
    return Scripted(make_vec_env("GlimpseMNIST-v0", 1, **options), **names), options


def test_splits_and_games():
    assert has_images("GlimpseClutteredMNIST-v0")
    assert not has_images("GlimpseCatch-v0")
    shown = {"num_glimpses": 4, "split": "test", "image_order": "sequential"}
    assert split_options("GlimpseMNIST-v0", "test", {"num_glimpses": 4}) == shown
    assert split_options("GlimpseCatch-v0", "test", {"size": 6}) == {"size": 6}
    env, episodes, seed = make_split("GlimpseMNIST-v0", "validation", DIGITS, 7)
    assert (env.num_envs, episodes, seed) == (7, 500, None)
    assert task_of(env).split == "validation"
    assert make_split("GlimpseCatch-v0", "validation", {}, 3)[1:] == (2000, 1_000_000)
    assert make_split("GlimpseCatch-v0", "test", {}, 3)[1:] == (10_000, 2_000_000)


def test_every_test_image_counts_once(action_format):
    model, options = script(action_format)
    result = test(model, "GlimpseMNIST-v0", options)
    share = float((load_images("mnist-5k", "test").labels == 3).mean())
    assert result == {
        "test_episodes": 500,
        "test_error": pytest.approx(100 * (1 - share)),
        "success_rate": pytest.approx(share),
        "mean_reward": pytest.approx(share),
        "mean_length": 4.0,
    }


def test_what_is_drawn_does_not_depend_on_what_was_drawn_before():
    model, options = script()
    before = torch.get_rng_state()
    test(model, "GlimpseMNIST-v0", options)
    assert torch.equal(before, torch.get_rng_state())
    first, model.drawn = model.drawn, []
    torch.rand(3)
    test(model, "GlimpseMNIST-v0", options)
    assert model.drawn == first


def test_games_are_seeded(monkeypatch):
    monkeypatch.setattr("agents.evaluation.GAME_EVALUATIONS", {"test": (40, 7)})
    model = PPO("MlpPolicy", make_vec_env("Catch-v0", 2, size=6), n_steps=8, batch_size=16, seed=0, device="cpu")
    first = test(model, "Catch-v0", {"size": 6})
    assert first == test(model, "Catch-v0", {"size": 6})
    assert (first["test_episodes"], first["mean_length"]) == (40, 5.0)
    assert first["success_rate"] == first["mean_reward"]


def test_what_was_watched_is_what_was_shown(action_format):
    model, options = script(action_format)
    episodes = watch(model, "GlimpseMNIST-v0", options, num_images=6)
    images = load_images("mnist-5k", "test")
    np.testing.assert_array_equal(episodes.scenes, images.images[:6])
    assert episodes.labels == [str(label) for label in images.labels[:6]]
    assert episodes.answers == ["3"] * 6
    np.testing.assert_allclose(episodes.locations[:, 1:], np.broadcast_to(PATH[:3], (6, 3, 2)), atol=1e-6)
    for step, seen in enumerate(model.seen):
        np.testing.assert_allclose(seen["location"], episodes.locations[:, step])
        np.testing.assert_array_equal(seen["glimpse"], episodes.glimpses[:, step])
        expected = glimpses(episodes.scenes, episodes.locations[:, step], glimpse_size=8, num_scales=1)
        np.testing.assert_array_equal(episodes.glimpses[:, step], expected)
    assert episodes.glimpses.shape == (6, 4, 1, 8, 8)
    assert (episodes.corners.shape, episodes.widths.shape) == ((6, 4, 1, 2), (6, 4, 1))
    assert [starts.all() for starts in model.starts] == [True, False, False, False]


def test_another_split_is_watched():
    model, options = script()
    episodes = watch(model, "GlimpseMNIST-v0", options, "validation", num_images=2)
    np.testing.assert_array_equal(episodes.scenes, load_images("mnist-5k", "validation").images[:2])


def test_an_episode_that_was_stopped_keeps_its_last_glimpse():
    model, options = script("box", stop_action=True)
    model.others["stop"] = lambda step: ((step == 1) & (np.arange(len(step)) > 0)).astype(int)
    episodes = watch(model, "GlimpseMNIST-v0", options, num_images=3)
    assert episodes.glimpses.shape[:2] == (3, 4)
    for stopped in (1, 2):
        for step in (2, 3):
            np.testing.assert_array_equal(episodes.glimpses[stopped, step], episodes.glimpses[stopped, 1])
            np.testing.assert_array_equal(episodes.locations[stopped, step], episodes.locations[stopped, 1])
    assert (episodes.locations[0, 3] == PATH[2]).all()
    assert episodes.answers == ["3"] * 3


def test_stacked_frames_are_watched_as_single_glimpses():
    options = {**DIGITS, "action_format": "multidiscrete", "frame_stack": 3}
    env = make_vec_env("GlimpseMNIST-v0", 4, **options)
    model = PPO("MultiInputPolicy", env, n_steps=8, batch_size=16, seed=0, device="cpu")
    episodes = watch(model, "GlimpseMNIST-v0", options, num_images=5)
    assert episodes.glimpses.shape == (5, 4, 1, 8, 8)
    assert set(episodes.answers) <= set("0123456789")
    assert test(model, "GlimpseMNIST-v0", options)["test_episodes"] == 500
