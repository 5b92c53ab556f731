"""RAM's glimpse network as a Stable-Baselines3 features extractor, for PPO, A2C, DQN, SAC, TD3, RecurrentPPO and others."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor
from torch import Tensor, nn

from agents.classifiers import GLIMPSE_NETWORKS
from agents.networks import find_class


class GlimpseInput(nn.Module):
    """What a glimpse network is given of a Dict observation: the glimpse brought to a common size, and where it was taken.

    Args:
        space: a Dict of "glimpse" (k, g, g), or (k, C, g, g), "location" (2,) and perhaps "zoom" (Z,); stacked frames may make
            the last axes longer.
        glimpse_mean, glimpse_std: glimpses become (glimpse - mean) / std; a number each, or one for each scale.

    Attributes:
        glimpse_shape: that of the glimpse.
        where_size: numbers that say where and how wide it was taken.

    Raises:
        ValueError: something is missing or out of range; the message names it.
    """

    def __init__(
        self, space: spaces.Space, glimpse_mean: float | list[float] = 0.0, glimpse_std: float | list[float] = 1.0
    ) -> None:
        super().__init__()
        if not isinstance(space, spaces.Dict) or not {"glimpse", "location"} <= set(space.spaces):
            raise ValueError(f'a Dict observation with "glimpse" (k, g, g) and "location" (2,) is needed, got {space}')
        if unknown := sorted(set(space.spaces) - {"glimpse", "location", "zoom"}):
            raise ValueError(f'observations may hold "glimpse", "location" and "zoom", got {unknown} too: leave them out')
        if not np.min(glimpse_std) > 0:
            raise ValueError(f"glimpse_std must be above 0, got {glimpse_std!r}")
        shape = space["glimpse"].shape
        assert shape is not None
        self.glimpse_shape = shape
        self.names = [name for name in ("location", "zoom") if name in space.spaces]
        self.where_size = sum(spaces.flatdim(space[name]) for name in self.names)
        self.is_plain = (glimpse_mean, glimpse_std) == (0, 1)
        self._mean: Tensor
        self._std: Tensor
        self.register_buffer("_mean", _per_scale("glimpse_mean", glimpse_mean, shape), persistent=False)
        self.register_buffer("_std", _per_scale("glimpse_std", glimpse_std, shape), persistent=False)

    def forward(self, obs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Glimpses (..., k, g, g) and where they were taken (..., W)."""
        glimpse = obs["glimpse"] if self.is_plain else (obs["glimpse"] - self._mean) / self._std
        where = [obs[name] for name in self.names]
        return glimpse, torch.cat(where, dim=-1) if len(where) > 1 else where[0]


class GlimpseExtractor(BaseFeaturesExtractor):
    """`PPO("MultiInputPolicy", env, policy_kwargs={"features_extractor_class": GlimpseExtractor})`.

    With SB3's `VecFrameStack` the n last glimpses and locations lie side by side in the last axis, and it sees them all at once.

    Args:
        observation_space: see `GlimpseInput`.
        features_dim: units of g_t.
        hidden_size: units of h_g and h_l each.
        glimpse_mean, glimpse_std: see `GlimpseInput`.
        glimpse_network: "paper", one of `classifiers.GLIMPSE_NETWORKS`, or a class of your own with their arguments.

    Raises:
        ValueError: an argument is out of range, or the observations hold no glimpse; the message names it.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        features_dim: int = 256,
        hidden_size: int = 128,
        glimpse_mean: float | list[float] = 0.0,
        glimpse_std: float | list[float] = 1.0,
        glimpse_network: str | type = "paper",
    ) -> None:
        super().__init__(observation_space, features_dim)
        self.input = GlimpseInput(observation_space, glimpse_mean, glimpse_std)
        network = find_class("glimpse_network", glimpse_network, GLIMPSE_NETWORKS)
        self.network = network(self.input.glimpse_shape, self.input.where_size, hidden_size, features_dim)

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """The features g_t (N, features_dim)."""
        return self.network(*self.input(observations))


def default_extractor(space: spaces.Space) -> type[BaseFeaturesExtractor]:
    """RAM's glimpse network where there is a "glimpse", else SB3's own default."""
    if not isinstance(space, spaces.Dict):
        return FlattenExtractor
    return GlimpseExtractor if "glimpse" in space.spaces else CombinedExtractor


def _per_scale(name: str, given: float | list[float], glimpse_shape: tuple[int, ...]) -> Tensor:
    """One number for each scale (k, 1, ...), or one for all."""
    values = torch.as_tensor(given, dtype=torch.float32)
    if values.shape not in ((), glimpse_shape[:1]):
        raise ValueError(f"{name} must be a number or one for each of the {glimpse_shape[0]} scales, got {given!r}")
    return values.reshape(-1, *(1,) * (len(glimpse_shape) - 1))
