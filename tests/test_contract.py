"""What every registered environment promises, in each of its formats and modes."""

import pickle
import subprocess
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
from conftest import make, make_vec
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import ram_envs

MODES = list(AutoresetMode)


def test_gymnasium_checks_pass_without_a_warning(env_id, action_format, recwarn):
    env = make(env_id, action_format=action_format)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped, skip_render_check=True)
    assert not recwarn.list


def test_sb3_checks_pass_without_a_warning(env_id, recwarn):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    env = make(env_id, action_format="box").unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checker.check_env(gym.wrappers.FlattenObservation(env))
        # SB3 takes anything of three axes for an image and advises 36x36 pixels of uint8; a glimpse is small and float.
        for advice in (".*observation glimpse is an image", ".*space glimpse is an image", "The minimal resolution"):
            warnings.filterwarnings("ignore", advice)
        checker.check_env(env)
    assert not recwarn.list


def test_module_prefix_registers():
    code = "import gymnasium as gym; print(gym.make('ram_envs:GlimpseMNIST-v0', dataset='mnist-5k').spec.id)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("GlimpseMNIST-v0")


def test_importing_is_light():
    code = "import sys, ram_envs; print([m for m in ('torch', 'numba', 'stable_baselines3', 'pooch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_observations_lie_in_their_space(env_id, action_format):
    env = make(env_id, action_format=action_format)
    env.action_space.seed(0)
    obs, _ = env.reset(seed=0)
    for _ in range(50):
        assert env.observation_space.contains(obs)
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert type(reward) is float
        assert type(terminated) is bool
        assert type(truncated) is bool
        assert all(type(value) in (int, bool, float) for value in info.values())
        if terminated:
            obs, _ = env.reset()


def test_nothing_is_shared_between_calls(env_id):
    env = make(env_id)
    obs, _ = env.reset(seed=0)
    kept = {name: values.copy() for name, values in obs.items()}
    env.step(env.action_space.sample())
    assert data_equivalence(obs, kept)
    for values in obs.values():
        values[...] = 7  # What a user does to an observation changes nothing.
    again, _ = env.reset(seed=0)
    assert data_equivalence(again, kept)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_batch_equals_single_environments(env_id, action_format, mode):
    num_envs = 5
    native = make_vec(num_envs, env_id, action_format=action_format, autoreset_mode=mode)
    singles = SyncVectorEnv([lambda: make(env_id, action_format=action_format)] * num_envs, autoreset_mode=mode)
    assert native.observation_space == singles.observation_space
    assert native.action_space == singles.action_space
    assert native.metadata["autoreset_mode"] == mode
    native.action_space.seed(0)
    assert data_equivalence(native.reset(seed=11), singles.reset(seed=11))
    for _ in range(40):
        actions = native.action_space.sample()
        ours, theirs = native.step(actions), singles.step(actions)
        assert data_equivalence(ours, theirs), (ours, theirs)
        done = ours[2] | ours[3]
        if mode == AutoresetMode.DISABLED and done.any():
            options = {"reset_mask": done}
            assert data_equivalence(native.reset(options=dict(options)), singles.reset(options=dict(options)))


def test_partial_resets_touch_the_others_not_at_all(env_id):
    envs = make_vec(4, env_id, autoreset_mode="Disabled")
    obs, _ = envs.reset(seed=0)
    mask = np.array([False, True, False, True])
    after, info = envs.reset(options={"reset_mask": mask})
    for name, values in obs.items():
        np.testing.assert_array_equal(values[~mask], after[name][~mask])
    assert (after["location"][mask] != obs["location"][mask]).any()
    assert info["_label"].tolist() == mask.tolist()


def test_episodes_of_one_batch_may_be_out_of_step(env_id):
    # Environments 1 and 3 begin anew in mid-episode; in both modes the batch still equals single environments.
    for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
        native = make_vec(4, env_id, autoreset_mode=mode)
        singles = SyncVectorEnv([lambda: make(env_id)] * 4, autoreset_mode=mode)
        native.reset(seed=0), singles.reset(seed=0)
        for step in range(30):
            if step == 2:
                options = {"reset_mask": np.array([False, True, False, True])}
                assert data_equivalence(native.reset(options=dict(options)), singles.reset(options=dict(options)))
            actions = native.action_space.sample()
            assert data_equivalence(native.step(actions), singles.step(actions))


def test_seeds(env_id):
    envs = make_vec(3, env_id)
    by_number = envs.reset(seed=5)
    assert data_equivalence(envs.reset(seed=[5, 6, 7]), by_number)
    assert not data_equivalence(envs.reset(), by_number)  # Without a seed the streams go on.
    some = envs.reset(seed=[5, None, 7])[0]
    np.testing.assert_array_equal(some["glimpse"][[0, 2]], by_number[0]["glimpse"][[0, 2]])
    assert not data_equivalence(make_vec(3, env_id).reset(), make_vec(3, env_id).reset())
    with pytest.raises(ValueError, match="seed must be"):
        envs.reset(seed=[1, 2])


def test_specs_pickle(env_id):
    spec = pickle.loads(pickle.dumps(make(env_id, num_glimpses=3).spec))
    assert spec.make().unwrapped.task.num_glimpses == 3
    vector_spec = pickle.loads(pickle.dumps(make_vec(2, env_id, autoreset_mode=AutoresetMode.SAME_STEP).spec))
    again = gym.make_vec(vector_spec)
    assert again.num_envs == 2
    assert again.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP


def test_bad_actions_leave_the_environment_usable(env_id):
    env, envs = make(env_id), make_vec(2, env_id)
    env.reset(seed=0), envs.reset(seed=0)
    good, many = env.action_space.sample(), envs.action_space.sample()
    for bad in ({**good, "location": np.full(2, np.nan)}, {**good, "class": 99}, {**good, "class": None}, 3, None):
        with pytest.raises(ValueError, match="action"):
            env.step(bad)
    for bad in ({**many, "location": np.zeros((3, 2))}, {**many, "class": np.array([0, 99])}, good):
        with pytest.raises(ValueError, match="action"):
            envs.step(bad)
    fresh = make(env_id)
    fresh.reset(seed=0)
    assert data_equivalence(env.step(good), fresh.step(good))
    again = make_vec(2, env_id)
    again.reset(seed=0)
    assert data_equivalence(envs.step(many), again.step(many))


def test_unknown_options_are_named(env_id):
    with pytest.raises(TypeError, match=r"'glimps_size' is not an option .* glimpse_size"):
        make(env_id, glimps_size=8)
    with pytest.raises(TypeError, match="'glimps_size' is not an option"):
        make_vec(2, env_id, glimps_size=8)
    with pytest.raises(ValueError, match="autoreset_mode must be"):
        make_vec(2, env_id, autoreset_mode="Never")
    with pytest.raises(ValueError, match="num_envs must be"):
        make_vec(0, env_id)
    with pytest.raises(ValueError, match="render_mode must be"):
        ram_envs.GlimpseEnv(render_mode="ascii")
    env, envs = make(env_id), make_vec(2, env_id)
    with pytest.raises(ValueError, match="got 'indx'"):
        env.reset(options={"indx": 3})
    with pytest.raises(ValueError, match=r"options\['index'\] must lie in"):
        env.reset(options={"index": 10**6})
    with pytest.raises(ValueError, match=r"options\['index'\] must be"):
        env.reset(options={"index": "first"})
    with pytest.raises(ValueError, match="first reset"):
        envs.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(TypeError, match="reset_mask"):
        envs.reset(options={"reset_mask": [1, 0]})
    with pytest.raises(ValueError, match="reset_mask"):
        envs.reset(options={"reset_mask": np.array([True])})
    assert env.observation_space.contains(env.reset(options={"index": 3})[0])


def test_stepping_without_an_episode(env_id):
    env, envs = make(env_id).unwrapped, make_vec(2, env_id, autoreset_mode="Disabled", num_glimpses=1)
    for one in (env, envs):
        with pytest.raises(gym.error.ResetNeeded):
            one.step(one.action_space.sample())
    envs.reset(seed=0)
    envs.step(envs.action_space.sample())
    with pytest.raises(gym.error.ResetNeeded, match="environments \\[0, 1\\] are over"):
        envs.step(envs.action_space.sample())
