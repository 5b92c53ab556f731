import pytest

pytest.importorskip("torch")
optuna = pytest.importorskip("optuna")

import yaml

from benchmarks.search import SPACES
from benchmarks.search_space import Choices, Range, parse_space, read_space


def test_entries_of_a_space():
    assert parse_space({"a": {"low": 1, "high": 2.5, "log": True, "schedule": "lin"}, "b": {"choices": [1, "x", [64, 64]]}}) == {
        "a": Range(low=1, high=2.5, log=True, schedule="lin"),
        "b": Choices(choices=(1, "x", [64, 64])),
    }
    assert parse_space({"a": {"low": 1, "high": 2}})["a"].is_whole
    assert not parse_space({"a": {"low": 1, "high": 2.0}})["a"].is_whole


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (0.9, r"gamma must have either low and high, or choices, got 0.9"),
        ({"low": 1, "high": 2, "choices": [1]}, "gamma must have either low and high, or choices"),
        ({"low": 1}, "gamma: high must be a number, got None"),
        ({"low": "1e-4", "high": 1}, "gamma: low must be a number, got '1e-4': YAML wants a point before the e"),
        ({"low": True, "high": 2}, "gamma: low must be a number, got True"),
        ({"low": 2, "high": 1}, "gamma: low must be below high, got low 2 and high 1"),
        ({"low": 0, "high": 1, "log": True}, "gamma: with log, low must be above 0, got 0"),
        ({"low": 0, "high": 1, "log": 3}, "gamma: log must be true or false, got 3"),
        ({"low": 0, "high": 1, "lgo": True}, r"gamma: unknown key 'lgo', allowed .* \['high', 'log', 'low', 'schedule'\]"),
        ({"choices": [1], "log": True}, r"gamma: unknown key 'log', allowed .* \['choices', 'schedule'\]"),
        ({"choices": []}, "gamma: choices must be a list with something in it"),
        ({"low": 0, "high": 1, "schedule": "exp"}, r"gamma: schedule must be one of \('lin',\), got 'exp'"),
        ({"choices": ["x"], "schedule": "lin"}, "gamma: a choice with a schedule must be a number, got 'x'"),
    ],
)
def test_bad_entries_are_named(entry, message):
    with pytest.raises(ValueError, match=message):
        parse_space({"gamma": entry})


def test_a_space_is_read_for_the_algorithm_or_the_environment(tmp_path):
    file = tmp_path / "space.yml"
    file.write_text("ram: {a: {choices: [1]}, b: {choices: [1]}}\nram/X-v0: {c: {choices: [1]}}\nppo: {a: 3}\n")
    assert list(read_space(file, "ram", "Y-v0")) == ["a", "b"]
    assert list(read_space(file, "ram", "X-v0")) == ["c"]
    assert list(read_space(file, "ram", "Y-v0", fixed={"a"})) == ["b"]
    with pytest.raises(ValueError, match="nothing is left to search"):
        read_space(file, "ram", "X-v0", fixed={"c"})
    with pytest.raises(ValueError, match=r"space.yml, ppo: a must have either"):
        read_space(file, "ppo", "X-v0")
    with pytest.raises(ValueError, match=r"no space for 'sac', only for \['ppo', 'ram', 'ram/X-v0'\]: write one .* --space"):
        read_space(file, "sac", "X-v0")


def test_the_spaces_that_come_with_it_are_good():
    names = {name.partition("/")[0] for name in yaml.safe_load(SPACES.read_text())}
    assert {"ram", "ppo", "a2c", "recurrent_ppo", "sac", "td3", "dqn", "episode_ppo", "fc64", "conv"} <= names
    for name in names:
        assert "learning_rate" in read_space(SPACES, name, "GlimpseMNIST-v0")
    assert {"learning_rate", "policy_kwargs.location_std"} <= read_space(SPACES, "ram", "GlimpseMNIST-v0").keys()


def test_the_space_in_the_docs_is_good(tmp_path):
    page = (SPACES.parents[1] / "docs" / "search.md").read_text()
    (tmp_path / "space.yml").write_text(page.split("```yaml\n")[1].split("```")[0])
    assert read_space(tmp_path / "space.yml", "ram", "GlimpseMNIST-v0")["n_epochs"] == Range(low=1, high=8)
    assert list(read_space(tmp_path / "space.yml", "ram", "GlimpseCatch-v0")) == ["gamma"]


def test_the_space_around_the_papers_model():
    space = read_space(SPACES.parent / "search_paper.yml", "ram", "GlimpseClutteredMNIST-v0")
    assert list(space) == ["learning_rate", "policy_kwargs.location_std", "policy_kwargs.location_gain"]
