import copy
import math
import pickle
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from conftest import make, make_vec
from gymnasium import spaces

from ram_envs.actions import ActionCodec, ActionFormat, BoxActions, DictActions

OPTIONS = {"stop_action": True, "zoom_action": True, "location_grid": 3, "grid_extent": 0.5}


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
        ([0.0] * 12, r'a dict with the keys "location", "class", or an array of the shape \(12,\)'),
        (np.zeros(11), r"action must have the shape \(12,\), got \(11,\)"),
        ({"location": [10**400, 0], "class": 1}, r"action\['location'\] must hold numbers"),
        ({"location": ["0.5", "0.25"], "class": 1}, r"action\['location'\] must hold numbers"),
        ({"location": np.array([0.5j, 0]), "class": 1}, r"action\['location'\] must hold numbers"),
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
        (np.full(12, 1e300), "action must be finite as float32"),
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
    for bad in (0, 2.5, True, 3_000_000_000):
        with pytest.raises(ValueError, match="location_grid must be"):
            ActionCodec({"class": 10}, "discrete", bad)


def test_spaces_say_what_they_hold():
    choices = {"move": 3, "stop": 2}
    space = ActionCodec(choices).space
    assert space == spaces.Dict({"location": spaces.Box(-1, 1, (2,)), "move": spaces.Discrete(3), "stop": spaces.Discrete(2)})
    assert (space.choices, space.as_box().choices) == (choices, choices)
    box = ActionCodec(choices, "box").space
    assert box == space.as_box() == spaces.Box(-1, 1, (7,))
    assert pickle.loads(pickle.dumps(space)).choices == pickle.loads(pickle.dumps(box)).choices == choices
    assert isinstance(space, DictActions) and isinstance(box, BoxActions)


def test_box_actions_as_dicts():
    box = BoxActions({"class": 3, "stop": 2})
    single = box.to_dict(np.float32([0.5, -3, 0, 1, 0.5, -1, 1]))
    assert {name: part.tolist() for name, part in single.items()} == {"location": [0.5, -3], "class": 1, "stop": 1}
    single = box.to_dict(np.float32([0, 0, -1, 1, 0, 1, -1]))
    assert {name: part.tolist() for name, part in single.items()} == {"location": [0, 0], "class": 1, "stop": 0}
    batch = box.to_dict(np.zeros((4, 7), np.float32))
    assert {name: part.shape for name, part in batch.items()} == {"location": (4, 2), "class": (4,), "stop": (4,)}
    with pytest.raises(ValueError, match=r"actions must have the shape \(7,\) or \(N, 7\), got \(4, 6\)"):
        box.to_dict(np.zeros((4, 6)))


@pytest.mark.parametrize("make_one", [make, partial(make_vec, 4)])
def test_the_dict_format_takes_box_actions_too(make_one):
    dicts, boxes = (make_one(zoom_action=True, action_format=form) for form in ("dict", "box"))
    dicts.reset(seed=0), boxes.reset(seed=0)
    for _ in range(3):
        action = 1.5 * boxes.action_space.sample()
        np.testing.assert_equal(dicts.step(action), boxes.step(action))
    with pytest.raises(ValueError, match="action must have the shape"):
        dicts.step(action[..., 1:])


@pytest.mark.parametrize(
    ("action", "num_envs", "message"),
    [
        ([5, 0, 0], None, r"action must lie in 0..\[4, 4, 9\], got \[5, 0, 0\]"),
        ([0, -1, 0], None, "action must lie in"),
        ([[0, 0, 0], [4, 5, 9]], 2, "action must lie in"),
        ([[0, 0, 10], [4, 4, 9]], 2, "action must lie in"),
        ([0, 0, 0], 1, r"action must hold whole numbers of the shape \(1, 3\)"),
        ([[0, 0, 0]], None, r"action must hold whole numbers of the shape \(3,\)"),
    ],
)
def test_each_part_of_a_multidiscrete_action_has_its_own_range(action, num_envs, message):
    codec = ActionCodec({"class": 10}, "multidiscrete")
    with pytest.raises(ValueError, match=message):
        codec.decode(action, num_envs)
    locations, choices = codec.decode([[0, 4, 9], [4, 0, 0]], 2)
    np.testing.assert_allclose(locations, [[-0.8, 0.8], [0.8, -0.8]], rtol=1e-6)
    assert choices["class"].tolist() == [9, 0] and choices["class"].dtype == np.int64


def test_batches_of_dict_and_box_actions_by_hand():
    choices = {"class": 3, "stop": 2}
    scores = [[0.25, -7, 0.5, 0.5, -1, 0, 0.25], [9, 0.5, -1, -2, -0.5, 2, 1]]  # Of equal scores the first counts.
    for codec in (ActionCodec(choices, "box"), ActionCodec(choices)):
        locations, chosen = codec.decode(np.array(scores), 2)
        assert locations.tolist() == [[0.25, -1], [1, 0.5]] and locations.dtype == np.float32
        assert {name: values.tolist() for name, values in chosen.items()} == {"class": [0, 2], "stop": [1, 0]}
        assert all(values.dtype == np.int64 for values in chosen.values())
        for row, column in ((0, 0), (1, 1), (0, 4), (1, 6)):
            bad = np.array(scores)
            bad[row, column] = np.nan if column else -np.inf
            with pytest.raises(ValueError, match=r"action must be finite as float32, got array\(\[\["):
                codec.decode(bad, 2)
        with pytest.raises(ValueError, match=r"action must have the shape \(2, 7\), got \(7,\)"):
            codec.decode(np.zeros(7), 2)
    given = {"location": [[0, 2], [0.5, -1e9]], "class": np.array([0, 2], np.uint8), "stop": [1, 0]}
    locations, chosen = codec.decode(given, 2)
    assert locations.tolist() == [[0, 1], [0.5, -1]] and chosen["class"].dtype == np.int64
    assert given["location"] == [[0, 2], [0.5, -1e9]]  # Theirs.
    for bad in ([[0, 0], [0, np.nan]], [[0, 0], [np.inf, 0]], [[0, 1e300], [0, 0]]):
        with pytest.raises(ValueError, match=r"action\['location'\] must be finite as float32, got \[\["):
            codec.decode({**given, "location": bad}, 2)
    with pytest.raises(ValueError, match=r"of the shape \(2, 7\), got"):
        codec.decode(scores, 2)  # A list is no array.


def test_box_actions_have_scores_of_one_and_minus_one():
    codec = ActionCodec({"class": 3, "stop": 2}, "box")
    actions = codec.encode([[0.5, -1], [0, 0.25]], **{"class": [1, 0], "stop": [0, 1]})
    assert actions.tolist() == [[0.5, -1, -1, 1, -1, 1, -1], [0, 0.25, 1, -1, -1, -1, 1]] and actions.dtype == np.float32
    assert all(action in codec.space for action in actions)


def test_what_is_given_stays_as_it_is():
    given = np.array([[3, -3]], np.float32)
    locations, _ = ActionCodec({"class": 2}).decode({"location": given, "class": np.array([1])}, 1)
    assert (locations.tolist(), given.tolist()) == ([[1, -1]], [[3, -3]])


def test_the_edges_of_the_grid():
    codec = ActionCodec({"move": 3}, "multidiscrete", np.int64(4))
    edges = np.array([[-1, 1], [1.5, -1.5], [-0.5, 0.5], [0, -0.01]])
    assert codec.encode(edges, move=np.array([0, 1, 2, 0])).tolist() == [[0, 3, 0], [3, 0, 1], [1, 3, 2], [2, 1, 0]]
    assert ActionCodec({"move": 3}, "multidiscrete").space.nvec.tolist() == [5, 5, 3]
    single = ActionCodec({"move": 3}, "discrete", 1)
    assert single.space.n == 3 and single.decode(2)[0].tolist() == [[0, 0]]
    most = math.isqrt(2**62 // 3)  # An action's number is an int64.
    assert ActionCodec({"move": 3}, "discrete", most).space.n == 3 * most**2
    with pytest.raises(ValueError, match=f"location_grid must be a whole number from 1 to {most}, got {most + 1}"):
        ActionCodec({"move": 3}, "discrete", most + 1)


def test_a_grid_in_the_middle_of_the_scene():
    codec = ActionCodec({"move": 3}, "multidiscrete", 3, grid_extent=0.75)
    locations, _ = codec.decode(np.array([[0, 1, 0], [2, 0, 0]]), num_envs=2)
    assert locations.tolist() == [[-0.5, 0.0], [0.5, -0.5]]
    near = np.array([[-0.26, 0.24], [-1, 1], [0.3, -0.2]])  # The cells are half wide: from -0.75, -0.25, 0.25.
    assert codec.encode(near, move=np.zeros(3)).tolist() == [[0, 1, 0], [0, 2, 0], [2, 1, 0]]
    one = ActionCodec({"move": 3}, "discrete", 3, np.float32(0.75))
    assert one.decode(3 * 3 * 2 + 3 * 0 + 1)[0].tolist() == [[0.5, -0.5]]
    for bad in (0, 1.01, -0.5, math.nan, True, "0.5", None, [0.5], 1e-9):
        with pytest.raises(ValueError, match=r"grid_extent must be a number from 0\.001 to 1, got"):
            ActionCodec({"move": 3}, "multidiscrete", 3, bad)


@pytest.mark.parametrize("action_format", ["multidiscrete", "discrete"])
def test_grids_of_one_size_that_stand_for_other_locations_differ(action_format):
    whole, half, again = (make(action_format=action_format, grid_extent=extent).action_space for extent in (1, 0.5, 0.5))
    assert half == again == copy.deepcopy(half) == pickle.loads(pickle.dumps(half))
    assert half != whole and whole != half
    assert half != make(action_format=action_format, grid_extent=0.25).action_space
    assert repr(half) == f"{repr(whole)[:-1]}, grid_extent=0.5)"
    assert half.contains(half.sample())
    ours = make_vec(2, action_format=action_format, grid_extent=0.5)
    assert ours.single_action_space == half and ours.action_space.contains(ours.action_space.sample())


def test_unknown_format():
    with pytest.raises(ValueError, match="action_format must be one of"):
        ActionCodec({"class": 10}, "tuple")


def test_boxes_of_one_length_that_stand_for_other_choices_differ():
    box = BoxActions({"class": 10, "stop": 2})
    assert box == BoxActions({"class": 10, "stop": 2}) == spaces.Box(-1, 1, (14,))
    assert spaces.Box(-1, 1, (14,)) == box
    for other in (BoxActions({"class": 10, "zoom": 2}), BoxActions({"stop": 2, "class": 10}), spaces.Box(-1, 1, (13,)), 3):
        assert box != other and other != box
    assert "(14,), float32, choices={'class': 10, 'stop': 2})" in repr(box)
    assert repr(copy.deepcopy(box)) == repr(box)


def test_the_wrapper_equals_the_option(action_format):
    plain = make(action_format=action_format, **OPTIONS)
    wrapped = ActionFormat(make(**OPTIONS), action_format)
    assert wrapped.action_space == plain.action_space
    plain.action_space.seed(1)
    np.testing.assert_equal(wrapped.reset(seed=0), plain.reset(seed=0))
    done = False
    while not done:
        action = plain.action_space.sample()
        step = plain.step(action)
        np.testing.assert_equal(wrapped.step(action), step)
        done = step[2]


def test_the_wrappers_location_and_class_by_hand():
    env = ActionFormat(make(location_grid=4), "multidiscrete")
    action = env.action(np.array([0, 3, 7]))  # Column, row, class.
    assert action["location"].tolist() == [-0.75, 0.75]
    assert action["class"] == 7
    assert env.env.action_space.contains(action)


def test_the_wrappers_own_grid():
    env = ActionFormat(make(location_grid=4), "multidiscrete", location_grid=3, grid_extent=0.75)
    assert env.action(np.array([0, 2, 7]))["location"].tolist() == [-0.5, 0.5]
    assert env.action_space == make(action_format="multidiscrete", location_grid=3, grid_extent=0.75).action_space
    assert gym.make(env.spec).action_space == env.action_space


def test_the_wrapper_can_be_made_again_from_its_specification():
    env = ActionFormat(make(), "discrete")
    assert gym.make(env.spec).action_space == env.action_space


@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        ("GlimpseMNIST-v0", {"action_format": "box"}, r"env must have Dict actions .*, got GlimpseMNIST-v0 with Box"),
        ("Catch-v0", {}, r"env must have Dict actions .*, got Catch-v0 with Discrete\(3\)"),
    ],
)
def test_the_wrapper_refuses_other_actions(env_id, options, message):
    with pytest.raises(ValueError, match=message):
        ActionFormat(make(env_id, **options), "box")
    nameless = make(env_id, **options).unwrapped
    nameless.spec = None
    with pytest.raises(ValueError, match=f"got {type(nameless).__name__} with"):
        ActionFormat(nameless, "box")


def test_the_wrapper_refuses_an_unknown_format():
    with pytest.raises(ValueError, match=r"action_format must be one of .*'cube'"):
        ActionFormat(make(), "cube")
