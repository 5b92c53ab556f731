import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gymnasium import spaces

from agents.networks import CORES
from agents.optimizers import MuonBeside
from agents.policy import RAMPolicy
from agents.vec_env import ScoresBox

OBSERVATIONS = spaces.Dict({"glimpse": spaces.Box(0, 1, (3, 4, 4)), "location": spaces.Box(-1, 1, (2,))})
ACTIONS = spaces.Box(-1, 1, (2 + 5,))


def make_policy(**kwargs):
    torch.manual_seed(0)
    return RAMPolicy(OBSERVATIONS, ACTIONS, lambda _: 1e-3, **kwargs)


def observe(num_envs, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "glimpse": rng.random((num_envs, 3, 4, 4), np.float32),
        "location": rng.uniform(-1, 1, (num_envs, 2)).astype(np.float32),
    }


def tensors(obs):
    return {name: torch.as_tensor(values) for name, values in obs.items()}


def gradients(loss, policy):
    """The modules that a loss trains."""
    policy.zero_grad()
    loss.backward(retain_graph=True)
    return {name.split(".")[0] for name, p in policy.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0} - {
        "scan"
    }


def test_the_papers_sizes():
    policy = make_policy()
    shapes = {name: tuple(p.shape) for name, p in policy.named_parameters() if name.endswith("weight")}
    assert shapes == {
        "glimpse_network.what.weight": (128, 48),
        "glimpse_network.where.weight": (128, 2),
        "glimpse_network.both.weight": (256, 256),
        "core.both.weight": (256, 512),
        "location_head.weight": (2, 256),
        "class_head.weight": (5, 256),
        "baseline_head.weight": (1, 256),
    }


@pytest.mark.parametrize("core", CORES)
def test_where_the_gradients_flow(core):
    policy = make_policy(core=core)
    state = policy.initial_state(4)
    for step in range(3):
        output = policy(tensors(observe(4, step)), state)
        state = output.state
    below = {"glimpse_network", "core"} if core != "none" else {"glimpse_network"}
    assert gradients(output.logits[0].logsumexp(-1).sum(), policy) == {"class_head"} | below
    assert gradients(output.value.sum(), policy) == {"baseline_head"}
    assert gradients(output.location_mean.sum(), policy) == {"location_head"}


def test_the_last_loss_reaches_the_first_glimpse():
    policy = make_policy()
    first = tensors(observe(2))
    first["glimpse"].requires_grad_()
    state = policy(first, policy.initial_state(2)).state
    for step in range(1, 4):
        output = policy(tensors(observe(2, step)), state)
        state = output.state
    output.logits[0][:, 0].sum().backward()
    assert first["glimpse"].grad.abs().sum() > 0


@pytest.mark.parametrize("core", CORES)
def test_predict_step_by_step(core):
    policy = make_policy(core=core)
    state = None
    tracked = policy.initial_state(3)
    for step in range(3):
        obs = observe(3, step)
        starts = np.full(3, step == 0)
        actions, state = policy.predict(obs, state, starts, deterministic=True)
        output = policy(tensors(obs), tracked)
        tracked = output.state
        np.testing.assert_allclose(actions[:, :2], output.location_mean.clamp(-1, 1).detach(), rtol=1e-5)
        assert (actions[:, 2:].argmax(1) == output.logits[0].argmax(1).numpy()).all()
        np.testing.assert_allclose((actions[:, 2:] + 1).sum(axis=1) / 2, 1, rtol=1e-5)  # Probabilities.
        assert ACTIONS.contains(actions[0])
        assert [part.shape for part in state] == [(3, 256)] * policy.core.num_states + [(3, 1)]
        assert state[-1].tolist() == [[step + 1]] * 3


def test_an_episode_start_forgets_its_own_state_alone():
    policy = make_policy(core="lstm")
    _, state = policy.predict(observe(3), deterministic=True)
    obs = observe(3, 1)
    goes_on, _ = policy.predict(obs, state, np.zeros(3, bool), deterministic=True)
    fresh, _ = policy.predict(obs, None, deterministic=True)
    mixed, _ = policy.predict(obs, state, np.array([False, True, False]), deterministic=True)
    np.testing.assert_array_equal(mixed[[0, 2]], goes_on[[0, 2]])
    np.testing.assert_array_equal(mixed[1], fresh[1])
    assert (goes_on[1] != fresh[1]).any()


def test_who_acts_takes_the_class_for_what_it_believes():
    policy = make_policy(baseline_by_class=True)
    output = policy(tensors(observe(4)), policy.initial_state(4))
    assert output.class_values.shape == (4, 5)
    torch.testing.assert_close(output.value, (output.logits[0].softmax(-1) * output.class_values).sum(-1))
    assert gradients(output.value.sum(), policy) == {"baseline_head"}


def test_one_observation_without_a_batch_axis():
    policy = make_policy()
    obs = observe(1)
    one = {name: values[0] for name, values in obs.items()}
    action, state = policy.predict(one, deterministic=True)
    assert action.shape == (7,)
    batch, _ = policy.predict(obs, deterministic=True)
    np.testing.assert_array_equal(action, batch[0])
    again, _ = policy.predict(one, state, np.array([False]), deterministic=True)
    assert (again != action).any()


def test_samples_differ_and_greedy_does_not():
    policy = make_policy()
    obs = observe(200)
    first, second = (policy.predict(obs, deterministic=False)[0] for _ in range(2))
    assert (first != second).any(axis=1).mean() > 0.9
    assert len(np.unique(first[:, 2:].argmax(1))) == 5
    np.testing.assert_array_equal(*(policy.predict(obs, deterministic=True)[0] for _ in range(2)))


def test_a_glimpse_network_of_ones_own():
    class Mean(torch.nn.Module):
        def __init__(self, glimpse_shape, where_size, hidden_size, output_size):
            super().__init__()
            self.sizes = (glimpse_shape, where_size, hidden_size, output_size)

        def forward(self, glimpse, where):
            return torch.cat([glimpse.mean((1, 2, 3))[:, None], where], dim=1)

    policy = make_policy(glimpse_network=Mean, core_size=3, core="none", hidden_size=7)
    assert policy.glimpse_network.sizes == ((3, 4, 4), 2, 7, 3)
    obs = tensors(observe(2))
    output = policy(obs, policy.initial_state(2))
    expected = policy.class_head(torch.cat([obs["glimpse"].mean((1, 2, 3))[:, None], obs["location"]], dim=1))
    torch.testing.assert_close(output.logits[0], expected)


def test_glimpses_are_normalised():
    plain, normalised = make_policy(), make_policy(glimpse_mean=0.5, glimpse_std=0.25)
    obs = tensors(observe(3))
    shifted = {**obs, "glimpse": (obs["glimpse"] - 0.5) / 0.25}
    state = plain.initial_state(3)
    torch.testing.assert_close(normalised(obs, state).logits[0], plain(shifted, state).logits[0])


def test_each_scale_is_normalised_by_its_own():
    plain, normalised = make_policy(), make_policy(glimpse_mean=[0, 0.5, 0], glimpse_std=[1, 0.25, 0.1])
    obs = tensors(observe(3))
    scaled = obs["glimpse"].clone()
    scaled[:, 1] = (scaled[:, 1] - 0.5) / 0.25
    scaled[:, 2] /= 0.1
    state = plain.initial_state(3)
    torch.testing.assert_close(normalised(obs, state).logits[0], plain({**obs, "glimpse": scaled}, state).logits[0])
    with pytest.raises(ValueError, match="glimpse_std must be a number or one for each of the 3 scales"):
        make_policy(glimpse_std=[1.0, 2.0])


@pytest.mark.parametrize("scan_gain", [2.5, 0.1])
def test_the_path_begins_where_it_is_told_to(scan_gain):
    policy = make_policy(scan_steps=3, scan_start=[[0.5, -0.25], [-1.0, 1.0]], scan_gain=scan_gain)
    torch.nn.init.zeros_(policy.location_head.weight)
    torch.nn.init.zeros_(policy.location_head.bias)
    state, means = policy.initial_state(2), []
    for step in range(3):
        output = policy(tensors(observe(2, step)), state)
        state = output.state
        means.append(output.location_mean[0])
    torch.testing.assert_close(torch.stack(means[:2]), torch.tensor([[0.5, -0.25], [-1.0, 1.0]]))
    assert 0 < means[2].abs().max() < 1  # Not given: near the middle, at random.


def test_a_step_of_adam_moves_the_path_by_its_gain_in_learning_rates():
    for gain in (2.0, 0.5):
        policy = make_policy(scan_steps=1, scan_start=[[0.25, 0.0]], scan_gain=gain)
        for group in policy.optimizer.param_groups:
            group["lr"] = 0.01
        first = gain * policy.scan.detach().clone()
        policy(tensors(observe(2, 0)), policy.initial_state(2)).location_mean.sum().backward()
        policy.optimizer.step()
        torch.testing.assert_close(gain * policy.scan.detach() - first, torch.full((1, 2), -0.01 * gain))


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("core", CORES)
def test_unrolling_equals_stepping(core, cut):
    policy = make_policy(core=core, scan_steps=3)
    obs = [tensors(observe(4, step)) for step in range(6)]
    starts = np.zeros((6, 4), bool)
    starts[0], starts[3, 1], starts[5] = True, cut, cut
    state, outputs = policy.initial_state(4), []
    first = state
    for step in range(6):
        outputs.append(policy(obs[step], policy.mask_state(state, starts[step])))
        state = outputs[-1].state
    unrolled = policy.unroll({name: torch.stack([one[name] for one in obs]) for name in obs[0]}, first, starts)
    torch.testing.assert_close(unrolled.location_mean, torch.stack([one.location_mean for one in outputs]))
    torch.testing.assert_close(unrolled.logits[0], torch.stack([one.logits[0] for one in outputs]))
    torch.testing.assert_close(unrolled.value, torch.stack([one.value for one in outputs]))
    torch.testing.assert_close(unrolled.state, outputs[-1].state)


def test_stop_and_zoom_have_scores_of_their_own():
    observations = spaces.Dict({**OBSERVATIONS.spaces, "zoom": spaces.Box(0, 1, (3,))})
    actions = ScoresBox({"class": 5, "stop": 2, "zoom": 3})
    policy = RAMPolicy(observations, actions, lambda _: 1e-3)
    obs = {**observe(50), "zoom": np.eye(3, dtype=np.float32)[np.arange(50) % 3]}
    output = policy(tensors(obs), policy.initial_state(50))
    assert [part.shape for part in output.logits] == [(50, 5), (50, 2), (50, 3)]
    chosen, _ = policy.predict(obs, deterministic=True)
    for part, first in zip(output.logits, (2, 7, 9), strict=True):
        assert (chosen[:, first : first + part.shape[1]].argmax(1) == part.argmax(1).numpy()).all()
    sampled, _ = policy.predict(obs, deterministic=False)
    assert (sampled[:, 2:] == 1).sum(axis=1).tolist() == [3] * 50  # One of each.
    assert gradients(output.logits[1].sum() + output.logits[2].sum(), policy) == {"look_head"}
    assert policy.look_head.weight.grad.abs().sum() > 0
    other = {**obs, "zoom": np.roll(obs["zoom"], 1, axis=1)}  # The network knows how wide it looked.
    assert (policy(tensors(other), policy.initial_state(50)).value != output.value).all()


def test_baseline_gradient_full_reaches_core_and_glimpse_network():
    policy = make_policy(baseline_gradient="full")
    output = policy(tensors(observe(4)), policy.initial_state(4))
    assert gradients(output.value.sum(), policy) == {"baseline_head", "core", "glimpse_network"}


def test_saves_and_loads(tmp_path):
    policy = make_policy(core="lstm", core_size=32, location_std=0.3, glimpse_mean=0.2, glimpse_network="fc")
    policy.save(tmp_path / "policy.pt")
    loaded = RAMPolicy.load(tmp_path / "policy.pt", device="cpu")
    assert (loaded.core_name, loaded.network_name, loaded.location_std, loaded.glimpse_mean) == ("lstm", "fc", 0.3, 0.2)
    obs = observe(2)
    np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], policy.predict(obs, deterministic=True)[0])


def test_dropout_thins_what_is_seen_while_learning_alone():
    plain, policy = make_policy(), make_policy(dropout=0.5)
    obs = tensors(observe(64))
    whole = plain.encode(obs)
    policy.set_training_mode(False)
    assert torch.equal(policy.encode(obs), whole)
    policy.set_training_mode(True)
    thinned = policy.encode(obs)
    kept = thinned[whole > 0] != 0
    assert 0.45 < kept.float().mean() < 0.55
    torch.testing.assert_close(thinned[whole > 0][kept], 2 * whole[whole > 0][kept])
    assert policy._get_constructor_parameters()["dropout"] == 0.5


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.RMSprop])
def test_any_optimizer(optimizer):
    policy = make_policy(optimizer_class=optimizer)
    assert type(policy.optimizer) is optimizer
    assert policy.optimizer.param_groups[0]["lr"] == 1e-3


def test_muon_moves_the_matrices_of_glimpse_network_and_core_alone():
    policy = make_policy(muon_gain=2.0, core="lstm")
    assert isinstance(policy.optimizer, MuonBeside)
    seeing = {name for name, part in policy.named_parameters() if name.startswith(("glimpse", "core")) and part.ndim == 2}
    rest = {id(part) for part in policy.optimizer.param_groups[0]["params"]}
    assert {name for name, part in policy.named_parameters() if id(part) not in rest} == seeing
    assert len(seeing) == 5  # What, where, both; weight_ih and weight_hh.


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"core": "gru2"}, "core must be one of"),
        ({"glimpse_network": "cnn2"}, r"glimpse_network must be one of \('paper', 'retina', 'fc', 'conv', 'cnn'\) or a class"),
        ({"glimpse_network": "conv"}, "the filters are 10x10, got glimpses of 4x4"),
        ({"location_policy": "greedy"}, r"location_policy must be one of \('learned', 'random'\), got 'greedy'"),
        ({"location_std": 0}, "location_std must be above 0"),
        ({"location_gain": -1}, "location_gain must be above 0"),
        ({"location_gradient": "none"}, "location_gradient must be"),
        ({"baseline_gradient": "none"}, "baseline_gradient must be"),
        ({"location_input": "saliency"}, r'scene_size must be given with location_input="saliency", and only then, got None'),
        ({"scene_size": 60}, r'scene_size must be given with location_input="saliency", and only then, got 60'),
        ({"location_input": "sight"}, r"location_input must be one of \('state', 'glimpse', 'saliency'\), got 'sight'"),
        ({"use_sde": True}, "use_sde"),
        ({"scan_steps": -1}, "scan_steps must be at least 0"),
        (
            {"scan_steps": 1, "scan_start": [[0, 0], [0, 1]]},
            r"at most 1 places \[x, y\] in \[-1, 1\] \(scan_steps\), got \[\[0, 0\]",
        ),
        ({"scan_gain": 0}, "scan_gain must be above 0, got 0"),
        ({"scan_steps": 2, "scan_start": [0.0, 0.5]}, "scan_start must be at most 2 places"),
        ({"scan_steps": 2, "scan_start": [[0.0, 1.5]]}, "scan_start must be at most 2 places"),
        ({"scan_start": [[0.0, 0.5]]}, "scan_start must be at most 0 places"),
        ({"muon_gain": -1}, "muon_gain must be at least 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_policy(**kwargs)


def test_spaces_that_do_not_fit_are_named():
    zooming = spaces.Dict({**OBSERVATIONS.spaces, "zoom": spaces.Box(0, 1, (3,))})
    with pytest.raises(ValueError, match="make the environment without zooms"):
        RAMPolicy(zooming, ACTIONS, lambda _: 1e-3, location_input="saliency", scene_size=60)
    with pytest.raises(ValueError, match='"glimpse" \\(k, g, g\\)'):
        RAMPolicy(spaces.Box(0, 1, (4,)), ACTIONS, lambda _: 1e-3)
    with pytest.raises(ValueError, match='action_format="dict" or "box"'):
        RAMPolicy(OBSERVATIONS, spaces.Discrete(4), lambda _: 1e-3)
