"""Which image comes next: at random, in shuffled passes, or in order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

IMAGE_ORDERS = ("random", "shuffled", "sequential")


class PassOrder:
    """Passes over M images with N environments, each image exactly once in a pass.

    Environment j shows the images j, j + N, j + 2N, ...; where N does not divide M, the last environments share the rest.
    So environment j has (M + j) // N images to a pass, the very numbers that SB3's `evaluate_policy(n_eval_episodes=M)`
    asks of it, and every image counts once whatever N is.

    Args:
        num_images: M.
        num_envs: N, at most M.
        key: a seed for the order within each pass; None keeps the images in order.
    """

    def __init__(self, num_images: int, num_envs: int, key: int | None = None) -> None:
        if num_envs > num_images:
            raise ValueError(
                f"num_envs={num_envs} environments can't share a pass over {num_images} images: use at most {num_images}"
            )
        self.num_images, self.num_envs, self.key = num_images, num_envs, key
        self._shuffles: dict[int, NDArray] = {}

    def index(self, envs: NDArray[np.int64], episodes: NDArray[np.int64]) -> NDArray[np.int64]:
        """The images for these environments' episodes number 0, 1, ...: (n,) and (n,) -> (n,)."""
        passes, rounds = np.divmod(episodes, (self.num_images + envs) // self.num_envs)
        full_rounds, rest = divmod(self.num_images, self.num_envs)
        positions = rounds * self.num_envs + envs
        positions -= np.where(rounds == full_rounds, self.num_envs - rest, 0)
        if self.key is None:
            return positions
        for number in np.unique(passes):
            here = passes == number
            positions[here] = self._shuffle(int(number))[positions[here]]
        return positions

    def _shuffle(self, number: int) -> NDArray[np.int64]:
        """The order of pass `number`; the environments are rarely more than one pass apart, so two are remembered."""
        if number not in self._shuffles:
            while len(self._shuffles) > 1:
                del self._shuffles[min(self._shuffles)]
            rng = np.random.default_rng([self.key or 0, number])
            self._shuffles[number] = rng.permutation(self.num_images)
        return self._shuffles[number]
