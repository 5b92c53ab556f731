import gymnasium as gym
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from conftest import make_vec
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from agents import EpisodeA2C, EpisodePPO, make_vec_env

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
    settings = {"learning_rate": 1e-2, "gamma": 1.0, "normalize_advantage": True, "n_minibatches": 1}
    scores = []
    for memory, size in ((core, 16), ("none", 2)):
        model = make_model(algorithm, remember(), policy_kwargs={"core": memory, "core_size": size}, **settings)
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


def test_every_environment_in_every_format(env_id, action_format):
    if env_id != "Catch-v0":
        train_a_little(EpisodePPO, env_id, action_format=action_format, location_grid=2)
    elif action_format == "discrete":  # It has no other.
        train_a_little(EpisodePPO, env_id)


def test_a2c_in_every_environment(env_id):
    train_a_little(EpisodeA2C, env_id)


def test_a2c_is_ppo_that_learns_once():
    once = {"n_epochs": 1, "n_minibatches": 1, "gae_lambda": 1.0, "normalize_advantage": False}
    ppo = make_model(**once, learning_rate=1e-3).learn(16 * T * 2)
    a2c = make_model(EpisodeA2C, learning_rate=1e-3).learn(16 * T * 2)
    assert ppo._n_updates == a2c._n_updates == 2
    assert_equal_weights(ppo, a2c)


@pytest.mark.parametrize("form", ["box", "multidiscrete", "discrete"])
def test_the_first_step_of_ppo_is_a2cs(form):
    """Run again over the stored rollout, the clipped surrogate gives the very gradient of the kept graph."""
    settings = {"gae_lambda": 0.9, "normalize_advantage": True, "ent_coef": 0.01}
    grads = []
    for algorithm, n_epochs in ((EpisodeA2C, 1), (EpisodePPO, 2)):
        model = make_model(algorithm, vec_env(action_format=form), n_epochs=n_epochs, **settings)
        model._setup_learn(10**6)
        model.collect_rollouts(model.env, model._init_callback(None), model.rollout_buffer, None)
        rollout, envs = model.rollout_buffer, np.arange(16)
        batch = model._batch(rollout, rollout.stacked_outputs())
        outputs = model.policy.unroll(*rollout.inputs().of(envs)) if n_epochs == 2 else rollout.stacked_outputs()
        sum(model._losses(batch.of(envs), outputs).values()).backward()
        grads.append([parameter.grad for parameter in model.policy.parameters()])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_ppo_takes_a_step_for_each_minibatch_of_each_epoch(tmp_path):
    model = make_model(n_epochs=3, n_minibatches=2, ent_coef=LinearSchedule(0.01, 0, 1), learning_rate=LinearSchedule(1e-3, 0, 1))
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(16 * T * 5)
    assert model._n_updates == 3 * 2 * 5
    assert model._entropy_weight() == 0.0  # At the end of its schedule.
    model.logger.close()
    header = (tmp_path / "progress.csv").read_text().splitlines()[0].split(",")
    logged = {f"train/{name}" for name in ("policy_loss", "value_loss", "entropy_loss", "loss", "grad_norm", "learning_rate")}
    assert logged | {"rollout/ep_rew_mean", "time/fps"} <= set(header)


@pytest.mark.parametrize("algorithm", [EpisodePPO, EpisodeA2C])
@pytest.mark.parametrize("n_steps", [3, 6])
def test_rollouts_of_any_length(algorithm, n_steps):
    model = make_model(algorithm, n_steps=n_steps, policy_kwargs={"core": "gru", "core_size": 16})
    model.learn(16 * 12)
    assert model.num_timesteps == 16 * 12
    assert model._n_updates == (12 // n_steps) * model.n_epochs * model.n_minibatches


def test_save_load_and_go_on(tmp_path):
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
    model.learn(16 * T, reset_num_timesteps=False)  # Begins whole episodes again.
    assert model._n_updates == model.n_epochs * model.n_minibatches


def test_environments_of_every_kind():
    for env in (Remember(), "CartPole-v1", make_vec(2, num_glimpses=T, dataset="mnist-5k"), "Pendulum-v1"):
        model = make_model(env=env, n_steps=8).learn(16)
        assert model.num_timesteps >= 16


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_steps": 0}, "n_steps must be at least 1 or None, got 0"),
        ({"n_epochs": 0}, "n_epochs must be at least 1, got 0"),
        ({"n_minibatches": 0}, "n_minibatches must be at least 1, got 0"),
        ({"clip_range": 1.5}, "clip_range must lie between 0 and 1, got 1.5"),
        ({"policy_kwargs": {"core": "rnn"}}, r"core must be one of \('relu', 'lstm', 'gru', 'none'\)"),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_model(**kwargs)
