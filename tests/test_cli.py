import pytest

from ram_envs.cli import parse_pairs


def test_pairs():
    assert parse_pairs(["a:1e-3", "b:x", "c:(0,1)", "d:center", "e:True", "f:{'g': 1}"]) == {
        "a": 1e-3,
        "b": "x",
        "c": (0, 1),
        "d": "center",
        "e": True,
        "f": {"g": 1},
    }


@pytest.mark.parametrize("bad", ["nothing", ":3", ""])
def test_what_is_no_pair_is_named(bad):
    with pytest.raises(ValueError, match=f"'{bad}' must have the form NAME:VALUE"):
        parse_pairs(["a:1", bad])
