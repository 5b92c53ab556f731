import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("stable_baselines3")

from conftest import DATASET, make, make_vec
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecMonitor

from agents.vec_env import BoxAction, GymnasiumVecEnv, make_vec_env

BOX = {"action_format": "box", "num_glimpses": 3}


def rollout(env, seed, steps):
    """Observations, rewards, dones and infos of random actions, as SB3 sees them."""
    rng = np.random.default_rng(0)
    env.seed(seed)
    yield env.reset(), env.reset_infos
    for _ in range(steps):
        actions = rng.uniform(-1, 1, (env.num_envs, *env.action_space.shape)).astype(np.float32)
        yield env.step(actions), env.reset_infos


def assert_same(first, second):
    if isinstance(first, dict):
        first = {key: value for key, value in first.items() if key != "episode"}
        second = {key: value for key, value in second.items() if key != "episode"}
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, (tuple, list)):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    else:
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.value)
def test_equals_sb3s_own_dummy_vec_env(mode):
    ours = GymnasiumVecEnv(make_vec(3, autoreset_mode=mode, **BOX))
    theirs = DummyVecEnv([lambda: make(**BOX)] * 3)
    for one, other in zip(rollout(ours, 4, 20), rollout(theirs, 4, 20), strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.value)
def test_any_vector_environment(mode):
    env = GymnasiumVecEnv(SyncVectorEnv([lambda: make(**BOX)] * 3, autoreset_mode=mode))
    theirs = DummyVecEnv([lambda: make(**BOX)] * 3)
    for one, other in zip(rollout(env, 4, 20), rollout(theirs, 4, 20), strict=True):
        assert_same(one, other)


def test_truncation_is_told_from_termination():
    fns = [lambda: gym.make("Pendulum-v1", max_episode_steps=5)] * 2
    env = GymnasiumVecEnv(SyncVectorEnv(fns, autoreset_mode=AutoresetMode.SAME_STEP))
    for one, other in zip(rollout(env, 0, 12), rollout(DummyVecEnv(fns), 0, 12), strict=True):
        # SB3's DummyVecEnv keeps rewards as float32, as we do.
        assert_same(one[0], other[0])


def test_next_step_with_episodes_out_of_step_warns():
    env = GymnasiumVecEnv(gym.make_vec("CartPole-v1", num_envs=8, vectorization_mode="vector_entry_point"))
    env.seed(0)
    env.reset()
    with pytest.warns(UserWarning, match="the first action of each episode is ignored"):
        for _ in range(60):
            env.step(np.zeros(8, np.int64))


def test_dict_actions_are_offered_as_a_box():
    dicts = GymnasiumVecEnv(make_vec(3, num_glimpses=3, autoreset_mode="SameStep"))
    boxes = GymnasiumVecEnv(make_vec(3, autoreset_mode="SameStep", **BOX))
    assert dicts.action_space == boxes.action_space
    for one, other in zip(rollout(dicts, 1, 10), rollout(boxes, 1, 10), strict=True):
        assert_same(one, other)
    single, box = BoxAction(make(num_glimpses=3)), make(**BOX)
    single.reset(seed=0), box.reset(seed=0)
    action = np.linspace(-1, 1, 12, dtype=np.float32)
    assert_same(single.step(action), box.step(action))


def test_further_choices_are_offered_behind_the_class():
    options = {"num_glimpses": 3, "autoreset_mode": "SameStep", "stop_action": True, "zoom_action": True}
    dicts, boxes = GymnasiumVecEnv(make_vec(3, **options)), GymnasiumVecEnv(make_vec(3, action_format="box", **options))
    assert dicts.action_space.choices == {"class": 10, "stop": 2, "zoom": 3}
    assert dicts.action_space == boxes.action_space
    for one, other in zip(rollout(dicts, 1, 20), rollout(boxes, 1, 20), strict=True):
        assert_same(one, other)


def test_make_vec_env_monitors_and_seeds():
    env = make_vec_env("GlimpseMNIST-v0", 4, seed=3, dataset=DATASET, **BOX)
    assert isinstance(env, VecMonitor)
    first = env.reset()
    env.seed(3)
    assert_same(env.reset(), first)
    for _ in range(3):
        *_, dones, infos = env.step(np.zeros((4, 12), np.float32))
    assert dones.all()
    assert infos[0]["episode"]["l"] == 3
    assert env.spec.id == "GlimpseMNIST-v0"
    assert make_vec_env("Pendulum-v1", 2).num_envs == 2  # No native batch: gymnasium's own.


def test_infos_are_not_shared_between_steps():
    env = GymnasiumVecEnv(make_vec(2, autoreset_mode="SameStep", **BOX))
    env.reset()
    actions = np.zeros((2, 12), np.float32)
    for info in env.step(actions)[3]:
        info["mark"] = True  # What a callback may do.
    assert not any("mark" in info for info in env.step(actions)[3])


def test_options_and_attributes():
    env = GymnasiumVecEnv(make_vec(2, autoreset_mode="SameStep"))
    env.set_options({"index": 7})
    env.reset()
    assert [info["index"] for info in env.reset_infos] == [7, 7]
    env.set_options([{"index": 1}, {"index": 2}])
    with pytest.raises(ValueError, match="same options"):
        env.reset()
    assert env.get_attr("num_envs", indices=[0]) == [2]
    assert not env.has_attr("no_such_thing")
    assert env.env_is_wrapped(Monitor) == [False, False]
    env.set_attr("spec", None)
    with pytest.raises(ValueError, match="all of its environments"):
        env.set_attr("spec", None, indices=0)
    sync = GymnasiumVecEnv(SyncVectorEnv([lambda: Monitor(make(**BOX))] * 2))
    assert sync.env_is_wrapped(Monitor) == [True, True]
    sync.set_attr("action_space", "other", indices=1)
    assert sync.get_attr("action_space")[1] == "other"
    assert sync.env_method("get_wrapper_attr", "action_space", indices=0) == [sync.action_space]
    env.close(), sync.close()


def test_ppo_trains_on_it():
    env = make_vec_env("GlimpseMNIST-v0", 4, dataset=DATASET, **BOX)
    model = PPO("MultiInputPolicy", env, n_steps=12, batch_size=24, device="cpu").learn(96)
    assert model.num_timesteps == 96
    assert len(model.ep_info_buffer) > 0


def test_frames_are_stacked_as_sb3_does():
    ours = make_vec_env("GlimpseMNIST-v0", 3, frame_stack=4, dataset=DATASET, **BOX)
    theirs = VecMonitor(VecFrameStack(DummyVecEnv([lambda: make(**BOX)] * 3), 4))
    assert ours.observation_space == theirs.observation_space
    assert ours.observation_space["glimpse"].shape == (1, 8, 4 * 8)
    assert ours.observation_space["location"].shape == (4 * 2,)
    for one, other in zip(rollout(ours, 4, 10), rollout(theirs, 4, 10), strict=True):
        assert_same(one, other)


def test_frames_are_stacked_side_by_side_the_newest_last():
    plain, stacked = (make_vec_env("Catch-v0", 1, seed=0, size=5, **options) for options in ({}, {"frame_stack": 2}))
    seen = [plain.reset()]
    frames = [stacked.reset()]
    for _ in range(6):  # The fourth step is the last of its game.
        seen.append(plain.step(np.array([1]))[0])
        frames.append(stacked.step(np.array([1]))[0])
    for step in (1, 2, 3, 5, 6):
        np.testing.assert_array_equal(frames[step][0], np.concatenate([seen[step - 1][0], seen[step][0]], axis=1))
    for step in (0, 4):  # Nothing was seen before.
        np.testing.assert_array_equal(frames[step][0], np.concatenate([np.zeros((5, 5)), seen[step][0]], axis=1))


@pytest.mark.parametrize("frame_stack", [0, -1])
def test_bad_frame_stacks_are_named(frame_stack):
    with pytest.raises(ValueError, match=f"frame_stack must be at least 1, got {frame_stack}"):
        make_vec_env("Catch-v0", 2, frame_stack=frame_stack)


def test_one_frame_is_not_stacked():
    assert isinstance(make_vec_env("Catch-v0", 2, frame_stack=1).venv, GymnasiumVecEnv)
    assert isinstance(make_vec_env("Catch-v0", 2, frame_stack=2).venv, VecFrameStack)
