"""A policy's steps, recorded and replayed."""

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from agents import RAM, make_vec_env
from agents.step_graphs import StepGraphs

STEPS, ENVS = 3, 4
ON_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def make_model(device="cpu", **arguments):
    env = make_vec_env("GlimpseMNIST-v0", ENVS, num_glimpses=STEPS, dataset="mnist-5k")
    return RAM("RAMPolicy", env, seed=3, device=device, learning_rate=1e-3, **arguments)


def weights_after(model, updates):
    model.learn(updates * STEPS * ENVS)
    return torch.cat([part.detach().flatten().cpu() for part in model.policy.parameters()])


@pytest.fixture
def recordings(monkeypatch):
    """What was recorded: the arguments of each call. CUDA is not needed: what is recorded is called as it is."""
    calls = []

    def record(module, like, allow_unused_input):
        calls.append((module, like))
        return module

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", record)
    return calls


def test_each_step_of_a_rollout_has_a_recording_of_its_own_and_keeps_it(recordings):
    model = make_model()
    model._graphs = StepGraphs(model.policy)
    model.learn(2 * STEPS * ENVS)
    assert len(recordings) == STEPS
    assert len({id(module) for module, _ in recordings}) == STEPS
    assert all(isinstance(module, nn.Module) for module, _ in recordings)


def test_what_is_recorded_takes_a_gradient_where_the_state_does(recordings):
    model = make_model()
    model._graphs = StepGraphs(model.policy)
    model.learn(STEPS * ENVS)
    wants = [state[0].requires_grad for _, (_, state) in recordings]
    assert wants == [False, True, True]  # h_0 is a constant.
    assert all(not obs["glimpse"].requires_grad for _, (obs, _) in recordings)


def test_what_is_learned_does_not_depend_on_it(recordings):
    model = make_model()
    model._graphs = StepGraphs(model.policy)
    assert torch.equal(weights_after(model, 3), weights_after(make_model(), 3))
    assert recordings


def test_nothing_is_recorded_on_a_cpu():
    assert make_model()._graphs is None


def test_a_model_saved_with_recordings_is_loaded_without(recordings, tmp_path):
    model = make_model()
    model._graphs = StepGraphs(model.policy)
    model.learn(STEPS * ENVS)
    model.save(tmp_path / "model.zip")
    assert RAM.load(tmp_path / "model.zip", device="cpu")._graphs is None


@ON_A_GPU
@pytest.mark.parametrize(
    "policy_kwargs",
    [{}, {"core": "lstm"}, {"core": "gru"}, {"glimpse_network": "retina", "muon_gain": 1.0, "location_input": "glimpse"}],
)
def test_on_a_gpu_the_recorded_steps_learn_the_same(policy_kwargs):
    weights = []
    for graphs in (True, False):  # One after the other: a model's seed is torch's.
        model = make_model("cuda", cuda_graphs=graphs, policy_kwargs=policy_kwargs)
        assert (model._graphs is not None) == graphs
        weights.append(weights_after(model, 3))
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-5)


@ON_A_GPU
def test_on_a_gpu_dropped_units_differ_from_update_to_update():
    model = make_model("cuda", policy_kwargs={"dropout": 0.5})
    model.learn(STEPS * ENVS)
    obs, state = (
        {name: torch.ones(ENVS, *box.shape, device="cuda") for name, box in model.observation_space.items()},
        model.policy.initial_state(ENVS),
    )
    first = model._graphs(0, obs, state).logits[0].clone()
    assert not torch.equal(first, model._graphs(0, obs, state).logits[0])


@ON_A_GPU
def test_on_a_gpu_several_epochs_are_not_recorded():
    assert make_model("cuda", n_epochs=2)._graphs is None
