"""PPO and A2C with a recurrent policy, over whole episodes, for any environment."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from gymnasium.vector import VectorEnv
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from torch import Tensor

from agents.learner import EpisodeLearner
from agents.losses import baseline_loss
from agents.recurrent_policy import RecurrentOutputs, RecurrentPolicy
from agents.rollout import Batch


class EpisodePPO(EpisodeLearner):
    """PPO (Schulman et al. 2017) with a recurrent policy: minibatches hold all steps of some environments, and the gradient flows
    back through all of them.

    Where sb3-contrib's RecurrentPPO knows LSTMs, `policy_kwargs={"core": ...}` takes "relu", "lstm", "gru" or a class of yours.

    Args:
        policy: "RecurrentPolicy" or a subclass of it.
        env: an environment, its id, an SB3 `VecEnv` or a Gymnasium vector environment. A Dict action of location and choice is
            offered as a Box, see `agents.vec_env`.
        learning_rate: a number, or a function of the remaining progress (1 to 0).
        n_steps: steps of each environment to an update. None: until every environment has ended an episode, so whole episodes
            where they have one length.
        n_epochs: how often a rollout is learned from.
        n_minibatches: the parts into which its environments are split each time.
        clip_range: how far the probability of an action may go: 1 - clip_range to 1 + clip_range times.
        gamma: the discount.
        gae_lambda: 1: advantages are R_t - b_t; below, they lean on the baseline of later steps.
        normalize_advantage: whether the advantages of a rollout are brought to mean 0 and deviation 1.
        vf_coef: the weight of the baseline's squared error.
        ent_coef: the weight of the entropy; a number, or a function of the remaining progress.
        max_grad_norm: gradients are scaled down to at most this norm.
        **kwargs: `weight_average` and `cuda_graphs`, see `RAM`; SB3's `stats_window_size`, `tensorboard_log`, `policy_kwargs`,
            `verbose`, `seed` and `device`.

    Raises:
        ValueError: an argument is out of range; the message names it.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"RecurrentPolicy": RecurrentPolicy}
    policy: RecurrentPolicy

    def __init__(
        self,
        policy: str | type[RecurrentPolicy] = "RecurrentPolicy",
        env: GymEnv | VectorEnv | str | None = None,
        learning_rate: float | Schedule = 3e-4,
        n_steps: int | None = None,
        n_epochs: int = 4,
        n_minibatches: int = 4,
        clip_range: float = 0.2,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        normalize_advantage: bool = True,
        vf_coef: float = 0.5,
        ent_coef: float | Schedule = 0.0,
        max_grad_norm: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            policy=policy,
            env=env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            n_epochs=n_epochs,
            n_minibatches=n_minibatches,
            clip_range=clip_range,
            gamma=gamma,
            gae_lambda=gae_lambda,
            normalize_advantage=normalize_advantage,
            vf_coef=vf_coef,
            ent_coef=ent_coef,
            max_grad_norm=max_grad_norm,
            **kwargs,
        )

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "EpisodePPO",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> EpisodePPO:
        """Learn for `total_timesteps` steps of the environment (N at a time); see SB3's `learn`."""
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def _losses(self, batch: Batch, outputs: RecurrentOutputs) -> dict[str, Tensor]:
        log_probs = self.policy.log_probs(outputs, batch.actions)  # (T, N, 1)
        return {
            "policy_loss": self._policy_loss(batch, log_probs, 0, torch.ones_like(batch.looked_at)),
            "value_loss": self.vf_coef * baseline_loss(outputs.value, batch.returns),
            "entropy_loss": -self._entropy_weight() * self.policy.entropy(outputs),
        }


class EpisodeA2C(EpisodePPO):
    """A2C (Mnih et al. 2016) with a recurrent policy: each rollout is learned from once. See `EpisodePPO` for the arguments."""

    def __init__(
        self,
        policy: str | type[RecurrentPolicy] = "RecurrentPolicy",
        env: GymEnv | VectorEnv | str | None = None,
        learning_rate: float | Schedule = 7e-4,
        n_steps: int | None = None,
        n_epochs: int = 1,
        n_minibatches: int = 1,
        gae_lambda: float = 1.0,
        normalize_advantage: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            policy=policy,
            env=env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            n_epochs=n_epochs,
            n_minibatches=n_minibatches,
            gae_lambda=gae_lambda,
            normalize_advantage=normalize_advantage,
            **kwargs,
        )
