import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gymnasium import spaces

from ram_envs import BoxActions
from ram_envs.agents.optimizers import MuonBeside
from ram_envs.agents.policy import CORES, GlimpseNetwork, Outputs, RAMPolicy, ReLUCore, current_names
from ram_envs.retina import GlimpseSpace

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
    return {name.split(".")[0] for name, p in policy.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


def test_the_glimpse_network_is_the_papers_formula():
    network = GlimpseNetwork((3, 4, 4), 2, 16, 8)
    glimpse, location = torch.rand(3, 3, 4, 4), torch.rand(3, 2)
    h_g = torch.relu(network.what(glimpse.reshape(3, 48)))
    h_l = torch.relu(network.where(location))
    weight, bias = network.both.weight, network.both.bias
    expected = torch.relu(h_g @ weight[:, :16].T + h_l @ weight[:, 16:].T + bias)
    torch.testing.assert_close(network(glimpse, location), expected)


def test_the_relu_core_is_the_papers_formula():
    core = ReLUCore(4, 6)
    g, h = torch.randn(3, 4), torch.randn(3, 6)
    expected = torch.relu(h @ core.both.weight[:, :6].T + g @ core.both.weight[:, 6:].T + core.both.bias)
    hidden, state = core(g, (h,))
    torch.testing.assert_close(hidden, expected)
    assert state[0] is hidden


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
    continued, _ = policy.predict(obs, state, np.zeros(3, bool), deterministic=True)
    fresh, _ = policy.predict(obs, None, deterministic=True)
    mixed, _ = policy.predict(obs, state, np.array([False, True, False]), deterministic=True)
    np.testing.assert_array_equal(mixed[[0, 2]], continued[[0, 2]])
    np.testing.assert_array_equal(mixed[1], fresh[1])
    assert (continued[1] != fresh[1]).any()


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


def outputs_of(mean, logits, num_envs=50_000):
    """Outputs of equal rows."""
    rows = [torch.tensor([part]).expand(num_envs, -1) for part in (mean, *logits)]
    return Outputs(rows[0], tuple(rows[1:]), torch.zeros(num_envs), torch.zeros(num_envs, 1), ())


def test_samples_follow_their_distributions():
    policy = RAMPolicy(OBSERVATIONS, BoxActions({"class": 2, "stop": 3}), lambda _: 1e-3, location_std=0.2)
    output = outputs_of([0.5, -3.0], ([0.0, math.log(3.0)], [math.log(2.0), 0.0, 0.0]))
    (locations, choices), sent = policy.act(output)
    torch.testing.assert_close(locations.mean(0), torch.tensor([0.5, -1.0]), atol=0.01, rtol=0)  # Of a mean held in the scene.
    torch.testing.assert_close(locations.std(0), torch.tensor([0.2, 0.2]), atol=0.01, rtol=0)
    assert choices[:, 0].float().mean().item() == pytest.approx(0.75, abs=0.01)
    assert np.bincount(choices[:, 1]) / 50_000 == pytest.approx([0.5, 0.25, 0.25], abs=0.01)
    one_hot = np.concatenate([np.eye(2)[choices[:, 0]], np.eye(3)[choices[:, 1]]], axis=1)
    np.testing.assert_array_equal(sent, np.concatenate([locations, 2 * one_hot - 1], axis=1).astype(np.float32))
    (_, choices), _ = policy.act(output, greedy_choice=True)  # The class alone is the likeliest; to stop is tried.
    assert choices[:, 0].all()
    assert len(np.unique(choices[:, 1])) == 3


def test_log_probabilities_of_the_parts_of_actions():
    policy = RAMPolicy(OBSERVATIONS, BoxActions({"class": 2, "stop": 3}), lambda _: 1e-3, location_std=0.2)
    output = outputs_of([0.5, -3.0], ([0.0, math.log(3.0)], [math.log(2.0), 0.0, 0.0]), 2)
    actions = torch.tensor([[0.7, -1.0], [0.5, -1.2]]), torch.tensor([[0, 0], [1, 2]])
    log_probs = policy.log_probs(output, actions)
    where = -0.5 - math.log(2 * math.pi * 0.2**2)  # Each location lies one std from the mean in the scene.
    parts = [[where, math.log(0.25), math.log(0.5)], [where, math.log(0.75), math.log(0.25)]]
    torch.testing.assert_close(log_probs, torch.tensor(parts))


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


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("core", CORES)
def test_unrolling_equals_stepping(core, cut):
    policy = make_policy(core=core, core_size=16, path_steps=3)
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
    actions = BoxActions({"class": 5, "stop": 2, "zoom": 3})
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
    options = {"core": "lstm", "core_size": 32, "location_std": 0.3, "glimpse_mean": 0.2, "glimpse_network": "fc", "dropout": 0.5}
    optimizer = {"optimizer_class": torch.optim.RMSprop, "optimizer_kwargs": {"alpha": 0.9}}
    policy = make_policy(**options, **optimizer, location_input="saliency", scene_size=[8, 16])
    policy.save(tmp_path / "policy.pt")
    loaded = RAMPolicy.load(tmp_path / "policy.pt", device="cpu")
    assert loaded.options == policy.options
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


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.RMSprop])
def test_any_optimizer(optimizer):
    policy = make_policy(optimizer_class=optimizer)
    assert type(policy.optimizer) is optimizer
    assert policy.optimizer.param_groups[0]["lr"] == 1e-3


def test_muon_moves_the_matrices_of_glimpse_network_and_core_alone():
    policy = make_policy(muon_scale=2.0, core="lstm")
    assert isinstance(policy.optimizer, MuonBeside)
    seeing = {name for name, part in policy.named_parameters() if name.startswith(("glimpse", "core")) and part.ndim == 2}
    rest = {id(part) for part in policy.optimizer.param_groups[0]["params"]}
    assert {name for name, part in policy.named_parameters() if id(part) not in rest} == seeing
    assert len(seeing) == 5  # What, where, both; weight_ih and weight_hh.


def test_options_of_earlier_versions_have_other_names_today_or_none():
    stored = {"scan_steps": 3, "scan_gain": 1, "location_gain": 0.1, "muon_gain": 2.0, "core": "lstm"}
    names = ["path_steps", "path_scale", "location_scale", "muon_scale", "core"]
    gone = {"scan_start": None, "path_start": [[0.5, 0.5]]}
    assert current_names(stored | gone) == dict(zip(names, stored.values(), strict=True))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"core": "gru2"}, "core must be one of"),
        (
            {"glimpse_network": "cnn2"},
            r"glimpse_network must be one of \('paper', .* 'cnn'\), .module:Class. or a class",
        ),
        ({"glimpse_network": "conv"}, "the filters are 10x10, got glimpses of 4x4"),
        ({"location_policy": "greedy"}, r"location_policy must be one of \('learned', 'random'\), got 'greedy'"),
        ({"location_input": "saliency"}, 'location_input="saliency" needs a scene_size where .* no scene_shape'),
        ({"location_input": "saliency", "scene_size": -60}, "scene_size must be a side above 0"),
        ({"use_sde": True}, "use_sde"),
        ({"glimpse_std": 0}, "glimpse_std must be above 0, got 0"),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_policy(**kwargs)


def test_unknown_options_are_named():
    with pytest.raises(TypeError, match="location_gain, scan_steps is not among the RAMPolicyOptions: core, glimpse_network, "):
        make_policy(scan_steps=3, location_gain=0.1)


def test_spaces_that_do_not_fit_are_named():
    zooming = spaces.Dict({**OBSERVATIONS.spaces, "zoom": spaces.Box(0, 1, (3,))})
    with pytest.raises(ValueError, match="make the environment without zooms"):
        RAMPolicy(zooming, ACTIONS, lambda _: 1e-3, location_input="saliency", scene_size=60)
    with pytest.raises(ValueError, match='"glimpse" \\(k, g, g\\)'):
        RAMPolicy(spaces.Box(0, 1, (4,)), ACTIONS, lambda _: 1e-3)
    for actions in (spaces.Discrete(4), spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1)):
        with pytest.raises(ValueError, match='action_format="dict" or "box"'):
            RAMPolicy(OBSERVATIONS, actions, lambda _: 1e-3)


# Where it looks.


def test_location_gradient_full_reaches_core_and_glimpse_network():
    policy = make_policy(location_gradient="full")
    output = policy(tensors(observe(4)), policy.initial_state(4))
    assert gradients(output.location_mean.sum(), policy) == {"location_head", "core", "glimpse_network"}
    assert gradients(output.value.sum(), policy) == {"baseline_head"}


def test_a_hidden_layer_of_the_location_network():
    policy = make_policy(location_hidden=7, location_scale=0.5)
    output = policy(tensors(observe(3)), policy.initial_state(3))
    first, _, second = policy.location_head
    torch.testing.assert_close(output.location_mean, 0.5 * second(first(output.state[0]).relu()))
    assert first.out_features == second.in_features == 7
    assert gradients(output.location_mean.sum(), policy) == {"location_head"}


@pytest.mark.parametrize("hidden", [0, 7])
def test_a_location_network_that_looks_for_what_is_worth_it(hidden):
    options = {"location_input": "saliency", "scene_size": 16, "location_scale": 0.5, "path_steps": 2}
    policy = make_policy(**options, location_hidden=hidden, glimpse_mean=0.5, glimpse_std=2.0)
    obs = tensors(observe(3))
    output = policy(obs, policy.initial_state(3))
    glimpse, core_output = (obs["glimpse"] - 0.5) / 2, output.state[0]
    salient = policy.saliency(core_output, glimpse, obs["location"], 0.5)
    seen = torch.cat([core_output, glimpse.flatten(1), obs["location"]], dim=1)
    assert seen.shape == (3, 256 + 48 + 2)
    torch.testing.assert_close(output.location_mean, salient + 0.5 * policy.location_head(seen) + 2.5 * policy.path[0])
    assert gradients(output.location_mean.sum(), policy) == {"location_head", "saliency", "path"}
    many = {name: values.unsqueeze(0) for name, values in obs.items()}
    unrolled = policy.unroll(many, policy.initial_state(3), np.ones((1, 3), bool))
    torch.testing.assert_close(unrolled.location_mean[0], output.location_mean)


def test_the_scenes_size_is_read_from_the_observation_space():
    space = GlimpseSpace(OBSERVATIONS.spaces, (3, 20, 40))
    policy = RAMPolicy(space, ACTIONS, lambda _: 1e-3, location_input="saliency")
    assert policy.scene_size == [20, 40]
    given = RAMPolicy(space, ACTIONS, lambda _: 1e-3, location_input="saliency", scene_size=60)
    assert given.scene_size == 60
    torch.testing.assert_close(3 * given.saliency.offsets[:, 1], policy.saliency.offsets[:, 1])  # y in units of the height.
    assert RAMPolicy(space, ACTIONS, lambda _: 1e-3).scene_size is None


def test_locations_stay_in_the_scene():
    policy, obs = make_policy(location_scale=1.0, location_std=0.5), observe(300)
    with torch.no_grad():
        policy.location_head.bias.copy_(torch.tensor([3.0, -3.0]))
    output = policy(tensors(obs), policy.initial_state(300))
    (location, _), sent = policy.act(output, deterministic=True)
    assert location.tolist() == sent[:, :2].tolist() == [[1.0, -1.0]] * 300
    (drawn, _), sent = policy.act(output)
    assert drawn[:, 0].max() > 1.5  # Drawn around the edge; the environment clips it, and what it names is learned from.
    np.testing.assert_array_equal(sent[:, :2], drawn)
    assert np.abs(policy.predict(obs)[0]).max() <= 1  # SB3 wants what its spaces hold.


@pytest.mark.parametrize("path_scale", [2.5, 0.1])
def test_the_path_begins_near_the_middle_at_random(path_scale):
    torch.manual_seed(0)
    first = path_scale * make_policy(path_steps=400, path_scale=path_scale).path.detach()
    torch.testing.assert_close(first.mean(0), torch.zeros(2), atol=0.05, rtol=0)
    torch.testing.assert_close(first.std(0), torch.full((2,), 0.25), atol=0.03, rtol=0)


def test_a_step_of_adam_moves_the_path_by_its_scale_in_learning_rates():
    for scale in (2.0, 0.5):
        policy = make_policy(path_steps=1, path_scale=scale)
        for group in policy.optimizer.param_groups:
            group["lr"] = 0.01
        first = scale * policy.path.detach().clone()
        policy(tensors(observe(2, 0)), policy.initial_state(2)).location_mean.sum().backward()
        policy.optimizer.step()
        torch.testing.assert_close(scale * policy.path.detach() - first, torch.full((1, 2), -0.01 * scale))


def test_a_learned_path_is_added_step_by_step():
    plain, with_path = make_policy(), make_policy(path_steps=2)
    with_path.load_state_dict({**with_path.state_dict(), **plain.state_dict()}, strict=False)
    path = 2.5 * with_path.path.detach()
    states = [plain.initial_state(3), with_path.initial_state(3)]
    for expected in (path[0], path[1], path[1]):  # The last offset stays.
        obs = tensors(observe(3))
        one, other = plain(obs, states[0]), with_path(obs, states[1])
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
