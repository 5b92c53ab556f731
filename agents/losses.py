"""Log-probabilities and losses as pure functions of (T, N) arrays (Mnih et al. 2014, section 3.2).

T is the number of steps of a rollout, N the number of environments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_map_only


@dataclass
class Batch:
    """What the losses need of a rollout beside the model's outputs: (T, N, ...) each."""

    actions: tuple[Tensor, ...]  # Their parts, as they were sampled.
    advantages: Tensor
    returns: Tensor
    looked_at: Tensor  # 0 where an episode ended: nobody looks at the location that its last step names
    labels: Tensor | None
    old_log_probs: Tensor | None  # (T, N, P), of each part of the actions when they were drawn; None: once is enough
    clip_range: float

    def old(self, part: int) -> Tensor | None:
        """The old log-probabilities (T, N) of a part of the actions."""
        return None if self.old_log_probs is None else self.old_log_probs[..., part]

    def of(self, envs: NDArray) -> Batch:
        """The same of some environments."""
        return Batch(**tree_map_only(Tensor, lambda part: part[:, envs], vars(self)))


def location_log_prob(location: Tensor, mean: Tensor, std: float) -> Tensor:
    """Log N(location | mean, std^2) over both components, the mean held inside the scene: (..., 2) -> (...)."""
    squares = ((location - hold_inside(mean)) / std).square().sum(-1)
    return -0.5 * squares - 2 * math.log(std) - math.log(2 * math.pi)


class _HoldInside(torch.autograd.Function):
    """Locations (..., 2) clipped to [-1, 1]; beyond, only a gradient that leads back inside passes.

    The environment clips what lies outside: noise around a mean out there changes nothing, and REINFORCE has no signal that could
    bring it back.
    """

    @staticmethod
    def forward(ctx: Any, locations: Tensor) -> Tensor:
        ctx.save_for_backward(locations)
        return locations.clamp(-1, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (locations,) = ctx.saved_tensors
        # Descent moves against the gradient: it leads back where both have the same sign.
        return grad * ((locations.abs() <= 1) | (grad * locations > 0))


hold_inside = _HoldInside.apply


def choice_log_prob(choice: Tensor, logits: Tensor) -> Tensor:
    """Log softmax(logits)[choice]: (...), (..., K) -> (...)."""
    return logits.log_softmax(-1).gather(-1, choice.unsqueeze(-1)).squeeze(-1)


def choice_entropy(logits: Tensor) -> Tensor:
    """The entropy of softmax(logits) in nats: (..., K) -> (...)."""
    log_probs = logits.log_softmax(-1)
    return -(log_probs.exp() * log_probs).sum(-1)


def advantages_and_returns(
    rewards: NDArray[np.floating],
    values: NDArray[np.floating],
    dones: NDArray[np.bool_],
    last_values: NDArray[np.floating],
    gamma: float,
    gae_lambda: float = 1.0,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How much better than expected each step went, and what was to be expected: (T, N) each.

    The generalised advantages of Schulman et al. 2016. With gae_lambda=1 they are R_t - b_t, and the second is R_t, the
    discounted sum of the rewards from step t to the end of its episode.

    Args:
        rewards, values, dones: (T, N), the reward that followed step t, the baseline b_t, and whether the episode ended there.
        last_values: (N,), what is still expected after the last step; it counts for the episodes that continue.
        gamma: the discount, 0 to 1.
        gae_lambda: 1 trusts the rewards alone, 0 the next step's baseline.
    """
    advantages = np.empty(rewards.shape, np.float32)
    following, next_values = np.zeros(rewards.shape[1], np.float32), np.asarray(last_values, np.float32)
    for step in range(len(rewards) - 1, -1, -1):
        goes_on = ~dones[step]
        error = rewards[step] + gamma * next_values * goes_on - values[step]
        following = error + gamma * gae_lambda * following * goes_on
        advantages[step], next_values = following, values[step]
    return advantages, advantages + values


def clipped_loss(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, weights: Tensor, clip_range: float) -> Tensor:
    """PPO's clipped surrogate (Schulman et al. 2017), averaged over the steps with weight: (T, N) each.

    Where log_probs equal the old ones its gradient is that of `reinforce_loss`.
    """
    ratio = (log_probs - old_log_probs).exp()
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return -_mean(torch.minimum(ratio * advantages, clipped * advantages), weights)


def policy_loss(
    log_probs: Tensor, old_log_probs: Tensor | None, advantages: Tensor, weights: Tensor, clip_range: float
) -> Tensor:
    """REINFORCE's loss of actions (T, N), or PPO's where they are learned from again (with their old log-probabilities)."""
    if old_log_probs is None:
        return reinforce_loss(log_probs, advantages, weights)
    return clipped_loss(log_probs, old_log_probs, advantages, weights, clip_range)


def reinforce_loss(log_probs: Tensor, advantages: Tensor, weights: Tensor) -> Tensor:
    """-log pi(a_t) (R_t - b_t), averaged over the steps with weight (T, N); no gradient reaches the advantages (T, N)."""
    return -_mean(log_probs * advantages.detach(), weights)


def baseline_loss(values: Tensor, returns: Tensor) -> Tensor:
    """(b_t - R_t)^2, averaged over (T, N)."""
    return F.mse_loss(values, returns)


def classification_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of logits (T, N, K) against labels (T, N), averaged over the steps with weight (T, N)."""
    return _mean(F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none"), weights.flatten())


def gains(logits: Tensor, labels: Tensor, dones: Tensor) -> Tensor:
    """What the next glimpse adds to the log-probability of the true class: (T, N, K), (T, N), (T, N) -> (T, N).

    0 where an episode ends, and at the last step, whose next glimpse is not known.
    """
    log_probs = choice_log_prob(labels, logits)  # (T, N)
    added = torch.zeros_like(log_probs)
    added[:-1] = (log_probs[1:] - log_probs[:-1]) * ~dones[:-1]
    return added


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """The weighted mean; 0 where nothing has weight."""
    return (values * weights).sum() / weights.sum().clamp(min=1)
