import numpy as np
import pytest

from ram_envs.actions import ActionCodec


def test_dict_single_and_batch():
    codec = ActionCodec({"class": 10})
    locations, choices = codec.decode({"location": [0.5, -2.0], "class": 3})
    assert locations.tolist() == [[0.5, -1.0]]  # Clipped.
    assert choices["class"].tolist() == [3]
    batch = {"location": np.zeros((2, 2)), "class": np.array([9, 0])}
    locations, choices = codec.decode(batch, num_envs=2)
    assert locations.shape == (2, 2)
    assert locations.dtype == np.float32
    assert choices["class"].tolist() == [9, 0]


def test_box_takes_the_highest_score():
    codec = ActionCodec({"class": 3}, "box")
    locations, choices = codec.decode([0.1, 0.2, -1, 0.3, 0.2])
    np.testing.assert_allclose(locations, [[0.1, 0.2]], rtol=1e-6)
    assert choices["class"].tolist() == [1]


def test_further_choices():
    codec = ActionCodec({"class": 3, "stop": 2, "zoom": 2}, "box")
    assert codec.space.shape == (9,)
    _, choices = codec.decode([0, 0, 0.1, 0.9, 0.2, -1, 1, 0.3, 0.2])
    assert {name: int(values[0]) for name, values in choices.items()} == {"class": 1, "stop": 1, "zoom": 0}


def test_grid_of_locations_by_hand():
    codec = ActionCodec({"move": 3}, "multidiscrete", location_grid=4)
    assert codec.space.nvec.tolist() == [4, 4, 3]
    locations, choices = codec.decode([[0, 3, 2], [2, 1, 0]], num_envs=2)  # Column, row, move.
    assert locations.tolist() == [[-0.75, 0.75], [0.25, -0.25]]
    assert choices["move"].tolist() == [2, 0]
    product = ActionCodec({"move": 3}, "discrete", location_grid=4)
    assert product.space.n == 48
    locations, choices = product.decode((0 * 4 + 3) * 3 + 2)
    assert locations.tolist() == [[-0.75, 0.75]]
    assert choices["move"].tolist() == [2]
    # The nearest location of the grid stands for any other.
    assert product.encode(np.array([[-1.0, 0.6]]), move=np.array([2])).tolist() == [11]


@pytest.mark.parametrize("parts", [{"move": 4}, {"class": 5, "stop": 2, "zoom": 3}])
def test_encode_is_the_inverse(action_format, parts):
    codec = ActionCodec(parts, action_format, location_grid=7)
    rng = np.random.default_rng(0)
    locations = rng.uniform(-1, 1, (20, 2)).astype(np.float32)
    if "discrete" in action_format:
        locations = ((2 * rng.integers(0, 7, (20, 2)) + 1) / 7 - 1).astype(np.float32)
    choices = {name: rng.integers(0, size, 20) for name, size in parts.items()}
    decoded = codec.decode(codec.encode(locations, **choices), num_envs=20)
    np.testing.assert_array_equal(decoded[0], locations)
    assert decoded[1].keys() == parts.keys()
    for name, values in choices.items():
        np.testing.assert_array_equal(decoded[1][name], values)


def test_samples_of_the_space_decode(action_format):
    codec = ActionCodec({"class": 10}, action_format)
    codec.space.seed(0)
    for _ in range(20):
        locations, choices = codec.decode(codec.space.sample())
        assert np.abs(locations).max() <= 1
        assert 0 <= choices["class"][0] < 10


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ({"location": [0, np.nan], "class": 1}, r"action\['location'\] must be finite"),
        ({"location": [0, np.inf], "class": 1}, r"action\['location'\] must be finite"),
        ({"location": [0, 0, 0], "class": 1}, r"action\['location'\] must have the shape \(2,\)"),
        ({"location": "left", "class": 1}, r"action\['location'\] must hold numbers"),
        ({"location": [0, 0], "class": 10}, r"action\['class'\] must lie in 0..9, got 10"),
        ({"location": [0, 0], "class": -1}, r"must lie in 0..9"),
        ({"location": [0, 0], "class": 1.5}, r"action\['class'\] must hold whole numbers"),
        ({"location": [0, 0], "class": [1, 2]}, r"action\['class'\] must hold whole numbers"),
        ({"location": [0, 0]}, r'a dict with the keys "location", "class"'),
        ({"location": [0, 0], "class": 1, "stop": 0}, r'a dict with the keys "location", "class"'),
        (np.zeros(12), r'a dict with the keys "location", "class"'),
    ],
)
def test_bad_dict_actions_are_named(action, message):
    with pytest.raises(ValueError, match=message):
        ActionCodec({"class": 10}).decode(action)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros(11), r"action must have the shape \(12,\), got \(11,\)"),
        (np.full(12, np.nan), "action must be finite"),
        ({"location": [0, 0], "class": 1}, "action must hold numbers"),
    ],
)
def test_bad_box_actions_are_named(action, message):
    with pytest.raises(ValueError, match=message):
        ActionCodec({"class": 10}, "box").decode(action)


@pytest.mark.parametrize("bad", [-1, 250, 3.0, [1, 2], None, "3"])
def test_bad_discrete_actions_are_named(bad):
    with pytest.raises(ValueError, match="action must"):
        ActionCodec({"class": 10}, "discrete").decode(bad)
    with pytest.raises(ValueError, match="action must"):
        ActionCodec({"class": 10}, "multidiscrete").decode([0, 0, bad])


def test_bad_grid():
    for bad in (0, 2.5, True):
        with pytest.raises(ValueError, match="location_grid must be"):
            ActionCodec({"class": 10}, "discrete", bad)


def test_unknown_format():
    with pytest.raises(ValueError, match="action_format must be one of"):
        ActionCodec({"class": 10}, "tuple")
