"""What `render()` returns, the window, and what Gymnasium does with both."""

import subprocess
import sys
import warnings
from dataclasses import replace
from itertools import pairwise

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import ram_envs
from ram_envs.drawing import draw
from ram_envs.rendering import Renderer, Window

pygame = pytest.importorskip("pygame")
pytestmark = pytest.mark.usefixtures("no_screen")

IMAGES, LABELS = np.full((6, 20, 20), 255, np.uint8), np.arange(6) % 3
OPTIONS = {"dataset": (IMAGES, LABELS), "initial_location": "center"}


@pytest.fixture
def opened(monkeypatch):
    """Pygame's windows, in the order in which they were opened."""
    windows = []

    class Remembered(pygame.Window):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            windows.append(self)

    monkeypatch.setattr(pygame, "Window", Remembered)
    return windows


def make(env_id="GlimpseClassification-v0", render_mode="rgb_array", **kwargs):
    defaults = {} if "Catch" in env_id else OPTIONS
    return gym.make(env_id, render_mode=render_mode, **{**defaults, **kwargs})


def make_vec(num_envs, env_id="GlimpseClassification-v0", render_mode="rgb_array", **kwargs):
    defaults = {} if "Catch" in env_id else OPTIONS
    return gym.make_vec(env_id, num_envs=num_envs, render_mode=render_mode, **{**defaults, **kwargs})


def picture_of(env, **reset):
    env.reset(**reset)
    return env.render()


def shown_in(window):
    """The picture (H, W, 3) that one of pygame's windows shows."""
    return pygame.surfarray.array3d(window.get_surface()).swapaxes(0, 1)


def is_open(window):
    try:
        window.get_surface()
    except pygame.error:
        return False
    return True


def test_render_draws_the_frame_after_the_last_action_and_the_path():
    env = make(action_format="box", num_glimpses=2)
    env.reset(options={"index": 1})
    np.testing.assert_array_equal(env.render(), draw(env.unwrapped.frame(), np.zeros((1, 2))))
    action = np.array([0.5, -0.5, -1, 0.5, 1], np.float32)
    env.step(action)
    expected = draw(env.unwrapped.frame(action=action), np.array([[0, 0], [0.5, -0.5]]))
    np.testing.assert_array_equal(env.render(), expected)
    action[:] = 0  # What the caller does to the action changes no picture.
    np.testing.assert_array_equal(env.render(), expected)


@pytest.mark.parametrize("env_id", ["GlimpseClassification-v0", "GlimpseCatch-v0"])
def test_the_look_that_the_last_action_names_is_not_drawn(env_id):
    kwargs = {"size": 6, "initial_location": "center"} if "Catch" in env_id else {"num_glimpses": 2}
    env, obs, terminated = make(env_id, num_scales=2, zoom_action=True, **kwargs), None, False
    env.reset(seed=0)
    at, zoom = [(0.0, 0.0)], 0
    for turn in range(1, 10):
        choices = {"move": 1} if "Catch" in env_id else {"class": 1}
        action = {"location": np.array([0.125 * turn, -0.5], np.float32), "zoom": turn % 2, **choices}
        obs, _, terminated, _, _ = env.step(action)
        if terminated:
            break
        at, zoom = [*at, (0.125 * turn, -0.5)], turn % 2
    assert len(at) == turn == (5 if "Catch" in env_id else 2)  # As many glimpses as actions.
    looks = env.unwrapped.frame(action=action)
    gaze = env.unwrapped.task.gaze
    corners, widths = gaze.retina.corners(np.array(at[-1:], np.float32), np.array([zoom]))
    glimpse = gaze.retina.look(gaze.scenes, np.array(at[-1:], np.float32), np.array([zoom]))[0]
    look = ram_envs.Look(np.array(at[-1], np.float32), corners[0], widths[0], glimpse, zoom)
    np.testing.assert_array_equal(env.render(), draw(replace(looks, look=look), np.array(at)))
    assert gaze.locations[0].tolist() == obs["location"].tolist() == [0.125 * turn, -0.5]  # The environment stays as it is.
    assert gaze.zooms[0] == turn % 2


def rgb_images(height, width, num_classes=3):
    images = np.random.default_rng(0).integers(256, size=(2 * num_classes, height, width, 3), dtype=np.uint8)
    return images, np.arange(2 * num_classes) % num_classes


SHAPES = {
    "three classes": {"dataset": (IMAGES, LABELS)},
    "five scales": {"num_scales": 5, "glimpse_size": 4},
    "stop and zoom": {"stop_action": True, "zoom_action": True, "num_scales": 2},
    "colours": {"dataset": rgb_images(24, 40)},
    "a hundred classes": {"dataset": rgb_images(8, 8, 100), "glimpse_size": 3},
    "a hundred scores": {"dataset": rgb_images(8, 8, 100), "glimpse_size": 3, "action_format": "box"},
    "large": {"dataset": rgb_images(1000, 600), "glimpse_size": 200},
    "tiny": {"dataset": (IMAGES[:, :1, :1], LABELS), "glimpse_size": 1},
    "long and thin": {"dataset": (IMAGES[:, :1], LABELS), "glimpse_size": 2, "num_scales": 6},
    "Catch-v0": {},
    "GlimpseCatch-v0": {"zoom_action": True, "size": 100},
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_picture_of_an_environment_has_one_even_size(name):
    env = make(name, **SHAPES[name]) if "Catch" in name else make(initial_location="random", **SHAPES[name])
    env.action_space.seed(0)
    pictures = [picture_of(env, seed=0)]
    terminated = False
    while not terminated:
        _, _, terminated, _, _ = env.step(env.action_space.sample())
        pictures.append(env.render())
    width = 664 if name == "Catch-v0" else 912
    assert {(picture.shape, picture.dtype.name) for picture in pictures} == {((480, width, 3), "uint8")}
    assert all((before != after).any() for before, after in pairwise(pictures))
    assert picture_of(env).shape == (480, width, 3)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize("env_id", ["GlimpseClassification-v0", "GlimpseCatch-v0", "Catch-v0"])
def test_vector_pictures_equal_single_ones(env_id, mode):
    kwargs = {"size": 6} if "Catch" in env_id else {"num_glimpses": 3, "action_format": "box", "initial_location": "random"}
    native = make_vec(2, env_id, autoreset_mode=mode, **kwargs)
    singles = SyncVectorEnv([lambda: make(env_id, **kwargs)] * 2, autoreset_mode=mode)
    native.action_space.seed(0)
    native.reset(seed=0), singles.reset(seed=0)
    for _ in range(9):
        ours, theirs = native.render(), singles.render()
        assert type(ours) is tuple
        np.testing.assert_array_equal(ours, theirs)
        actions = native.action_space.sample()
        native.step(actions), singles.step(actions)


def test_paths_begin_anew_with_each_episode():
    envs = make_vec(2, autoreset_mode="Disabled", render_mode=None).unwrapped
    renderer, everywhere, first = Renderer(envs.task, "rgb_array"), np.ones(2, bool), np.array([True, False])
    envs.reset(seed=0)
    renderer.begin(everywhere)
    actions = envs.action_space.sample()
    envs.step(actions)
    renderer.step(actions, 2, ~everywhere)
    envs.reset(options={"reset_mask": first})
    renderer.begin(first)
    assert [len(renderer.path(env)) for env in range(2)] == [1, 2]
    assert [renderer.frame(env).choice for env in range(2)] == [None, actions["class"][1]]


def test_a_state_that_was_set_has_no_path():
    envs = make_vec(2).unwrapped
    envs.reset(seed=0)
    before = envs.render()
    envs.step(envs.action_space.sample())
    envs.reset(seed=0)
    state = envs.get_state()
    envs.step(envs.action_space.sample())
    envs.set_state(state)
    np.testing.assert_array_equal(envs.render(), before)


def test_drawing_changes_nothing_and_needs_no_screen():
    drawn, plain = make(initial_location="random"), make(initial_location="random", render_mode=None)
    assert data_equivalence(drawn.reset(seed=0), plain.reset(seed=0))
    for _ in range(7):
        drawn.render()
        action = plain.action_space.sample()
        assert data_equivalence(drawn.step(action), plain.step(action))
    assert not pygame.display.get_init()


def test_pygame_is_imported_only_to_draw():
    code = (
        "import sys, gymnasium, ram_envs, ram_envs.play; env = gymnasium.make('Catch-v0', render_mode='rgb_array'); env.reset();"
        "print('pygame' in sys.modules); env.render(); print('pygame' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.split("\n")
    assert lines[0] == "False"
    assert lines[-2] == "True"


def test_without_pygame_the_message_says_what_to_install(monkeypatch):
    env = make("Catch-v0")
    env.reset()
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(gym.error.DependencyNotInstalled, match=r'pip install "ram-envs\[render\]"'):
        env.render()


def test_nothing_to_render():
    for env in (make().unwrapped, make_vec(2), make(render_mode="human").unwrapped):
        with pytest.raises(gym.error.ResetNeeded):
            env.render()
    for env in (make(render_mode=None), make_vec(2, render_mode=None)):
        env.reset()
        with pytest.warns(UserWarning, match="made without a render mode"):
            assert env.render() is None
        env.close()


@pytest.mark.parametrize("env_id", ["GlimpseClassification-v0", "GlimpseCatch-v0", "Catch-v0"])
def test_gymnasium_checks_pass_with_rendering(env_id, recwarn):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for render_mode in (None, "rgb_array"):
            check_env(make(env_id, render_mode=render_mode).unwrapped)
    assert not recwarn.list


def test_metadata():
    for env in (make("Catch-v0"), make_vec(2, "Catch-v0")):
        assert env.metadata["render_modes"] == ["human", "rgb_array"]
        assert env.metadata["render_fps"] == 8
    assert make().metadata["render_fps"] == 4
    assert type(ram_envs.GlimpseEnv.metadata["render_fps"]) is int


def test_videos_are_recorded(tmp_path):
    pytest.importorskip("moviepy")
    frames = pytest.importorskip("imageio_ffmpeg").count_frames_and_secs
    single = gym.wrappers.RecordVideo(make(num_glimpses=3), str(tmp_path / "single"))
    single.reset(seed=0)
    for _ in range(3):
        single.step(single.action_space.sample())
    single.close()
    assert frames(str(tmp_path / "single/rl-video-episode-0.mp4")) == (4, 1.0)
    many = gym.wrappers.vector.RecordVideo(make_vec(2, num_glimpses=3), str(tmp_path / "vector"))
    many.reset(seed=0)
    for _ in range(4):  # The last step begins the second episode.
        many.step(many.action_space.sample())
    many.close()
    assert frames(str(tmp_path / "vector/rl-video-episode-0.mp4")) == (4, 1.0)


def test_window_shows_each_step_by_itself(opened):
    env, drawn = make(render_mode="human", action_format="box"), make(action_format="box")
    picture = picture_of(drawn, seed=0)
    env.reset(seed=0)
    np.testing.assert_array_equal(shown_in(opened[0]), picture)
    action = env.action_space.sample()
    env.step(action), drawn.step(action)
    np.testing.assert_array_equal(shown_in(opened[0]), drawn.render())
    assert env.render() is None
    env.close()
    env.close()
    assert not pygame.display.get_init()


def test_window_is_answered_and_closed_by_the_person(opened):
    env, other = make(render_mode="human"), make("Catch-v0", render_mode="human")
    env.reset(seed=0), other.reset(seed=0)
    assert [window.title for window in opened] == [env.spec.id, "Catch-v0"]
    pygame.event.post(pygame.event.Event(pygame.MOUSEMOTION, pos=(1, 1), rel=(0, 0), buttons=(0, 0, 0), touch=False))
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_a, unicode="a"))
    pygame.event.post(pygame.event.Event(pygame.WINDOWCLOSE, window=opened[0]))
    other.step(1)  # Any window hears what is asked of the others.
    assert [is_open(window) for window in opened] == [False, True]
    assert [event.key for event in pygame.event.get(exclude=[]) if event.type == pygame.KEYDOWN] == [pygame.K_a]
    assert not pygame.event.peek(pygame.MOUSEMOTION)
    env.step(env.action_space.sample())  # The program continues.
    assert len(opened) == 2
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    other.step(1)
    other.step(1)
    assert not is_open(opened[1])
    assert not pygame.display.get_init()


def test_closing_one_window_leaves_the_other(opened):
    env, other = make("Catch-v0", render_mode="human"), make("Catch-v0", render_mode="human")
    env.reset(seed=0), other.reset(seed=0)
    env.close()
    other.step(1)
    assert shown_in(opened[1]).any()
    pygame.quit()  # As Gymnasium's own environments do when they close: the window comes back.
    other.step(1)
    assert len(opened) == 3
    assert shown_in(opened[2]).any()
    other.close()


def test_window_keeps_its_picture_whole_at_any_size(opened):
    window, picture = Window("title", fps=1000), np.full((480, 664, 3), 200, np.uint8)
    assert window.to_picture((3, 4), picture) == (3, 4)  # Not yet open.
    window.show(picture)
    opened[0].size = (664, 1000)
    window.draw(picture)
    shown = shown_in(opened[0])
    assert shown.shape == (1000, 664, 3)
    assert (shown[260:740] == 200).all()
    assert not shown[:260].any()
    assert not shown[740:].any()
    assert window.to_picture((0, 260), picture) == (0, 0)
    window.close()


def test_window_holds_the_frames_per_second(monkeypatch):
    ticks = []

    class Clock:
        def tick(self, fps):
            ticks.append(fps)

    monkeypatch.setattr(pygame.time, "Clock", Clock)
    env = make("Catch-v0", render_mode="human")
    env.reset(seed=0)
    env.step(1)
    env.step(1)
    assert ticks == [8, 8, 8]
    env.close()


def test_many_environments_share_one_window(opened):
    envs = make_vec(18, render_mode="human").unwrapped
    envs.reset(seed=0)
    width, height = opened[0].size
    assert width / height == pytest.approx(912 / 480, rel=0.02)  # A grid of 4 x 4: no more than 16 are shown.
    envs.step(envs.action_space.sample())
    assert envs.render() is None
    envs.close()
    assert not pygame.display.get_init()
