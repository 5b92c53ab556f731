"""Pictures of episodes as .gif and .mp4."""

import sys

import gymnasium as gym
import numpy as np
import pytest

from ram_envs import write_video

imageio = pytest.importorskip("imageio.v3")
imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")

EPISODES = [[np.full((32, 48, 3), 40 * i + 8 * j, np.uint8) for j in range(4)] for i in range(2)]


def test_a_gif_holds_the_last_picture_of_each_episode(tmp_path):
    path = tmp_path / "sub" / "film.gif"
    assert write_video(path, iter(EPISODES), fps=8, hold=0.5) == 8
    shown = imageio.imread(path)
    np.testing.assert_array_equal(shown, np.concatenate(EPISODES))
    durations = [imageio.immeta(path, index=index)["duration"] for index in range(8)]
    assert durations == 2 * [120, 120, 120, 500]  # A gif counts in hundredths of a second.
    assert imageio.immeta(path)["loop"] == 0


@pytest.mark.parametrize(("hold", "frames"), [(0, 8), (0.5, 14)])
def test_an_mp4_repeats_it(hold, frames, tmp_path):
    path = tmp_path / "film.mp4"
    assert write_video(str(path), EPISODES, fps=8, hold=hold) == frames
    assert imageio_ffmpeg.count_frames_and_secs(str(path)) == (frames, frames / 8)


def test_other_endings_are_refused_before_anything_is_played(tmp_path):
    def play():
        raise AssertionError("played")
        yield

    with pytest.raises(ValueError, match=r"must end in one of \('.gif', '.mp4'\), got .*film.avi"):
        write_video(tmp_path / "film.avi", play(), fps=8)


def test_a_missing_imageio_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio.v3", None)
    with pytest.raises(gym.error.DependencyNotInstalled, match=r"ram-envs\[train\]"):
        write_video(tmp_path / "film.gif", EPISODES, fps=8)
