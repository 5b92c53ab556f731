"""What is drawn at random: streams of numbers for N environments at once, and which image comes next; how loops are compiled.

A NumPy generator for every environment would cost a Python call for every environment at every episode. These streams are
SplitMix64 (Steele, Lea and Flood 2014): one number of state each, advanced for all together as one array (N,) of uint64. Their
keys come from NumPy generators.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

IMAGE_ORDERS = ("random", "shuffled", "sequential")
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def compiled(loop: Callable[..., Any]) -> Any:
    """The loop as machine code, stored beside the module or in the user's cache for all processes, else made for this one."""
    try:
        return njit(cache=True)(loop)
    except RuntimeError:  # Neither can be written.
        cure = "set NUMBA_CACHE_DIR to a folder that can be written"
        warnings.warn(f"ram_envs must compile its loops anew in each process, which takes seconds: {cure}", stacklevel=1)
        return njit(loop)


def draw_keys(rng: np.random.Generator, size: int) -> NDArray[np.uint64]:
    """Keys for new streams: (size,)."""
    return rng.integers(0, 2**64, size, dtype=np.uint64)


@compiled
def _mix(bits):
    bits = (bits ^ (bits >> np.uint64(30))) * _MIX_1
    bits = (bits ^ (bits >> np.uint64(27))) * _MIX_2
    return bits ^ (bits >> np.uint64(31))


@compiled
def start_streams(keys):
    """The first states (n,) of the streams with these keys (n,), uint64; near keys give unlike streams."""
    states = np.empty_like(keys)
    for n in range(len(keys)):
        states[n] = _mix(keys[n] + _GOLDEN)
    return states


@compiled
def draw_uniform(streams, size):
    """Draws from [0, 1), (n, size), and the streams' next states (n,)."""
    draws, after = np.empty((len(streams), size)), streams.copy()
    for n in range(len(streams)):
        for i in range(size):
            after[n] += _GOLDEN
            draws[n, i] = (_mix(after[n]) >> np.uint64(11)) * 2.0**-53
    return draws, after


class EpochOrder:
    """Epochs over M images with N environments, each image exactly once in an epoch.

    Environment j shows the images j, j + N, j + 2N, ...; where N does not divide M, the last environments share the rest.
    So environment j has (M + j) // N images an epoch, the numbers that SB3's `evaluate_policy(n_eval_episodes=M)` asks of it,
    and every image counts once whatever N is.

    Args:
        num_images: M.
        num_envs: N, at most M.
        key: a seed for the order within each epoch; None keeps the images in order.

    Raises:
        ValueError: there are more environments than images.
    """

    def __init__(self, num_images: int, num_envs: int, key: int | None = None) -> None:
        if num_envs > num_images:
            raise ValueError(
                f"num_envs={num_envs} environments can't share an epoch of {num_images} images: use at most {num_images}"
            )
        self.num_images, self.num_envs, self.key = num_images, num_envs, key
        self._shuffles: dict[int, NDArray] = {}

    def index(self, envs: NDArray[np.int64], episodes: NDArray[np.int64]) -> NDArray[np.int64]:
        """The images for these environments' episodes number 0, 1, ...: (n,) and (n,) -> (n,)."""
        epochs, rounds = np.divmod(episodes, (self.num_images + envs) // self.num_envs)
        full_rounds, rest = divmod(self.num_images, self.num_envs)
        positions = rounds * self.num_envs + envs
        positions -= np.where(rounds == full_rounds, self.num_envs - rest, 0)
        if self.key is None:
            return positions
        for epoch in np.unique(epochs):
            here = epochs == epoch
            positions[here] = self._shuffle(int(epoch))[positions[here]]
        return positions

    def _shuffle(self, epoch: int) -> NDArray[np.int64]:
        """The order of an epoch; the environments are rarely more than one epoch apart, so two orders are kept."""
        if epoch not in self._shuffles:
            while len(self._shuffles) > 1:
                del self._shuffles[min(self._shuffles)]
            rng = np.random.default_rng([self.key or 0, epoch])
            self._shuffles[epoch] = rng.permutation(self.num_images)
        return self._shuffles[epoch]
