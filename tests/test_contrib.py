import pytest

torch = pytest.importorskip("torch")
sb3_contrib = pytest.importorskip("sb3_contrib")

import importlib
import sys

import numpy as np
from stable_baselines3.common.evaluation import evaluate_policy
from torch import nn

from ram_envs.agents import GlimpseExtractor, make_vec_env
from ram_envs.agents.contrib import CoreAsLSTM, RecurrentCorePolicy
from ram_envs.agents.policy import CORES

RecurrentPPO = sb3_contrib.RecurrentPPO
SMALL = {"lstm_hidden_size": 16, "features_extractor_kwargs": {"features_dim": 16, "hidden_size": 8}}


class PlainRNN(nn.Module):
    """h_t = tanh(W [h_{t-1}, g_t] + b)."""

    num_states = 1

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.both = nn.Linear(hidden_size + input_size, hidden_size)

    def forward(self, inputs, state):
        hidden = torch.tanh(self.both(torch.cat([state[0], inputs], dim=1)))
        return hidden, (hidden,)


class Counter(nn.Module):
    """Counts its steps, without looking."""

    num_states = 1

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.hidden_size = hidden_size

    def forward(self, inputs, state):
        return 10 * (state[0] + 1), (state[0] + 1,)


class ThreeStates(PlainRNN):
    num_states = 3


def make_model(env_id="GlimpseCatch-v0", num_envs=4, action_format="box", **kwargs):
    env = make_vec_env(env_id, num_envs, seed=0, action_format=action_format)
    hyperparams = {"n_steps": 25, "batch_size": 50, "n_epochs": 2, "seed": 0, "device": "cpu"}
    return RecurrentPPO(RecurrentCorePolicy, env, policy_kwargs={**SMALL, **kwargs}, **hyperparams)


def test_lstm_equals_torch():
    torch.manual_seed(0)
    ours, lstm = CoreAsLSTM(CORES["lstm"], 5, 7), nn.LSTM(5, 7)
    cell = ours.core.cell
    lstm.load_state_dict({f"{name}_l0": values for name, values in cell.state_dict().items()})
    inputs = torch.randn(6, 3, 5)
    states = (torch.randn(1, 3, 7), torch.randn(1, 3, 7))
    (hidden, last), (expected, expected_last) = ours(inputs, states), lstm(inputs, states)
    torch.testing.assert_close(hidden, expected)
    torch.testing.assert_close(last, expected_last)
    hidden.sum().backward()
    expected.sum().backward()
    for name, values in cell.named_parameters():
        torch.testing.assert_close(values.grad, getattr(lstm, f"{name}_l0").grad)


def test_a_policy_with_our_lstm_equals_sb3_contribs_own():
    model = make_model(core="lstm")
    kwargs = {**SMALL, "features_extractor_class": GlimpseExtractor}
    other = RecurrentPPO("MultiInputLstmPolicy", model.env, n_steps=25, seed=0, device="cpu", policy_kwargs=kwargs)
    weights = {}
    for name, values in model.policy.state_dict().items():
        module, is_core, parameter = name.partition(".core.cell.")
        weights[f"{module}.{parameter}_l0" if is_core else name] = values
    other.policy.load_state_dict(weights)
    obs, state, other_state = model.env.reset(), None, None
    for starts in ([True] * 4, [False] * 4, [False, True, False, True]):
        actions, state = model.predict(obs, state, np.array(starts), deterministic=True)
        expected, other_state = other.predict(obs, other_state, np.array(starts), deterministic=True)
        np.testing.assert_allclose(actions, expected, atol=1e-6)
        np.testing.assert_allclose(state, other_state, atol=1e-6)
        obs = model.env.step(actions)[0]


@pytest.mark.parametrize("name", CORES)
def test_states_that_a_core_does_not_use_pass(name):
    core = CoreAsLSTM(CORES[name], 7, 7)
    given = (torch.randn(1, 3, 7), torch.randn(1, 3, 7))
    hidden, states = core(torch.randn(4, 3, 7), given)
    assert hidden.shape == (4, 3, 7)
    assert [state.shape for state in states] == [(1, 3, 7)] * 2
    used = core.core.num_states
    assert all(new is old for new, old in zip(states[used:], given[used:], strict=True))
    assert all((new != old).any() for new, old in zip(states[:used], given[:used], strict=True))


@pytest.mark.parametrize("core", [*CORES.values(), PlainRNN], ids=lambda core: core.__name__)
def test_a_sequence_at_once_equals_its_steps(core):
    core = CoreAsLSTM(core, 7, 7)
    inputs, first = torch.randn(4, 3, 7), (torch.randn(1, 3, 7), torch.randn(1, 3, 7))
    states, hiddens = first, []
    for step in range(4):
        hidden, states = core(inputs[step : step + 1], states)
        hiddens.append(hidden)
    torch.testing.assert_close(core(inputs, first), (torch.cat(hiddens), states))


def test_hidden_and_state_may_differ():
    hidden, states = CoreAsLSTM(Counter, 2, 3)(torch.zeros(4, 1, 2), (torch.zeros(1, 1, 3), torch.zeros(1, 1, 3)))
    assert hidden[:, 0, 0].tolist() == [10, 20, 30, 40]
    assert states[0].tolist() == [[[4, 4, 4]]]


@pytest.mark.parametrize("core", [*CORES, PlainRNN])
@pytest.mark.parametrize(
    "critic",
    [{}, {"enable_critic_lstm": False}, {"shared_lstm": True, "enable_critic_lstm": False, "net_arch": []}],
    ids=["own", "none", "shared"],
)
def test_learns(core, critic):
    model = make_model(core=core, **critic)
    policy = model.policy
    assert (policy.lstm_critic is not None) == (critic == {})
    before = {name: values.clone() for name, values in policy.named_parameters()}
    model.learn(100)
    assert all((values != before[name]).any() for name, values in policy.named_parameters())


@pytest.mark.parametrize("action_format", ["discrete", "multidiscrete"])
def test_any_actions(action_format):
    model = make_model(core="gru", action_format=action_format).learn(100)
    evaluate_policy(model, model.env, 4)


def test_vector_observations():
    env = make_vec_env("Catch-v0", 4, seed=0)
    kwargs = {"core": "relu", "lstm_hidden_size": 16}
    model = RecurrentPPO(RecurrentCorePolicy, env, n_steps=25, batch_size=50, n_epochs=2, device="cpu", policy_kwargs=kwargs)
    model.learn(100)


def test_an_episode_start_forgets_its_own_state_alone():
    model = make_model(core=PlainRNN)
    obs = model.env.reset()
    _, state = model.predict(obs, deterministic=True)
    continued, _ = model.predict(obs, state, np.zeros(4, bool), deterministic=True)
    fresh, _ = model.predict(obs, None, deterministic=True)
    mixed, _ = model.predict(obs, state, np.array([False, True, False, False]), deterministic=True)
    np.testing.assert_allclose(mixed[[0, 2, 3]], continued[[0, 2, 3]], atol=1e-6)
    np.testing.assert_allclose(mixed[1], fresh[1], atol=1e-6)
    assert (continued[1] != fresh[1]).any()


@pytest.mark.parametrize("core", ["gru", "lstm", PlainRNN])
def test_saves_and_loads(core, tmp_path):
    model = make_model(core=core, net_arch=[8], shared_lstm=True, enable_critic_lstm=False).learn(100)
    obs = model.env.reset()
    expected, _ = model.predict(obs, deterministic=True)
    model.save(tmp_path / "model")
    model.policy.save(tmp_path / "policy.pt")
    loaded = RecurrentPPO.load(tmp_path / "model", env=model.env, device="cpu")
    np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], expected)
    np.testing.assert_array_equal(loaded.learn(100).predict(obs)[0].shape, expected.shape)
    policy = RecurrentCorePolicy.load(tmp_path / "policy.pt", device="cpu")
    np.testing.assert_array_equal(policy.predict(obs, deterministic=True)[0], expected)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"core": "rnn"}, "core must be one of"),
        ({"core": ThreeStates}, "core must carry 0, 1 or 2 states.* ThreeStates has num_states=3"),
        ({"n_lstm_layers": 2}, "n_lstm_layers is for the LSTM of torch alone, got 2"),
        ({"lstm_kwargs": {"bias": False}}, "lstm_kwargs is for the LSTM of torch alone"),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_model(**kwargs)


def test_without_sb3_contrib_the_message_says_what_to_install(monkeypatch):
    for name in [*sys.modules]:
        if name.partition(".")[0] == "sb3_contrib":
            monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "ram_envs.agents.contrib")
    with pytest.raises(ImportError, match=r"pip install 'ram-envs\[contrib\]'"):
        importlib.import_module("ram_envs.agents.contrib")
