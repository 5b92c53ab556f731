"""The two parts of an action: a location from a Gaussian of fixed width, a choice from a softmax."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sample_location(mean: Tensor, std: float) -> Tensor:
    """Draw l ~ N(mean, std^2) for each row: (N, 2) -> (N, 2), without a gradient and not clipped."""
    mean = mean.detach()
    return mean + std * torch.randn_like(mean)


def location_log_prob(location: Tensor, mean: Tensor, std: float) -> Tensor:
    """Log N(location | mean, std^2) over both components: (..., 2) -> (...)."""
    squares = ((location - mean) / std).square().sum(-1)
    return -0.5 * squares - 2 * math.log(std) - math.log(2 * math.pi)


def sample_choice(logits: Tensor) -> Tensor:
    """Draw from softmax(logits): (N, K) -> (N,)."""
    return torch.multinomial(logits.detach().softmax(-1), 1).squeeze(-1)


def choice_log_prob(choice: Tensor, logits: Tensor) -> Tensor:
    """Log softmax(logits)[choice]: (...), (..., K) -> (...)."""
    return logits.log_softmax(-1).gather(-1, choice.unsqueeze(-1)).squeeze(-1)


def choice_entropy(logits: Tensor) -> Tensor:
    """The entropy of softmax(logits) in nats: (..., K) -> (...)."""
    log_probs = logits.log_softmax(-1)
    return -(log_probs.exp() * log_probs).sum(-1)
