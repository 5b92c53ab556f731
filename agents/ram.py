"""RAM, the recurrent attention model's learning algorithm, as a Stable-Baselines3 on-policy algorithm."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from agents.distributions import choice_entropy
from agents.learner import EpisodeLearner
from agents.losses import baseline_loss, classification_loss, gains
from agents.policy import Outputs, RAMPolicy
from agents.rollout import Batch, Rollout


class RAM(EpisodeLearner):
    """The recurrent attention model of Mnih et al. 2014.

    The location is learned by REINFORCE with a learned baseline. The class is learned from the labels by cross-entropy (the
    paper's hybrid loss) or, as game moves are, by REINFORCE too. `RAMPolicy` says which gradient flows where.

    With `n_epochs` or `n_minibatches` above 1 the same rollout is learned from several times, and REINFORCE becomes PPO: its
    clipped surrogate, for each part of the action on its own, of which REINFORCE is the first step. Minibatches hold whole
    rollouts of some environments, so that the gradient flows through all steps.

    Args:
        policy: "RAMPolicy" or a subclass of it.
        env: an environment with the observations "glimpse" and "location", its id, an SB3 `VecEnv` or a Gymnasium vector
            environment. A Dict action of location and choice is offered as a Box, see `agents.vec_env`.
        learning_rate: a number, or a function of the remaining progress (1 to 0).
        n_steps: steps of each environment to an update. None: until every environment has ended an episode, so whole episodes
            where they have one length.
        n_epochs: how often a rollout is learned from.
        n_minibatches: the parts into which its environments are split each time.
        clip_range: how far PPO lets the probability of each part of an action go: 1 - clip_range to 1 + clip_range times.
        gamma: the discount.
        gae_lambda: 1: advantages are R_t - b_t; below, they lean on the baseline of later steps.
        normalize_advantage: whether the advantages of a rollout are brought to mean 0 and deviation 1.
        class_loss: "cross_entropy", with `info["label"]` and greedy choices while learning, or "reinforce", with sampled choices.
        class_loss_steps: "last" takes the cross-entropy at the end of the episode alone, as the paper does; "all" at every step.
        location_policy: "learned", or "random": locations are drawn from all of the scene (the paper's "random glimpses").
        location_reward: what the location is learned from. "success" is the environment's reward; "gain" is what each glimpse
            added to the log-probability of the true class, so that each look is paid at once, and an episode's sum is its
            log-likelihood. It needs `info["label"]`, and there is no stop action then.
        location_coef: the weight of the location's REINFORCE term in units of its standard deviation squared. The gradient of
            log N(l | mean, std^2) grows as 1/std; in these units it is (l - mean) times the advantage for any std.
        final_location_std: the location's standard deviation goes from the policy's `location_std` to this while learning, by the
            same factor in equal times; None: it stays.
        vf_coef: the weight of the baseline's squared error.
        ent_coef: the weight of the entropy of what is chosen by REINFORCE; a number, or a function of the remaining progress.
        max_grad_norm: gradients are scaled down to at most this norm.
        weight_average: above 0, `predict` acts with the average of the weights over about this share of all updates so far, the
            last ones (0.1: the last tenth); learning goes on with the weights as they are.
        cuda_graphs: whether on a GPU each step of a rollout is recorded as a CUDA graph and replayed, which is about twice as
            fast, where a rollout is learned from once. False: for a core or glimpse network that can't be recorded.
        stats_window_size, tensorboard_log, policy_kwargs, verbose, seed, device: as in Stable-Baselines3.

    Raises:
        ValueError: an argument is out of range, or the environment's spaces do not fit; the message names it.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"RAMPolicy": RAMPolicy}
    policy: RAMPolicy

    def __init__(
        self,
        policy: str | type[RAMPolicy] = "RAMPolicy",
        env: GymEnv | VectorEnv | str | None = None,
        learning_rate: float | Schedule = 1e-3,
        n_steps: int | None = None,
        n_epochs: int = 1,
        n_minibatches: int = 1,
        clip_range: float = 0.2,
        gamma: float = 1.0,
        gae_lambda: float = 1.0,
        normalize_advantage: bool = False,
        class_loss: str = "cross_entropy",
        class_loss_steps: str = "all",
        location_policy: str = "learned",
        location_reward: str = "success",
        location_coef: float = 1.0,
        final_location_std: float | None = None,
        vf_coef: float = 0.5,
        ent_coef: float | Schedule = 0.0,
        max_grad_norm: float = 5.0,
        weight_average: float = 0.0,
        cuda_graphs: bool = True,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        if class_loss not in ("cross_entropy", "reinforce"):
            raise ValueError(f'class_loss must be "cross_entropy" or "reinforce", got {class_loss!r}')
        if class_loss_steps not in ("all", "last"):
            raise ValueError(f'class_loss_steps must be "all" or "last", got {class_loss_steps!r}')
        if location_reward not in ("success", "gain"):
            raise ValueError(f'location_reward must be "success" or "gain", got {location_reward!r}')
        if location_reward == "gain" and class_loss != "cross_entropy":
            raise ValueError(f'location_reward="gain" needs class_loss="cross_entropy", got {class_loss!r}')
        self.class_loss, self.class_loss_steps = class_loss, class_loss_steps
        if final_location_std is not None and not final_location_std > 0:
            raise ValueError(f"final_location_std must be above 0 or None, got {final_location_std!r}")
        self.location_reward, self.final_location_std = location_reward, final_location_std
        self.location_policy, self.location_coef = location_policy, location_coef
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
            weight_average=weight_average,
            cuda_graphs=cuda_graphs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=_init_setup_model,
        )

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "RAM",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> RAM:
        """Learn for `total_timesteps` steps of the environment (N at a time); see SB3's `learn`."""
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def _setup_model(self) -> None:
        super()._setup_model()
        self._set_location_std()
        if self.policy.baseline_by_class and self.class_loss != "cross_entropy":
            raise ValueError(f'baseline_by_class needs class_loss="cross_entropy" for its labels, got {self.class_loss!r}')
        if self.policy.dropout.p and not self._keeps_graph:
            raise ValueError(
                "dropout needs n_epochs=1 and n_minibatches=1, where what was computed while acting is learned from, got "
                f"{self.n_epochs} and {self.n_minibatches}"
            )
        if self.location_reward == "gain" and "stop" in self.policy.choices:
            raise ValueError('location_reward="gain" leaves out what a look costs: use "success" where there is a stop action')

    def collect_rollouts(self, env: VecEnv, callback: BaseCallback, rollout_buffer: Any, n_rollout_steps: int | None) -> bool:
        """See `EpisodeLearner`."""
        self._set_location_std()
        return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)

    def _set_location_std(self) -> None:
        if self.final_location_std is not None:
            first, share = self.policy.location_std, 1 - self._current_progress_remaining
            self.policy.std_now = self.acting_policy.std_now = first * (self.final_location_std / first) ** share

    def _policy_arguments(self) -> dict[str, Any]:
        return {"location_policy": self.location_policy, **self.policy_kwargs}

    def _act(self, output: Outputs) -> tuple[Tensor, Tensor]:
        return self.policy.act(output, greedy_choice=self.class_loss == "cross_entropy")

    def _values(self, outputs: Outputs, labels: Tensor | None) -> Tensor:
        if not self.policy.baseline_by_class:
            return outputs.value
        assert labels is not None
        return outputs.class_values.gather(-1, labels.unsqueeze(-1)).squeeze(-1)

    def _rewards(self, rollout: Rollout, outputs: Outputs, labels: Tensor | None) -> NDArray:
        if self.location_reward == "success":
            return super()._rewards(rollout, outputs, labels)
        assert labels is not None
        return gains(outputs.logits[0].detach(), labels, self._tensor(np.stack(rollout.dones))).cpu().numpy()

    def _losses(self, batch: Batch, outputs: Outputs) -> dict[str, Tensor]:
        log_probs = self.policy.log_probs(outputs, batch.actions)  # (T, N, 1 + P)

        def policy_loss(part: int, weights: Tensor) -> Tensor:
            return self._policy_loss(batch, log_probs, part, weights)

        everywhere = torch.ones_like(batch.looked_at)
        losses = {"baseline_loss": self.vf_coef * baseline_loss(self._values(outputs, batch.labels), batch.returns)}
        if self.location_policy == "learned":
            weight = self.location_coef * self.policy.std_now**2
            losses["location_loss"] = weight * policy_loss(0, batch.looked_at)
        names, chosen_by_reward = list(self.policy.choices), outputs.logits
        if self.class_loss == "cross_entropy":
            assert batch.labels is not None
            counts = everywhere if self.class_loss_steps == "all" else 1 - batch.looked_at
            losses["class_loss"] = classification_loss(outputs.logits[0], batch.labels, counts)
            chosen_by_reward = outputs.logits[1:]
        else:
            losses["class_loss"] = policy_loss(1, everywhere)
        for part, name in enumerate(names[1:], start=2):
            losses[f"{name}_loss"] = policy_loss(part, everywhere if name == "stop" else batch.looked_at)
        if chosen_by_reward:
            entropy = torch.stack([choice_entropy(logits).mean() for logits in chosen_by_reward]).sum()
            losses["entropy_loss"] = -self._entropy_weight() * entropy
        return losses

    def _labels(self, infos: list[dict[str, Any]]) -> list[int] | None:
        if self.class_loss == "reinforce":
            return None
        try:
            return [info["label"] for info in infos]
        except KeyError as error:
            raise ValueError(
                'class_loss="cross_entropy" needs the true class in info["label"] at every step, which this environment does not '
                'give: use class_loss="reinforce"'
            ) from error
