"""Pictures checked by hand, the window, and what Gymnasium does with both."""

import subprocess
import sys
import warnings
from itertools import pairwise

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import ram_envs
from ram_envs.drawing import PATCH_COLOURS, PATH_COLOUR, Place, draw
from ram_envs.view import View

pygame = pytest.importorskip("pygame")
pytestmark = pytest.mark.usefixtures("no_screen")

IMAGES, LABELS = np.full((6, 20, 20), 255, np.uint8), np.arange(6) % 3
OPTIONS = {"dataset": (IMAGES, LABELS), "initial_location": "center"}
# A scene of 20x20 is enlarged 21 times and begins at pixel 30.


def make(env_id="GlimpseClassification-v0", render_mode="rgb_array", **kwargs):
    defaults = {} if "Catch" in env_id else OPTIONS
    return gym.make(env_id, render_mode=render_mode, **{**defaults, **kwargs})


def make_vec(num_envs, env_id="GlimpseClassification-v0", render_mode="rgb_array", **kwargs):
    defaults = {} if "Catch" in env_id else OPTIONS
    return gym.make_vec(env_id, num_envs=num_envs, render_mode=render_mode, **{**defaults, **kwargs})


def picture_of(env, **reset):
    env.reset(**reset)
    return env.render()


def rgb(colour):
    return list(pygame.Color(colour)[:3])


def at_pixel(row, column):
    """The middle of a pixel of a scene of 20x20 in the picture."""
    return 30 + 21 * row + 10, 30 + 21 * column + 10


def colours_in(surface):
    return pygame.surfarray.array3d(surface).swapaxes(0, 1)


def test_scene_is_bright_inside_the_retina_and_dimmed_outside():
    picture = picture_of(make(glimpse_size=8))  # Sees the pixels 6..13.
    assert picture[at_pixel(7, 7)].tolist() == [255, 255, 255]
    assert picture[at_pixel(13, 13)].tolist() == [255, 255, 255]
    # 0.35 of white and 0.65 of the fog's (45, 51, 60).
    np.testing.assert_allclose(picture[at_pixel(2, 2)], [118, 122, 128], atol=1)
    np.testing.assert_array_equal(picture[at_pixel(14, 13)], picture[at_pixel(2, 2)])


def test_each_patch_has_its_square_and_its_picture_beside_the_scene():
    images = np.zeros((2, 20, 20), np.uint8)
    images[:, 8, 8] = 255
    picture = picture_of(make(dataset=(images, [0, 1]), glimpse_size=4, num_scales=2))  # 8..11 and, halved, 6..13.
    assert picture[250, 30 + 21 * 8 - 1].tolist() == rgb(PATCH_COLOURS[0])
    assert picture[250, 30 + 21 * 6 - 1].tolist() == rgb(PATCH_COLOURS[1])
    # Two patches of 144 pixels with 14 between them, in the middle of a column of 168 pixels.
    fine, coarse = picture[89:233, 492:636], picture[247:391, 492:636]
    assert fine[18::36, 18::36, 0].tolist() == [[255, 0, 0, 0], [0] * 4, [0] * 4, [0] * 4]
    assert coarse[18::36, 18::36, 0].tolist() == [[0] * 4, [0, 64, 0, 0], [0] * 4, [0] * 4]
    assert picture[100, 490].tolist() == rgb(PATCH_COLOURS[0])
    assert picture[250, 490].tolist() == rgb(PATCH_COLOURS[1])


def test_path_begins_at_the_first_glimpse():
    env = make(initial_location=(-0.5, 0.5), action_format="box")
    picture = picture_of(env)
    first, second = (345, 135), (135, 345)  # Rows and columns of (-0.5, 0.5) and (0.5, -0.5).
    assert picture[first].tolist() == rgb(PATH_COLOUR)  # The dot.
    assert picture[first[0], first[1] + 7].tolist() == rgb(PATH_COLOUR)  # The ring.
    assert picture[second].tolist() != rgb(PATH_COLOUR)
    env.step(np.array([0.5, -0.5, 0, 0, 0], np.float32))
    picture = env.render()
    assert picture[first[0], first[1] + 7].tolist() == rgb(PATH_COLOUR)
    assert picture[second].tolist() == picture[240, 240].tolist() == rgb(PATH_COLOUR)  # The new dot, the line to it.


def test_scores_as_sent_and_whether_the_class_is_right():
    env = make(action_format="box", num_glimpses=2)
    env.reset(options={"index": 1})
    task = env.unwrapped.task
    assert task.view(0).scores.tolist() == [0, 0, 0]
    action = np.array([0, 0, -1, 0.5, 7], np.float32)  # Scores beyond [-1, 1] are cut off.
    env.step(action)
    view = env.unwrapped._renderer.view(0)
    assert view.scores.tolist() == [0, 0.75, 1]
    assert (view.choice, view.truth, view.names) == (2, 1, ("0", "1", "2"))
    picture = env.render()
    bars = [picture[194 + 28 * row, 680].tolist() for row in range(3)]
    assert bars == [rgb("#444a54"), rgb("#b8c0cc"), rgb("#e5534b")]  # Empty, some, wrong.
    action[:] = 0  # What the caller does to the action changes no picture.
    np.testing.assert_array_equal(env.render(), picture)
    env.step(np.array([0, 0, -1, 1, -1], np.float32))
    assert env.render()[194 + 28, 680].tolist() == rgb("#3fb950")
    assert env.unwrapped._renderer.view(0).lines == ("glimpse 2 of 2", "said 1: right", "reward 1")


def test_other_formats_score_the_choice_alone():
    for action_format in ("dict", "multidiscrete", "discrete"):
        env = make(action_format=action_format, stop_action=True).unwrapped
        env.reset(options={"index": 0})
        batch = env.task.codec.encode(np.zeros((1, 2)), **{"class": np.array([2]), "stop": np.array([1])})
        env.step({name: values[0] for name, values in batch.items()} if isinstance(batch, dict) else batch[0])
        view = env._renderer.view(0)
        assert view.scores.tolist() == [0, 0, 1]
        assert view.lines == ("glimpse 1 of 7", "stopped", "said 2: wrong", "reward 0")


def test_catch_shows_the_game_and_the_move():
    env = make("GlimpseCatch-v0", size=6, glimpse_size=2, num_scales=1, ball_speeds=(0,))
    env.reset(options={"ball_column": 2})
    for move in (1, 1, 1, 1, 0):
        env.step({"location": np.zeros(2, np.float32), "move": move})
    view = env.unwrapped._renderer.view(0)
    assert view.lines == ("step 5 of 5", "caught", "reward 1")
    assert view.scores.tolist() == [1, 0, 0]
    assert view.scene[5].tolist() == [0, 1, 1, 0, 0, 0]
    assert view.truth is None


def test_places_of_scenes_and_locations():
    place = Place.of((20, 20))
    assert (place.left, place.top, place.scale) == (30, 30, 21)
    assert place.point(np.array([-1, 1])) == (30, 450)
    assert place.location(240, 345).tolist() == [0, 0.5]
    assert place.location(-100, 5000).tolist() == [-1, 1]
    assert Place.of((3, 40, 80)) == Place(40, 140, 400, 200, 5)
    assert Place.of((864, 1728)) == Place(24, 132, 432, 216, 0.25)


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
    "large": {"dataset": rgb_images(1000, 600), "num_scales": 3, "glimpse_size": 200},
    "tiny": {"dataset": (IMAGES[:, :1, :1], LABELS), "glimpse_size": 1},
    "long and thin": {"dataset": (IMAGES[:, :1], LABELS), "glimpse_size": 1, "num_scales": 6},
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
    width = 664 if name == "Catch-v0" else 832
    assert {(picture.shape, picture.dtype.name) for picture in pictures} == {((480, width, 3), "uint8")}
    assert all((before != after).any() for before, after in pairwise(pictures))
    assert picture_of(env).shape == (480, width, 3)


def test_many_classes_have_the_best_bars():
    view = View(np.zeros((4, 4), np.float32), None, (), tuple(map(str, range(100))), np.arange(100, dtype=np.float32) / 100, 7, 3)
    picture = draw(view)
    bars = [picture[180 + 13 * row + 6, 525].tolist() for row in range(20)]
    assert bars[:3] == [rgb("#e5534b"), rgb("#444a54"), rgb("#b8c0cc")]  # Said 7, which was 3; then 99.
    assert bars[3:] == [rgb("#b8c0cc")] * 17


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


def test_path_of_one_environment_starts_anew_at_its_reset():
    envs = make_vec(2, autoreset_mode="Disabled").unwrapped
    envs.reset(seed=0)
    envs.step(envs.action_space.sample())
    envs.reset(options={"reset_mask": np.array([True, False])})
    assert [len(envs._renderer.path(env)) for env in range(2)] == [1, 2]
    assert envs._renderer.view(0).choice is None
    assert envs._renderer.view(1).choice is not None
    envs.set_state(envs.get_state())
    assert [len(envs._renderer.path(env)) for env in range(2)] == [1, 1]


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
