"""Random draws for N environments at once, each from a stream of its own.

A NumPy generator for every environment would cost a Python call for every environment at every episode. These streams are
SplitMix64 (Steele, Lea and Flood 2014), advanced for all environments together; their keys come from NumPy generators.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


class Streams:
    """Random streams, one for each key.

    Attributes:
        state: (n,) uint64; all that the next draws depend on.
    """

    def __init__(self, keys: NDArray[np.uint64]) -> None:
        self.state = _mix(np.array(keys, np.uint64))

    def uniform(self, size: int, where: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """Draw from [0, 1): (n, size), or (m, size) for the m streams of the mask `where`; the others do not move."""
        state = self.state if where is None else self.state[where]
        steps = np.arange(1, size + 1, dtype=np.uint64) * _GOLDEN
        bits = _mix(state[:, None] + steps)
        if where is None:
            self.state = state + steps[-1]
        else:
            self.state[where] = state + steps[-1]
        return (bits >> np.uint64(11)) * 2.0**-53


def draw_keys(rng: np.random.Generator, size: int) -> NDArray[np.uint64]:
    """Keys for new streams: (size,) uint64."""
    return rng.integers(0, 2**64, size, dtype=np.uint64)


def _mix(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = (bits ^ (bits >> np.uint64(30))) * _MIX_1
    bits = (bits ^ (bits >> np.uint64(27))) * _MIX_2
    return bits ^ (bits >> np.uint64(31))
