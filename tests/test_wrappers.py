import gymnasium as gym
import numpy as np
import pytest
from conftest import make

from ram_envs.wrappers import ActionFormat

OPTIONS = {"stop_action": True, "zoom_action": True, "location_grid": 3}


def test_it_equals_the_option(action_format):
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


def test_location_and_class_by_hand():
    env = ActionFormat(make(location_grid=4), "multidiscrete")
    action = env.action(np.array([0, 3, 7]))  # Column, row, class.
    assert action["location"].tolist() == [-0.75, 0.75]
    assert action["class"] == 7
    assert env.env.action_space.contains(action)


def test_it_can_be_made_again_from_its_specification():
    env = ActionFormat(make(), "discrete")
    assert gym.make(env.spec).action_space == env.action_space


@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        ("GlimpseMNIST-v0", {"action_format": "box"}, r"env must have Dict actions .*, got GlimpseMNIST-v0 with Box"),
        ("Catch-v0", {}, r"env must have Dict actions .*, got Catch-v0 with Discrete\(3\)"),
    ],
)
def test_other_actions_are_refused(env_id, options, message):
    with pytest.raises(ValueError, match=message):
        ActionFormat(make(env_id, **options), "box")


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match=r"action_format must be one of .*'cube'"):
        ActionFormat(make(), "cube")
