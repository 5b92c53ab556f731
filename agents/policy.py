"""The recurrent attention model as a Stable-Baselines3 policy."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from agents.classifiers import GLIMPSE_NETWORKS
from agents.core_policy import CorePolicy
from agents.distributions import choice_log_prob, location_log_prob, sample_choice, sample_location
from agents.extractor import GlimpseInput
from agents.looking import Saliency, hold_inside
from agents.networks import CORES, State, find_class
from agents.vec_env import ScoresBox

LOCATION_POLICIES = ("learned", "random")
SCAN_START = 0.25  # Standard deviation of the first offsets.


class Outputs(NamedTuple):
    """What the model makes of glimpses: of one for each environment (N, ...), or of T for each (T, N, ...)."""

    location_mean: Tensor  # (..., 2), where to look next
    logits: tuple[Tensor, ...]  # P of (..., K), scores of the classes or moves, then of each choice about how to look
    value: Tensor  # (...), the baseline b_t
    class_values: Tensor  # (..., K), the baseline for each class, or (..., 1) where it is the same for all
    state: State  # for the next step


class RAMPolicy(CorePolicy):
    """Glimpse network, core, and the location, class and baseline heads.

    The gradient of each loss is cut so that, as in the paper, the class's loss trains the action, core and glimpse networks and
    REINFORCE trains the location network:

    - the class head's loss flows into the core and the glimpse network, back through all steps;
    - the baseline head sees h_t detached: it trains itself alone;
    - the location head (and with it the head of "stop" and "zoom", where there are such) sees h_t detached too;
      `location_gradient="full"` lets REINFORCE shape core and glimpse network, `baseline_gradient="full"` the baseline;
    - a location reaches the next step as an observation, never as a graph: nothing flows through the retina.

    Args:
        observation_space: a Dict of "glimpse" (k, g, g), or (k, C, g, g), "location" (2,) and perhaps "zoom" (Z,).
        action_space: a Box (2 + K,): location, then K scores of which the environment takes the highest. A `ScoresBox` may have
            more choices than one.
        lr_schedule: the learning rate by remaining progress (1 to 0).
        core: "relu" (classification), "lstm" (games), "gru", "none" (h_t = g_t), or a class of your own, see `networks.Core`.
        glimpse_network: "paper", one of `classifiers.GLIMPSE_NETWORKS`, or a class of your own with their arguments.
        location_policy: "learned", or "random": every location is drawn from all of the scene, and nothing is learned of them.
        hidden_size: units of h_g and h_l each.
        core_size: units of g_t and h_t each.
        location_std: the standard deviation of the location, in units of [-1, 1].
        location_input: what the location network sees. "state": h_t alone, as in the paper. "glimpse": beside h_t the glimpse
            itself, and where it was taken. h_t learns what tells classes apart: where in the glimpse something lies can hardly
            be read from it. "saliency": the same, and the mean is counted from what in sight is worth a closer look, see
            `looking.Saliency`.
        scene_size: the side of the scene in pixels, or its height and width, for "saliency".
        location_hidden: rectified units between h_t and the location's mean; 0 is the paper's linear location network.
        location_gain: the location's mean is this times Linear(h_t), clipped to the scene. Adam moves every weight by about the
            learning rate, however weak the signal; h_t has hundreds of components, so that with a gain of 1 one noisy step can
            move all locations by more than `location_std`.
        scan_steps: for so many steps of an episode the location's mean has a learned offset of its own, a path that the eye
            takes whatever it sees; Linear(h_t) bends it. 0 is the paper's model. The offset is learned from all images together,
            so that a useful path is found long before h_t tells places apart.
        scan_start: the path to begin with, [x, y] of the second look and of those after it, at most `scan_steps`, in [-1, 1].
            What is not given, or None: near the scene's middle, at random.
        scan_gain: an offset moves by about so many learning rates at a step of Adam, however weak the signal.
        location_gradient, baseline_gradient: "head" or "full", see above.
        baseline_by_class: the baseline has an output for each class, and while learning that of the true class counts. The class
            is drawn before anything is looked at, so that the gradient is as unbiased as before, and varies less.
        glimpse_mean, glimpse_std: glimpses enter the network as (glimpse - mean) / std; a number each, or one for each scale.
        dropout: while learning, each unit of g_t is 0 with this probability, for rollouts that are learned from once.
        muon_gain: above 0, Muon moves the matrices of the glimpse network and the core, in steps this times as long as Adam's.
            Their gradients are the class's, far less noisy than those of REINFORCE. See `optimizers.MuonBeside`.
        optimizer_class: a torch optimizer.
        optimizer_kwargs: its arguments but the learning rate; by default the fused variant where there is one.

    Raises:
        ValueError: spaces or arguments that the model can't take; the message names them.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        use_sde: bool = False,
        core: str | type = "relu",
        glimpse_network: str | type = "paper",
        location_policy: str = "learned",
        hidden_size: int = 128,
        core_size: int = 256,
        location_std: float = 0.1,
        location_input: str = "state",
        scene_size: float | list[float] | None = None,
        location_hidden: int = 0,
        location_gain: float = 0.1,
        scan_steps: int = 0,
        scan_start: list[list[float]] | None = None,
        scan_gain: float = 2.5,
        location_gradient: str = "head",
        baseline_gradient: str = "head",
        baseline_by_class: bool = False,
        glimpse_mean: float | list[float] = 0.0,
        glimpse_std: float | list[float] = 1.0,
        dropout: float = 0.0,
        muon_gain: float = 0.0,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(observation_space, action_space, optimizer_class, optimizer_kwargs, core_size)
        self.input = GlimpseInput(observation_space, glimpse_mean, glimpse_std)
        choices = _read_choices(action_space)
        core_class = find_class("core", core, CORES)
        network_class = find_class("glimpse_network", glimpse_network, GLIMPSE_NETWORKS)
        if location_policy not in LOCATION_POLICIES:
            raise ValueError(f"location_policy must be one of {LOCATION_POLICIES}, got {location_policy!r}")
        for name, given, known in (
            ("location_gradient", location_gradient, ("head", "full")),
            ("baseline_gradient", baseline_gradient, ("head", "full")),
            ("location_input", location_input, ("state", "glimpse", "saliency")),
        ):
            if given not in known:
                raise ValueError(f"{name} must be one of {known}, got {given!r}")
        if (location_input == "saliency") != (scene_size is not None):
            raise ValueError(f'scene_size must be given with location_input="saliency", and only then, got {scene_size!r}')
        if location_input == "saliency" and "zoom" in self.input.names:
            raise ValueError(
                'location_input="saliency" needs glimpses of one width: make the environment without zooms, or take "glimpse" or '
                '"state", and a scene_size of None'
            )
        for name, value in (("location_std", location_std), ("location_gain", location_gain), ("scan_gain", scan_gain)):
            if not value > 0:
                raise ValueError(f"{name} must be above 0, got {value!r}")
        for name, value in (("scan_steps", scan_steps), ("location_hidden", location_hidden), ("muon_gain", muon_gain)):
            if not value >= 0:
                raise ValueError(f"{name} must be at least 0, got {value!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {dropout!r}")
        if use_sde:
            raise ValueError("use_sde is not supported: the location's width is fixed (location_std)")
        self.core_name, self.network_name, self.location_policy = core, glimpse_network, location_policy
        self.hidden_size = hidden_size
        self.location_input, self.location_hidden, self.scene_size = location_input, location_hidden, scene_size
        self.location_std, self.location_gain = location_std, location_gain
        self.std_now = location_std  # Where it is annealed, `RAM` sets it.
        self.scan_steps, self.scan_start, self.scan_gain = scan_steps, scan_start, scan_gain
        self.location_gradient, self.baseline_gradient = location_gradient, baseline_gradient
        self.baseline_by_class = baseline_by_class
        self.glimpse_mean, self.glimpse_std = glimpse_mean, glimpse_std
        self.dropout, self.muon_gain = nn.Dropout(dropout), muon_gain
        self.choices = choices
        self._scores = [2 * np.eye(size, dtype=np.float32) - 1 for size in choices.values()]  # What is sent for each choice.
        first, *others = choices.values()
        self.glimpse_network = network_class(self.input.glimpse_shape, self.input.where_size, hidden_size, core_size)
        self.core = core_class(core_size, core_size)
        seen = math.prod(self.input.glimpse_shape) + self.input.where_size if location_input != "state" else 0
        self.location_head: nn.Module = nn.Linear(location_hidden or core_size + seen, 2)
        if location_hidden:
            self.location_head = nn.Sequential(nn.Linear(core_size + seen, location_hidden), nn.ReLU(), self.location_head)
        if scene_size is not None:
            self.saliency = Saliency(self.input.glimpse_shape, core_size, scene_size)
        path = _first_path(scan_steps, scan_start) / scan_gain
        if scan_steps > 0:
            self.scan = nn.Parameter(path)
        self.class_head = nn.Linear(core_size, first)
        if others:
            self.look_head = nn.Linear(core_size, sum(others))
        self.baseline_head = nn.Linear(core_size, first if baseline_by_class else 1)
        seeing = [*self.glimpse_network.parameters(), *self.core.parameters()]
        self._make_optimizer(lr_schedule, tuple(part for part in seeing if part.ndim == 2), muon_gain)

    def encode(self, obs: dict[str, Tensor]) -> Tensor:
        """g_t (N, H) for obs["glimpse"] (N, k, g, g), obs["location"] (N, 2) and perhaps obs["zoom"] (N, Z)."""
        return self.dropout(self.glimpse_network(*self.input(obs)))

    def read_out(self, hidden: Tensor, obs: dict[str, Tensor], step: Tensor, state: State) -> Outputs:
        """All heads' outputs for h_t (..., H)."""
        detached = hidden.detach()
        looking = hidden if self.location_gradient == "full" else detached
        mean = self._location_mean(looking, obs, step)
        logits = self.class_head(hidden)
        values = self.baseline_head(hidden if self.baseline_gradient == "full" else detached)
        # Who acts does not know the class: what it believes has to do.
        value = (values * logits.detach().softmax(-1)).sum(-1) if self.baseline_by_class else values.squeeze(-1)
        others = list(self.choices.values())[1:]
        looks = self.look_head(looking).split(others, dim=-1) if others else ()
        return Outputs(mean, (logits, *looks), value, values, state)

    def _location_mean(self, hidden: Tensor, obs: dict[str, Tensor], step: Tensor) -> Tensor:
        """Where to look next (..., 2), out of h_t (..., H)."""
        mean: Tensor | float = 0.0
        features = hidden
        if self.location_input != "state":
            glimpse, where = self.input(obs)
            features = torch.cat([hidden, glimpse.flatten(-len(self.input.glimpse_shape)), where], dim=-1)
        if self.location_input == "saliency":
            mean = self.saliency(hidden, glimpse, where, self.location_gain)
        if self.scan_steps > 0:
            mean = mean + self.scan_gain * self.scan[step.clamp(max=self.scan_steps - 1)]
        return hold_inside(mean + self.location_gain * self.location_head(features))

    def act(self, output: Outputs, deterministic: bool = False, greedy_choice: bool = False) -> tuple[Tensor, Tensor]:
        """Locations (N, 2), not clipped, and choices (N, P): samples, or with `deterministic` the most likely ones.

        `greedy_choice` makes the first choice, the class or move, the most likely one in any case.
        """
        location = output.location_mean.detach()
        if self.location_policy == "random":
            location = 2 * torch.rand_like(location) - 1
        elif not deterministic:
            location = sample_location(location, self.std_now)
        greedy = (deterministic or greedy_choice, *(deterministic,) * (len(self.choices) - 1))
        picked = [
            scores.argmax(-1) if best else sample_choice(scores) for scores, best in zip(output.logits, greedy, strict=True)
        ]
        return location, torch.stack(picked, dim=1)

    def log_probs(self, outputs: Outputs, actions: tuple[Tensor, ...]) -> Tensor:
        """Log-probabilities (T, N, 1 + P) of locations (T, N, 2) and of each of the choices (T, N, P)."""
        locations, choices = actions
        where = location_log_prob(locations, outputs.location_mean, self.std_now)
        picked = [choice_log_prob(choices[..., part], logits) for part, logits in enumerate(outputs.logits)]
        return torch.stack([where, *picked], dim=-1)

    def to_env(self, *actions: Tensor) -> NDArray[np.float32]:
        """Actions (N, 2 + K + ...) for the environment: the location clipped, then 1 for each choice and -1 for the others."""
        locations, choices = actions
        assert self.action_space.shape is not None
        sent = np.empty((len(choices), *self.action_space.shape), np.float32)
        sent[:, :2] = locations.clamp(-1, 1).cpu().numpy()
        first = 2
        for scores, chosen in zip(self._scores, choices.cpu().numpy().T, strict=True):
            sent[:, first : first + len(scores)] = scores[chosen]
            first += len(scores)
        return sent

    def _actions(self, output: Outputs, deterministic: bool) -> NDArray[np.float32]:
        """With `deterministic` the scores are 2 p - 1 of the probabilities p: whoever watches sees how sure the agent is."""
        actions = self.to_env(*self.act(output, deterministic))
        if deterministic:
            scores = torch.cat([2 * logits.softmax(-1) - 1 for logits in output.logits], dim=-1)
            actions[:, 2:] = scores.cpu().numpy()
        return actions

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,  # A loaded policy is there to act.
            "core": self.core_name,
            "glimpse_network": self.network_name,
            "location_policy": self.location_policy,
            "hidden_size": self.hidden_size,
            "core_size": self.core_size,
            "location_std": self.location_std,
            "location_input": self.location_input,
            "scene_size": self.scene_size,
            "location_hidden": self.location_hidden,
            "location_gain": self.location_gain,
            "scan_steps": self.scan_steps,
            "scan_start": self.scan_start,
            "scan_gain": self.scan_gain,
            "location_gradient": self.location_gradient,
            "baseline_gradient": self.baseline_gradient,
            "baseline_by_class": self.baseline_by_class,
            "glimpse_mean": self.glimpse_mean,
            "glimpse_std": self.glimpse_std,
            "dropout": self.dropout.p,
            "muon_gain": self.muon_gain,
            "optimizer_class": self.optimizer_class,
            "optimizer_kwargs": self.optimizer_kwargs,
        }


def _first_path(scan_steps: int, scan_start: list[list[float]] | None) -> Tensor:
    """The path before anything is learned, (scan_steps, 2)."""
    path = SCAN_START * torch.randn(scan_steps, 2)
    if scan_start is not None:
        given = np.asarray(scan_start, np.float32)
        if given.ndim != 2 or given.shape[1] != 2 or len(given) > scan_steps or not (np.abs(given) <= 1).all():
            raise ValueError(f"scan_start must be at most {scan_steps} places [x, y] in [-1, 1] (scan_steps), got {scan_start!r}")
        path[: len(given)] = torch.from_numpy(given)
    return path


def _read_choices(action_space: spaces.Space) -> dict[str, int]:
    """What there is to choose, beside the location, and from how many."""
    if not isinstance(action_space, spaces.Box) or action_space.shape is None or action_space.shape[-1:] < (4,):
        raise ValueError(
            "RAM needs one Box (2 + K,) of actions, a location and K scores: make the environment with "
            f'action_format="dict" or "box", got {action_space}'
        )
    if isinstance(action_space, ScoresBox):
        return action_space.choices
    return {"choice": action_space.shape[0] - 2}
