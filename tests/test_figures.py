import numpy as np
import pytest

pytest.importorskip("torch")

from matplotlib.image import imread

from agents.figures import Episodes, plot_glimpses, plot_learning_curve
from ram_envs import Retina, glimpses


def make_episodes(num_images, num_scales):
    rng = np.random.default_rng(0)
    scenes = rng.integers(0, 256, (num_images, 20, 30), dtype=np.uint8)
    locations = rng.uniform(-1, 1, (num_images, 3, 2)).astype(np.float32)
    retina = {"glimpse_size": 4, "num_scales": num_scales}
    seen = np.stack([glimpses(scenes, locations[:, t], **retina) for t in range(3)], axis=1)
    corners, widths = map(np.stack, zip(*(Retina((20, 30), **retina).corners(path) for path in locations), strict=True))
    return Episodes(scenes, locations, corners, widths, seen, ["1"] * num_images, ["1", *["7"] * (num_images - 1)])


@pytest.mark.parametrize(("num_images", "num_scales"), [(1, 1), (3, 3)])
def test_glimpses_are_drawn(tmp_path, num_images, num_scales):
    plot_glimpses(make_episodes(num_images, num_scales), tmp_path / "sub" / "glimpses.png")
    picture = imread(tmp_path / "sub" / "glimpses.png")[..., :3]
    green = (picture[..., 1] > 0.55) & (picture[..., 0] < 0.3) & (picture[..., 2] < 0.3)
    assert green.sum() > 50  # The path.
    red = (picture[..., 0] > 0.8) & (picture[..., 1] < 0.2) & (picture[..., 2] < 0.4)
    assert (red.sum() > 5) == (num_images > 1)  # A wrong answer is written in red.


@pytest.mark.parametrize("last", [2.5, 0.0])
def test_learning_curve_is_drawn(tmp_path, last):
    plot_learning_curve(np.arange(1, 5) * 100, np.arange(4) + 1.0, np.array([30, 9, 3, last]), tmp_path / "curve.png", "RAM")
    picture = imread(tmp_path / "curve.png")[..., :3]
    blue = (picture[..., 2] > 0.6) & (picture[..., 0] < 0.3)
    left, right = np.array_split(blue, 2, axis=1)
    assert left.sum() > 50
    assert right.sum() > 50
