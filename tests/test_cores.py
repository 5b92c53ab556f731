import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn

from ram_envs.agents import RAM, EpisodeA2C, EpisodePPO, make_vec_env
from ram_envs.agents.cores import OTHER_CORES, lstm_sequence
from ram_envs.agents.glimpse_networks import find_class

T, N, F, H = 5, 3, 4, 6


def gates(cell, x, h, count):
    """The parts of both Linears for each gate."""
    ours = nn.functional.linear(x, cell.weight_ih, cell.bias_ih).chunk(count, dim=1)
    theirs = nn.functional.linear(h, cell.weight_hh, cell.bias_hh).chunk(count, dim=1)
    return list(zip(ours, theirs, strict=True))


def test_gru_core_is_the_gated_recurrent_unit():
    core = OTHER_CORES["gru"](F, H)
    nn.init.normal_(core.cell.bias_ih), nn.init.normal_(core.cell.bias_hh)
    x, h = torch.randn(N, F), torch.randn(N, H)
    (reset_x, reset_h), (update_x, update_h), (new_x, new_h) = gates(core.cell, x, h, 3)
    reset, update = torch.sigmoid(reset_x + reset_h), torch.sigmoid(update_x + update_h)
    expected = (1 - update) * torch.tanh(new_x + reset * new_h) + update * h
    hidden, state = core(x, (h,))
    torch.testing.assert_close(hidden, expected)
    assert len(state) == core.num_states == 1
    assert state[0] is hidden


def test_lstm_core_is_the_long_short_term_memory():
    core = OTHER_CORES["lstm"](F, H)
    x, h, memory = torch.randn(N, F), torch.randn(N, H), torch.randn(N, H)
    take, keep, new, show = (one + other for one, other in gates(core.cell, x, h, 4))
    expected_memory = keep.sigmoid() * memory + take.sigmoid() * new.tanh()
    hidden, state = core(x, (h, memory))
    torch.testing.assert_close(hidden, show.sigmoid() * expected_memory.tanh())
    torch.testing.assert_close(state[1], expected_memory)
    assert len(state) == core.num_states == 2
    assert core.cell.bias_ih.tolist() == [0.0] * H + [1.0] * H + [0.0] * 2 * H  # The forget gates start open.


def test_no_core_passes_on():
    core, inputs = OTHER_CORES["none"](H, H), torch.randn(N, H)
    hidden, state = core(inputs, ())
    assert hidden is inputs
    assert state == ()
    assert list(core.parameters()) == []
    with pytest.raises(ValueError, match=r'core="none" passes its 4 inputs on, it can\'t make 6'):
        OTHER_CORES["none"](F, H)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_a_sequence_at_once_equals_its_steps(name):
    core, inputs = OTHER_CORES[name](F, H), torch.randn(T, N, F)
    state = first = tuple(torch.randn(N, H) for _ in range(core.num_states))
    hiddens = []
    for step in inputs:
        hidden, state = core(step, state)
        hiddens.append(hidden)
    together, last = core.unroll(inputs, first)
    torch.testing.assert_close(together, torch.stack(hiddens))
    torch.testing.assert_close(last, state)


def test_classes_are_found_by_name_or_given():
    assert find_class("core", "gru", OTHER_CORES) is OTHER_CORES["gru"]
    assert find_class("core", nn.Identity, OTHER_CORES) is nn.Identity
    for bad in ("gru2", None, nn.Identity(), int, ["lstm"]):
        with pytest.raises(ValueError, match=r"core must be one of \('lstm', 'gru', 'none'\), .* or a class .* got"):
            find_class("core", bad, OTHER_CORES)


class LeakyCore(nn.Module):
    """A user's own core: half of what was, half of what is new."""

    num_states = 1

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.linear = nn.Linear(input_size + hidden_size, hidden_size)

    def forward(self, inputs, state):
        hidden = 0.5 * state[0] + 0.5 * self.linear(torch.cat([inputs, state[0]], dim=1)).tanh()
        return hidden, (hidden,)


@pytest.mark.parametrize("algorithm", [RAM, EpisodePPO, EpisodeA2C])
def test_a_core_of_ones_own(algorithm, tmp_path):
    env = make_vec_env("GlimpseMNIST-v0", 8, dataset="mnist-5k", num_glimpses=3)
    policy = next(iter(algorithm.policy_aliases))
    model = algorithm(policy, env, policy_kwargs={"core": LeakyCore, "core_size": 16}, seed=0, device="cpu")
    before = model.policy.core.linear.weight.detach().clone()
    model.learn(8 * 3 * 2)
    assert (model.policy.core.linear.weight != before).any()
    model.save(tmp_path / "model.zip")
    loaded = algorithm.load(tmp_path / "model.zip", device="cpu")
    assert isinstance(loaded.policy.core, LeakyCore)
    obs, state, other = env.reset(), None, None
    for _ in range(3):
        actions, state = model.predict(obs, state, deterministic=True)
        again, other = loaded.predict(obs, other, deterministic=True)
        np.testing.assert_array_equal(actions, again)
        assert [part.shape for part in state] == [(8, 16), (8, 1)]
        obs, *_ = env.step(actions)
    with pytest.raises(ValueError, match=r"core must be one of \('relu', 'lstm', 'gru', 'none'\)"):
        algorithm(policy, env, policy_kwargs={"core": "rnn"}, device="cpu")


@pytest.fixture
def cell():
    torch.manual_seed(0)
    return nn.LSTMCell(F, H, dtype=torch.float64)


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def test_the_lstm_sequence_is_the_cell_step_by_step(cell):
    inputs, hidden, memory = draw(T, N, F), draw(N, H), draw(N, H)
    hiddens, last = lstm_sequence(inputs, (hidden, memory), cell)
    expected, state = [], (hidden, memory)
    for step in inputs:
        state = cell(step, state)
        expected.append(state[0])
    torch.testing.assert_close(hiddens, torch.stack(expected))
    torch.testing.assert_close(last, state[1])
    # Gradients of a loss over all that comes out, for all that goes in.
    loss = (hiddens.cos().sum() + last.square().sum(), torch.stack(expected).cos().sum() + state[1].square().sum())
    leaves = (inputs, hidden, memory, *cell.parameters())
    for ours, theirs in zip(*(torch.autograd.grad(one, leaves) for one in loss), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_lstm_sequences_gradients_are_those_of_finite_differences(cell):
    assert torch.autograd.gradcheck(lambda x, h, c: lstm_sequence(x, (h, c), cell), (draw(T, 2, F), draw(2, H), draw(2, H)))


def test_lstm_sequences_join(cell):
    inputs, zeros = draw(T, N, F), torch.zeros(N, H, dtype=torch.float64)
    whole, last = lstm_sequence(inputs, (zeros, zeros), cell)
    first, memory = lstm_sequence(inputs[:2], (zeros, zeros), cell)
    second, end = lstm_sequence(inputs[2:], (first[-1], memory), cell)
    torch.testing.assert_close(whole, torch.cat([first, second]))
    torch.testing.assert_close(last, end)
