"""The recurrent attention model (Mnih et al. 2014, section 3.1) as a Stable-Baselines3 policy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from .cores import OTHER_CORES, State
from .glimpse_networks import OTHER_GLIMPSE_NETWORKS, RELU_GAIN, GlimpseInput, PerScale, Shape, find_class, init_linear
from .location import Saliency
from .losses import choice_log_prob, location_log_prob
from .optimizers import MuonBeside
from .recurrent import Actions, CorePolicy, Options

RECURRENT_START = 0.5
PATH_START = 0.25  # Standard deviation of the first offsets of a path.


class GlimpseNetwork(nn.Module):
    """f_g: what was seen and where, as one vector g_t.

    h_g = Rect(Linear(rho)), h_l = Rect(Linear(l)), g = Rect(Linear(h_g) + Linear(h_l)).

    Args:
        glimpse_shape: (k, g, g), or (k, C, g, g).
        where_size: the numbers that say where it was taken: 2 of the location, and those of the zoom.
        hidden_size, output_size: units of h_g and h_l each, and of g_t.
    """

    def __init__(self, glimpse_shape: Shape, where_size: int = 2, hidden_size: int = 128, output_size: int = 256) -> None:
        super().__init__()
        self.what = nn.Linear(math.prod(glimpse_shape), hidden_size)
        self.where = nn.Linear(where_size, hidden_size)
        # One matrix for both: Linear(h_g) + Linear(h_l) = Linear([h_g, h_l]).
        self.both = nn.Linear(2 * hidden_size, output_size)
        init_linear(RELU_GAIN, self.what, self.where, self.both)

    def forward(self, glimpse: Tensor, location: Tensor) -> Tensor:
        what = self.what(glimpse.flatten(1))  # (N, k, g, g) -> (N, hidden)
        where = self.where(location)  # (N, 2) -> (N, hidden)
        return self.both(torch.cat([what, where], dim=1).relu()).relu()  # (N, output)


class ReLUCore(nn.Module):
    """f_h for classification: h_t = Rect(Linear(h_{t-1}) + Linear(g_t))."""

    num_states = 1

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        # One matrix for both: Linear(h) + Linear(g) = Linear([h, g]).
        self.both = nn.Linear(hidden_size + input_size, hidden_size)
        init_linear(1.0, self.both)
        with torch.no_grad():
            # A recurrent start that forgets slowly and mixes nothing (Le, Jaitly and Hinton 2015, at half their scale).
            self.both.weight[:, :hidden_size] = RECURRENT_START * torch.eye(hidden_size)
            nn.init.orthogonal_(self.both.weight[:, hidden_size:])

    def forward(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        hidden = self.both(torch.cat([state[0], inputs], dim=1)).relu()  # (N, H)
        return hidden, (hidden,)


CORES: dict[str, type[nn.Module]] = {"relu": ReLUCore, **OTHER_CORES}
GLIMPSE_NETWORKS: dict[str, type[nn.Module]] = {"paper": GlimpseNetwork, **OTHER_GLIMPSE_NETWORKS}


@dataclass(frozen=True)
class RAMPolicyOptions(Options):
    """What `policy_kwargs` may hold for a `RAMPolicy`."""

    core: str | type = (
        "relu"  # f_h: "relu" (the paper's), "lstm" (for games), "gru", "none" (h_t = g_t), or your own `cores.Core`.
    )
    glimpse_network: str | type = "paper"  # f_g: one of `GLIMPSE_NETWORKS`, or a class of your own with their arguments.
    location_policy: str = "learned"  # Or "random": locations are drawn from all of the scene, and nothing is learned of them.
    hidden_size: int = 128  # Units of h_g and h_l each.
    core_size: int = 256  # Units of g_t and h_t each.
    location_std: float = 0.1  # The standard deviation of the location, in units of [-1, 1].

    location_input: str = "state"
    """What the location network sees. "state": h_t alone, as in the paper. "saliency": beside h_t the glimpse itself and where it
    was taken, and the mean is counted from what in sight is worth a closer look, see `location.Saliency`. h_t learns what
    tells classes apart: where in the glimpse something lies can hardly be read from it."""

    scene_size: Any = None  # For "saliency": the scene's side in pixels, or height and width; None: the space's `scene_shape`.
    location_hidden: int = 0  # Rectified units between h_t and the location's mean; 0 is the paper's linear location network.

    location_scale: float = 0.1
    """The location's mean is this times Linear(h_t), clipped to the scene. Adam moves every weight by about the learning rate,
    however weak the signal; h_t has hundreds of components, so that with 1 one noisy step can move all locations by more
    than `location_std`."""

    path_steps: int = 0
    """For this number of steps the location's mean has a learned offset of its own, a path that the eye takes whatever it sees;
    Linear(h_t) bends it. 0 is the paper's model. The offset is learned from all images together, so that a useful path is
    found long before h_t tells places apart. It begins near the scene's middle, at random."""

    path_scale: float = 2.5  # An offset moves by about this number of learning rates at a step of Adam, however weak the signal.
    location_gradient: str = "head"  # The location network sees h_t detached. "full": REINFORCE shapes core and glimpse network.
    baseline_gradient: str = "head"  # The same for the baseline.

    baseline_by_class: bool = False
    """The baseline has an output for each class, and while learning that of the true class counts. The class is drawn before
    anything is looked at, so that the gradient is as unbiased as before, and varies less."""

    glimpse_mean: PerScale = 0.0  # Glimpses enter the network as (glimpse - mean) / std; a number, or one for each scale.
    glimpse_std: PerScale = 1.0  # See `glimpse_mean`.
    dropout: float = 0.0  # While learning, each unit of g_t is 0 with this probability, for rollouts that are learned from once.

    muon_scale: float = 0.0
    """Above 0, Muon moves the matrices of the glimpse network and the core, in steps this times as long as Adam's. Their
    gradients are the class's, far less noisy than those of REINFORCE. See `optimizers.MuonBeside`."""

    optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam
    optimizer_kwargs: dict[str, Any] | None = None  # But the learning rate; None: the fused variant where there is one.

    ranges: ClassVar[dict[str, tuple[float, float]]] = {
        **dict.fromkeys(("hidden_size", "core_size"), (1, 2**16)),
        **dict.fromkeys(("location_hidden", "path_steps"), (0, 2**16)),
        "muon_scale": (0, math.inf),
        "dropout": (0, 0.999),
    }
    above_zero: ClassVar[tuple[str, ...]] = ("location_std", "location_scale", "path_scale")
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {
        "location_policy": ("learned", "random"),
        "location_input": ("state", "saliency"),
        "location_gradient": ("head", "full"),
        "baseline_gradient": ("head", "full"),
    }


# What some options were called in models stored by earlier versions, and what is no option any more.
_OLD_NAMES = {
    "scan_steps": "path_steps",
    "scan_gain": "path_scale",
    "location_gain": "location_scale",
    "muon_gain": "muon_scale",
}
GONE = ("scan_start", "path_start")  # The path to begin with, of which the weights hold what became of it.


def current_names(stored: dict[str, Any]) -> dict[str, Any]:
    """The policy_kwargs of a stored model, by their names of today."""
    return {_OLD_NAMES.get(name, name): value for name, value in stored.items() if name not in GONE}


class Outputs(NamedTuple):
    """What the model makes of glimpses: of one for each environment (N, ...), or of T for each (T, N, ...)."""

    location_mean: Tensor  # (..., 2), where to look next; what lies beyond the scene counts as its edge
    logits: tuple[Tensor, ...]  # P of (..., K), scores of the classes or moves, then of each choice about how to look
    value: Tensor  # (...), the baseline b_t
    class_values: Tensor  # (..., K), the baseline for each class, or (..., 1) where it is the same for all
    state: State  # for the next step


class RAMPolicy(CorePolicy):
    """Glimpse network f_g, core f_h, and the location, class and baseline heads.

    The gradient of each loss is cut so that, as in the paper, the class's loss trains the action, core and glimpse networks and
    REINFORCE trains the location network:

    - the class head's loss flows into the core and the glimpse network, back through all steps;
    - the baseline head sees h_t detached: it trains itself alone;
    - the location head (and with it the head of "stop" and "zoom", where there are such) sees h_t detached too;
      `location_gradient="full"` lets REINFORCE shape core and glimpse network, `baseline_gradient="full"` the baseline;
    - a location reaches the next step as an observation, never as a graph: nothing flows through the retina.

    Args:
        observation_space: a Dict of "glimpse" (k, g, g), or (k, C, g, g), "location" (2,) and perhaps "zoom" (Z,).
        action_space: a Box (2 + K + ...,): location, then K scores, of which the environment takes the highest, and the scores of
            further choices. `choices` of the space says how many there are of each; without it there is one choice.
        lr_schedule: the learning rate by remaining progress (1 to 0).
        **options: see `RAMPolicyOptions`.

    Raises:
        ValueError: spaces or options that the model can't take; the message names them.
        TypeError: an option that there is not.
    """

    options: RAMPolicyOptions

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        use_sde: bool = False,
        **options: Any,
    ) -> None:
        o = self.options = RAMPolicyOptions.of(options)
        if use_sde:
            raise ValueError("use_sde is not supported: the location's width is fixed (location_std)")
        super().__init__(observation_space, action_space, optimizer_class=o.optimizer_class, optimizer_kwargs=o.optimizer_kwargs)
        self.core_size, self.std = o.core_size, o.location_std  # The latter now; where it is annealed, `RAM` sets it.
        self.input = GlimpseInput(observation_space, o.glimpse_mean, o.glimpse_std)
        self.choices = _read_choices(action_space)
        self._scores = [2 * np.eye(size, dtype=np.float32) - 1 for size in self.choices.values()]  # What is sent for each choice.
        self.dropout = nn.Dropout(o.dropout)
        network_class = find_class("glimpse_network", o.glimpse_network, GLIMPSE_NETWORKS)
        self.glimpse_network = network_class(self.input.glimpse_shape, self.input.where_size, o.hidden_size, o.core_size)
        self.core = find_class("core", o.core, CORES)(o.core_size, o.core_size)
        self._make_heads()
        self._make_optimizer(lr_schedule)

    def _make_heads(self) -> None:
        o = self.options
        first, *others = self.choices.values()
        self.scene_size = self._read_scene_size() if o.location_input == "saliency" else None
        seen = 0 if self.scene_size is None else math.prod(self.input.glimpse_shape) + self.input.where_size
        self.location_head: nn.Module = nn.Linear(o.location_hidden or o.core_size + seen, 2)
        if o.location_hidden:
            self.location_head = nn.Sequential(nn.Linear(o.core_size + seen, o.location_hidden), nn.ReLU(), self.location_head)
        if self.scene_size is not None:
            self.saliency = Saliency(self.input.glimpse_shape, o.core_size, self.scene_size)
        if o.path_steps > 0:
            self.path = nn.Parameter(PATH_START * torch.randn(o.path_steps, 2) / o.path_scale)  # (path_steps, 2)
        self.class_head = nn.Linear(o.core_size, first)
        if others:
            self.look_head = nn.Linear(o.core_size, sum(others))
        self.baseline_head = nn.Linear(o.core_size, first if o.baseline_by_class else 1)

    def forward(self, obs: dict[str, Tensor], state: State) -> Outputs:
        """One step t: obs["glimpse"] rho (N, k, g, g) taken at obs["location"] l (N, 2), and the state of the step before."""
        *core_state, step = state
        glimpse = self.encode(obs)  # (N, H), g_t = f_g(rho, l)
        hidden, core_state = self.core(glimpse, core_state)  # (N, H), h_t = f_h(h_{t-1}, g_t)
        return self.read_out(hidden, obs, step.squeeze(1), (*core_state, step + 1))

    def encode(self, obs: dict[str, Tensor]) -> Tensor:
        """g_t (N, H) for obs["glimpse"] (N, k, g, g), obs["location"] (N, 2) and perhaps obs["zoom"] (N, Z)."""
        glimpse, seen = obs["glimpse"], self.input
        if not seen.is_plain:
            glimpse = (glimpse - seen.mean) / seen.std
        where = obs["location"] if seen.where_size == 2 else torch.cat([obs[name] for name in seen.names], dim=-1)
        return self.dropout(self.glimpse_network(glimpse, where))

    def read_out(self, hidden: Tensor, obs: dict[str, Tensor], step: Tensor, state: State) -> Outputs:
        """All heads' outputs for h_t (..., H)."""
        detached = hidden.detach()
        looking = hidden if self.options.location_gradient == "full" else detached
        mean = self._location_mean(looking, obs, step)
        logits = self.class_head(hidden)
        values = self.baseline_head(hidden if self.options.baseline_gradient == "full" else detached)
        # Who acts does not know the class: what it believes has to do.
        by_class = self.options.baseline_by_class
        value = (values * logits.detach().softmax(-1)).sum(-1) if by_class else values.squeeze(-1)
        _, *others = self.choices.values()
        looks = self.look_head(looking).split(others, dim=-1) if others else ()
        return Outputs(mean, (logits, *looks), value, values, state)

    def _location_mean(self, hidden: Tensor, obs: dict[str, Tensor], step: Tensor) -> Tensor:
        """f_l: where to look next (..., 2), out of h_t (..., H)."""
        mean: Tensor | float = 0.0
        features = hidden
        if self.scene_size is not None:
            glimpse, where = self.input(obs)
            features = torch.cat([hidden, glimpse.flatten(-len(self.input.glimpse_shape)), where], dim=-1)
            mean = self.saliency(hidden, glimpse, where, self.options.location_scale)
        if self.options.path_steps > 0:
            mean = mean + self.options.path_scale * self.path[step.clamp(max=self.options.path_steps - 1)]
        return mean + self.options.location_scale * self.location_head(features)

    def act(self, output: Outputs, deterministic: bool = False, greedy_choice: bool = False) -> tuple[Actions, NDArray]:
        """Locations (N, 2) ~ N(f_l(h_t), std^2) and choices (N, P) ~ softmax(f_a(h_t)), see `CorePolicy.act`.

        The environment, which clips the locations, is sent (N, 2 + K + ...): 1 for each choice and -1 for the others.
        """
        location = output.location_mean.detach().clamp(-1, 1)
        if self.options.location_policy == "random":
            location = 2 * torch.rand_like(location) - 1
        elif not deterministic:
            location = location + self.std * torch.randn_like(location)
        picked = []
        for part, scores in enumerate(output.logits):
            is_greedy = deterministic or (greedy_choice and part == 0)
            picked.append(scores.argmax(-1) if is_greedy else torch.multinomial(scores.detach().softmax(-1), 1).squeeze(-1))
        choices = torch.stack(picked, dim=1)
        sent = [location.cpu().numpy()]
        sent += [scores[chosen] for scores, chosen in zip(self._scores, choices.cpu().numpy().T, strict=True)]
        return (location, choices), np.concatenate(sent, axis=1, dtype=np.float32)

    def log_probs(self, outputs: Outputs, actions: Actions, parts: int | None = None) -> Tensor:
        """Log-probabilities (T, N, 1 + P) of locations (T, N, 2) and of choices (T, N, P), or of the first `parts` of these."""
        locations, choices = actions
        where = location_log_prob(locations, outputs.location_mean, self.std)
        wanted = outputs.logits[: None if parts is None else parts - 1]
        picked = [choice_log_prob(choices[..., part], logits) for part, logits in enumerate(wanted)]
        return torch.stack([where, *picked], dim=-1)

    def _actions(self, output: Outputs, deterministic: bool) -> NDArray:
        """With `deterministic` the scores are 2 p - 1 of the probabilities p: whoever watches sees how sure the agent is."""
        _, actions = self.act(output, deterministic)
        if deterministic:
            actions[:, 2:] = torch.cat([2 * logits.softmax(-1) - 1 for logits in output.logits], dim=-1).cpu().numpy()
        return actions.clip(-1, 1, out=actions)  # SB3 wants what its spaces hold.

    def _make_optimizer(self, lr_schedule: Schedule) -> None:
        """Adam for all, or with a `muon_scale` Muon for the matrices of what learns from the class."""
        seeing = [*self.glimpse_network.parameters(), *self.core.parameters()]
        matrices = [part for part in seeing if part.ndim == 2] if self.options.muon_scale else []
        apart = {id(matrix) for matrix in matrices}
        others = [parameter for parameter in self.parameters() if id(parameter) not in apart]
        self.optimizer = self.optimizer_class(others, lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]
        if matrices:
            self.optimizer = MuonBeside(self.optimizer, matrices, self.options.muon_scale)

    def _read_scene_size(self) -> Any:
        if "zoom" in self.input.names:
            raise ValueError(
                'location_input="saliency" needs glimpses of one width: make the environment without zooms, or take "state"'
            )
        if self.options.scene_size is not None:
            return self.options.scene_size
        shape = getattr(self.observation_space, "scene_shape", None)
        if shape is None:
            raise ValueError('location_input="saliency" needs a scene_size where the observation space has no scene_shape')
        return list(shape[-2:])

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        if f"{prefix}scan" in state_dict:  # Weights stored by version 0.1.0.
            state_dict[f"{prefix}path"] = state_dict.pop(f"{prefix}scan")
        super()._load_from_state_dict(state_dict, prefix, *others)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "scene_size": self.scene_size}


def _read_choices(action_space: spaces.Space) -> dict[str, int]:
    """What there is to choose, beside the location, and from how many."""
    if not isinstance(action_space, spaces.Box) or action_space.shape[-1:] < (4,):
        cure = 'make the environment with action_format="dict" or "box"'
        raise ValueError(f"RAM needs actions of a location and choices: {cure}, got {action_space}")
    return getattr(action_space, "choices", None) or {"choice": action_space.shape[0] - 2}
