"""RAM: how the recurrent attention model learns (Mnih et al. 2014, section 3.2), as a Stable-Baselines3 algorithm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from .losses import Batch, baseline_loss, choice_entropy, classification_loss, gains, policy_loss
from .on_policy import EpisodeAlgorithm, OnPolicyHyperparams
from .policy import GONE, Outputs, RAMPolicy, current_names
from .recurrent import CorePolicy, Rollout
from .vec_env import stack_infos


@dataclass(frozen=True)
class RAMHyperparams(OnPolicyHyperparams):
    """What `RAM` can be told, beside what all algorithms over whole episodes can be told."""

    class_loss: str = "cross_entropy"
    """"cross_entropy", with `info["label"]` and greedy choices while learning (the paper's hybrid loss), or "reinforce", with
    sampled choices, as game moves are learned."""

    class_loss_steps: str = "all"  # Or "last": the cross-entropy at the end of the episode alone, as in the paper.

    location_reward: str = "success"
    """What the location is learned from. "success" is the environment's reward; "gain" is what each glimpse added to the
    log-probability of the true class, so that each look is paid at once, and an episode's sum is its log-likelihood. It
    needs `info["label"]`, and there is no stop action then."""

    location_coef: float = 1.0
    """The weight of the location's REINFORCE term in units of its standard deviation squared. The gradient of log N(l | mean,
    std^2) grows as 1/std; in these units it is (l - mean) times the advantage for any std."""

    final_location_std: float | None = None  # Where `location_std` goes while learning, by equal factors in equal times.

    ranges: ClassVar[dict[str, tuple[float, float]]] = {**OnPolicyHyperparams.ranges, "location_coef": (0, float("inf"))}
    above_zero: ClassVar[tuple[str, ...]] = (*OnPolicyHyperparams.above_zero, "final_location_std")
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {
        "class_loss": ("cross_entropy", "reinforce"),
        "class_loss_steps": ("all", "last"),
        "location_reward": ("success", "gain"),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.location_reward == "gain" and self.class_loss != "cross_entropy":
            raise ValueError(f'location_reward="gain" needs class_loss="cross_entropy", got {self.class_loss!r}')


class RAM(EpisodeAlgorithm):
    """The recurrent attention model of Mnih et al. 2014.

    The location is learned by REINFORCE with a learned baseline. The class is learned from the labels by cross-entropy (the
    paper's hybrid loss) or, as game moves are, by REINFORCE too. `RAMPolicy` says which gradient flows where.

    With `n_epochs` or `n_minibatches` above 1 the same rollout is learned from several times, and REINFORCE becomes PPO: its
    clipped surrogate, for each part of the action on its own, of which REINFORCE is the first step. Minibatches hold whole
    rollouts of some environments, so that the gradient flows through all steps.

    Args:
        policy: "RAMPolicy" or a subclass of it; its own options (`policy.RAMPolicyOptions`) go into `policy_kwargs`.
        env: with the observations "glimpse" and "location"; see `EpisodeAlgorithm`, as for SB3's own arguments and for errors.
        **hyperparams: the fields of `RAMHyperparams`.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"RAMPolicy": RAMPolicy}
    hyperparams_class = RAMHyperparams
    log_name = "RAM"
    policy: RAMPolicy
    class_loss: str
    class_loss_steps: str
    location_reward: str
    location_coef: float
    final_location_std: float | None

    def __init__(
        self,
        policy: str | type[CorePolicy] | None = None,
        env: GymEnv | VectorEnv | str | None = None,
        *,
        policy_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        for name, value in (policy_kwargs or {}).items():
            if name in GONE and value is not None:  # Of stored models the weights hold what became of it: they load.
                raise ValueError(f"{name} is no option any more, a path begins near the middle at random, got {value!r}")
        super().__init__(policy, env, policy_kwargs=policy_kwargs, **kwargs)

    def train(self) -> None:
        """Learn from the rollout: one gradient step for each minibatch of each epoch."""
        self._update_learning_rate(self.policy.optimizer)
        rollout = self.rollout_buffer
        outputs: Outputs = rollout.stacked_outputs()  # (T, N, ...)
        labels = self._labels(rollout)  # (T, N)
        rewards = np.stack(rollout.rewards)  # (T, N), r_t
        if self.location_reward == "gain":
            assert labels is not None
            rewards = gains(outputs.logits[0].detach(), labels, self._tensor(np.stack(rollout.dones))).cpu().numpy()
        batch = self.batch_of(outputs, rewards, self.baseline(outputs, labels), labels)  # With R_t, and R_t - b_t.
        self.end_update([self.gradient_step(self.losses(part, seen)) for part, seen in self.minibatches(batch, outputs)])

    def losses(self, batch: Batch, outputs: Outputs) -> dict[str, Tensor]:
        """The terms of the loss (section 3.2), weighted."""
        hybrid, (_, *looks) = self.class_loss == "cross_entropy", self.policy.choices
        parts = 1 if hybrid and not looks else None
        log_probs = self.policy.log_probs(outputs, batch.actions, parts)  # (T, N, 1 + P), log pi(l_t), log pi(a_t)
        everywhere = torch.ones_like(batch.looked_at)

        def reinforce(part: int, weights: Tensor) -> Tensor:  # -log pi (R_t - b_t), or PPO's loss
            return policy_loss(log_probs[..., part], batch.old(part), batch.advantages, weights, batch.clip_range)

        # (b_t - R_t)^2
        losses = {"baseline_loss": self.vf_coef * baseline_loss(self.baseline(outputs, batch.labels), batch.returns)}
        if self.policy.options.location_policy == "learned":
            losses["location_loss"] = self.location_coef * self.policy.std**2 * reinforce(0, batch.looked_at)
        if hybrid:  # -log pi(a* | h_t) of the true class a*
            assert batch.labels is not None
            counts = everywhere if self.class_loss_steps == "all" else 1 - batch.looked_at
            losses["class_loss"] = classification_loss(outputs.logits[0], batch.labels, counts)
        else:
            losses["class_loss"] = reinforce(1, everywhere)
        for part, name in enumerate(looks, start=2):
            losses[f"{name}_loss"] = reinforce(part, everywhere if name == "stop" else batch.looked_at)
        chosen_by_reward = outputs.logits[1:] if hybrid else outputs.logits
        if chosen_by_reward:
            entropy = torch.stack([choice_entropy(logits).mean() for logits in chosen_by_reward]).sum()
            losses["entropy_loss"] = -self.now(self.ent_coef) * entropy
        return losses

    def baseline(self, outputs: Outputs, labels: Tensor | None) -> Tensor:
        """b_t (T, N), for labels (T, N) where there are such."""
        if not self.policy.options.baseline_by_class:
            return outputs.value
        assert labels is not None
        return outputs.class_values.gather(-1, labels.unsqueeze(-1)).squeeze(-1)

    @property
    def greedy_choice(self) -> bool:  # type: ignore[override]
        """Whether the class is the likeliest one while learning: the labels teach it."""
        return self.class_loss == "cross_entropy"

    def _labels(self, rollout: Rollout) -> Tensor | None:
        """`info["label"]` (T, N) for the hybrid loss."""
        if self.class_loss == "reinforce":
            return None
        try:
            return torch.as_tensor(stack_infos(rollout.infos, "label"), device=self.device)
        except KeyError as error:
            raise ValueError(
                'class_loss="cross_entropy" needs the true class in info["label"] at every step, which this environment does not '
                'give: use class_loss="reinforce"'
            ) from error

    def collect_rollouts(self, env: VecEnv, callback: BaseCallback, rollout_buffer: Any, n_rollout_steps: int | None) -> bool:
        self._set_std()
        return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)

    def set_env(self, env: Any, force_reset: bool = True) -> None:
        """See SB3's `set_env`; ValueError where the environment's scenes are of another size, or it has other choices."""
        super().set_env(env, force_reset)
        self._check_env()

    def _setup_model(self) -> None:
        self.policy_kwargs = current_names(self.policy_kwargs)
        if "location_policy" in vars(self):  # A model stored by version 0.1.0.
            self.policy_kwargs.setdefault("location_policy", vars(self).pop("location_policy"))
        super()._setup_model()
        self._set_std()
        self._check_env()
        options = self.policy.options
        if options.baseline_by_class and self.class_loss != "cross_entropy":
            raise ValueError(f'baseline_by_class needs class_loss="cross_entropy" for its labels, got {self.class_loss!r}')
        if options.dropout and not self._keeps_graph:
            raise ValueError(
                "dropout needs n_epochs=1 and n_minibatches=1, where what was computed while acting is learned from, got "
                f"{self.n_epochs} and {self.n_minibatches}"
            )
        if self.location_reward == "gain" and "stop" in self.policy.choices:
            raise ValueError('location_reward="gain" leaves out what a look costs: use "success" where there is a stop action')

    def _set_std(self) -> None:
        if self.final_location_std is not None:
            first, share = self.policy.options.location_std, 1 - self._current_progress_remaining
            std = first * (self.final_location_std / first) ** share
            for policy in (self.policy, self.acting_policy):
                policy.std = std

    def _check_env(self) -> None:
        choices = getattr(self.env and self.env.action_space, "choices", self.policy.choices)
        if list(choices.values()) != list(self.policy.choices.values()):
            raise ValueError(f"the environment must let the model choose {self.policy.choices}, got {choices}")
        assumed, shape = self.policy.scene_size, self.env and getattr(self.env.observation_space, "scene_shape", None)
        if assumed is not None and shape and tuple(np.broadcast_to(assumed, 2)) != tuple(shape[-2:]):
            raise ValueError(f"scene_size must be that of the environment's scenes, {list(shape[-2:])}, got {assumed!r}")
