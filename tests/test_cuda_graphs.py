"""A policy's steps, recorded and replayed."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gymnasium import spaces
from torch import nn

from ram_envs.agents import RAM, RAMPolicy, make_vec_env
from ram_envs.agents.cuda_graphs import StepGraphs

STEPS, ENVS = 3, 4
OBSERVATIONS = spaces.Dict({"glimpse": spaces.Box(0, 1, (1, 4, 4)), "location": spaces.Box(-1, 1, (2,))})
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 8, 8), np.uint8), np.arange(12) % 3


def make_policy():
    torch.manual_seed(0)
    return RAMPolicy(OBSERVATIONS, spaces.Box(-1, 1, (5,)), lambda _: 1e-3, core_size=8, hidden_size=4)


def roll_out(policy, step):
    """Values of STEPS steps of a rollout, and the gradients of their sum."""
    generator = torch.Generator().manual_seed(1)
    state, values = policy.initial_state(ENVS), []
    for index in range(STEPS):
        obs = {"glimpse": torch.rand(ENVS, 1, 4, 4, generator=generator), "location": torch.zeros(ENVS, 2)}
        output = step(index, obs, state)
        state = output.state
        values.append(output.logits[0])
    policy.zero_grad()
    torch.stack(values).square().sum().backward()
    return torch.stack(values), [part.grad for part in policy.parameters() if part.grad is not None]


class Recordings(list):
    """What was recorded: the module and the arguments of each. CUDA is not needed: what is recorded is called as it is."""

    def __call__(self, module, like, allow_unused_input):
        self.append((module, like))
        return module


def test_each_step_of_a_rollout_has_a_recording_of_its_own_and_keeps_it():
    policy, recordings = make_policy(), Recordings()
    graphs = StepGraphs(policy, recordings)
    for _ in range(2):
        roll_out(policy, graphs)
    assert len(recordings) == STEPS
    assert len({id(module) for module, _ in recordings}) == STEPS
    assert all(isinstance(module, nn.Module) for module, _ in recordings)


def test_what_is_recorded_takes_a_gradient_where_the_state_does():
    policy, recordings = make_policy(), Recordings()
    roll_out(policy, StepGraphs(policy, recordings))
    wants = [state[0].requires_grad for _, (_, state) in recordings]
    assert wants == [False, True, True]  # h_0 is a constant.
    assert all(not obs["glimpse"].requires_grad for _, (obs, _) in recordings)
    assert all(part.is_leaf for _, (obs, state) in recordings for part in (*obs.values(), *state))


def test_what_comes_out_does_not_depend_on_it():
    policy = make_policy()
    recorded, plain = (
        roll_out(policy, StepGraphs(policy, Recordings())),
        roll_out(policy, lambda _, obs, state: policy(obs, state)),
    )
    torch.testing.assert_close(recorded, plain, rtol=0, atol=0)


ON_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def make_model(device="cuda", **kwargs):
    env = make_vec_env("GlimpseClassification-v0", ENVS, num_glimpses=STEPS, dataset=IMAGES, glimpse_size=4)
    return RAM("RAMPolicy", env, seed=3, device=device, learning_rate=1e-3, **kwargs)


def weights_after(model, updates):
    model.learn(updates * STEPS * ENVS)
    return torch.cat([part.detach().flatten().cpu() for part in model.policy.parameters()])


@ON_A_GPU
@pytest.mark.parametrize(
    "policy_kwargs",
    [{}, {"core": "lstm"}, {"core": "gru"}, {"glimpse_network": "retina", "muon_scale": 1.0, "location_input": "saliency"}],
)
def test_on_a_gpu_the_recorded_steps_learn_the_same(policy_kwargs):
    # One after the other: a model's seed is torch's.
    weights = [weights_after(make_model(cuda_graphs=graphs, policy_kwargs=policy_kwargs), 3) for graphs in (True, False)]
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-5)


@ON_A_GPU
def test_on_a_gpu_dropped_units_differ_from_update_to_update():
    policy = RAMPolicy(OBSERVATIONS, spaces.Box(-1, 1, (5,)), lambda _: 1e-3, dropout=0.5).to("cuda")
    obs = {name: torch.ones(ENVS, *box.shape, device="cuda") for name, box in OBSERVATIONS.items()}
    graphs, state = StepGraphs(policy), policy.initial_state(ENVS)
    first = graphs(0, obs, state).logits[0].clone()
    assert not torch.equal(first, graphs(0, obs, state).logits[0])


@ON_A_GPU
def test_on_a_gpu_a_model_that_learned_from_recordings_is_saved_and_loaded(tmp_path):
    model = make_model()
    weights = weights_after(model, 1)
    model.save(tmp_path / "model.zip")
    loaded = RAM.load(tmp_path / "model.zip", device="cpu")
    assert torch.equal(torch.cat([part.detach().flatten() for part in loaded.policy.parameters()]), weights)


@ON_A_GPU
def test_on_a_gpu_several_epochs_are_learned_without_recordings():
    assert weights_after(make_model(n_epochs=2), 1).isfinite().all()
