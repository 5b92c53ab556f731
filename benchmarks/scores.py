"""Scores of several algorithms in several environments, normalised and aggregated, with confidence intervals.

After Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice". Their package rliable 1.2.0
can't be imported beside pandas 3 (through arch 7.2), and draws from NumPy's global generator; SciPy has the trimmed mean and the
bootstrap over several samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ram_envs.benchmarks.results import Row

# The success rate of random choices: one class of ten, and what a random player caught in 400,000 games.
CHANCE = {
    f"Glimpse{name}-v0": 0.1 for name in ("MNIST", "TranslatedMNIST", "ClutteredMNIST", "ClutteredMNIST100", "FashionMNIST")
}
CHANCE |= {"GlimpseCatch-v0": 0.082, "Catch-v0": 0.082}
RESAMPLES = 5000
Samples = Sequence[NDArray[np.float64]]  # For each environment the normalised scores of its seeds, (..., seeds).


@dataclass(frozen=True)
class Summary:
    """A mean over seeds, and the standard deviation of the sample; None for one seed."""

    mean: float
    deviation: float | None
    seeds: int


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % confidence interval; None where an environment has one seed."""

    value: float
    interval: tuple[float, float] | None

    def __str__(self) -> str:
        """Such as "0.912 [0.905, 0.920]"."""
        return f"{self.value:.3f}" + ("" if self.interval is None else " [{:.3f}, {:.3f}]".format(*self.interval))


def summarize(values: Sequence[float]) -> Summary:
    """The mean and the deviation of the values of several seeds."""
    return Summary(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None, len(values))


def scores_of(results: Sequence[Row]) -> dict[str, dict[str, list[float]]]:
    """The test success rates of each algorithm's seeds in each environment."""
    scores: dict[str, dict[str, list[float]]] = {}
    for result in results:
        scores.setdefault(result["algo"], {}).setdefault(result["env"], []).append(result["success_rate"])
    return scores


def normalize(score: float, env_id: str) -> float:
    """A success rate, rescaled so that chance is 0 and no failure is 1; where chance is not known it is taken as 0."""
    lowest = CHANCE.get(env_id, 0.0)
    return (score - lowest) / (1 - lowest)


# Of samples (..., seeds), one for each environment.
AGGREGATES: dict[str, Callable[..., Any]] = {
    "interquartile mean": lambda *samples, axis=-1: stats.trim_mean(np.concatenate(samples, axis=axis), 0.25, axis=axis),
    "median": lambda *samples, axis=-1: np.median([sample.mean(axis=axis) for sample in samples], axis=0),
    "mean": lambda *samples, axis=-1: np.mean([sample.mean(axis=axis) for sample in samples], axis=0),
    "optimality gap": lambda *samples, axis=-1: 1 - np.mean([np.minimum(one, 1).mean(axis=axis) for one in samples], axis=0),
}


def estimate(samples: Samples, aggregate: Callable[..., Any], rng: np.random.Generator) -> Estimate:
    """An aggregate with its percentile interval, by a bootstrap over the seeds that is stratified by environment."""
    value = float(aggregate(*samples))
    if any(sample.shape[-1] < 2 for sample in samples):
        return Estimate(value, None)
    resampled = stats.bootstrap(samples, aggregate, n_resamples=RESAMPLES, vectorized=True, method="percentile", rng=rng)
    low, high = resampled.confidence_interval
    return Estimate(value, (float(low), float(high)))


def estimate_all(scores: Mapping[str, Mapping[str, Sequence[float]]], env_ids: Sequence[str]) -> dict[str, dict[str, Estimate]]:
    """Every aggregate over these environments, for the algorithms that were run in all, the best interquartile mean first."""
    estimates = {}
    for algo, own in scores.items():
        if set(env_ids) <= own.keys():
            samples = [np.array([normalize(score, env_id) for score in own[env_id]]) for env_id in env_ids]
            estimates[algo] = {name: estimate(samples, one, np.random.default_rng(0)) for name, one in AGGREGATES.items()}
    return dict(sorted(estimates.items(), key=lambda item: -item[1]["interquartile mean"].value))


def environment_sets(scores: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """The sets of two or more environments in which an algorithm was run, the largest first."""
    sets = {tuple(sorted(own)) for own in scores.values() if len(own) > 1}
    return sorted(map(list, sets), key=lambda env_ids: (-len(env_ids), env_ids))


def ranking(scores: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    """The algorithms by the sum of their normalised scores, the best first."""
    return sorted(scores, key=lambda algo: -sum(normalize(float(np.mean(own)), env_id) for env_id, own in scores[algo].items()))
