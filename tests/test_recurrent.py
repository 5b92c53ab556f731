"""What the package's recurrent policies share, and how options are checked; their own tests say what they make of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gymnasium import spaces
from torch import Tensor, nn

from ram_envs.agents import EpisodePPO
from ram_envs.agents.on_policy import OnPolicyHyperparams
from ram_envs.agents.policy import RAMPolicyOptions
from ram_envs.agents.ram import RAMHyperparams
from ram_envs.agents.recurrent import CorePolicy, Options, map_obs, num_rows, parse_schedule, stack


class Counted(NamedTuple):
    value: Tensor
    state: tuple


class Counter(CorePolicy):
    """Adds up what it sees; its action is the sum, and the number of the step."""

    class Sum(nn.Module):
        num_states = 1

        def forward(self, inputs, state):
            hidden = state[0] + inputs
            return hidden, (hidden,)

    core_size = 1

    def __init__(self, observation_space):
        super().__init__(observation_space, spaces.Box(-99, 99, (2,)))
        self.core = self.Sum()
        self.weight = nn.Parameter(torch.ones(1))

    def encode(self, obs):
        return self.weight * (obs["seen"] if isinstance(obs, dict) else obs)

    def read_out(self, hidden, obs, step, state):
        return Counted(torch.stack([hidden.squeeze(-1), step.float()], dim=-1), state)

    def act(self, output, deterministic=False, greedy_choice=False):
        actions = output.value.detach()
        return (actions,), actions.numpy()


SEEN = spaces.Box(-9, 9, (1,))


def test_the_state_and_the_step_are_carried_on_until_an_episode_starts():
    policy = Counter(SEEN)
    obs = np.array([[1.0], [2.0]], np.float32)
    actions, state = policy.predict(obs)
    assert actions.tolist() == [[1, 0], [2, 0]]
    actions, state = policy.predict(obs, state)
    assert actions.tolist() == [[2, 1], [4, 1]]
    actions, state = policy.predict(obs, state, np.array([False, True]))
    assert actions.tolist() == [[3, 2], [2, 0]]
    assert [part.tolist() for part in state] == [[[3.0], [2.0]], [[3], [1]]]
    action, _ = policy.predict(obs[0])  # Without a batch axis.
    assert action.tolist() == [1, 0]


def test_unrolling_adds_up_within_episodes_and_carries_the_gradient():
    policy = Counter(spaces.Dict({"seen": SEEN}))
    seen = torch.arange(1.0, 7.0).reshape(3, 2, 1)  # (T, N, 1): 1 3 5 and 2 4 6.
    starts = np.array([[True, True], [False, False], [False, True]])
    outputs = policy.unroll({"seen": seen}, policy.initial_state(2), starts)
    assert outputs.value[..., 0].tolist() == [[1, 2], [4, 6], [9, 6]]
    assert outputs.value[..., 1].tolist() == [[0, 0], [1, 1], [2, 0]]
    assert [part.tolist() for part in outputs.state] == [[[9.0], [6.0]], [[3], [1]]]
    outputs.value[2, :, 0].sum().backward()
    assert policy.weight.grad.item() == 9 + 6  # Through all steps, and not across the episode's start.


def test_masked_states():
    policy = Counter(SEEN)
    state = (torch.tensor([[5.0], [6.0]]), torch.tensor([[3], [4]]))
    assert policy.mask_state(state, np.array([False, False])) is state
    assert [part.tolist() for part in policy.mask_state(state, np.array([True, False]))] == [[[0.0], [6.0]], [[0], [4]]]
    for fresh in (policy.mask_state(state, np.array([True, True])), policy.mask_state(None, np.array([False, False]))):
        assert [part.tolist() for part in fresh] == [[[0.0], [0.0]], [[0], [0]]]


def test_observations_of_both_kinds():
    array, both = torch.zeros(3, 2), {"a": torch.zeros(4, 1), "b": torch.ones(4, 2)}
    assert num_rows(array) == 3
    assert num_rows(both) == 4
    assert map_obs(len, array) == 3
    assert map_obs(lambda part: part.shape[1], both) == {"a": 1, "b": 2}


def test_steps_are_stacked():
    steps = [Counted(torch.full((2,), float(t)), ()) for t in range(3)]
    stacked = stack(steps)
    assert isinstance(stacked, Counted)
    assert stacked.value.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert stacked.state == ()
    dicts = stack([{"a": torch.tensor([t])} for t in range(3)])
    assert dicts["a"].tolist() == [[0], [1], [2]]
    pairs = stack([(torch.tensor([t]), torch.tensor([-t])) for t in range(2)])
    assert [part.tolist() for part in pairs] == [[[0], [1]], [[0], [-1]]]


@dataclass(frozen=True)
class Some(Options):
    """One option of each kind."""

    rate: float | Callable[[float], float] = 0.1
    share: float = 0.5
    steps: int | None = None
    width: float | None = None
    fast: bool = False
    kind: str = "plain"
    mean: float | list[float] = 0.0
    path: list[list[float]] | None = None

    ranges: ClassVar = {"share": (0, 1), "steps": (1, 100)}
    above_zero: ClassVar = ("width",)
    choices: ClassVar = {"kind": ("plain", "fancy")}


@pytest.mark.parametrize(
    "given",
    [
        {"rate": lambda left: left},
        {"rate": 3},
        {"share": 0},
        {"share": np.float32(1)},
        {"steps": None},
        {"steps": 1},
        {"steps": np.int64(100)},
        {"width": None},
        {"width": 1e-9},
        {"fast": np.True_},
        {"kind": "fancy"},
        {"mean": [0.1, 0.2]},
        {"path": [[0.0, 0.5]]},
    ],
    ids=lambda given: next(iter(given)),
)
def test_options_of_their_kind_and_range_are_taken(given):
    ((name, value),) = given.items()
    assert vars(Some.of(given))[name] is value


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rate": "fast"}, "rate must be a finite number, got 'fast'"),
        ({"rate": True}, "rate must be a finite number, got True"),
        ({"share": -0.1}, "share must be a number from 0 to 1, got -0.1"),
        ({"share": float("nan")}, "share must be a number from 0 to 1, got nan"),
        ({"share": None}, "share must be a number from 0 to 1, got None"),
        ({"share": [0.5]}, r"share must be a number from 0 to 1, got \[0.5\]"),
        ({"steps": 0}, "steps must be a whole number from 1 to 100, got 0"),
        ({"steps": 2.0}, "steps must be a whole number from 1 to 100, got 2.0"),
        ({"width": 0}, "width must be a finite number above 0, got 0"),
        ({"width": float("inf")}, "width must be a finite number above 0, got inf"),
        ({"fast": "false"}, "fast must be True or False, got 'false'"),
        ({"fast": 1}, "fast must be True or False, got 1"),
        ({"kind": "odd"}, r"kind must be one of \('plain', 'fancy'\), got 'odd'"),
        ({"kind": None}, r"kind must be one of \('plain', 'fancy'\), got None"),
    ],
)
def test_other_options_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        Some.of(given)


def test_unknown_options_are_named_beside_the_known():
    with pytest.raises(TypeError, match="gain, size is not among the Some: rate, share, steps, width, fast, kind, mean, path"):
        Some.of({"size": 3, "share": 0.5, "gain": 1})


def test_bounds_are_written_in_full():
    with pytest.raises(ValueError, match=r"^n_epochs must be a whole number from 1 to 2147483648, got 0$"):
        OnPolicyHyperparams(n_epochs=0)


@pytest.mark.parametrize(
    ("options", "bad"),
    [
        (OnPolicyHyperparams, {"gamma": 5}),
        (OnPolicyHyperparams, {"gae_lambda": -3}),
        (OnPolicyHyperparams, {"vf_coef": -1}),
        (OnPolicyHyperparams, {"learning_rate": -1e-3}),
        (OnPolicyHyperparams, {"learning_rate": float("nan")}),
        (OnPolicyHyperparams, {"normalize_advantage": "false"}),
        (OnPolicyHyperparams, {"n_epochs": 0}),
        (OnPolicyHyperparams, {"n_epochs": None}),
        (OnPolicyHyperparams, {"n_minibatches": 1e9}),
        (OnPolicyHyperparams, {"n_minibatches": 2.5}),
        (OnPolicyHyperparams, {"n_steps": 0}),
        (OnPolicyHyperparams, {"clip_range": 0}),
        (OnPolicyHyperparams, {"clip_range": 1.5}),
        (OnPolicyHyperparams, {"ent_coef": None}),
        (OnPolicyHyperparams, {"max_grad_norm": 0}),
        (OnPolicyHyperparams, {"weight_average": 1.5}),
        (OnPolicyHyperparams, {"cuda_graphs": 0}),
        (RAMHyperparams, {"class_loss": "mse"}),
        (RAMHyperparams, {"class_loss_steps": "first"}),
        (RAMHyperparams, {"location_reward": "speed"}),
        (RAMHyperparams, {"location_coef": -1}),
        (RAMHyperparams, {"final_location_std": 0}),
        (RAMPolicyOptions, {"location_std": 0}),
        (RAMPolicyOptions, {"location_scale": -1}),
        (RAMPolicyOptions, {"location_policy": "greedy"}),
        (RAMPolicyOptions, {"location_input": "glimpse"}),
        (RAMPolicyOptions, {"location_gradient": "none"}),
        (RAMPolicyOptions, {"baseline_gradient": "none"}),
        (RAMPolicyOptions, {"baseline_by_class": "yes"}),
        (RAMPolicyOptions, {"hidden_size": 0}),
        (RAMPolicyOptions, {"core_size": 128.0}),
        (RAMPolicyOptions, {"location_hidden": -1}),
        (RAMPolicyOptions, {"path_steps": -1}),
        (RAMPolicyOptions, {"path_scale": 0}),
        (RAMPolicyOptions, {"muon_scale": -1}),
        (RAMPolicyOptions, {"dropout": 1.0}),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else value.__name__,
)
def test_what_the_algorithms_refuse(options, bad):
    ((name, value),) = bad.items()
    with pytest.raises(ValueError, match=f"{name} must be .*, got {value!r}"):
        options.of(bad)


def test_a_location_paid_by_what_it_gains_needs_the_labels_loss():
    with pytest.raises(ValueError, match='location_reward="gain" needs class_loss="cross_entropy", got \'reinforce\''):
        RAMHyperparams.of({"location_reward": "gain", "class_loss": "reinforce"})


def test_the_optimizers_fused_variant_where_there_is_one():
    observations = spaces.Box(0, 1, (1,))
    assert Counter(observations).optimizer_kwargs == {"fused": True}  # Adam's.
    assert CorePolicy(observations, spaces.Discrete(2), optimizer_class=torch.optim.RMSprop).optimizer_kwargs == {}
    assert CorePolicy(observations, spaces.Discrete(2), optimizer_kwargs={"eps": 1e-3}).optimizer_kwargs == {"eps": 1e-3}


def test_schedules_as_rl_zoo3_writes_them():
    schedule = parse_schedule("lin_0.002")
    assert [schedule(left) for left in (1.0, 0.5, 0.0)] == [0.002, 0.001, 0.0]
    assert parse_schedule(0.002) == 0.002
    assert parse_schedule("cross_entropy") == "cross_entropy"
    with pytest.raises(ValueError, match=r"a schedule must be .lin_. and the number that it falls from.* got 'lin_fast'"):
        parse_schedule("lin_fast")


def test_hyperparameters_may_be_such_schedules_and_begin_in_their_range():
    model = EpisodePPO(
        "RecurrentPolicy", "CartPole-v1", learning_rate="lin_0.002", clip_range="lin_0.3", ent_coef=lambda left: left
    )
    assert (model.lr_schedule(0.5), model.now(model.clip_range)) == (0.001, 0.3)
    for name, bad in (("clip_range", "lin_5"), ("ent_coef", "lin_-0.1"), ("learning_rate", lambda left: np.nan)):
        with pytest.raises(ValueError, match=f"{name} must be a (finite )?number .* got (5.0|-0.1|nan)"):
            EpisodePPO("RecurrentPolicy", "CartPole-v1", **{name: bad})
    with pytest.raises(ValueError, match="gamma must be a number from 0 to 1, got LinearSchedule"):
        EpisodePPO("RecurrentPolicy", "CartPole-v1", gamma="lin_0.9")
