"""What there is to draw of an environment, as plain data."""

import gymnasium as gym
import numpy as np
import pytest

import ram_envs
from ram_envs.frame import through_retina

IMAGES, LABELS = np.full((6, 20, 20), 255, np.uint8), np.arange(6) % 3


def classification(**kwargs):
    options = {"dataset": (IMAGES, LABELS), "initial_location": "center", "num_glimpses": 2, **kwargs}
    env = gym.make("GlimpseClassification-v0", **options).unwrapped
    env.reset(options={"index": 1})
    return env


def after(env, action):
    env.step(action)
    return env.frame(action=action)


def test_the_scene_and_the_look_at_it():
    images = np.zeros((2, 20, 20), np.uint8)
    images[:, 8, 8] = 255
    env = classification(dataset=(images, [0, 1]), glimpse_size=4, num_scales=2)
    frame = env.frame()
    assert isinstance(frame, ram_envs.Frame)
    np.testing.assert_array_equal(frame.scene, images[0] / np.float32(255))
    assert frame.look.location.tolist() == [0, 0]
    assert frame.look.corners.tolist() == [[8, 8], [6, 6]]
    assert frame.look.widths.tolist() == [4, 8]
    assert np.argwhere(frame.look.glimpse).tolist() == [[0, 0, 0], [1, 1, 1]]
    assert frame.look.glimpse[1, 1, 1] == 0.25
    assert frame.look.zoom is None
    assert (frame.choice, frame.truth, frame.scores.tolist()) == (None, 1, [0, 0])
    kept = frame.scene.copy(), frame.look.location.copy()
    env.step({"location": np.array([1, 1], np.float32), "class": 0})
    np.testing.assert_array_equal(frame.scene, kept[0])
    np.testing.assert_array_equal(frame.look.location, kept[1])


@pytest.mark.parametrize("action_format", ["dict", "box"])
def test_scores_as_sent(action_format):
    env = classification(action_format=action_format)
    frame = after(env, np.array([0, 0, -1, 0.5, 7], np.float32))  # Scores beyond [-1, 1] are cut off.
    assert frame.scores.tolist() == [0, 0.75, 1]
    assert (frame.choice, frame.truth, frame.names) == (2, 1, ("0", "1", "2"))
    assert frame.lines == ("glimpse 2 of 2", "reward 0")
    frame = after(env, np.array([0, 0, -1, 1, -1], np.float32))
    assert frame.lines == ("glimpse 2 of 2", "said 1: right", "reward 1")


@pytest.mark.parametrize("action_format", ["dict", "multidiscrete", "discrete"])
def test_other_actions_score_the_choice_alone(action_format):
    env = classification(action_format=action_format, stop_action=True, num_glimpses=7)
    batch = env.task.codec.encode(np.zeros((1, 2)), **{"class": np.array([2]), "stop": np.array([1])})
    frame = after(env, {name: values[0] for name, values in batch.items()} if isinstance(batch, dict) else batch[0])
    assert frame.scores.tolist() == [0, 0, 1]
    assert frame.lines == ("glimpse 1 of 7", "stopped", "said 2: wrong", "reward 0")


def test_the_zoom_of_the_look():
    env = classification(zoom_action=True, glimpse_size=4)
    assert env.frame().look.zoom == 0
    look = after(env, {"location": np.zeros(2, np.float32), "class": 0, "zoom": 1}).look
    assert (look.zoom, look.widths.tolist(), look.corners.tolist()) == (1, [8], [[6, 6]])


def test_the_game_and_the_move():
    env = gym.make("GlimpseCatch-v0", size=6, glimpse_size=2, num_scales=1, ball_speeds=(0,)).unwrapped
    env.reset(options={"ball_column": 2})
    for move in (1, 1, 1, 1, 0):
        frame = after(env, {"location": np.zeros(2, np.float32), "move": move})
    assert frame.lines == ("step 5 of 5", "caught", "reward 1")
    assert frame.scores.tolist() == [1, 0, 0]
    assert frame.scene[5].tolist() == [0, 1, 1, 0, 0, 0]
    assert frame.truth is None


def test_through_the_retina():
    images = np.zeros((2, 20, 20), np.uint8)
    images[:, 6, 6] = images[:, 8, 8] = images[:, 0, 0] = 255
    env = classification(dataset=(images, [0, 1]), glimpse_size=4, num_scales=2)  # Sees 8..11 and, halved, 6..13.
    expected = np.zeros((20, 20))
    expected[6:8, 6:8] = 0.25
    expected[8, 8] = 1
    np.testing.assert_array_equal(through_retina(env.frame()), expected)


def test_patches_are_cut_at_the_border():
    env = classification(initial_location=(-1, 1), glimpse_size=4)  # Sees columns -2..1 and rows 18..21.
    assert np.argwhere(through_retina(env.frame())).tolist() == [[18, 0], [18, 1], [19, 0], [19, 1]]
    game = gym.make("Catch-v0").unwrapped
    game.reset(seed=0)
    assert through_retina(game.frame()).sum() == 3  # Seen whole: the ball and the paddle.
