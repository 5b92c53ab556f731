"""REINFORCE, baseline and hybrid losses as pure functions of (T, N) arrays (Mnih et al. 2014, section 3.2).

T is the number of steps of a rollout, N the number of environments.
"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


def discounted_returns(
    rewards: NDArray[np.floating],
    dones: NDArray[np.bool_],
    last_values: NDArray[np.floating],
    gamma: float,
) -> NDArray[np.float32]:
    """R_t, the discounted sum of the rewards from step t to the end of its episode.

    Args:
        rewards: (T, N), the reward that followed step t.
        dones: (T, N), whether the episode ended at step t.
        last_values: (N,), what is still expected after the last step; it counts for the episodes that go on.
        gamma: the discount, 0 to 1.
    """
    returns = np.empty(rewards.shape, np.float32)
    following = np.asarray(last_values, np.float32)
    for step in range(len(rewards) - 1, -1, -1):
        following = rewards[step] + gamma * following * ~dones[step]
        returns[step] = following
    return returns


def reinforce_loss(log_probs: Tensor, advantages: Tensor, weights: Tensor) -> Tensor:
    """-log pi(a_t) (R_t - b_t), averaged over the steps with weight (T, N); no gradient reaches the advantages (T, N)."""
    return -_mean(log_probs * advantages.detach(), weights)


def baseline_loss(values: Tensor, returns: Tensor) -> Tensor:
    """(b_t - R_t)^2, averaged over (T, N)."""
    return F.mse_loss(values, returns)


def classification_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of logits (T, N, K) against labels (T, N), averaged over the steps with weight (T, N)."""
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return _mean(losses, weights.flatten())


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """The weighted mean; 0 where nothing has weight."""
    return (values * weights).sum() / weights.sum().clamp(min=1)
