import numpy as np
import pytest

from ram_envs.scenes import SceneMaker
from ram_envs.streams import start_streams

DIGITS = np.random.default_rng(0).integers(1, 200, (5, 4, 6), dtype=np.uint8)  # No zero: the blank is told apart.


def scenes_of(images, num_scenes, margin=0, seed=0, **options):
    maker = SceneMaker(images, **options)
    height, width = (margin + side for side in maker.shape[-2:])
    scenes = np.zeros((num_scenes, *maker.shape[:-2], height, width), images.dtype)
    index = np.arange(num_scenes) % len(images)
    maker.make(index, start_streams(np.arange(seed, seed + num_scenes).astype(np.uint64)), scenes, np.arange(num_scenes), margin)
    return scenes, index


def test_without_a_canvas_the_image_is_the_scene():
    scenes, index = scenes_of(DIGITS, 12, margin=3)
    np.testing.assert_array_equal(scenes[:, 3:, 3:], DIGITS[index])
    assert scenes.sum() == DIGITS[index].sum()


def test_translated_images_lie_anywhere_whole():
    scenes, index = scenes_of(DIGITS, 4000, canvas_size=8)
    assert scenes.shape == (4000, 8, 8)
    rows, columns = (scenes > 0).any(axis=2).argmax(axis=1), (scenes > 0).any(axis=1).argmax(axis=1)
    for n in range(50):
        part = scenes[n, rows[n] : rows[n] + 4, columns[n] : columns[n] + 6]
        np.testing.assert_array_equal(part, DIGITS[index[n]])
    assert ((scenes > 0).sum(axis=(1, 2)) == 24).all()  # Nothing else, nothing cut off.
    assert np.bincount(rows, minlength=5).min() > 700  # 5 rows and 3 columns, all alike.
    assert np.bincount(columns, minlength=3).min() > 1200
    assert len(np.bincount(rows)) == 5


def test_old_scenes_leave_no_trace():
    maker = SceneMaker(DIGITS, canvas_size=12, num_clutter=2, clutter_size=2)
    streams, fresh = start_streams(np.arange(6, dtype=np.uint64)), np.zeros((6, 12, 12), np.uint8)
    maker.make(np.arange(6) % 5, streams, fresh, np.arange(6), 0)
    used = np.full((6, 12, 12), 77, np.uint8)
    maker.make(np.arange(6) % 5, streams, used, np.arange(6), 0)
    np.testing.assert_array_equal(used, fresh)


def test_scenes_go_where_they_are_asked_to():
    maker = SceneMaker(DIGITS, canvas_size=12)
    scenes = np.zeros((6, 12, 12), np.uint8)
    maker.make(np.array([2, 0]), start_streams(np.arange(2, dtype=np.uint64)), scenes, np.array([4, 1]), 0)
    assert scenes.sum(axis=(1, 2)).tolist() == [0, DIGITS[0].sum(), 0, 0, DIGITS[2].sum(), 0]


def test_clutter_is_cut_out_of_other_images():
    # Image i has the grey 10 * (i + 1) everywhere: each piece shows where it comes from.
    images = np.repeat(10 * np.arange(1, 6, dtype=np.uint8), 9).reshape(5, 3, 3)
    scenes, index = scenes_of(images, 3000, canvas_size=30, num_clutter=1, clutter_size=2)
    clutter = scenes.sum(axis=(1, 2), dtype=np.int64) - 9 * 10 * (index + 1)
    assert set(np.unique(clutter)) == {4 * 10 * i for i in range(1, 6)}  # Always four whole pixels of one image.
    sources = clutter // 40 - 1
    assert (sources != index).all()
    for i in range(5):
        others = np.bincount(sources[index == i], minlength=5)
        assert others[i] == 0
        assert np.delete(others, i).min() > 100


def test_clutter_is_added_and_clipped_to_white():
    images = np.full((2, 4, 4), 200, np.uint8)
    scenes, _ = scenes_of(images, 200, canvas_size=4, num_clutter=3, clutter_size=4)  # Always on top of one another.
    assert (scenes == 255).all()
    floats, _ = scenes_of(np.full((2, 4, 4), 0.75, np.float32), 5, canvas_size=4, num_clutter=1, clutter_size=4)
    assert (floats == 1).all()
    faint, _ = scenes_of(np.full((2, 4, 4), 30, np.uint8), 5, canvas_size=4, num_clutter=3, clutter_size=4)
    assert (faint == 120).all()


def test_clutter_lies_anywhere_whole():
    images = np.zeros((2, 3, 3), np.uint8)
    images[:, 0, 0] = 1  # A piece of one pixel is lit if it was cut at the corner: 1 in 9.
    scenes, _ = scenes_of(images, 20_000, canvas_size=7, num_clutter=1, clutter_size=1)
    lit = (scenes.sum(axis=(1, 2)) == 2).mean()  # Else on top of the image's own, or dark.
    assert lit == pytest.approx(48 / 49 / 9, abs=0.01)


def test_channels_stay_together():
    images = np.random.default_rng(1).integers(1, 100, (3, 3, 4, 4), dtype=np.uint8)
    scenes, index = scenes_of(images, 30, margin=2, canvas_size=9, num_clutter=2, clutter_size=2)
    assert scenes.shape == (30, 3, 11, 11)
    maker_sum = scenes.sum(axis=(2, 3), dtype=np.int64) - images[index].sum(axis=(2, 3), dtype=np.int64)
    assert (maker_sum > 0).all()  # Clutter in each channel.
    outside = scenes.copy()
    outside[:, :, 2:, 2:] = 0
    assert outside.sum() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"canvas_size": 5}, "canvas_size must be a whole number of at least 6, got 5"),
        ({"canvas_size": 7.0}, "canvas_size must be"),
        ({"num_clutter": -1}, "num_clutter must be"),
        ({"num_clutter": True}, "num_clutter must be"),
        ({"clutter_size": 0}, "clutter_size must be"),
        ({"num_clutter": 1, "clutter_size": 5}, "clutter_size must be at most 4"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        SceneMaker(DIGITS, **options)


def test_clutter_needs_other_images():
    with pytest.raises(ValueError, match="num_clutter=1 needs other images"):
        SceneMaker(DIGITS[:1], num_clutter=1, clutter_size=2)


def test_bent_images_stand_where_the_unbent_would_among_the_same_clutter():
    images = np.repeat(10 * np.arange(1, 6, dtype=np.uint8), 100).reshape(
        5, 10, 10
    )  # Each of one grey, so that bending shows at edges.
    options = {"canvas_size": 40, "num_clutter": 3, "clutter_size": 3}
    plain, index = scenes_of(images, 50, margin=2, **options)
    bent, _ = scenes_of(images, 50, margin=2, reach=2.0, **options)
    assert (bent != plain).any(axis=(1, 2)).all()
    greys = 10 * (index + 1)
    rows = (bent != plain).any(axis=2)
    for n in range(50):
        changed = np.flatnonzero(rows[n])
        assert changed.max() - changed.min() < 10  # Within the image's own place.
        differences = np.abs(bent[n].astype(int) - plain[n])
        assert differences.max() <= greys[n]
