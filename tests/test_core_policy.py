"""What `RAMPolicy` and `RecurrentPolicy` share; their own tests say what they make of it."""

from typing import NamedTuple

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gymnasium import spaces
from torch import Tensor, nn

from agents.core_policy import CorePolicy, map_obs, num_rows, stack


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

    def __init__(self, observation_space, optimizer_class=torch.optim.Adam, optimizer_kwargs=None):
        super().__init__(observation_space, spaces.Box(-99, 99, (2,)), optimizer_class, optimizer_kwargs, core_size=1)
        self.core = self.Sum()
        self.weight = nn.Parameter(torch.ones(1))
        self._make_optimizer(lambda _: 0.5)

    def encode(self, obs):
        return self.weight * (obs["seen"] if isinstance(obs, dict) else obs)

    def read_out(self, hidden, obs, step, state):
        return Counted(torch.stack([hidden.squeeze(-1), step.float()], dim=-1), state)

    def act(self, output, deterministic=False):
        return (output.value.detach(),)

    def to_env(self, *actions):
        return actions[0].numpy()


SEEN = spaces.Box(-9, 9, (1,))


def test_the_state_and_the_step_go_on_until_an_episode_starts():
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


def test_the_optimizer_is_fused_where_it_can_be():
    assert Counter(SEEN).optimizer.param_groups[0]["fused"] is True
    assert Counter(SEEN).optimizer.param_groups[0]["lr"] == 0.5
    assert "fused" not in Counter(SEEN, torch.optim.RMSprop).optimizer.param_groups[0]
    given = Counter(SEEN, optimizer_kwargs={"betas": (0.5, 0.5)}).optimizer.param_groups[0]
    assert (given["betas"], given["fused"]) == ((0.5, 0.5), None)


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
