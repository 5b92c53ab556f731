"""What RAM, EpisodePPO and EpisodeA2C share; their own tests say what each makes of it."""

import gymnasium as gym
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gymnasium.vector import SyncVectorEnv
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env as make_sb3_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnvWrapper, VecNormalize

from ram_envs.agents import RAM, EpisodeA2C, EpisodePPO, make_vec_env
from ram_envs.agents.vec_env import GymnasiumVecEnv, Infos

GAME = {"size": 6, "glimpse_size": 4, "num_scales": 1}
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 8, 8), np.uint8), np.arange(12) % 3
DIGITS = {"dataset": IMAGES, "glimpse_size": 4, "num_glimpses": 3}
ID = "GlimpseClassification-v0"


class Counted(gym.Env):
    """Ends after `length` steps; each of them earns 1, and what is seen is its number."""

    action_space = gym.spaces.Discrete(2)
    observation_space = gym.spaces.Box(0, 9, (1,))

    def __init__(self, length):
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.time += 1
        return np.full(1, self.time, np.float32), 1.0, self.time == self.length, False, {}


def counted(*lengths):
    return GymnasiumVecEnv(
        SyncVectorEnv([lambda length=length: Counted(length) for length in lengths], autoreset_mode="SameStep")
    )


def make_model(env, algorithm=EpisodeA2C, **kwargs):
    return algorithm("RecurrentPolicy", env, seed=0, device="cpu", policy_kwargs={"core": "gru", "core_size": 4}, **kwargs)


def make_ram(env, **kwargs):
    return RAM("RAMPolicy", env, seed=0, device="cpu", policy_kwargs={"hidden_size": 8, "core_size": 16}, **kwargs)


class Rollouts(BaseCallback):
    """Keeps each rollout."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def _on_step(self):
        return True

    def _on_rollout_end(self):
        self.seen.append(self.model.rollout_buffer)


def collect(model, num_rollouts=1):
    """The first rollouts; nothing is learned from them."""
    callback = Rollouts()
    model.train = lambda: None
    steps = model.n_steps or 1
    model.learn(num_rollouts * steps * model.n_envs, callback)
    return callback.seen


def batch_of(model, rollout):
    """What the losses need of a rollout that is still the model's last one."""
    outputs = rollout.stacked_outputs()
    return model.batch_of(outputs, np.stack(rollout.rewards), outputs.value)


def test_rollouts_last_until_each_environment_has_ended_an_episode():
    for lengths, steps in (((3, 3), 3), ((2, 5), 5), ((4,), 4)):
        (rollout,) = collect(make_model(counted(*lengths)))
        assert len(rollout) == steps
    assert np.stack(rollout.dones).tolist() == [[False]] * 3 + [[True]]


def test_returns_of_whole_episodes_and_of_those_cut():
    model = make_model(counted(2, 3), gamma=0.5, n_steps=4)
    (rollout,) = collect(model)
    batch, value = batch_of(model, rollout), rollout.last_values
    assert value[0] == 0  # Its second episode has just ended.
    # The second environment has begun its second episode: the baseline stands for the rest.
    assert batch.returns[:, 0].tolist() == pytest.approx([1.5, 1, 1.5, 1])
    assert batch.returns[:, 1].tolist() == pytest.approx([1.75, 1.5, 1, 1 + 0.5 * value[1]])
    values = rollout.stacked_outputs().value
    torch.testing.assert_close(batch.advantages, batch.returns - values.detach())
    assert batch.looked_at.tolist() == [[1, 1], [0, 1], [1, 0], [0, 1]]
    assert batch.labels is None


def test_advantages_lean_on_the_baseline():
    model = make_model(counted(3), gamma=0.5, gae_lambda=0.5)
    (rollout,) = collect(model)
    batch, b = batch_of(model, rollout), rollout.stacked_outputs().value.detach()[:, 0]
    errors = [1 + 0.5 * b[1] - b[0], 1 + 0.5 * b[2] - b[1], 1 - b[2]]
    expected = [errors[0] + 0.25 * errors[1] + 0.0625 * errors[2], errors[1] + 0.25 * errors[2], errors[2]]
    torch.testing.assert_close(batch.advantages[:, 0], torch.stack(expected))
    torch.testing.assert_close(batch.returns, batch.advantages + b[:, None])


def test_normalised_advantages():
    model = make_model(counted(3, 4), normalize_advantage=True)
    batch = batch_of(model, *collect(model))
    assert batch.advantages.mean().item() == pytest.approx(0, abs=1e-6)
    assert batch.advantages.std(correction=0).item() == pytest.approx(1, abs=1e-4)


def test_a_lone_advantage_is_not_normalised_away():
    """Brought to mean 0 it would teach nothing."""
    model = make_model(counted(1), normalize_advantage=True)
    (rollout,) = collect(model)
    expected = 1 - rollout.outputs[0].value.detach()  # The reward less the baseline.
    torch.testing.assert_close(batch_of(model, rollout).advantages[0], expected)
    with pytest.raises(ValueError, match="normalize_advantage needs more than one step of one environment to an update"):
        make_model(counted(3), normalize_advantage=True, n_steps=1)
    make_model(counted(3, 3), normalize_advantage=True, n_steps=1)  # Two environments make two advantages.


def test_the_state_is_carried_on_into_the_next_rollout():
    """Three rollouts of two steps see what one of six does."""
    long, short = (make_model(counted(4, 6), EpisodePPO, n_steps=steps) for steps in (6, 2))
    (whole,) = collect(long)
    short.set_parameters(long.get_parameters())
    torch.manual_seed(0)
    parts = collect(short, 3)
    values = torch.cat([part.stacked_outputs().value for part in parts])
    torch.testing.assert_close(values, whole.stacked_outputs().value)
    for part in parts:  # And so does the network run again over each alone.
        observations, starts = torch.stack(part.observations), np.stack(part.episode_starts)
        again = short.policy.unroll(observations, part.first_state, starts)
        torch.testing.assert_close(again.value, part.stacked_outputs().value)


def test_minibatches_are_all_of_the_environments_each_once():
    model = make_model(counted(2, 2, 2, 2, 2), EpisodePPO, n_epochs=3, n_minibatches=2)
    (rollout,) = collect(model)
    outputs = rollout.stacked_outputs()
    outputs.value[:] = torch.arange(5.0)  # What tells the environments apart.
    batch = model.batch_of(outputs, np.stack(rollout.rewards), outputs.value)
    parts = [part for part, _ in model.minibatches(batch, outputs)]
    assert [tuple(part.returns.shape) for part in parts] == [(2, 3), (2, 2)] * 3
    for first, second in zip(parts[::2], parts[1::2], strict=True):
        advantages = torch.cat([first.advantages, second.advantages], dim=1)
        torch.testing.assert_close(advantages.sort(dim=1).values, batch.advantages.sort(dim=1).values)
    many = make_model(counted(2, 2), EpisodePPO, n_epochs=1, n_minibatches=8)
    with pytest.warns(UserWarning, match="by environments, of which there are 2, .*: n_minibatches=8 counts as 2"):
        batch = batch_of(many, *collect(many))
    assert [part.returns.shape[1] for part, _ in many.minibatches(batch, None)] == [1, 1]


def test_the_learning_rate_falls():
    model = EpisodeA2C("RecurrentPolicy", counted(2), learning_rate=lambda left: left, seed=0, device="cpu")
    rates, train = [], model.train
    model.train = lambda: (train(), rates.append(model.policy.optimizer.param_groups[0]["lr"]))
    model.learn(8)
    assert rates == pytest.approx([0.75, 0.5, 0.25, 0])


def test_gradients_are_clipped():
    for max_grad_norm in (1e-9, 1e9):
        model = make_model(counted(3), max_grad_norm=max_grad_norm, learning_rate=1.0)
        model.policy.optimizer = torch.optim.SGD(model.policy.parameters(), lr=1.0)
        before = torch.cat([part.detach().flatten() for part in model.policy.parameters()])
        batch, outputs = batch_of(model, *collect(model)), model.rollout_buffer.stacked_outputs()
        norm = model.gradient_step(model.losses(batch, outputs))["grad_norm"]
        moved = (torch.cat([part.detach().flatten() for part in model.policy.parameters()]) - before).norm().item()
        assert moved == pytest.approx(min(norm, max_grad_norm), rel=0.05, abs=1e-7)


def test_what_a_time_limit_cuts_off_is_still_to_be_expected():
    limited = SyncVectorEnv(
        [
            lambda: gym.wrappers.TimeLimit(Counted(9), 3),  # Cut after three steps.
            lambda: gym.wrappers.TimeLimit(Counted(3), 3),  # Over just then.
        ],
        autoreset_mode="SameStep",
    )
    model = make_model(GymnasiumVecEnv(limited), gamma=0.5)
    (rollout,) = collect(model)
    batch = batch_of(model, rollout)
    obs = np.arange(4, dtype=np.float32)[:, None, None]  # 0, 1, 2, 3 in the first environment.
    outputs = model.policy.unroll(torch.as_tensor(obs), model.policy.initial_state(1), np.zeros((4, 1), np.bool_))
    beyond = outputs.value[3, 0].item()
    assert np.stack(rollout.rewards)[:, 0].tolist() == pytest.approx([1, 1, 1 + 0.5 * beyond])
    assert np.stack(rollout.rewards)[:, 1].tolist() == [1, 1, 1]
    assert batch.returns[:, 0].tolist() == pytest.approx([1.75 + 0.125 * beyond, 1.5 + 0.25 * beyond, 1 + 0.5 * beyond])


def test_with_an_average_learning_is_the_same_and_predict_acts_with_the_average():
    plain = make_ram(make_vec_env(ID, 4, **DIGITS)).learn(3 * 4 * 3)
    averaged, history = make_ram(make_vec_env(ID, 4, **DIGITS), weight_average=1.0), []

    def note(losses, step=averaged.gradient_step):
        logs = step(losses)
        history.append({name: part.detach().clone() for name, part in averaged.policy.named_parameters()})
        return logs

    averaged.gradient_step = note
    averaged.learn(3 * 4 * 3)
    assert len(history) == 3
    for name, learned in plain.policy.named_parameters():
        assert torch.equal(history[-1][name], learned)
        mean = torch.stack([before[name] for before in history]).mean(0)
        torch.testing.assert_close(averaged.acting_policy.get_parameter(name), mean)
    assert plain.acting_policy is plain.policy
    obs = make_vec_env(ID, 4, **DIGITS).reset()
    acted = averaged.predict(obs, deterministic=True)[0]
    np.testing.assert_array_equal(acted, averaged.acting_policy.predict(obs, deterministic=True)[0])
    assert (acted != averaged.policy.predict(obs, deterministic=True)[0]).any()


def test_the_average_is_saved_and_loaded(tmp_path):
    model = make_model(counted(3, 3), EpisodePPO, weight_average=0.3, n_epochs=2).learn(3 * 2 * 3)
    model.save(tmp_path / "model.zip")
    loaded = EpisodePPO.load(tmp_path / "model.zip", env=counted(3, 3), device="cpu")
    for name, part in model.average.state_dict().items():
        assert torch.equal(loaded.average.state_dict()[name], part), name
    updates = loaded.average.n_averaged.item()
    loaded.learn(6, reset_num_timesteps=False)
    assert loaded.average.n_averaged > updates > 0


def test_unknown_hyperparameters_are_named():
    with pytest.raises(TypeError, match="gradient_steps is not among the EpisodeA2CHyperparams: learning_rate, n_steps, "):
        make_model(counted(2), gradient_steps=3)
    with pytest.raises(ValueError, match=r"n_epochs must be a whole number from 1 to .*, got 0"):
        make_model(counted(2), n_epochs=0)


# SB3's idioms with ids as they are registered.


def sb3_vec_env(num_envs=2, **kwargs):
    return make_sb3_vec_env(ID, num_envs, env_kwargs={**DIGITS, **kwargs})


@pytest.mark.parametrize("form", ["dict", "box"])
def test_sb3s_own_environments_of_an_id_as_registered(form):
    model = make_ram(sb3_vec_env(action_format=form)).learn(20)
    assert model.policy.choices == {"class": 3}
    evaluate_policy(model, model.get_env(), 2)
    evaluate_policy(model, sb3_vec_env(3, action_format=form), 2)
    model.set_env(sb3_vec_env(action_format=form))
    evaluation = EvalCallback(sb3_vec_env(action_format=form), eval_freq=3, n_eval_episodes=2, verbose=0, warn=False)
    model.learn(18, evaluation)
    assert model.num_timesteps == 18
    assert np.isfinite(evaluation.last_mean_reward)


@pytest.mark.parametrize("env_id", [ID, "GlimpseCatch-v0"])
def test_a_model_acts_and_is_evaluated_in_what_gym_make_makes(env_id):
    kwargs, loss = (DIGITS, "cross_entropy") if env_id == ID else (GAME, "reinforce")
    model = make_ram(gym.make(env_id, **kwargs), class_loss=loss).learn(10)
    env = gym.make(env_id, **kwargs)
    obs, _ = env.reset(seed=0)
    for deterministic in (True, False):
        action, _ = model.predict(obs, deterministic=deterministic)
        obs, *_ = env.step(action)
    evaluate_policy(model, Monitor(env), 2)


def test_vec_normalize_around_training_and_evaluation():
    evaluated = VecNormalize(make_vec_env(ID, 2, **DIGITS), norm_obs_keys=["glimpse"], training=False)
    evaluation = EvalCallback(evaluated, eval_freq=3, verbose=0)
    model = make_ram(VecNormalize(make_vec_env(ID, 4, **DIGITS), norm_obs_keys=["glimpse"])).learn(4 * 6, evaluation)
    assert model.num_timesteps == 24
    assert 0 <= evaluation.last_mean_reward <= 1
    assert len(model.ep_info_buffer) == 8


def test_labels_ends_and_successes_are_read_without_a_dict():
    class Unread(Infos):
        def __getitem__(self, index):
            raise AssertionError("a dict was read")

    class Guard(VecEnvWrapper):
        def reset(self):
            return self.venv.reset()

        def step_wait(self):
            obs, rewards, dones, infos = self.venv.step_wait()
            infos.__class__ = Unread
            return obs, rewards, dones, infos

    plain, guarded = make_vec_env(ID, 4, **DIGITS), Guard(make_vec_env(ID, 4, **DIGITS))
    models = [make_ram(env).learn(4 * 3 * 3) for env in (plain, guarded)]
    assert [len(model.ep_info_buffer) for model in models] == [12, 12]
    assert list(models[0].ep_success_buffer) == list(models[1].ep_success_buffer)
    assert {info["l"] for info in models[1].ep_info_buffer} == {3}
    with pytest.raises(AssertionError, match="a dict was read"):
        guarded.step(np.zeros((4, 5), np.float32))[3][0]


@pytest.mark.parametrize("learning_rate", [1e6, 1e38])
@pytest.mark.parametrize("make", [make_ram, make_model])
def test_a_training_that_explodes_stops_and_says_so(make, learning_rate):
    model = make(make_vec_env(ID, 4, **DIGITS), learning_rate=learning_rate)
    with pytest.raises(FloatingPointError, match=r"diverged( after \d+ steps)?: .*(not finite|is (inf|nan))"):
        model.learn(1200)


def test_a_baseline_that_explodes_stops_the_training_though_all_numbers_are_finite():
    model = make_ram(make_vec_env("GlimpseCatch-v0", 4, **GAME), class_loss="reinforce", gamma=0.9, learning_rate=1e3)
    with pytest.raises(FloatingPointError, match=r"diverged after \d+ steps: the baseline expects .* sum up to at most 10;"):
        model.learn(400)


class RewardsNothingReal(Counted):
    def step(self, action):
        obs, _, *rest = super().step(action)
        return obs, float("nan"), *rest


def test_a_loss_that_is_not_a_number_is_named_and_changes_no_weight():
    env = GymnasiumVecEnv(SyncVectorEnv([lambda: RewardsNothingReal(3)] * 2, autoreset_mode="SameStep"))
    model = make_model(env)
    before = {name: part.clone() for name, part in model.policy.state_dict().items()}
    with pytest.raises(FloatingPointError, match="diverged after 6 steps: policy_loss is nan, value_loss is nan, loss is nan"):
        model.learn(60)
    assert all(torch.equal(part, before[name]) for name, part in model.policy.state_dict().items())


def test_normalised_evaluation_environments_with_dict_actions_are_kept_in_step():
    """SB3 walks through the wrappers of training and evaluation side by side."""
    training, evaluation = (VecNormalize(make_sb3_vec_env("GlimpseCatch-v0", 2, env_kwargs=GAME)) for _ in range(2))
    model = make_ram(training, class_loss="reinforce")
    model.learn(4, EvalCallback(evaluation, eval_freq=1, n_eval_episodes=1, verbose=0))
    assert evaluation.obs_rms["location"].count > 1
    np.testing.assert_allclose(evaluation.obs_rms["location"].mean, training.obs_rms["location"].mean, atol=0.5)
