import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor
from torch import nn
from torch.distributions import Bernoulli, Categorical, Normal

from agents.extractor import GlimpseExtractor
from agents.networks import CORES
from agents.recurrent_policy import RecurrentOutputs, RecurrentPolicy

SEEN = spaces.Box(-1, 1, (6,))
GLIMPSES = spaces.Dict({"glimpse": spaces.Box(0, 1, (2, 4, 4)), "location": spaces.Box(-1, 1, (2,))})
ACTIONS = {
    "discrete": spaces.Discrete(5),
    "multidiscrete": spaces.MultiDiscrete([3, 4]),
    "multibinary": spaces.MultiBinary(3),
    "box": spaces.Box(-2, 0.5, (3,)),
}
T, N = 5, 4


@pytest.fixture(params=list(ACTIONS))
def form(request):
    return request.param


def make_policy(action_space=ACTIONS["discrete"], observation_space=SEEN, **kwargs):
    torch.manual_seed(0)
    options = {"core_size": 6, **kwargs}
    return RecurrentPolicy(observation_space, action_space, lambda _: 1e-3, **options)


def observe(steps=T, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, N, 6)).astype(np.float32)


def distributions(form, params, policy):
    """Torch's own for each component of the actions, and how to read that component."""
    if form == "discrete":
        return [(Categorical(logits=params), lambda actions: actions)]
    if form == "multidiscrete":
        return [
            (Categorical(logits=params[..., :3]), lambda actions: actions[..., 0]),
            (Categorical(logits=params[..., 3:]), lambda actions: actions[..., 1]),
        ]
    if form == "multibinary":
        return [(Bernoulli(logits=params[..., i]), lambda actions, i=i: actions[..., i]) for i in range(3)]
    std = policy.log_std.exp()
    return [(Normal(params[..., i], std[i]), lambda actions, i=i: actions[..., i]) for i in range(3)]


def spread(policy):
    """Heads that tell the steps and the components apart."""
    with torch.no_grad():
        policy.action_head.weight.normal_()
        if policy.log_std is not None:
            policy.log_std.copy_(torch.tensor([-1.0, 0.0, 0.5]))
    return policy


def test_log_probabilities_and_entropy_are_torchs(form):
    policy = spread(make_policy(ACTIONS[form]))
    outputs = policy.unroll(torch.as_tensor(observe()), policy.initial_state(N), np.zeros((T, N), bool))
    taken = [policy.act(RecurrentOutputs(params, value, ())) for params, value in zip(outputs.params, outputs.value, strict=True)]
    actions = torch.stack([part for (part,) in taken])
    parts = distributions(form, outputs.params, policy)
    expected = sum(one.log_prob(read(actions)) for one, read in parts)
    assert policy.log_probs(outputs, (actions,)).shape == (T, N, 1)
    torch.testing.assert_close(policy.log_probs(outputs, (actions,)).squeeze(-1), expected)
    torch.testing.assert_close(policy.entropy(outputs), sum(one.entropy() for one, _ in parts).mean())


def test_actions_are_samples_or_the_most_likely(form):
    policy = spread(make_policy(ACTIONS[form]))
    params = torch.randn(1, policy.action_head.out_features).expand(4000, -1)
    output = RecurrentOutputs(params, torch.zeros(4000), ())
    (best,), (drawn,) = policy.act(output, deterministic=True), policy.act(output)
    assert not drawn.requires_grad
    sent = policy.to_env(drawn)
    assert all(policy.action_space.contains(action) for action in sent[:50])
    for one, read in distributions(form, params, policy):
        most_likely = {Categorical: lambda d: d.logits.argmax(-1), Bernoulli: lambda d: d.probs.round(), Normal: lambda d: d.mean}
        torch.testing.assert_close(read(best), most_likely[type(one)](one))
        if form != "box":
            share = one.log_prob(read(drawn)).exp()
            frequency = (read(drawn) == read(best)).float().mean()
            assert frequency.item() == pytest.approx(one.log_prob(read(best)).exp()[0].item(), abs=0.04)
            assert share.min() > 0
    if form == "box":
        assert drawn.mean(dim=0).tolist() == pytest.approx(params[0].tolist(), abs=0.15)
        assert sent.min() == -2
        assert sent.max() == 0.5  # Clipped for the environment alone.
        assert drawn.max() > 0.5


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("core", CORES)
def test_unrolling_equals_stepping(core, cut):
    """With episodes that start on the way, and without, where some cores go over the whole sequence at once."""
    policy = make_policy(core=core)
    obs, starts = torch.as_tensor(observe()), np.zeros((T, N), bool)
    starts[0, :2] = True
    if cut:
        starts[2, 1], starts[4] = True, True
    with torch.no_grad():
        first = state = policy(torch.as_tensor(observe(1, seed=1)[0]), policy.initial_state(N)).state
    outputs, gradients = [], []
    for seen, start in zip(obs, starts, strict=True):
        outputs.append(policy(seen, policy.mask_state(state, start)))
        state = outputs[-1].state
    unrolled = policy.unroll(obs, first, starts)
    torch.testing.assert_close(unrolled.params, torch.stack([one.params for one in outputs]))
    torch.testing.assert_close(unrolled.value, torch.stack([one.value for one in outputs]))
    torch.testing.assert_close(unrolled.state, outputs[-1].state)
    assert len(unrolled.state) == policy.core.num_states + 1
    for values in (unrolled.value, torch.stack([one.value for one in outputs])):
        policy.zero_grad()
        values.square().sum().backward()
        gradients.append([part.grad for part in policy.parameters() if part.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("core", CORES)
def test_both_heads_train_core_and_extractor(core):
    policy = spread(make_policy(core=core, observation_space=GLIMPSES, features_extractor_kwargs={"features_dim": 6}))
    obs = {"glimpse": torch.rand(T, N, 2, 4, 4), "location": torch.rand(T, N, 2)}
    outputs = policy.unroll(obs, policy.initial_state(N), np.zeros((T, N), bool))
    actions = (torch.zeros(T, N, dtype=torch.long),)
    for loss, head in ((outputs.value.sum(), "value_head"), (policy.log_probs(outputs, actions).sum(), "action_head")):
        policy.zero_grad()
        loss.backward(retain_graph=True)
        trained = {name.partition(".")[0] for name, p in policy.named_parameters() if p.grad is not None and p.grad.any()}
        assert trained == {head, "features_extractor", *(["core"] if core != "none" else [])}


@pytest.mark.parametrize("core", ["lstm", "gru"])
def test_predict_keeps_a_state_and_forgets_it_where_an_episode_starts(core):
    policy = spread(make_policy(core=core))
    first, second = observe(2)
    _, state = policy.predict(first, deterministic=True)
    assert [part.shape for part in state] == [(N, 6)] * policy.core.num_states + [(N, 1)]
    starts = np.array([False, True, False, True])
    _, mixed = policy.predict(second, state, starts, deterministic=True)
    _, going_on = policy.predict(second, state, np.zeros(N, bool), deterministic=True)
    _, fresh = policy.predict(second, deterministic=True)
    for one, other, new in zip(mixed, going_on, fresh, strict=True):
        np.testing.assert_array_equal(one, np.where(starts[:, None], new, other))
        assert (other != new).any()
    action, _ = policy.predict(first[0], deterministic=True)  # Without a batch axis.
    assert action == policy.predict(first, deterministic=True)[0][0]
    drawn = {tuple(policy.predict(first)[0].tolist()) for _ in range(20)}
    assert len(drawn) > 1


def test_features_extractors():
    class Sign(BaseFeaturesExtractor):
        def __init__(self, observation_space, gain=1.0):
            super().__init__(observation_space, 6)
            self.gain = gain

        def forward(self, observations):
            return self.gain * observations.sign()

    assert isinstance(make_policy().features_extractor, FlattenExtractor)
    assert isinstance(make_policy(observation_space=GLIMPSES).features_extractor, GlimpseExtractor)
    others = spaces.Dict({"a": SEEN, "b": SEEN})
    assert isinstance(make_policy(observation_space=others).features_extractor, CombinedExtractor)
    own = make_policy(core="none", features_extractor_class=Sign, features_extractor_kwargs={"gain": 3.0})
    torch.testing.assert_close(own.encode(torch.tensor([[-0.5] * 6])), torch.tensor([[-3.0] * 6]))


def test_saves_and_loads(tmp_path):
    policy = spread(make_policy(ACTIONS["box"], core="gru", log_std_init=-1.5, optimizer_class=torch.optim.RMSprop))
    policy.save(tmp_path / "policy.pt")
    loaded = RecurrentPolicy.load(tmp_path / "policy.pt", device="cpu")
    assert (loaded.core_name, loaded.core_size, loaded.log_std_init) == ("gru", 6, -1.5)
    assert loaded.optimizer_class is torch.optim.RMSprop
    seen = observe(1)[0]
    np.testing.assert_array_equal(loaded.predict(seen, deterministic=True)[0], policy.predict(seen, deterministic=True)[0])


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="core must be one of"):
        make_policy(core="rnn")
    with pytest.raises(ValueError, match=r'core="none" passes its 6 inputs on, it can\'t make 32'):
        make_policy(core="none", core_size=32)
    assert make_policy(ACTIONS["box"], log_std_init=-1.0).log_std.tolist() == [-1.0] * 3
    assert isinstance(make_policy().core, nn.Module)
