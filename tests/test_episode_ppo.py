import gymnasium as gym
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from conftest import make_vec
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor
from torch.distributions import Bernoulli, Categorical, Normal

from ram_envs.agents import EpisodeA2C, EpisodePPO, GlimpseExtractor, RecurrentPolicy, make_vec_env
from ram_envs.agents.episode_ppo import RecurrentOutputs
from ram_envs.agents.policy import CORES

T = 4


class Remember(gym.Env):
    """A cue at the first of T steps; at the last one the action that it named earns 1."""

    observation_space = spaces.Box(-1, 1, (2,))
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.cue, self.time = int(self.np_random.integers(2)), 0
        return np.array([2 * self.cue - 1, 1], np.float32), {}

    def step(self, action):
        self.time += 1
        is_over = self.time == T
        return np.zeros(2, np.float32), float(is_over and action == self.cue), is_over, False, {}


def remember(num_envs=32):
    return VecMonitor(DummyVecEnv([Remember] * num_envs))


def vec_env(num_envs=16, **kwargs):
    return make_vec_env("GlimpseMNIST-v0", num_envs, **{"dataset": "mnist-5k", "num_glimpses": T, **kwargs})


def make_model(algorithm=EpisodePPO, env=None, **kwargs):
    return algorithm("RecurrentPolicy", env or vec_env(), seed=0, device="cpu", **kwargs)


def assert_equal_weights(one, other):
    for (name, first), second in zip(one.policy.named_parameters(), other.policy.parameters(), strict=True):
        assert torch.equal(first, second), name


@pytest.mark.parametrize(
    ("algorithm", "core", "num_rollouts"), [(EpisodePPO, "lstm", 25), (EpisodePPO, "gru", 25), (EpisodeA2C, "relu", 60)]
)
def test_learns_what_takes_a_memory(algorithm, core, num_rollouts):
    hyperparams = {"learning_rate": 1e-2, "gamma": 1.0, "normalize_advantage": True, "n_minibatches": 1}
    scores = []
    for memory, size in ((core, 16), ("none", 2)):
        model = make_model(algorithm, remember(), policy_kwargs={"core": memory, "core_size": size}, **hyperparams)
        model.learn(32 * T * num_rollouts)
        scores.append(evaluate_policy(model, model.get_env(), n_eval_episodes=200)[0])
    assert scores[0] > 0.95
    assert scores[1] < 0.65  # What two answers give by chance.


def train_a_little(algorithm, env_id, **options):
    options |= {"size": 6} if "Catch" in env_id else {"dataset": "mnist-5k"}
    env = make_vec_env(env_id, 8, **options)
    epochs = {"n_epochs": 2, "n_minibatches": 2} if algorithm is EpisodePPO else {}
    model = make_model(algorithm, env, policy_kwargs={"core_size": 16}, ent_coef=0.01, **epochs)
    before = [parameter.detach().clone() for parameter in model.policy.parameters()]
    model.learn(200)
    assert model.num_timesteps >= 200
    assert all((old != new).any() for old, new in zip(before, model.policy.parameters(), strict=True))
    assert len(model.ep_info_buffer) > 0
    reward, _ = evaluate_policy(model, env, n_eval_episodes=8)
    assert 0 <= reward <= 1


@pytest.mark.parametrize("env_id", ["GlimpseMNIST-v0", "GlimpseCatch-v0"])
def test_every_format_of_actions(env_id, action_format):
    train_a_little(EpisodePPO, env_id, action_format=action_format, location_grid=2)


def test_a2c_in_every_environment(env_id):
    train_a_little(EpisodeA2C, env_id)


def test_a2c_is_ppo_that_learns_once():
    once = {"n_epochs": 1, "n_minibatches": 1, "gae_lambda": 1.0, "normalize_advantage": False}
    ppo = make_model(**once, learning_rate=1e-3)
    assert len(note_updates(ppo, T * 2)) == 2
    a2c = make_model(EpisodeA2C, learning_rate=1e-3)  # One after the other: a model's seed is torch's.
    assert len(note_updates(a2c, T * 2)) == 2
    assert_equal_weights(ppo, a2c)


def note_updates(model, steps):
    """The outputs and the gradients of each update of learning for `steps` steps of each environment."""
    updates, parameters = [], list(model.policy.parameters())

    def losses(batch, outputs, compute=model.losses):
        terms = compute(batch, outputs)
        updates.append((outputs, torch.autograd.grad(sum(terms.values()), parameters, retain_graph=True)))
        return terms

    model.losses = losses
    model.learn(model.n_envs * steps)
    return updates


@pytest.mark.parametrize("form", ["box", "multidiscrete", "discrete"])
def test_the_first_step_of_ppo_is_a2cs(form):
    """Run again over the stored rollout, the clipped surrogate gives the very gradient of the kept graph."""
    hyperparams = {"gae_lambda": 0.9, "normalize_advantage": True, "ent_coef": 0.01, "n_minibatches": 1}
    updates = [
        note_updates(make_model(algorithm, vec_env(action_format=form), n_epochs=n_epochs, **hyperparams), T)[0]
        for algorithm, n_epochs in ((EpisodeA2C, 1), (EpisodePPO, 2))
    ]
    # Minibatches take the environments in an order of their own.
    torch.testing.assert_close(*(outputs.value.sort(dim=1).values for outputs, _ in updates))
    for one, other in zip(*(gradients for _, gradients in updates), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_ppo_takes_a_step_for_each_minibatch_of_each_epoch(tmp_path):
    model = make_model(n_epochs=3, n_minibatches=2, ent_coef=LinearSchedule(0.01, 0, 1), learning_rate=LinearSchedule(1e-3, 0, 1))
    model.set_logger(configure(str(tmp_path), ["csv"]))
    assert len(note_updates(model, T * 5)) == 3 * 2 * 5
    assert model.now(model.ent_coef) == 0.0  # At the end of its schedule.
    model.logger.close()
    header = (tmp_path / "progress.csv").read_text("utf-8").splitlines()[0].split(",")
    logged = {f"train/{name}" for name in ("policy_loss", "value_loss", "entropy_loss", "loss", "grad_norm", "learning_rate")}
    assert logged | {"rollout/ep_rew_mean", "time/fps"} <= set(header)


@pytest.mark.parametrize("algorithm", [EpisodePPO, EpisodeA2C])
@pytest.mark.parametrize("n_steps", [3, 6])
def test_rollouts_of_any_length(algorithm, n_steps):
    model = make_model(algorithm, n_steps=n_steps, policy_kwargs={"core": "gru", "core_size": 16})
    assert len(note_updates(model, 12)) == (12 // n_steps) * model.n_epochs * model.n_minibatches
    assert model.num_timesteps == 16 * 12


def test_save_load_and_continue(tmp_path):
    env = vec_env(action_format="multidiscrete")
    model = make_model(env=env, learning_rate=LinearSchedule(1e-3, 0, 1), n_epochs=2, policy_kwargs={"core": "gru"})
    model.learn(16 * T * 2)
    model.save(tmp_path / "model.zip")
    loaded = EpisodePPO.load(tmp_path / "model.zip", env=env, device="cpu")
    assert (loaded.n_epochs, loaded.num_timesteps, loaded.policy.core_name) == (2, 16 * T * 2, "gru")
    assert_equal_weights(model, loaded)
    for moments, others in zip(model.policy.optimizer.state.values(), loaded.policy.optimizer.state.values(), strict=True):
        torch.testing.assert_close(moments, others)
    loaded.learn(16 * T, reset_num_timesteps=False)
    assert loaded.num_timesteps == 16 * T * 3
    alone, obs = EpisodePPO.load(tmp_path / "model.zip", device="cpu"), env.reset()
    np.testing.assert_array_equal(alone.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])


def test_seeds_make_runs_repeat():
    runs = [make_model(env=vec_env(8)).learn(8 * T * 4) for _ in range(2)]
    assert_equal_weights(*runs)


def test_a_callback_that_stops_in_mid_episode():
    class Stop(BaseCallback):
        def _on_step(self):
            return self.n_calls < 2

    model = make_model()
    model.learn(10**6, callback=Stop())
    assert model.num_timesteps == 32
    updates = note_updates(model, T)  # Begins whole episodes again.
    assert len(updates) == model.n_epochs * model.n_minibatches


def test_environments_of_every_kind():
    for env in (Remember(), "CartPole-v1", make_vec(2, num_glimpses=T, dataset="mnist-5k"), "Pendulum-v1"):
        model = make_model(env=env, n_steps=8).learn(16)
        assert model.num_timesteps >= 16
    # Gymnasium's own native batch, which can not be told to reset at once.
    assert make_model(env=make_vec_env("CartPole-v1", 2), n_steps=8).learn(16).num_timesteps == 16


@pytest.mark.parametrize("algorithm", [EpisodePPO, EpisodeA2C])
def test_runs_in_tensorboard_have_the_algorithm_s_name(algorithm, tmp_path):
    pytest.importorskip("tensorboard")
    make_model(algorithm, tensorboard_log=str(tmp_path)).learn(1)
    assert [folder.name for folder in tmp_path.iterdir()] == [f"{algorithm.__name__}_1"]


def test_hyperparameters_have_defaults_of_their_own():
    ppo, a2c = make_model(), make_model(EpisodeA2C)
    assert (ppo.n_epochs, ppo.n_minibatches, ppo.gamma, ppo.gae_lambda, ppo.normalize_advantage) == (4, 4, 0.99, 0.95, True)
    assert (a2c.n_epochs, a2c.n_minibatches, a2c.gamma, a2c.gae_lambda, a2c.normalize_advantage) == (1, 1, 0.99, 1.0, False)
    with pytest.raises(ValueError, match=r"core must be one of \('relu', 'lstm', 'gru', 'none'\)"):
        make_model(policy_kwargs={"core": "rnn"})


# The policy.

SEEN = spaces.Box(-1, 1, (6,))
GLIMPSES = spaces.Dict({"glimpse": spaces.Box(0, 1, (2, 4, 4)), "location": spaces.Box(-1, 1, (2,))})
GRID = spaces.Box(-np.arange(6, dtype=np.float32).reshape(2, 3) / 10, np.float32(0.1))
ACTIONS = {
    "discrete": spaces.Discrete(5),
    "multidiscrete": spaces.MultiDiscrete([3, 4]),
    "multibinary": spaces.MultiBinary(3),
    "box": spaces.Box(-2, 0.5, (3,)),
}
N = 4


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
    steps = [RecurrentOutputs(params, value, ()) for params, value in zip(outputs.params, outputs.value, strict=True)]
    actions = torch.stack([policy.act(step)[0][0] for step in steps])
    parts = distributions(form, outputs.params, policy)
    expected = sum(one.log_prob(read(actions)) for one, read in parts)
    assert policy.log_probs(outputs, (actions,)).shape == (T, N, 1)
    torch.testing.assert_close(policy.log_probs(outputs, (actions,)).squeeze(-1), expected)
    torch.testing.assert_close(policy.entropy(outputs), sum(one.entropy() for one, _ in parts).mean())


def test_actions_are_samples_or_the_most_likely(form):
    policy = spread(make_policy(ACTIONS[form]))
    params = torch.randn(1, policy.action_head.out_features).expand(4000, -1)
    output = RecurrentOutputs(params, torch.zeros(4000), ())
    ((best,), _), ((drawn,), sent) = policy.act(output, deterministic=True), policy.act(output)
    assert not drawn.requires_grad
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


def test_boxes_of_any_shape_are_those_of_one_axis():
    flat, grid = (spread_out(make_policy(space)) for space in (spaces.Box(GRID.low.ravel(), GRID.high.ravel()), GRID))
    seen = observe(1)[0]
    (one, _), (other, _) = flat.predict(seen, deterministic=True), grid.predict(seen, deterministic=True)
    assert other.shape == (N, 2, 3) and set(np.sign(other - GRID.low).ravel()) == {0, 1}
    np.testing.assert_array_equal(other.reshape(N, 6), one)
    assert all(GRID.contains(action) for action in other)
    assert grid.predict(seen[0])[0].shape == (2, 3)


def spread_out(policy):
    """Means that leave the Box on either side."""
    with torch.no_grad():
        policy.action_head.weight.copy_(4 * torch.arange(36).reshape(6, 6).sin())
    return policy


class Grid(gym.Env):
    """Takes actions of two axes."""

    observation_space, action_space = spaces.Box(-1, 1, (2,)), GRID

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action)
        return np.zeros(2, np.float32), float(action.sum()), True, False, {}


@pytest.mark.parametrize("start", [spaces.Discrete(3, start=-1), spaces.MultiDiscrete([3, 2], start=[1, 5])])
def test_numbers_need_not_count_from_zero(start):
    policy = make_policy(start)
    sent, _ = policy.predict(np.zeros((200, 6), np.float32))
    assert all(start.contains(action) for action in sent)
    assert len(np.unique(sent, axis=0)) == (3 if sent.ndim == 1 else 6)


def test_box_actions_of_two_axes_are_learned():
    env = Grid()
    model = make_model(env=env, n_steps=8, clip_range=LinearSchedule(0.3, 0.1, 1)).learn(32)
    assert -1.5 <= evaluate_policy(model, env, 2, warn=False)[0] <= 0.6


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("core", CORES)
def test_unrolling_equals_stepping(core, cut):
    """With episodes that start on the way, and without, where some cores go over the whole sequence at once."""
    policy = make_policy(core=core)
    obs, starts = torch.as_tensor(observe()), np.zeros((T, N), bool)
    starts[0, :2] = True
    if cut:
        starts[1, 1], starts[3] = True, True
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
    assert isinstance(action, np.ndarray) and action.shape == ()
    assert action == policy.predict(first, deterministic=True)[0][0]
    drawn = {tuple(policy.predict(first)[0].tolist()) for _ in range(20)}
    assert len(drawn) > 1


class Normed(BaseFeaturesExtractor):
    """Batch normalization; notes in which mode it was run, and whether gradients were wanted."""

    def __init__(self, observation_space):
        super().__init__(observation_space, 2)
        self.norm, self.modes = torch.nn.BatchNorm1d(2), []

    def forward(self, observations):
        self.modes.append((self.training, torch.is_grad_enabled()))
        return self.norm(observations)


@pytest.mark.parametrize("algorithm", [EpisodePPO, EpisodeA2C])
def test_it_acts_in_evaluation_mode_and_learns_in_training_mode(algorithm):
    """As SB3 does, so that one environment is enough for batch normalization."""
    model = make_model(algorithm, Remember(), n_steps=T, policy_kwargs={"features_extractor_class": Normed}).learn(2 * T)
    seen = model.policy.features_extractor
    assert set(seen.modes) == {(False, False), (True, True)}
    assert seen.modes.count((False, False)) == 2 * T and seen.norm.running_mean.abs().min() > 0


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


def test_images_of_uint8_are_divided_by_255_unless_told_otherwise():
    image = torch.full((1, 1, 40, 40), 51, dtype=torch.uint8)
    for normalize_images, seen in ((True, 0.2), (False, 51.0)):
        pixels = spaces.Box(0, 255, (1, 40, 40), np.uint8)
        policy = make_policy(core="gru", observation_space=pixels, normalize_images=normalize_images)
        torch.testing.assert_close(policy.encode(image), torch.full((1, 1600), seen))


def test_saves_and_loads(tmp_path):
    policy = spread(make_policy(ACTIONS["box"], core="gru", log_std_init=-1.5, optimizer_class=torch.optim.RMSprop))
    policy.save(tmp_path / "policy.pt")
    loaded = RecurrentPolicy.load(tmp_path / "policy.pt", device="cpu")
    assert (loaded.core_name, loaded.core_size, loaded.log_std_init) == ("gru", 6, -1.5)
    assert loaded.optimizer_class is torch.optim.RMSprop
    seen = observe(1)[0]
    np.testing.assert_array_equal(loaded.predict(seen, deterministic=True)[0], policy.predict(seen, deterministic=True)[0])


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r'core="none" passes its 6 inputs on, it can\'t make 32'):
        make_policy(core="none", core_size=32)
    assert make_policy(ACTIONS["box"], log_std_init=-1.0).log_std.tolist() == [-1.0] * 3


def test_observations_of_another_kind_are_named():
    """What reset() returns, above all."""
    flat, glimpses = make_policy(), make_policy(observation_space=GLIMPSES, features_extractor_kwargs={"features_dim": 6})
    with pytest.raises(ValueError, match=r"must be an array, got tuple; env.reset\(\) returns \(observation, info\)"):
        flat.predict((observe(1)[0], {}))
    seen = {"glimpse": np.zeros((2, 4, 4), np.float32)}
    for bad in ((seen, {}), seen, seen["glimpse"], None):
        with pytest.raises(ValueError, match=r"must be a dict of glimpse, location, got (tuple|a dict of glimpse;|ndarray|None)"):
            glimpses.predict(bad)
