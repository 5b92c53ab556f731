"""An agent at work in pictures, and its learning curve."""

from itertools import pairwise

import gymnasium as gym
import imageio.v3 as imageio
import imageio_ffmpeg
import numpy as np
import pytest

pytest.importorskip("torch")
pygame = pytest.importorskip("pygame")

from conftest import DATASET
from matplotlib.figure import Figure
from matplotlib.image import imread
from stable_baselines3 import PPO

import ram_envs
from ram_envs import draw, glimpses, load_images
from ram_envs.agents import RAM, make_vec_env
from ram_envs.agents.training.figures import (
    choose_images,
    play,
    plot_glimpses,
    plot_learning_curve,
    record,
    watch,
    watch_in_window,
)

GAME = {"size": 6}
DIGITS = {"dataset": DATASET, "num_glimpses": 4}
PATH = np.array([[-0.8, 0.4], [0.0, 0.0], [0.4, -0.8], [0.8, 0.8]], np.float32)  # Centres of a grid of 5 x 5.


class Still:
    """Stays; keeps what it was shown."""

    def __init__(self):
        self.seen, self.states, self.starts = [], [], []

    def predict(self, obs, state, episode_start, deterministic):
        assert deterministic
        self.seen.append(obs), self.states.append(state), self.starts.append(episode_start.tolist())
        return np.ones(1, np.int64), 0 if state is None else state + 1


class Scripted(Still):
    """Looks along `PATH` and says class 3; stops at the second step where it can."""

    def __init__(self, action_format="dict", stop_action=False, **options):
        super().__init__()
        self.options = {**DIGITS, "action_format": action_format, "stop_action": stop_action, **options}
        self.codec, self.stops = gym.make("GlimpseMNIST-v0", **self.options).unwrapped.task.codec, stop_action

    def predict(self, obs, state, episode_start, deterministic):
        _, step = super().predict(obs, state, episode_start, deterministic)
        choices = {"class": np.array([3])} | ({"stop": np.array([int(step == 1)])} if self.stops else {})
        actions = self.codec.encode(PATH[[step]], **choices)
        return [{name: values[0] for name, values in actions.items()}] if isinstance(actions, dict) else actions, step


def test_an_episode_is_played_to_its_end():
    env, model = gym.make("Catch-v0", **GAME), Still()
    assert list(play(model, env, seed=3)) == [None, 1, 1, 1, 1, 1]
    assert model.states == [None, 0, 1, 2, 3]
    assert model.starts == [[True], [False], [False], [False], [False]]
    other = gym.make("Catch-v0", **GAME)
    seen = [other.reset(seed=3)[0]] + [other.step(1)[0] for _ in range(5)]
    np.testing.assert_array_equal(np.concatenate(model.seen), seen[:5])


def test_stacked_frames_are_those_of_training():
    env, model = gym.make("Catch-v0", **GAME), Still()
    list(play(model, env, seed=3, frame_stack=3))
    trained = make_vec_env("Catch-v0", 1, seed=3, frame_stack=3, **GAME)
    expected = [trained.reset(), *(trained.step(np.ones(1, int))[0] for _ in range(4))]
    np.testing.assert_array_equal(np.concatenate(model.seen), np.concatenate(expected))
    model.seen.clear()
    list(play(model, env, frame_stack=3))  # The next episode knows nothing of the last.
    assert (model.seen[0][:, :, :12] == 0).all()


@pytest.mark.parametrize("options", [{}, {"action_format": "discrete", "frame_stack": 2}, {"action_format": "box"}])
def test_trained_models_are_recorded(options, tmp_path):
    env = make_vec_env("GlimpseCatch-v0", 2, **GAME, **options)
    if "frame_stack" in options:
        model = PPO("MultiInputPolicy", env, n_steps=8, batch_size=16, device="cpu")
    else:
        model = RAM("RAMPolicy", env, class_loss="reinforce", device="cpu")
    path = tmp_path / "sub" / "game.gif"
    assert record(model, "GlimpseCatch-v0", path, num_episodes=2, hold=0.5, **GAME, **options) == 2 * (1 + 5)
    # Gif keeps equal pictures once, and shows them longer: 8 pictures a second.
    durations = [imageio.immeta(path, index=index)["duration"] for index in range(len(imageio.imread(path)))]
    assert sum(durations) == pytest.approx(2 * (5 * 1000 / 8 + 500), rel=0.05)


def test_scores_are_recorded_whatever_the_format(tmp_path):
    pictures = []
    model = RAM("RAMPolicy", make_vec_env("GlimpseCatch-v0", 2, **GAME), seed=0, class_loss="reinforce", device="cpu")
    for action_format in ("dict", "box"):
        record(model, "GlimpseCatch-v0", tmp_path / "game.gif", num_episodes=1, action_format=action_format, **GAME)
        pictures.append(imageio.imread(tmp_path / "game.gif"))
    np.testing.assert_array_equal(*pictures)


def test_other_peoples_environments_are_recorded_too(tmp_path):
    number = record(Still(), "CartPole-v1", tmp_path / "pole.mp4", num_episodes=1, hold=0)
    assert imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "pole.mp4"))[0] == number > 5
    with pytest.raises(ValueError, match=r"must end in one of \('.gif', '.mp4'\)"):
        record(Still(), "Catch-v0", tmp_path / "game.avi", **GAME)


def shown_episodes(monkeypatch):
    """The options of each reset from now on, in order."""
    begun, reset = [], ram_envs.GlimpseEnv.reset

    def note(self, *, seed=None, options=None):
        begun.append((seed, options))
        return reset(self, seed=seed, options=options)

    monkeypatch.setattr(ram_envs.GlimpseEnv, "reset", note)
    return begun


IMAGES_OF = {"dataset": DATASET, "num_glimpses": 1, "action_format": "box", "split": "test"}


def test_episodes_to_record_are_named(tmp_path, monkeypatch):
    begun, film = shown_episodes(monkeypatch), tmp_path / "film.gif"
    assert record(Still(), "Catch-v0", film, num_episodes=3, index=[7, 9], **GAME) == 3 * (1 + 5)
    assert begun == [(7, None), (9, None), (7, None)]  # Seeds of games, from the first again.
    begun.clear()
    assert record(SayThree(), "GlimpseMNIST-v0", film, index=[30, 4], **IMAGES_OF) == 2 * (1 + 1)
    assert begun == [(30, {"index": 30}), (4, {"index": 4})]
    begun.clear()
    record(Still(), "Catch-v0", film, num_episodes=2, seed=5, **GAME)
    assert begun == [(5, None), (None, None)]
    with pytest.raises(ValueError, match="number of episodes must be at least 1, got 0"):
        record(Still(), "Catch-v0", film, num_episodes=0, **GAME)
    with pytest.raises(ValueError, match=r"must lie in 0\.\..*, got 10000000"):
        record(SayThree(), "GlimpseMNIST-v0", film, index=[10_000_000], **IMAGES_OF)


class FastWindow(ram_envs.Window):
    """Keeps what it shows and does not wait; `events` are posted before pictures of these numbers."""

    events, shown = {}, []

    def __init__(self, title, fps):
        super().__init__(title, 1000)
        type(self).title = title

    def show(self, picture, **kwargs):
        for event in self.events.get(len(self.shown), ()):
            pygame.event.post(pygame.event.Event(event, key=pygame.K_ESCAPE, unicode="", window=self._window))
        super().show(picture, **kwargs)
        self.shown.append(picture)


@pytest.mark.usefixtures("no_screen")
def test_an_agent_is_watched_for_a_number_of_episodes(monkeypatch):
    begun = shown_episodes(monkeypatch)
    monkeypatch.setattr(ram_envs.rendering, "Window", FastWindow)
    monkeypatch.setattr(FastWindow, "shown", [])
    assert watch_in_window(SayThree(), "GlimpseMNIST-v0", num_episodes=3, index=[30, 4], hold=0.5, **IMAGES_OF) == 3
    assert [options["index"] for _, options in begun] == [30, 4, 30]
    assert len(FastWindow.shown) == 3 * (2 + 2)  # Two pictures, and the last one twice more: half a second at 4 a second.
    assert FastWindow.title == "GlimpseMNIST-v0"
    assert not pygame.display.get_init()


@pytest.mark.usefixtures("no_screen")
@pytest.mark.parametrize("event", [pygame.QUIT, pygame.WINDOWCLOSE, pygame.KEYDOWN], ids=["quit", "close", "Esc"])
def test_an_agent_is_watched_until_the_window_is_closed(event, monkeypatch):
    monkeypatch.setattr(ram_envs.rendering, "Window", FastWindow)
    monkeypatch.setattr(FastWindow, "shown", [])
    monkeypatch.setattr(FastWindow, "events", {20: [event]})
    assert watch_in_window(Still(), "Catch-v0", hold=0.5, **GAME) == 2  # Of 6 + 4 pictures each.
    assert len(FastWindow.shown) == 21
    assert not pygame.display.get_init()


def test_without_a_screen_the_message_says_what_else_there_is(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "no such driver")
    with pytest.raises(gym.error.Error, match=r"there is no screen for a window .*: make pictures or a video instead"):
        watch_in_window(Still(), "Catch-v0", **GAME)


def test_what_was_watched_is_what_was_shown(action_format):
    model = Scripted(action_format)
    episodes = watch(model, "GlimpseMNIST-v0", model.options, index=range(6))
    images = load_images(DATASET, "test")
    seen = iter(model.seen)
    for image, label, frames in zip(images.images, images.labels, episodes, strict=False):
        assert [frame.choice for frame in frames] == [None, 3, 3, 3, 3]
        assert frames[-1].truth == label
        for frame, location in zip(frames, [None, *PATH], strict=True):
            np.testing.assert_allclose(frame.scene, image / 255, atol=1e-6)
            if location is not None:
                np.testing.assert_allclose(frame.look.location, location, atol=1e-6)
        for frame in frames[:-1]:
            obs = next(seen)
            np.testing.assert_array_equal(obs["glimpse"][0], frame.look.glimpse)
            expected = glimpses(image[None], frame.look.location[None], glimpse_size=8, num_scales=1)
            np.testing.assert_array_equal(obs["glimpse"], expected)
    assert next(seen, None) is None
    assert [starts[0] for starts in model.starts] == [True, False, False, False] * 6


def test_another_split_is_watched():
    model = Scripted()
    episodes = watch(model, "GlimpseMNIST-v0", model.options, "validation", index=[4, 1])
    images = load_images(DATASET, "validation").images[[4, 1]]
    np.testing.assert_allclose([frames[0].scene for frames in episodes], images / 255, atol=1e-6)


def test_arrays_have_no_other_splits_to_watch():
    model, data = Scripted(), load_images(DATASET, "train")
    with pytest.raises(ValueError, match="register_dataset"):
        watch(model, "GlimpseMNIST-v0", {"dataset": (data.images[:5], data.labels[:5])})


def test_stacked_frames_are_watched_as_single_glimpses():
    options = {**DIGITS, "action_format": "multidiscrete"}
    env = make_vec_env("GlimpseMNIST-v0", 4, frame_stack=3, **options)
    model = PPO("MultiInputPolicy", env, n_steps=8, batch_size=16, seed=0, device="cpu")
    episodes = watch(model, "GlimpseMNIST-v0", options, frame_stack=3)
    assert [len(frames) for frames in episodes] == [5] * 8  # Of images that were chosen with stacked frames.
    assert episodes[0][0].look.glimpse.shape == (1, 8, 8)


@pytest.mark.parametrize("num_scales", [1, 3])
def test_glimpses_are_drawn(tmp_path, num_scales):
    model = Scripted("box", num_scales=num_scales)
    plot_glimpses(watch(model, "GlimpseMNIST-v0", model.options, index=range(2)), tmp_path / "sub" / "glimpses.png")
    picture = imread(tmp_path / "sub" / "glimpses.png")[..., :3]
    green = (picture[..., 1] > 0.55) & (picture[..., 0] < 0.3) & (picture[..., 2] < 0.3)
    assert green.sum() > 50  # The path.
    red = (picture[..., 0] > 0.8) & (picture[..., 1] < 0.2) & (picture[..., 2] < 0.4)
    assert red.sum() > 5  # Neither is a 3: a wrong answer is written in red.
    # Each of four glimpses, as the eye sees it, in a border of the widest patch's colour, three pixels wide.
    border = np.abs(picture - np.array({1: (255, 127, 14), 3: (148, 103, 189)}[num_scales]) / 255).max(axis=2) < 0.01
    assert (border.sum(axis=0) > 2 * 100).sum() >= 4 * 2 * 3
    orange = np.abs(picture - np.array([255, 127, 14]) / 255).max(axis=2) < 0.01
    assert (orange.sum(axis=0) > 2 * 30).sum() == (4 * 2 * 3 if num_scales == 1 else 4 * 2)  # The narrow patch's line inside.


class SayThree:
    """Looks at the centre and says 3."""

    def predict(self, obs, state, episode_start, deterministic):
        scores = np.eye(10, dtype=np.float32)[3]
        return np.tile(np.concatenate([[0, 0], scores]), (len(episode_start), 1)).astype(np.float32), None


def test_failures_are_shown_among_the_successes():
    labels = np.array([3, 3, 1, 3, 3, 3, 2, 3, 3, 0, 3, 3])
    images = np.zeros((12, 20, 20), np.uint8)
    options = {"dataset": ram_envs.ImageSet("made up", images, labels, 10), "split": "test", "action_format": "box"}
    where = SayThree(), "GlimpseMNIST-v0", options, "test"
    assert choose_images(*where) == [0, 1, 3, 4, 5, 7, 2, 6]
    assert choose_images(*where, number=3) == [0, 2, 6]
    assert choose_images(*where, number=11) == [0, 1, 3, 4, 5, 7, 8, 10, 11, 2, 6]  # No more are right.
    rest = {**options, "dataset": ram_envs.ImageSet("made up", images[:8], np.full(8, 3), 10)}
    assert choose_images(SayThree(), "GlimpseMNIST-v0", rest, "test") == list(range(8))  # Nothing is wrong.
    episodes = watch(*where)
    assert [frames[-1].truth for frames in episodes] == [3] * 6 + [1, 2]


def test_a_right_answer_is_written_in_black_and_a_stopped_episode_ends(tmp_path):
    model = Scripted("box", stop_action=True)
    episodes = watch(model, "GlimpseMNIST-v0", model.options, index=range(40))
    right = [frames for frames in episodes if frames[-1].truth == 3][:1]
    whole = Scripted("box")
    longer = watch(whole, "GlimpseMNIST-v0", whole.options, index=[0])
    pictures = {}
    for name, shown in (("alone", right), ("with a longer one", longer + right)):
        plot_glimpses(shown, tmp_path / f"{name}.png")
        pictures[name] = imread(tmp_path / f"{name}.png")[..., :3]
    picture = pictures["alone"]
    assert not ((picture[..., 0] > 0.8) & (picture[..., 1] < 0.2) & (picture[..., 2] < 0.4)).any()
    assert (pictures["with a longer one"][-150:, picture.shape[1] :] > 0.99).all()  # Nothing after the last glimpse.


@pytest.mark.parametrize("num_channels", [2, 5])
def test_bands_of_light_and_long_names_are_drawn(tmp_path, num_channels):
    images = np.random.default_rng(0).integers(0, 256, (4, 20, 24, num_channels), np.uint8)
    labels = ["a boot of black leather", "sandal", "a shirt with short sleeves", "trousers of the finest wool"]
    model = Scripted("box", dataset=(images, labels), split="test")
    episodes = watch(model, "GlimpseMNIST-v0", model.options, index=range(4))
    plot_glimpses(episodes, tmp_path / "glimpses.png")
    picture = imread(tmp_path / "glimpses.png")[30:, :40, :3]  # The captions.
    rows = (picture < 0.9).any(axis=(1, 2)).reshape(4, 200)
    assert rows[:, 75:115].any(axis=1).all() and not rows[:, :2].any() and not rows[:, -10:].any()  # Each beside its own image.
    drawn = draw(episodes[0][-1])
    assert (drawn[:, -1:] == drawn[0, -1]).all()  # Bars and names end before the edge.


@pytest.fixture
def drawn(monkeypatch):
    """The figures as they were when they were saved."""
    figures, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *args, **kwargs: (figures.append(figure), save(figure, *args, **kwargs))
    )
    return figures


@pytest.mark.parametrize("success", [None, "balls caught"])
@pytest.mark.parametrize("error", [[88, 30, 9, 0.92], [0.92, 3, 5, 5], [80, 77, 75], [70, 70], [50, 0.0], [40]])
def test_labels_stand_inside_and_ticks_can_be_read(tmp_path, drawn, error, success):
    number, error = np.arange(len(error)), np.array(error, float)
    plot_learning_curve((number + 1) * 1_000_000, number + 1.0, error, tmp_path / "curve.png", "RAM", success)
    left, right = drawn[0].axes
    box, [label] = left.get_window_extent(), left.texts
    inside = label.get_window_extent()
    assert box.x0 <= inside.x0 and inside.x1 <= box.x1 and box.y0 <= inside.y0 and inside.y1 <= box.y1
    assert label.get_text() == f"{error.min() if success is None else 100 - error.min():.2f}"
    assert left.get_ylabel() == ("validation error, %" if success is None else "balls caught on validation, %")
    low, high = left.get_ylim()
    ticks = [
        text for at, text in zip(left.get_yticks(), left.get_yticklabels(), strict=True) if low <= at <= high and text.get_text()
    ]
    assert 2 <= len(ticks) <= 10
    for axis in (left.yaxis, left.xaxis, right.xaxis):
        boxes = [text.get_window_extent() for text in axis.get_ticklabels() if text.get_text()]
        assert not any(one.overlaps(other) for one, other in pairwise(boxes))


@pytest.mark.parametrize("last", [2.5, 0.0])
def test_learning_curve_is_drawn(tmp_path, last):
    plot_learning_curve(np.arange(1, 5) * 100, np.arange(4) + 1.0, np.array([30, 9, 3, last]), tmp_path / "curve.png", "RAM")
    picture = imread(tmp_path / "curve.png")[..., :3]
    blue = (picture[..., 2] > 0.6) & (picture[..., 0] < 0.3)
    left, right = np.array_split(blue, 2, axis=1)
    assert left.sum() > 50
    assert right.sum() > 50
