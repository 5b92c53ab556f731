import pytest

pytest.importorskip("torch")
pytest.importorskip("optuna")

import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from ram_envs.agents.training.settings import HYPERPARAMS
from ram_envs.benchmarks.search_study import distributions, read_space, read_values, with_schedules

SPACES = HYPERPARAMS / "search.yml"


def test_entries_of_a_space():
    rate = {"low": 1, "high": 2.5, "log": True, "schedule": "lin"}
    assert distributions({"a": rate, "b": {"choices": [1, "x"]}, "c": {"low": 1, "high": 2}, "d": {"low": 1, "high": 2.0}}) == {
        "a": FloatDistribution(1.0, 2.5, log=True),
        "b": CategoricalDistribution([1, "x"]),
        "c": IntDistribution(1, 2),
        "d": FloatDistribution(1.0, 2.0),
    }


def test_values_as_they_stand_in_the_space_and_as_hyperparameters():
    space = {"net_arch": {"choices": [[64], [64, 64]]}, "learning_rate": {"low": 0.0, "high": 1.0, "schedule": "lin"}}
    stored = distributions(space)["net_arch"].choices
    values = read_values({"net_arch": stored[1], "learning_rate": 0.25})
    assert values == {"net_arch": [64, 64], "learning_rate": 0.25}
    assert with_schedules(space, values) == {"net_arch": [64, 64], "learning_rate": "lin_0.25"}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (0.9, r"gamma: must be {low, high}, .* or {choices}, .* got 0.9"),
        ({"low": 1, "high": 2, "choices": [1]}, "gamma: must be {low, high}, .* or {choices}"),
        ({"low": 1}, "gamma: must be {low, high}, .* got {'low': 1}"),
        ({"low": 0, "high": 1, "lgo": True}, "gamma: must be {low, high}, .* log: true or false beside them, .* 'lgo'"),
        ({"choices": [1], "log": True}, "gamma: must be .* {choices}, .* beside either schedule, .* got"),
        (
            {"low": "1e-4", "high": 1},
            "gamma: must be {low, high}, two numbers .YAML wants the point in 1.0e-4.* got {'low': '1e-4'",
        ),
        ({"low": True, "high": 2}, "gamma: must be {low, high}, two numbers .* got {'low': True"),
        ({"low": 2, "high": 1}, r"gamma: .*low.*high.* \(low=2, high=1\)"),
        ({"low": 0.0, "high": 1, "log": True}, r"gamma: .*low.*0.*log.* \(low=0.0, high=1\)"),
        ({"low": 0, "high": 1, "log": 3}, r"gamma: must be .* log: true or false .* 'log': 3"),
        ({"choices": []}, "gamma: must be .* {choices}, a list with something in it"),
        ({"low": 0, "high": 1, "schedule": "exp"}, r"gamma: must be .* schedule, one of \('lin',\), .* got .*'exp'"),
        ({"choices": ["x"], "schedule": "lin"}, "gamma: must be .* schedule, .* for numbers alone, got {'choices': \\['x'\\]"),
    ],
)
def test_bad_entries_are_named(entry, message):
    with pytest.raises(ValueError, match=message):
        distributions({"gamma": entry})


def test_a_space_is_read_for_the_algorithm_or_the_environment(tmp_path):
    file = tmp_path / "space.yml"
    file.write_text("ram: {a: {choices: [1]}, b: {choices: [1]}}\nram/X-v0: {c: {choices: [1]}}\nppo: {a: 3}\n", encoding="utf-8")
    assert list(read_space(file, "ram", "Y-v0")) == ["a", "b"]
    assert list(read_space(file, "ram", "X-v0")) == ["c"]
    assert list(read_space(file, "ram", "Y-v0", fixed={"a"})) == ["b"]
    with pytest.raises(ValueError, match="nothing is left to search"):
        read_space(file, "ram", "X-v0", fixed={"c"})
    with pytest.raises(ValueError, match=r"space.yml, ppo: a: must be"):
        read_space(file, "ppo", "X-v0")
    with pytest.raises(ValueError, match=r"no space for 'sac', only for \['ppo', 'ram', 'ram/X-v0'\]: write one .* --space"):
        read_space(file, "sac", "X-v0")
    file.write_text("- ram", encoding="utf-8")
    with pytest.raises(ValueError, match="must map each algorithm to a space"):
        read_space(file, "ram", "X-v0")


def test_the_spaces_that_come_with_it_are_good():
    names = {name.partition("/")[0] for name in yaml.safe_load(SPACES.read_text("utf-8"))}
    assert {"ram", "ppo", "a2c", "recurrent_ppo", "sac", "td3", "dqn", "episode_ppo", "fc64", "conv"} <= names
    for name in names:
        assert "learning_rate" in read_space(SPACES, name, "GlimpseMNIST-v0")
    assert {"learning_rate", "policy_kwargs.location_std"} <= read_space(SPACES, "ram", "GlimpseMNIST-v0").keys()


def test_the_space_in_the_docs_is_good(tmp_path):
    page = (HYPERPARAMS.parent / "docs" / "search.md").read_text("utf-8")
    (tmp_path / "space.yml").write_text(page.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    assert read_space(tmp_path / "space.yml", "ram", "GlimpseMNIST-v0")["n_epochs"] == {"low": 1, "high": 8}
    assert list(read_space(tmp_path / "space.yml", "ram", "GlimpseCatch-v0")) == ["gamma"]


def test_the_space_around_the_papers_model():
    space = read_space(HYPERPARAMS / "search_paper.yml", "ram", "GlimpseClutteredMNIST-v0")
    assert list(space) == ["learning_rate", "policy_kwargs.location_std", "policy_kwargs.location_scale"]


def test_the_leaderboards_space():
    """Few entries, and only those that the algorithm's own space knows."""
    algos = ("ppo", "recurrent_ppo", "episode_ppo", "a2c", "episode_a2c", "dqn")
    for algo in algos:
        space = read_space(HYPERPARAMS / "search_leaderboard.yml", algo, "GlimpseMNIST-v0")
        assert len(space) == 4 and space.keys() <= read_space(SPACES, algo, "GlimpseMNIST-v0").keys()
