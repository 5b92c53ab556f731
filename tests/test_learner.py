"""What RAM, EpisodePPO and EpisodeA2C share; their own tests say what each makes of it."""

import gymnasium as gym
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gymnasium.vector import SyncVectorEnv

from agents import EpisodeA2C, EpisodePPO
from agents.vec_env import GymnasiumVecEnv


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
    model = algorithm("RecurrentPolicy", env, seed=0, device="cpu", policy_kwargs={"core": "gru", "core_size": 4}, **kwargs)
    model._setup_learn(10**6)
    return model


def collect(model):
    model.collect_rollouts(model.env, model._init_callback(None), model.rollout_buffer, model.n_steps)
    rollout = model.rollout_buffer
    return rollout, model._batch(rollout, rollout.stacked_outputs())


def test_rollouts_last_until_each_environment_has_ended_an_episode():
    for lengths, steps in (((3, 3), 3), ((2, 5), 5), ((4,), 4)):
        rollout, _ = collect(make_model(counted(*lengths)))
        assert len(rollout) == steps
    dones = np.stack(rollout.dones)
    assert dones.tolist() == [[False]] * 3 + [[True]]


def test_returns_of_whole_episodes_and_of_those_cut():
    model = make_model(counted(2, 3), gamma=0.5, n_steps=4)
    rollout, batch = collect(model)
    value = rollout.last_values
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
    rollout, batch = collect(model)
    b = rollout.stacked_outputs().value.detach()[:, 0]
    errors = [1 + 0.5 * b[1] - b[0], 1 + 0.5 * b[2] - b[1], 1 - b[2]]
    expected = [errors[0] + 0.25 * errors[1] + 0.0625 * errors[2], errors[1] + 0.25 * errors[2], errors[2]]
    torch.testing.assert_close(batch.advantages[:, 0], torch.stack(expected))
    torch.testing.assert_close(batch.returns, batch.advantages + b[:, None])


def test_normalised_advantages():
    _, batch = collect(make_model(counted(3, 4), normalize_advantage=True))
    assert batch.advantages.mean().item() == pytest.approx(0, abs=1e-6)
    assert batch.advantages.std(correction=0).item() == pytest.approx(1, abs=1e-4)


def test_the_state_goes_on_into_the_next_rollout():
    """Three rollouts of two steps see what one of six does."""
    long, short = (make_model(counted(4, 6), EpisodePPO, n_steps=steps) for steps in (6, 2))
    whole, _ = collect(long)
    torch.manual_seed(0)
    parts = [collect(short)[0] for _ in range(3)]
    values = torch.cat([part.stacked_outputs().value for part in parts])
    torch.testing.assert_close(values, whole.stacked_outputs().value)
    for part in parts:  # And so does learning from each alone.
        again = short.policy.unroll(*part.inputs())
        torch.testing.assert_close(again.value, part.stacked_outputs().value)


def test_minibatches_are_all_of_the_environments_each_once():
    model = make_model(counted(2, 2, 2, 2, 2), EpisodePPO, n_epochs=3, n_minibatches=2)
    collect(model)
    sizes, update = [], model._update

    def note(batch, outputs):
        sizes.append(tuple(batch.returns.shape))
        return update(batch, outputs)

    model._update = note
    model.train()
    assert sizes == [(2, 3), (2, 2)] * 3
    model = make_model(counted(2, 2), EpisodePPO, n_epochs=1, n_minibatches=8)  # More than there are environments.
    collect(model)
    model.train()
    assert model._n_updates == 2


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
        rollout, batch = collect(model)
        norm = model._update(batch, rollout.stacked_outputs())["grad_norm"]
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
    rollout, batch = collect(model)
    obs = np.repeat(np.arange(4, dtype=np.float32)[:, None, None], 1, axis=1)  # 0, 1, 2, 3 in the first environment.
    outputs = model.policy.unroll(torch.as_tensor(obs), model.policy.initial_state(1), np.zeros((4, 1), np.bool_))
    beyond = outputs.value[3, 0].item()
    assert np.stack(rollout.rewards)[:, 0].tolist() == pytest.approx([1, 1, 1 + 0.5 * beyond])
    assert np.stack(rollout.rewards)[:, 1].tolist() == [1, 1, 1]
    assert batch.returns[:, 0].tolist() == pytest.approx([1.75 + 0.125 * beyond, 1.5 + 0.25 * beyond, 1 + 0.5 * beyond])
