"""What every registered environment promises, in each of its formats and modes."""

import copy
import pickle
import re
import resource
import subprocess
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
from conftest import IDS, make, make_vec
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
    if isinstance(make(form[0], **form[1]).action_space, gym.spaces.Dict):
        pytest.skip("SB3 takes no Dict actions: see ram_envs.agents.vec_env")
    env = make(form[0], **form[1]).unwrapped
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
    obs, facts = env.reset(seed=0)
    for _ in range(50):
        assert env.observation_space.contains(obs)
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert info.keys() == facts.keys() and "is_success" in facts  # The same at each step.
        assert type(reward) is float
        assert type(terminated) is bool
        assert type(truncated) is bool
        assert all(type(value) in (int, bool, float) for value in info.values())
        if terminated or truncated:
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
    option = {"height": 12} if "Catch" in env_id else {"num_glimpses": 3}
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
    words = r"got an unexpected keyword argument 'glimps_size': 'glimps_size' is not an option .* (size|glimpse_size)"
    with pytest.raises(TypeError, match=words):  # Python's words, which torchrl reads.
        make(env_id, glimps_size=8)
    with pytest.raises(TypeError, match=words):
        make_vec(2, env_id, glimps_size=8)
    for limit in (0, 2.5, True):
        with pytest.raises(ValueError, match=f"max_episode_steps must be a whole number of at least 1, or None, got {limit}"):
            make_vec(2, env_id, max_episode_steps=limit)
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


@pytest.mark.parametrize("create", [make, lambda *args: make_vec(2, *args)], ids=["single", "vector"])
def test_a_refused_reset_changes_nothing(env_id, create):
    env, other = create(env_id), create(env_id)
    assert data_equivalence(env.reset(seed=0), other.reset(seed=0))
    for bad in ({"seed": 5, "options": {env.unwrapped.task.reset_options[0]: -7}}, {"options": {"unknown": 1}}, {"seed": -1}):
        with pytest.raises((ValueError, gym.error.Error)):
            env.reset(**bad)
    action = env.action_space.sample()
    assert data_equivalence(env.step(action), other.step(action))
    assert data_equivalence([env.reset() for _ in range(6)], [other.reset() for _ in range(6)])


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


def test_a_state_of_others_is_refused_and_changes_nothing(form):
    envs, untouched, others = (make_vec(num, form[0], **form[1]).unwrapped for num in (3, 3, 2))
    for batch in (envs, untouched, others):
        batch.reset(seed=0)
    own = envs.get_state()
    spoilt = [{}, None, others.get_state(), {**own, "done": np.zeros(2, bool)}, {**own, "elapsed": np.full(3, -1)}]
    for name, array in own["task"].items():
        if array is not None:
            spoilt.append({**own, "task": {key: value for key, value in own["task"].items() if key != name}})
            spoilt.append({**own, "task": {**own["task"], name: np.zeros((1, 1))}})
    for state in spoilt:
        with pytest.raises(ValueError, match="state"):
            envs.set_state(state)
    action = envs.action_space.sample()
    assert data_equivalence(envs.step(action), untouched.step(action))


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


def test_ids_that_stand_alone():
    """For clients that take an id and nothing else: flat observations, one Discrete or one Box of actions."""
    flat = [env_id for env_id in ram_envs.ENVIRONMENTS if env_id not in IDS]
    assert {"GlimpseMNISTBox-v0", "GlimpseMNISTDiscrete-v0", "GlimpseCatchBox-v0", "CatchDiscrete-v0"} < set(flat)
    for env_id in flat:
        env = make(env_id)
        assert isinstance(env.observation_space, gym.spaces.Box) and len(env.observation_space.shape) == 1
        assert type(env.action_space) is gym.spaces.Discrete or isinstance(env.action_space, gym.spaces.Box)
        assert ("Discrete" in env_id) == isinstance(env.action_space, gym.spaces.Discrete)
        task = env.unwrapped.task
        own = {} if env_id == "CatchDiscrete-v0" else {"action_format": task.codec.action_format}
        theirs = gym.wrappers.FlattenObservation(make(re.sub("(Box|Discrete)-", "-", env_id), **own))
        assert env.observation_space == theirs.observation_space and env.action_space == theirs.action_space
        action = env.action_space.sample()
        assert data_equivalence((env.reset(seed=0), env.step(action)), (theirs.reset(seed=0), theirs.step(action)))
    with pytest.raises(ValueError, match="flatten_observation must be True or False, got 'no'"):
        make(flatten_observation="no")


@pytest.mark.parametrize(
    ("env_id", "options", "length"),
    [("GlimpseCatch-v0", {}, 23), ("Catch-v0", {"height": 4}, 3), ("GlimpseMNIST-v0", {"num_glimpses": 4}, 4)],
)
def test_specs_say_how_long_an_episode_is(env_id, options, length):
    for env in (make(env_id, **options), make_vec(2, env_id, **options)):
        assert env.spec.max_episode_steps == length
        env.reset(seed=0)
        for step in range(length):  # And nothing cuts it short.
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            assert np.all(terminated == (step == length - 1)) and not np.any(truncated)
    timed = gym.wrappers.TimeAwareObservation(make("GlimpseCatch-v0", size=9), flatten=False)
    assert timed.observation_space["time"].high == [8]
    assert gym.spec("GlimpseMNIST-v0").reward_threshold == make().spec.reward_threshold == 0.9893  # The paper's 1.07 %.
    assert gym.spec("Catch-v0").reward_threshold is None


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_time_limits_are_those_of_gym_make(mode):
    """Of natively batched environments, by `make_vec`: shorter than an episode, as long, and longer."""
    for limit in (2, np.int64(4), 9):
        native = make_vec(3, "Catch-v0", size=5, autoreset_mode=mode, max_episode_steps=limit)
        singles = [lambda limit=limit: make("Catch-v0", size=5, max_episode_steps=int(limit))] * 3
        singles = SyncVectorEnv(singles, autoreset_mode=mode)
        assert native.spec.max_episode_steps == limit and type(native.spec.max_episode_steps) is int
        assert data_equivalence(native.reset(seed=1), singles.reset(seed=1))
        truncations = []
        for _ in range(12):
            actions = native.action_space.sample()
            ours = native.step(actions)
            assert data_equivalence(ours, singles.step(actions))
            truncations.append(bool(ours[3].all()))
            if mode == AutoresetMode.DISABLED and (ours[2] | ours[3]).any():
                options = {"reset_mask": ours[2] | ours[3]}
                assert data_equivalence(native.reset(options=dict(options)), singles.reset(options=dict(options)))
        if mode != AutoresetMode.NEXT_STEP:
            assert truncations == [(step + 1) % limit == 0 and limit < 9 for step in range(12)]
    assert make_vec(1, "Catch-v0", max_episode_steps=-1).spec.max_episode_steps == 23  # No limit, as in `gym.make`.


def test_keys_for_gymnasiums_play(form):
    env = make(form[0], **form[1])
    keys = env.unwrapped.get_keys_to_action()
    assert all(env.action_space.contains(action) for action in keys.values())
    no_action = keys[(ord("s"),)]
    if form[0] == "GlimpseMNIST-v0" and form[1]["action_format"] == "dict":
        action = keys[(ord("e"), ord("7"))]
        assert action["class"] == 7 and action["location"] == pytest.approx([2 / 3, -2 / 3])
        assert keys[(ord("7"),)]["location"].tolist() == [0, 0] == no_action["location"].tolist()
    if form == ("Catch-v0", {}):
        pygame = pytest.importorskip("pygame")
        assert (keys[(pygame.K_LEFT,)], no_action, keys[(pygame.K_RIGHT,)]) == (0, 1, 2)
