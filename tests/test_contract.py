"""What every registered environment promises, in each of its formats and modes."""

import copy
import pickle
import resource
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


def parts(obs):
    """An observation's arrays by name."""
    return obs if isinstance(obs, dict) else {"screen": obs}


def test_gymnasium_checks_pass_without_a_warning(form, recwarn):
    env = make(form[0], **form[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped, skip_render_check=True)
    assert not recwarn.list


def test_sb3_checks_pass_without_a_warning(form, recwarn):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    if form[1].get("action_format") == "dict":
        pytest.skip("SB3 takes no Dict actions: see agents.vec_env")
    env = make(form[0], **{"action_format": "box"} | form[1] if form[0] != "Catch-v0" else {}).unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checker.check_env(gym.wrappers.FlattenObservation(env))
        # SB3 takes anything of three axes for an image and advises 36x36 pixels of uint8; a glimpse is small and float. Two
        # axes, such as Catch's screen, it advises to flatten, as is done above.
        advices = (".*observation glimpse is an image", ".*space glimpse is an image", "The minimal resolution")
        for advice in (*advices, "Your observation  has an unconventional shape"):
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


def test_observations_lie_in_their_space(form):
    env = make(form[0], **form[1])
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


def test_nothing_is_shared_between_calls(form):
    for env in (make(form[0], **form[1]), make_vec(3, form[0], **form[1])):
        obs, _ = env.reset(seed=0)
        kept = copy.deepcopy(obs)
        env.step(env.action_space.sample())
        assert data_equivalence(obs, kept)
        for values in parts(obs).values():
            values[...] = 7  # What a user does to an observation changes nothing.
        assert data_equivalence(env.reset(seed=0)[0], kept)


def test_what_a_user_does_to_results_changes_nothing(form):
    """A vector environment whose every result is scribbled over continues as one that is left alone."""
    scribbled, alone = (make_vec(4, form[0], autoreset_mode="SameStep", **form[1]) for _ in range(2))
    scribbled.reset(seed=3), alone.reset(seed=3)
    for _ in range(30):
        actions = alone.action_space.sample()
        expected = alone.step(actions)
        obs, reward, terminated, truncated, info = scribbled.step(actions)
        assert data_equivalence((obs, reward, terminated, truncated, info), expected)
        arrays = [*parts(obs).values(), reward, terminated, truncated]
        for values in arrays + [part for part in info.values() if isinstance(part, np.ndarray)]:
            values[...] = 1


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_batch_equals_single_environments(form, mode):
    num_envs = 5
    native = make_vec(num_envs, form[0], autoreset_mode=mode, **form[1])
    singles = SyncVectorEnv([lambda: make(form[0], **form[1])] * num_envs, autoreset_mode=mode)
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
    envs.reset(seed=0)
    obs, *_ = envs.step(envs.action_space.sample())
    mask = np.array([False, True, False, True])
    after, info = envs.reset(options={"reset_mask": mask})
    assert all(values.tolist() == mask.tolist() for name, values in info.items() if name.startswith("_"))
    for name, values in parts(obs).items():
        np.testing.assert_array_equal(values[~mask], parts(after)[name][~mask])
        assert (values[mask] != parts(after)[name][mask]).any()


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
    # Balls start in one of 24 columns, so that several episodes are taken to tell streams apart.
    by_number = [envs.reset(seed=5), *(envs.reset() for _ in range(5))]
    assert data_equivalence(envs.reset(seed=[5, 6, 7]), by_number[0])
    assert not data_equivalence([envs.reset() for _ in range(6)], by_number)  # Without a seed the streams continue.
    some = parts(envs.reset(seed=[5, None, 7])[0])
    for name, values in parts(by_number[0][0]).items():
        np.testing.assert_array_equal(some[name][[0, 2]], values[[0, 2]])
    one, other = make_vec(3, env_id), make_vec(3, env_id)
    assert not data_equivalence([one.reset() for _ in range(6)], [other.reset() for _ in range(6)])


def test_specs_pickle(env_id):
    option = {"size": 12} if "Catch" in env_id else {"num_glimpses": 3}
    spec = pickle.loads(pickle.dumps(make(env_id, **option).spec))
    name, value = next(iter(option.items()))
    assert getattr(spec.make().unwrapped.task, name) == value
    vector_spec = pickle.loads(pickle.dumps(make_vec(2, env_id, autoreset_mode=AutoresetMode.SAME_STEP).spec))
    again = gym.make_vec(vector_spec)
    assert again.num_envs == 2
    assert again.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP


def bad_actions(good):
    """What no environment takes instead of a good action."""
    yield from (None, "left", [[1, 2], [3]], np.full(77, 1))
    if isinstance(good, dict):
        choice = next(name for name in good if name != "location")
        yield from ({**good, "location": np.full_like(good["location"], np.nan)}, {"location": good["location"]})
        yield from ({**good, choice: np.full_like(good[choice], 99)}, {**good, choice: None})
    elif np.issubdtype(np.asarray(good).dtype, np.floating):
        yield np.full_like(good, np.inf)
    else:
        yield from (np.full_like(good, -1), np.full_like(good, 10**9), np.asarray(good) + 0.5)


def test_bad_actions_leave_the_environment_usable(form):
    for create in (lambda: make(form[0], **form[1]), lambda: make_vec(2, form[0], **form[1])):
        env, fresh = create(), create()
        env.reset(seed=0), fresh.reset(seed=0)
        good = env.action_space.sample()
        for bad in bad_actions(good):
            with pytest.raises(ValueError, match="action"):
                env.step(bad)
        assert data_equivalence(env.step(good), fresh.step(good))


def test_unknown_options_are_named(env_id):
    with pytest.raises(TypeError, match=r"'glimps_size' is not an option .* (size|glimpse_size)"):
        make(env_id, glimps_size=8)
    with pytest.raises(TypeError, match="'glimps_size' is not an option"):
        make_vec(2, env_id, glimps_size=8)
    with pytest.raises(ValueError, match="autoreset_mode must be"):
        make_vec(2, env_id, autoreset_mode="Never")
    with pytest.raises(ValueError, match="num_envs must be"):
        make_vec(0, env_id)
    env, envs = make(env_id), make_vec(2, env_id)
    with pytest.raises(ValueError, match="got 'indx'"):
        env.reset(options={"indx": 3})
    with pytest.raises(ValueError, match="first reset"):
        envs.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(TypeError, match="reset_mask"):
        envs.reset(options={"reset_mask": [1, 0]})
    with pytest.raises(ValueError, match="reset_mask"):
        envs.reset(options={"reset_mask": np.array([True])})


def test_render_modes_are_named():
    with pytest.raises(ValueError, match="render_mode must be"):
        ram_envs.GlimpseEnv(render_mode="ascii")


def test_reset_options_are_checked(env_id):
    env = make(env_id)
    name = env.unwrapped.task.reset_options[0]
    with pytest.raises(ValueError, match=rf"options\['{name}'\] must"):
        env.reset(options={name: 10**6})
    with pytest.raises(ValueError, match=rf"options\['{name}'\] must"):
        env.reset(options={name: "first"})
    assert env.observation_space.contains(env.reset(options={name: 3})[0])


def test_a_state_can_be_resumed(form):
    envs, other = (make_vec(6, form[0], autoreset_mode="SameStep", **form[1]).unwrapped for _ in range(2))
    envs.reset(seed=1)
    actions = [envs.action_space.sample() for _ in range(40)]
    for action in actions[:10]:
        envs.step(action)
    state = pickle.dumps(envs.get_state())
    after = [envs.step(action) for action in actions[10:]]
    other.set_state(pickle.loads(state))
    for action, expected in zip(actions[10:], after, strict=True):
        assert data_equivalence(other.step(action), expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["deepcopy", "pickle"])
def test_a_copy_continues_as_the_original(form, copied):
    envs = make_vec(3, form[0], autoreset_mode="SameStep", **form[1]).unwrapped
    envs.reset(seed=0)
    envs.step(envs.action_space.sample())
    twins = copied(envs)
    for _ in range(12):
        actions = envs.action_space.sample()
        assert data_equivalence(twins.step(actions), envs.step(actions))
    env = make(form[0], **form[1]).unwrapped
    env.reset(seed=0)
    twin = copied(env)
    action = env.action_space.sample()
    assert data_equivalence(twin.step(action), env.step(action))
    assert data_equivalence(twin.reset(), env.reset())


def test_a_copy_holds_no_images_that_can_be_loaded_again():
    assert len(pickle.dumps(make_vec(2, "GlimpseClutteredMNIST-v0").unwrapped)) < 50_000


def test_steps_leave_memory_as_it_was(env_id):
    envs = make_vec(250, env_id, autoreset_mode="SameStep")
    actions = [envs.action_space.sample() for _ in range(8)]
    envs.reset(seed=0)

    def memory_after(steps):
        for step in range(steps):
            envs.step(actions[step % 8])
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = memory_after(60)  # In KB on Linux; all episodes have ended at least twice.
    assert memory_after(2_500) - before < 4_000


def test_stepping_without_an_episode(env_id):
    shortest = {"size": 2, **({"num_scales": 1} if "Glimpse" in env_id else {})} if "Catch" in env_id else {"num_glimpses": 1}
    if "Catch" in env_id:
        shortest["ball_speeds"] = (0,)
    env, envs = make(env_id).unwrapped, make_vec(2, env_id, autoreset_mode="Disabled", **shortest)
    for one in (env, envs):
        with pytest.raises(gym.error.ResetNeeded):
            one.step(one.action_space.sample())
    envs.reset(seed=0)
    envs.step(envs.action_space.sample())
    with pytest.raises(gym.error.ResetNeeded, match="environments \\[0, 1\\] are over"):
        envs.step(envs.action_space.sample())
