import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn

from agents import RAM, EpisodeA2C, EpisodePPO, make_vec_env
from agents.networks import CORES, GlimpseNetwork, find_class


def test_glimpse_network_is_the_papers_formula():
    network = GlimpseNetwork((3, 4, 4), 2, 16, 8)
    glimpse, location = torch.rand(3, 3, 4, 4), torch.rand(3, 2)
    h_g = torch.relu(network.what(glimpse.reshape(3, 48)))
    h_l = torch.relu(network.where(location))
    weight, bias = network.both.weight, network.both.bias
    expected = torch.relu(h_g @ weight[:, :16].T + h_l @ weight[:, 16:].T + bias)
    torch.testing.assert_close(network(glimpse, location), expected)


def test_relu_core_is_the_papers_formula():
    core = CORES["relu"](4, 6)
    g, h = torch.randn(3, 4), torch.randn(3, 6)
    expected = torch.relu(h @ core.both.weight[:, :6].T + g @ core.both.weight[:, 6:].T + core.both.bias)
    hidden, state = core(g, (h,))
    torch.testing.assert_close(hidden, expected)
    assert state[0] is hidden


def gates(cell, x, h, count):
    """The parts of both Linears for each gate."""
    ours = nn.functional.linear(x, cell.weight_ih, cell.bias_ih).chunk(count, dim=1)
    theirs = nn.functional.linear(h, cell.weight_hh, cell.bias_hh).chunk(count, dim=1)
    return list(zip(ours, theirs, strict=True))


def test_gru_core_is_the_gated_recurrent_unit():
    core = CORES["gru"](4, 6)
    nn.init.normal_(core.cell.bias_ih), nn.init.normal_(core.cell.bias_hh)
    x, h = torch.randn(3, 4), torch.randn(3, 6)
    (reset_x, reset_h), (update_x, update_h), (new_x, new_h) = gates(core.cell, x, h, 3)
    reset, update = torch.sigmoid(reset_x + reset_h), torch.sigmoid(update_x + update_h)
    expected = (1 - update) * torch.tanh(new_x + reset * new_h) + update * h
    hidden, state = core(x, (h,))
    torch.testing.assert_close(hidden, expected)
    assert len(state) == core.num_states == 1
    assert state[0] is hidden


def test_lstm_core_is_the_long_short_term_memory():
    core = CORES["lstm"](4, 6)
    x, h, memory = torch.randn(3, 4), torch.randn(3, 6), torch.randn(3, 6)
    take, keep, new, show = (one + other for one, other in gates(core.cell, x, h, 4))
    expected_memory = keep.sigmoid() * memory + take.sigmoid() * new.tanh()
    hidden, state = core(x, (h, memory))
    torch.testing.assert_close(hidden, show.sigmoid() * expected_memory.tanh())
    torch.testing.assert_close(state[1], expected_memory)
    assert len(state) == core.num_states == 2
    assert core.cell.bias_ih.tolist() == [0.0] * 6 + [1.0] * 6 + [0.0] * 12  # The forget gates start open.


def test_no_core_passes_on():
    core, inputs = CORES["none"](6, 6), torch.randn(3, 6)
    hidden, state = core(inputs, ())
    assert hidden is inputs
    assert state == ()
    assert list(core.parameters()) == []
    with pytest.raises(ValueError, match=r'core="none" passes its 4 inputs on, it can\'t make 6'):
        CORES["none"](4, 6)


def test_classes_are_found_by_name_or_given():
    assert find_class("core", "gru", CORES) is CORES["gru"]
    assert find_class("core", nn.Identity, CORES) is nn.Identity
    for bad in ("gru2", None, nn.Identity(), int, ["relu"]):
        with pytest.raises(ValueError, match=r"core must be one of \('relu', 'lstm', 'gru', 'none'\) or a class .* got"):
            find_class("core", bad, CORES)


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
