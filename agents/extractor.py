"""RAM's glimpse network as a Stable-Baselines3 features extractor, for PPO, A2C, DQN, SAC, TD3, RecurrentPPO and others."""

from __future__ import annotations

from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor
from torch import Tensor

from .glimpse_networks import GlimpseInput, PerScale, find_class
from .policy import GLIMPSE_NETWORKS


class GlimpseExtractor(BaseFeaturesExtractor):
    """`PPO("MultiInputPolicy", env, policy_kwargs={"features_extractor_class": GlimpseExtractor})`.

    With SB3's `VecFrameStack` the n last glimpses and locations lie side by side in the last axis, and it sees them all at once.

    Args:
        observation_space: see `GlimpseInput`.
        features_dim: units of g_t.
        hidden_size: see `policy.RAMPolicyOptions`.
        glimpse_mean: see `GlimpseInput`.
        glimpse_std: see `GlimpseInput`.
        glimpse_network: see `policy.RAMPolicyOptions`.

    Raises:
        ValueError: an argument is out of range, or the observations hold no glimpse; the message names it.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        features_dim: int = 256,
        hidden_size: int = 128,
        glimpse_mean: PerScale = 0.0,
        glimpse_std: PerScale = 1.0,
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
