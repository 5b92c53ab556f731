"""The pictures of the docs."""

import sys

import gymnasium as gym
import numpy as np
import pytest
from conftest import DATASET

from ram_envs import gallery
from ram_envs.datasets import DATA_FOLDER_VARIABLE, load_images

pytest.importorskip("pygame")
imageio = pytest.importorskip("imageio.v3")


@pytest.mark.parametrize("env_id", ["GlimpseMNIST-v0", "GlimpseClassification-v0"])
def test_pictures_are_made_and_are_the_same_again(env_id, tmp_path):
    still, film = gallery.make_pictures(env_id, tmp_path / "one", DATASET)
    picture, frames = imageio.imread(still), imageio.imread(film)
    assert picture.shape == frames.shape[1:]
    assert len(frames) > 10
    assert max(still.stat().st_size, film.stat().st_size) < 400_000
    assert imageio.immeta(film)["loop"] == 0
    for path, again in zip((still, film), gallery.make_pictures(env_id, tmp_path / "two", DATASET), strict=True):
        assert path.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("options", [{"canvas_size": 60, "num_clutter": 4, "glimpse_size": 12, "num_scales": 3}, {}])
def test_the_reader_sees_the_digit_and_is_right(options):
    env = gym.make("GlimpseMNIST-v0", dataset=DATASET, split="test", **options)
    lit = won = 0
    for index in range(20):
        env.reset(options={"index": index})
        for action in gallery.read(env.unwrapped.task):
            assert env.action_space.as_box().contains(action)
            obs, reward, *_ = env.step(action)
            lit += obs["glimpse"][0].max() > 0.5
        won += reward
    assert won == 20
    assert lit > 0.95 * 20 * env.unwrapped.task.num_glimpses


@pytest.mark.parametrize("env_id", ["GlimpseCatch-v0", "Catch-v0"])
def test_the_player_follows_and_catches_the_ball(env_id):
    env = gym.make(env_id)
    for seed in range(20):
        env.reset(seed=seed)
        for action in gallery.follow_ball(env.unwrapped.task):
            obs, reward, *_ = env.step(action)
            if env_id == "GlimpseCatch-v0":
                assert obs["glimpse"][0, 2, 2] == 1
        assert reward == 1


def test_own_images_hold_two_digits():
    digits = load_images(DATASET, "test")
    pairs = gallery.two_digits(digits, 6)
    assert pairs.images.shape == (6, 3, 28, 56)
    assert pairs.labels[0] == 10 * digits.labels[0] + digits.labels[1]
    for image, left, right in zip(pairs.images, digits.images, digits.images[1:], strict=False):
        seen = np.ptp(image.reshape(3, -1), axis=1).argmax()  # The colour in which ink and paper differ most.
        assert np.corrcoef(image[seen].ravel(), np.hstack([left, right]).ravel())[0, 1] > 0.999


@pytest.mark.usefixtures("fresh_datasets")
def test_the_command_line_continues_without_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(DATA_FOLDER_VARIABLE, str(tmp_path))
    gallery.main(["GlimpseFashionMNIST-v0", "Catch-v0", "--out", str(tmp_path)])
    out, err = capsys.readouterr()
    assert out.split() == [str(tmp_path / "Catch-v0.png"), str(tmp_path / "Catch-v0.gif")]
    assert "GlimpseFashionMNIST-v0: no pictures" in err
    with pytest.raises(SystemExit):
        gallery.main(["GlimpsMNIST-v0"])
    assert "'GlimpsMNIST-v0' is not one of GlimpseMNIST-v0" in capsys.readouterr().err


def test_a_missing_imageio_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "imageio.v3", None)
    with pytest.raises(SystemExit):
        gallery.main(["Catch-v0", "--out", str(tmp_path)])
    assert "ram-envs[train]" in capsys.readouterr().err
