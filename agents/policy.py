"""The recurrent attention model as a Stable-Baselines3 policy."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from agents.distributions import sample_choice, sample_location
from agents.networks import CORES, GlimpseNetwork, State
from agents.vec_env import ScoresBox

SCAN_START = 0.1  # Standard deviation of the first offsets, before the gain.
SCAN_GAIN = 2.5  # Offsets move by this many learning rates at a step of Adam.


class Outputs(NamedTuple):
    """What the model makes of glimpses: of one for each environment (N, ...), or of T for each (T, N, ...)."""

    location_mean: Tensor  # (..., 2), where to look next
    logits: tuple[Tensor, ...]  # P of (..., K), scores of the classes or moves, then of each choice about how to look
    value: Tensor  # (...), the baseline b_t
    state: State  # for the next step


class RAMPolicy(BasePolicy):
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
        core: "relu" (classification) or "lstm" (games).
        hidden_size: units of h_g and h_l each.
        core_size: units of g_t and h_t each.
        location_std: the fixed standard deviation of the location, in units of [-1, 1].
        location_gain: the location's mean is this times Linear(h_t). Adam moves every weight by about the learning rate,
            however weak the signal; h_t has hundreds of components, so that with a gain of 1 one noisy step can move all
            locations by more than `location_std`.
        scan_steps: for so many steps of an episode the location's mean has a learned offset of its own, a path that the eye
            takes whatever it sees; Linear(h_t) bends it. 0 is the paper's model. The offset is learned from all images together,
            so that a useful path is found long before h_t tells places apart.
        location_gradient, baseline_gradient: "head" or "full", see above.
        glimpse_mean, glimpse_std: glimpses enter the network as (glimpse - mean) / std; a number each, or one for each scale.
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
        core: str = "relu",
        hidden_size: int = 128,
        core_size: int = 256,
        location_std: float = 0.1,
        location_gain: float = 0.1,
        scan_steps: int = 0,
        location_gradient: str = "head",
        baseline_gradient: str = "head",
        glimpse_mean: float | list[float] = 0.0,
        glimpse_std: float | list[float] = 1.0,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if optimizer_kwargs is None:
            has_fused = "fused" in inspect.signature(optimizer_class).parameters
            optimizer_kwargs = {"fused": True} if has_fused else {}
        super().__init__(
            observation_space,
            action_space,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )
        glimpse_shape, where_size, choices = _check_spaces(observation_space, action_space)
        if core not in CORES:
            raise ValueError(f"core must be one of {tuple(CORES)}, got {core!r}")
        for name, reach in (("location_gradient", location_gradient), ("baseline_gradient", baseline_gradient)):
            if reach not in ("head", "full"):
                raise ValueError(f'{name} must be "head" or "full", got {reach!r}')
        for name, value in (
            ("location_std", location_std),
            ("location_gain", location_gain),
            ("glimpse_std", np.min(glimpse_std)),
        ):
            if not value > 0:
                raise ValueError(f"{name} must be above 0, got {value!r}")
        if scan_steps < 0:
            raise ValueError(f"scan_steps must be at least 0, got {scan_steps!r}")
        if use_sde:
            raise ValueError("use_sde is not supported: the location's width is fixed (location_std)")
        self.core_name, self.hidden_size, self.core_size = core, hidden_size, core_size
        self.location_std, self.location_gain = location_std, location_gain
        self.scan_steps = scan_steps
        self.location_gradient, self.baseline_gradient = location_gradient, baseline_gradient
        self.glimpse_mean, self.glimpse_std = glimpse_mean, glimpse_std
        self.choices = choices
        self._scores = [2 * np.eye(size, dtype=np.float32) - 1 for size in choices.values()]  # What is sent for each choice.
        self._mean: Tensor
        self._std: Tensor
        self.register_buffer("_mean", _per_scale("glimpse_mean", glimpse_mean, glimpse_shape), persistent=False)
        self.register_buffer("_std", _per_scale("glimpse_std", glimpse_std, glimpse_shape), persistent=False)
        first, *others = choices.values()
        self.glimpse_network = GlimpseNetwork(int(np.prod(glimpse_shape)), where_size, hidden_size, core_size)
        self.core = CORES[core](core_size, core_size)
        self.location_head = nn.Linear(core_size, 2)
        if scan_steps > 0:
            self.scan = nn.Parameter(SCAN_START * torch.randn(scan_steps, 2))
        self.class_head = nn.Linear(core_size, first)
        if others:
            self.look_head = nn.Linear(core_size, sum(others))
        self.baseline_head = nn.Linear(core_size, 1)
        self.optimizer = self.optimizer_class(
            self.parameters(),
            lr=lr_schedule(1),  # type: ignore[call-arg]
            **self.optimizer_kwargs,
        )

    def forward(self, obs: dict[str, Tensor], state: State) -> Outputs:
        """One step: obs["glimpse"] (N, k, g, g), obs["location"] (N, 2), state of (N, H) tensors."""
        *core_state, step = state
        hidden, core_state = self.core(self._features(obs), core_state)  # (N, H), h_t
        return self._heads(hidden, step.squeeze(1), (*core_state, step + 1))

    def unroll(self, obs: dict[str, Tensor], state: State, episode_starts: NDArray[np.bool_]) -> Outputs:
        """T steps at once, with the gradient through all of them: obs of (T, N, ...), episode_starts (T, N)."""
        features = self._features({name: part.flatten(0, 1) for name, part in obs.items()})  # (T N, H), g_t
        hiddens, steps = [], []
        for inputs, starts in zip(features.unflatten(0, episode_starts.shape), episode_starts, strict=True):
            *core_state, step = self.mask_state(state, starts)
            hidden, core_state = self.core(inputs, core_state)
            hiddens.append(hidden)
            steps.append(step.squeeze(1))
            state = (*core_state, step + 1)
        return self._heads(torch.stack(hiddens), torch.stack(steps), state)

    def _features(self, obs: dict[str, Tensor]) -> Tensor:
        glimpse = obs["glimpse"]
        if (self.glimpse_mean, self.glimpse_std) != (0, 1):
            glimpse = (glimpse - self._mean) / self._std
        where = [obs[name] for name in ("location", "zoom") if name in obs]
        return self.glimpse_network(glimpse, torch.cat(where, dim=1) if len(where) > 1 else where[0])

    def _heads(self, hidden: Tensor, step: Tensor, state: State) -> Outputs:
        detached = hidden.detach()
        looking = hidden if self.location_gradient == "full" else detached
        mean = self.location_gain * self.location_head(looking)
        if self.scan_steps > 0:
            mean = mean + SCAN_GAIN * self.scan[step.clamp(max=self.scan_steps - 1)]
        value = self.baseline_head(hidden if self.baseline_gradient == "full" else detached).squeeze(-1)
        others = list(self.choices.values())[1:]
        looks = self.look_head(looking).split(others, dim=-1) if others else ()
        return Outputs(mean, (self.class_head(hidden), *looks), value, state)

    def initial_state(self, num_envs: int) -> State:
        """h_0 = 0 as tensors (num_envs, H), and the number of the step in the episode (num_envs, 1)."""
        zeros = torch.zeros(num_envs, self.core_size, device=self.device)
        step = torch.zeros(num_envs, 1, dtype=torch.long, device=self.device)
        return (*(zeros,) * self.core.num_states, step)

    def mask_state(self, state: State | None, episode_start: NDArray[np.bool_]) -> State:
        """The state with h_0 where an episode starts: episode_start is (N,)."""
        if state is None or episode_start.all():
            return self.initial_state(len(episode_start))
        if not episode_start.any():
            return state
        goes_on = torch.as_tensor(~episode_start, device=self.device).unsqueeze(1)
        return tuple(part * goes_on for part in state)

    def act(self, output: Outputs, greedy_location: bool = False, greedy_choice: bool = False) -> tuple[Tensor, Tensor]:
        """Locations (N, 2), not clipped, and choices (N, P): the most likely ones or samples.

        `greedy_location` goes for the other choices about how to look as well.
        """
        location = output.location_mean.detach()
        if not greedy_location:
            location = sample_location(location, self.location_std)
        greedy = (greedy_choice, *(greedy_location,) * (len(self.choices) - 1))
        picked = [
            scores.argmax(-1) if best else sample_choice(scores) for scores, best in zip(output.logits, greedy, strict=True)
        ]
        return location, torch.stack(picked, dim=1)

    def to_box(self, locations: Tensor, choices: Tensor) -> NDArray[np.float32]:
        """Actions (N, 2 + K + ...) for the environment: the location clipped, then 1 for each choice and -1 for the others."""
        assert self.action_space.shape is not None
        actions = np.empty((len(choices), *self.action_space.shape), np.float32)
        actions[:, :2] = locations.clamp(-1, 1).cpu().numpy()
        first = 2
        for scores, chosen in zip(self._scores, choices.cpu().numpy().T, strict=True):
            actions[:, first : first + len(scores)] = scores[chosen]
            first += len(scores)
        return actions

    def predict(
        self,
        observation: NDArray | dict[str, NDArray],
        state: tuple[NDArray, ...] | None = None,
        episode_start: NDArray | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray, tuple[NDArray, ...] | None]:
        """The actions for a batch of observations (or for one), and the state to hand in at the next step.

        Args:
            observation: a dict of "glimpse" and "location", with or without a batch axis.
            state: what the last call returned; None at the start.
            episode_start: (N,), whether each observation is the first of its episode; None: only where `state` is None.
            deterministic: greedy location and choices, instead of samples; the scores are then 2 p - 1 of their probabilities p.
        """
        self.set_training_mode(False)
        obs, is_batch = self.obs_to_tensor(observation)
        num_envs = len(obs["location"])  # type: ignore[index]
        starts = np.zeros(num_envs, np.bool_)
        if episode_start is not None:
            starts |= np.asarray(episode_start, np.bool_)
        tensors = None
        if state is not None:
            tensors = tuple(torch.as_tensor(part, device=self.device) for part in state)
        with torch.no_grad():
            output = self(obs, self.mask_state(tensors, starts))
            actions = self.to_box(*self.act(output, deterministic, deterministic))
        if deterministic:  # The highest score is the same, and whoever watches sees how sure the agent is.
            scores = torch.cat([2 * logits.softmax(-1) - 1 for logits in output.logits], dim=-1)
            actions[:, 2:] = scores.cpu().numpy()
        new_state = tuple(part.cpu().numpy() for part in output.state)
        return (actions if is_batch else actions[0]), new_state

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        num_envs = len(observation["location"])  # type: ignore[index]
        output = self(observation, self.initial_state(num_envs))
        return torch.as_tensor(self.to_box(*self.act(output, deterministic, deterministic)), device=self.device)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,  # A loaded policy is there to act.
            "core": self.core_name,
            "hidden_size": self.hidden_size,
            "core_size": self.core_size,
            "location_std": self.location_std,
            "location_gain": self.location_gain,
            "scan_steps": self.scan_steps,
            "location_gradient": self.location_gradient,
            "baseline_gradient": self.baseline_gradient,
            "glimpse_mean": self.glimpse_mean,
            "glimpse_std": self.glimpse_std,
            "optimizer_class": self.optimizer_class,
            "optimizer_kwargs": self.optimizer_kwargs,
        }


def _check_spaces(observation_space: spaces.Space, action_space: spaces.Space) -> tuple[tuple[int, ...], int, dict[str, int]]:
    """The shape of a glimpse, the numbers that say where and how wide it is taken, and the choices."""
    if not isinstance(observation_space, spaces.Dict) or not {"glimpse", "location"} <= set(observation_space.spaces):
        raise ValueError(f'RAM needs a Dict observation with "glimpse" (k, g, g) and "location" (2,), got {observation_space}')
    if not isinstance(action_space, spaces.Box) or action_space.shape is None or action_space.shape[-1:] < (4,):
        raise ValueError(
            "RAM needs one Box (2 + K,) of actions, a location and K scores: make the environment with "
            f'action_format="dict" or "box", got {action_space}'
        )
    shape = observation_space["glimpse"].shape
    where_size = sum(spaces.flatdim(observation_space[name]) for name in ("location", "zoom") if name in observation_space.spaces)
    assert shape is not None
    if isinstance(action_space, ScoresBox):
        return shape, where_size, action_space.choices
    return shape, where_size, {"choice": action_space.shape[0] - 2}


def _per_scale(name: str, given: float | list[float], glimpse_shape: tuple[int, ...]) -> Tensor:
    """One number for each scale (k, 1, ...), or one for all."""
    values = torch.as_tensor(given, dtype=torch.float32)
    if values.shape not in ((), glimpse_shape[:1]):
        raise ValueError(f"{name} must be a number or one for each of the {glimpse_shape[0]} scales, got {given!r}")
    return values.reshape(-1, *(1,) * (len(glimpse_shape) - 1))
