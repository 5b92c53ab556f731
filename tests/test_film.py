import gymnasium as gym
import imageio.v3 as imageio
import imageio_ffmpeg
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("pygame")

from stable_baselines3 import PPO

from agents import RAM, make_vec_env
from agents.film import film_episode, record

GAME = {"size": 6}


class Still:
    """Stays; keeps what it was shown."""

    observation_space = gym.spaces.Box(0, 1, (6, 6))

    def __init__(self):
        self.seen, self.states, self.starts = [], [], []

    def predict(self, obs, state, episode_start, deterministic):
        assert deterministic
        self.seen.append(obs), self.states.append(state), self.starts.append(episode_start.tolist())
        return np.ones(1, np.int64), 0 if state is None else state + 1


def test_an_episode_has_a_picture_before_each_action_and_one_at_the_end():
    env, model = gym.make("Catch-v0", render_mode="rgb_array", **GAME), Still()
    frames = film_episode(model, env, seed=3, deterministic=True)
    assert len(frames) == 1 + 5
    assert model.states == [None, 0, 1, 2, 3]
    assert model.starts == [[True], [False], [False], [False], [False]]
    other = gym.make("Catch-v0", **GAME)
    seen = [other.reset(seed=3)[0]] + [other.step(1)[0] for _ in range(5)]
    np.testing.assert_array_equal(np.concatenate(model.seen), seen[:5])
    assert any((one != frames[0]).any() for one in frames[1:])
    env.close()


def test_stacked_frames_are_those_of_training():
    env, model = gym.make("Catch-v0", render_mode="rgb_array", **GAME), Still()
    film_episode(model, env, seed=3, deterministic=True, frame_stack=3)
    trained = make_vec_env("Catch-v0", 1, seed=3, frame_stack=3, **GAME)
    expected = [trained.reset(), *(trained.step(np.ones(1, int))[0] for _ in range(4))]
    np.testing.assert_array_equal(np.concatenate(model.seen), np.concatenate(expected))
    model.seen.clear()
    film_episode(model, env, seed=None, deterministic=True, frame_stack=3)  # The next episode knows nothing of the last.
    assert (model.seen[0][:, :, :12] == 0).all()
    env.close()


@pytest.mark.parametrize("options", [{}, {"action_format": "discrete", "frame_stack": 2}, {"action_format": "box"}])
def test_trained_models_are_filmed(options, tmp_path, monkeypatch):
    monkeypatch.setattr("agents.film.HOLD_SECONDS", 0.5)
    env = make_vec_env("GlimpseCatch-v0", 2, **GAME, **options)
    if "frame_stack" in options:
        model = PPO("MultiInputPolicy", env, n_steps=8, batch_size=16, device="cpu")
    else:
        model = RAM("RAMPolicy", env, class_loss="reinforce", device="cpu")
    path = tmp_path / "sub" / "game.gif"
    assert record(model, "GlimpseCatch-v0", path, num_episodes=2, **GAME, **options) == 2 * (1 + 5 + 4)  # 8 pictures a second.
    # Gif keeps equal pictures once, and shows them longer.
    durations = [imageio.immeta(path, index=index)["duration"] for index in range(len(imageio.imread(path)))]
    assert sum(durations) == pytest.approx(2 * 10 * 1000 / 8, rel=0.05)


def test_films_of_both_kinds_and_no_others(tmp_path, monkeypatch):
    monkeypatch.setattr("agents.film.HOLD_SECONDS", 0)
    model = Still()
    frames = record(model, "Catch-v0", tmp_path / "game.mp4", num_episodes=2, **GAME)
    assert imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "game.mp4"))[0] == frames == 12
    with pytest.raises(ValueError, match=r"must end in one of \('.gif', '.mp4'\)"):
        record(model, "Catch-v0", tmp_path / "game.avi", **GAME)
