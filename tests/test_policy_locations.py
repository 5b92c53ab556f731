"""Where the recurrent attention policy looks: its location network."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from test_policy import gradients, make_policy, observe, tensors


def test_location_gradient_full_reaches_core_and_glimpse_network():
    policy = make_policy(location_gradient="full")
    output = policy(tensors(observe(4)), policy.initial_state(4))
    assert gradients(output.location_mean.sum(), policy) == {"location_head", "core", "glimpse_network"}
    assert gradients(output.value.sum(), policy) == {"baseline_head"}


def test_a_hidden_layer_of_the_location_network():
    policy = make_policy(location_hidden=7, location_gain=0.5)
    output = policy(tensors(observe(3)), policy.initial_state(3))
    first, _, second = policy.location_head
    torch.testing.assert_close(output.location_mean, 0.5 * second(first(output.state[0]).relu()))
    assert first.out_features == second.in_features == 7
    assert gradients(output.location_mean.sum(), policy) == {"location_head"}


@pytest.mark.parametrize("hidden", [0, 7])
def test_a_location_network_that_sees_the_glimpse(hidden):
    policy = make_policy(location_input="glimpse", location_hidden=hidden, location_gain=1.0, glimpse_mean=0.5, glimpse_std=2.0)
    obs = tensors(observe(3))
    output = policy(obs, policy.initial_state(3))
    seen = torch.cat([output.state[0], (obs["glimpse"].flatten(1) - 0.5) / 2, obs["location"]], dim=1)
    assert seen.shape == (3, 256 + 48 + 2)
    torch.testing.assert_close(output.location_mean, policy.location_head(seen))
    assert gradients(output.location_mean.sum(), policy) == {"location_head"}
    many = {name: values.unsqueeze(0) for name, values in obs.items()}
    unrolled = policy.unroll(many, policy.initial_state(3), np.ones((1, 3), bool))
    torch.testing.assert_close(unrolled.location_mean[0], output.location_mean)


def test_a_location_network_that_looks_for_what_is_worth_it():
    policy = make_policy(location_input="saliency", scene_size=16, location_gain=0.5, scan_steps=2)
    obs = tensors(observe(3))
    output = policy(obs, policy.initial_state(3))
    hidden = output.state[0]
    salient = policy.saliency(hidden, obs["glimpse"], obs["location"], 0.5)
    seen = torch.cat([hidden, obs["glimpse"].flatten(1), obs["location"]], dim=1)
    expected = salient + 0.5 * policy.location_head(seen) + 2.5 * policy.scan[0]
    torch.testing.assert_close(output.location_mean, expected.clamp(-1, 1))
    assert gradients(output.location_mean.sum(), policy) == {"location_head", "saliency"}


def test_location_means_stay_in_the_scene():
    policy = make_policy(location_gain=1.0)
    with torch.no_grad():
        policy.location_head.bias.copy_(torch.tensor([3.0, -3.0]))
    mean = policy(tensors(observe(3)), policy.initial_state(3)).location_mean
    torch.testing.assert_close(mean, torch.tensor([[1.0, -1.0]] * 3))


def test_a_learned_path_is_added_step_by_step():
    plain, scanning = make_policy(), make_policy(scan_steps=2)
    scanning.load_state_dict({**scanning.state_dict(), **plain.state_dict()}, strict=False)
    path = 2.5 * scanning.scan.detach()
    states = [plain.initial_state(3), scanning.initial_state(3)]
    for expected in (path[0], path[1], path[1]):  # The last offset stays.
        obs = tensors(observe(3))
        one, other = plain(obs, states[0]), scanning(obs, states[1])
        torch.testing.assert_close(other.location_mean - one.location_mean, expected.expand(3, 2))
        states = [one.state, other.state]


def test_random_glimpses():
    policy, obs = make_policy(location_policy="random"), observe(3000)
    for deterministic in (False, True):
        actions, _ = policy.predict(obs, deterministic=deterministic)
        assert np.abs(actions[:, :2].mean(axis=0)).max() < 0.05
        assert actions[:, :2].std(axis=0).tolist() == pytest.approx([3**-0.5] * 2, abs=0.03)  # Uniform over the scene.
    assert len(np.unique(actions[:, 2:].argmax(1))) > 1
    logits = policy(tensors(obs), policy.initial_state(3000)).logits[0]
    assert (actions[:, 2:].argmax(1) == logits.argmax(1).numpy()).all()  # The class is greedy all the same.
