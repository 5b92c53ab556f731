"""Random draws for N environments at once, each from a stream of its own.

A NumPy generator for every environment would cost a Python call for every environment at every episode. These streams are
SplitMix64 (Steele, Lea and Flood 2014): one number of state each, advanced for all together as one array (N,) of uint64. Their
keys come from NumPy generators.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def draw_keys(rng: np.random.Generator, size: int) -> NDArray[np.uint64]:
    """Keys for new streams: (size,)."""
    return rng.integers(0, 2**64, size, dtype=np.uint64)


def start_streams(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The first states (n,) of the streams with these keys (n,); near keys give unlike streams."""
    return _mix_all(keys + _GOLDEN)


def draw_uniform(streams: NDArray[np.uint64], size: int) -> tuple[NDArray[np.floating], NDArray[np.uint64]]:
    """Draws from [0, 1), (n, size), and the streams' next states (n,)."""
    draws = np.empty((len(streams), size))
    return draws, _fill(streams, draws)


@njit(cache=True)
def _fill(streams, draws):
    """Fill the draws (n, size); return the next states (n,)."""
    after = streams.copy()
    for n in range(len(streams)):
        for i in range(draws.shape[1]):
            after[n] += _GOLDEN
            draws[n, i] = (_mix(after[n]) >> np.uint64(11)) * 2.0**-53
    return after


@njit(cache=True)
def _mix_all(bits):
    mixed = np.empty_like(bits)
    for n in range(len(bits)):
        mixed[n] = _mix(bits[n])
    return mixed


@njit(cache=True)
def _mix(bits):
    bits = (bits ^ (bits >> np.uint64(30))) * _MIX_1
    bits = (bits ^ (bits >> np.uint64(27))) * _MIX_2
    return bits ^ (bits >> np.uint64(31))
