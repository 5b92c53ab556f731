import numpy as np
import pytest

from ram_envs.actions import ActionCodec


def test_dict_single_and_batch():
    codec = ActionCodec("class", 10)
    locations, choices = codec.decode({"location": [0.5, -2.0], "class": 3})
    assert locations.tolist() == [[0.5, -1.0]]  # Clipped.
    assert choices.tolist() == [3]
    batch = {"location": np.zeros((2, 2)), "class": np.array([9, 0])}
    locations, choices = codec.decode(batch, num_envs=2)
    assert locations.shape == (2, 2)
    assert locations.dtype == np.float32
    assert choices.tolist() == [9, 0]


def test_box_takes_the_highest_score():
    codec = ActionCodec("class", 3, "box")
    locations, choices = codec.decode([0.1, 0.2, -1, 0.3, 0.2])
    np.testing.assert_allclose(locations, [[0.1, 0.2]], rtol=1e-6)
    assert choices.tolist() == [1]


def test_encode_is_the_inverse(action_format):
    codec = ActionCodec("move", 4, action_format)
    rng = np.random.default_rng(0)
    locations = rng.uniform(-1, 1, (20, 2)).astype(np.float32)
    choices = rng.integers(0, 4, 20)
    decoded = codec.decode(codec.encode(locations, choices), num_envs=20)
    np.testing.assert_array_equal(decoded[0], locations)
    np.testing.assert_array_equal(decoded[1], choices)


def test_samples_of_the_space_decode(action_format):
    codec = ActionCodec("class", 10, action_format)
    codec.space.seed(0)
    for _ in range(20):
        locations, choices = codec.decode(codec.space.sample())
        assert np.abs(locations).max() <= 1
        assert 0 <= choices[0] < 10


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
        ({"location": [0, 0]}, r'a dict with the keys "location" and "class"'),
        ({"location": [0, 0], "class": 1, "stop": 0}, r'a dict with the keys "location" and "class"'),
        (np.zeros(12), r'a dict with the keys "location" and "class"'),
    ],
)
def test_bad_dict_actions_are_named(action, message):
    with pytest.raises(ValueError, match=message):
        ActionCodec("class", 10).decode(action)


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
        ActionCodec("class", 10, "box").decode(action)


def test_unknown_format():
    with pytest.raises(ValueError, match="action_format must be one of"):
        ActionCodec("class", 10, "tuple")
