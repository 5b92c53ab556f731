import numpy as np
import pytest

pytest.importorskip("scipy")

from ram_envs.benchmarks.scores import (
    AGGREGATES,
    Estimate,
    environment_sets,
    estimate,
    estimate_all,
    normalize,
    ranking,
    scores_of,
    summarize,
)

# Three seeds in five environments, and what rliable 1.2.0 says of them (beside pandas 2; 5000 resamples).
SCORES = np.array(
    [
        [0.6369616873214543, 0.2697867137638703, 0.04097352393619469, 0.016527635528529094, 0.8132702392002724],
        [0.9127555772777217, 0.6066357757671799, 0.7294965609839984, 0.5436249914654229, 0.9350724237877682],
        [0.8158535541215322, 0.002738500170148095, 0.8574042765875693, 0.033585575305464355, 0.7296554464299441],
    ]
)
RLIABLE = {
    "median": (0.54262479, 0.2704812, 0.81476837),
    "interquartile mean": (0.57625094, 0.38679312, 0.71599071),
    "mean": (0.52962283, 0.40765582, 0.64360931),
    "optimality gap": (0.47037717, 0.35639069, 0.59234418),
}


def test_aggregates_by_hand():
    samples = [np.array([0.0, 0.2]), np.array([0.4, 1.0]), np.array([0.6, 1.4])]
    # Of six runs one falls away at either end: 0.2, 0.4, 0.6, 1.0.
    assert AGGREGATES["interquartile mean"](*samples) == pytest.approx(0.55)
    assert AGGREGATES["median"](*samples) == pytest.approx(0.7)
    assert AGGREGATES["mean"](*samples) == pytest.approx((0.1 + 0.7 + 1.0) / 3)
    assert AGGREGATES["optimality gap"](*samples) == pytest.approx(1 - (0.1 + 0.7 + 0.8) / 3)


@pytest.mark.parametrize("name", list(AGGREGATES))
def test_estimates_are_those_of_rliable(name):
    value, low, high = RLIABLE[name]
    ours = estimate(list(SCORES.T), AGGREGATES[name], np.random.default_rng(0))
    assert ours.value == pytest.approx(value, abs=1e-8)
    assert ours.interval == pytest.approx((low, high), abs=0.02)


def test_one_seed_has_no_interval_and_equal_seeds_have_a_narrow_one():
    mean = AGGREGATES["mean"]
    assert estimate([np.array([0.5]), np.array([0.1, 0.2])], mean, np.random.default_rng(0)).interval is None
    assert estimate([np.full(3, 0.5), np.full(3, 0.25)], mean, np.random.default_rng(0)).interval == (0.375, 0.375)


def test_estimates_in_words():
    assert str(Estimate(0.5, (0.25, 0.75))) == "0.500 [0.250, 0.750]"
    assert str(Estimate(0.5, None)) == "0.500"


def test_summaries():
    assert summarize([0.9, 0.7]).mean == pytest.approx(0.8)
    assert summarize([0.9, 0.7]).deviation == pytest.approx(0.02**0.5)
    assert (summarize([0.9]).deviation, summarize([0.9]).seeds) == (None, 1)


def test_chance_is_nought_and_no_failure_one():
    assert normalize(0.1, "GlimpseMNIST-v0") == 0
    assert normalize(1.0, "GlimpseCatch-v0") == 1
    assert normalize(0.55, "GlimpseMNIST-v0") == pytest.approx(0.5)
    assert normalize(0.3, "Unheard-v0") == 0.3


def test_only_those_with_all_environments_are_compared():
    scores = {"everywhere": {"a": [0.4], "b": [0.6]}, "best": {"a": [0.9], "b": [0.9]}, "once": {"a": [1.0]}}
    assert environment_sets(scores) == [["a", "b"]]
    estimates = estimate_all(scores, ["a", "b"])
    assert list(estimates) == ["best", "everywhere"]
    assert estimates["everywhere"]["mean"].value == 0.5
    assert ranking(scores) == ["best", "everywhere", "once"]
    wider = {**scores, "all": {"a": [0.1], "b": [0.1], "c": [0.1]}}
    assert environment_sets(wider) == [["a", "b", "c"], ["a", "b"]]


def test_scores_are_gathered_by_algorithm_and_environment():
    results = [{"algo": "ram", "env": "a", "success_rate": rate} for rate in (0.5, 0.6)]
    assert scores_of(results) == {"ram": {"a": [0.5, 0.6]}}
