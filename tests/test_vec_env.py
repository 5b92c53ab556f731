import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("stable_baselines3")

from conftest import DATASET, make, make_vec
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecMonitor

from ram_envs import BoxActions
from ram_envs.agents import GymnasiumVecEnv, make_vec_env
from ram_envs.agents.vec_env import Infos, info_array, stack_infos, wrap_env
from ram_envs.agents.vec_env import Monitor as LazyMonitor

BOX = {"action_format": "box", "num_glimpses": 3}


def rollout(env, seed, steps):
    """Observations, rewards, dones and infos of random actions, as SB3 sees them."""
    rng = np.random.default_rng(0)
    env.seed(seed)
    yield env.reset(), env.reset_infos
    for _ in range(steps):
        actions = rng.uniform(-1, 1, (env.num_envs, *env.action_space.shape)).astype(np.float32)
        yield env.step(actions), env.reset_infos


def assert_same(first, second, leave_out=("episode",)):
    if isinstance(first, dict):
        assert first.keys() - leave_out == second.keys() - leave_out
        for key in first.keys() - leave_out:
            assert_same(first[key], second[key], leave_out)
    elif isinstance(first, (tuple, list, Infos)):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other, leave_out)
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


@pytest.mark.parametrize("native", [True, False])
def test_dict_actions_are_offered_as_a_box(native):
    """Those of a batch of single environments as well, which batches Dict actions."""
    options = {"num_glimpses": 3, "stop_action": True, "zoom_action": True}

    def batch(**kwargs):
        if native:
            return GymnasiumVecEnv(make_vec(3, autoreset_mode="SameStep", **kwargs))
        return GymnasiumVecEnv(SyncVectorEnv([lambda: make(**kwargs)] * 3, autoreset_mode="SameStep"))

    dicts, boxes = batch(**options), batch(action_format="box", **options)
    assert isinstance(dicts.action_space, BoxActions)
    assert dicts.action_space == boxes.action_space
    assert dicts.action_space.choices == boxes.action_space.choices == {"class": 10, "stop": 2, "zoom": 3}
    for one, other in zip(rollout(dicts, 1, 20), rollout(boxes, 1, 20), strict=True):
        assert_same(one, other)


def test_actions_of_another_length_are_refused():
    for env in (make_vec(2), SyncVectorEnv([make] * 2)):
        env = GymnasiumVecEnv(env)
        env.reset()
        for length in (4, 11, 13):
            with pytest.raises(ValueError, match=rf"must have the shape .*, got \(2, {length}\)"):
                env.step(np.zeros((2, length), np.float32))


def test_every_kind_of_environment_is_wrapped_for_sb3():
    def wrap(env):
        return env if isinstance(env, VecEnv) else DummyVecEnv([lambda: env])

    for env in (
        make_vec(2),
        make_vec(2, action_format="box"),
        DummyVecEnv([make] * 2),
        make(),
        DummyVecEnv([lambda: make(**BOX)]),
    ):
        wrapped = wrap_env(env, wrap)
        assert wrapped.action_space.choices == {"class": 10}
        wrapped.reset()
        wrapped.step(np.zeros((wrapped.num_envs, 12), np.float32))
    vec_env = make_vec_env("Catch-v0", 2)
    assert wrap_env(vec_env, wrap) is vec_env
    sb3s_own = DummyVecEnv([lambda: gym.make("CartPole-v1")])
    assert wrap_env(sb3s_own, wrap) is sb3s_own


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


def test_ids_of_every_kind():
    assert make_vec_env("Pendulum-v1", 2).num_envs == 2  # No native batch: gymnasium's own.
    cart_pole = make_vec_env("CartPole-v1", 2)  # A native batch that can't reset at once: gymnasium's own too.
    cart_pole.reset()
    assert cart_pole.step(np.zeros(2, np.int64))[1].tolist() == [1, 1]
    assert make_vec_env("ram_envs:GlimpseCatch-v0", 2).spec.id == "GlimpseCatch-v0"  # The module is imported first.


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
    env.set_options([{"index": 3}, {"index": 1}])
    env.reset()
    assert [info["index"] for info in env.reset_infos] == [3, 1]
    env.set_options([{"index": 1}, {}])
    with pytest.raises(ValueError, match=r"set_options must give all environments the same names of options, got \[.*1.*\{\}\]"):
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


@pytest.mark.parametrize("frame_stack", [0, -1, 2.0, True, "4"])
def test_bad_frame_stacks_are_named(frame_stack):
    with pytest.raises(ValueError, match=f"frame_stack must be a whole number of at least 1, got {frame_stack!r}"):
        make_vec_env("Catch-v0", 2, frame_stack=frame_stack)


@pytest.mark.parametrize("env_id", ["Catch-v0", "Pendulum-v1"])
def test_bad_numbers_of_environments_and_seeds_are_named(env_id):
    for name, bad, least in (("n_envs", 0, 1), ("n_envs", 2.0, 1), ("seed", -1, 0), ("seed", "x", 0)):
        with pytest.raises(ValueError, match=f"{name} must be a whole number of at least {least}, got {bad!r}"):
            make_vec_env(env_id, **{name: bad})


def test_one_frame_is_not_stacked():
    assert isinstance(make_vec_env("Catch-v0", 2, frame_stack=1).venv, GymnasiumVecEnv)
    assert isinstance(make_vec_env("Catch-v0", 2, frame_stack=2).venv, VecFrameStack)


# The infos.


def test_a_dict_is_made_only_when_somebody_reads_it():
    class Read(Exception):
        pass

    class Untold(np.ndarray):
        def tolist(self):
            raise Read

    info = {"label": np.array([3, 4]).view(Untold), "_label": np.ones(2, np.bool_)}
    infos = Infos(2, info, np.zeros(2, np.bool_))
    assert len(infos) == 2
    assert infos.array("label").sum() == 7
    assert not infos.array("TimeLimit.truncated").any()
    assert infos.ended(most=9) == ([], [])
    with pytest.raises(Read):
        infos[0]


def test_infos_are_a_list_of_dicts_to_who_reads_them():
    infos = Infos(3, {"label": np.array([3, 4, 5]), "_label": np.ones(3, np.bool_)})
    assert infos[1] == {"label": 4}
    assert infos[-1] == {"label": 5}
    assert infos[:2] == [{"label": 3}, {"label": 4}]
    assert [info["label"] for info in infos] == [3, 4, 5]
    infos[0]["mark"] = True
    assert infos[0] is infos[0]
    with pytest.raises(IndexError):
        infos[3]


def test_facts_as_arrays_are_those_of_the_dicts():
    some = np.array([True, False, False])
    info = {"label": np.array([3, 4, 5]), "mood": np.array([9, 0, 0]), "_mood": some, "shown": np.arange(3)}
    infos = Infos(3, info, ~some, some)
    infos.end({"label": np.array([7, 0, 0]), "_label": some, "score": np.array([2, 0, 0]), "_score": some}, {0: "last"})
    assert infos[0] == {"label": 7, "score": 2, "TimeLimit.truncated": False, "terminal_observation": "last"}
    assert infos[1] == {"label": 4, "shown": 1, "TimeLimit.truncated": True}
    dicts = list(infos)
    for name, default in (("label", 0), ("score", -1), ("mood", -1), ("shown", -1), ("nothing", 5)):
        expected = [info.get(name, default) for info in dicts]
        assert infos.array(name, default).tolist() == info_array(dicts, name, default).tolist() == expected
    assert infos.array("label").tolist() == info_array(dicts, "label").tolist() == [7, 4, 5]
    assert stack_infos([infos, dicts], "label").tolist() == [[7, 4, 5]] * 2
    for name in ("score", "mood", "shown", "nothing"):  # Not of all of them.
        for told in (infos, dicts):
            with pytest.raises(KeyError, match=name):
                info_array(told, name)


class Episodes(gym.Env):
    """Ends after `length` steps, or is cut short after `limit`; tells of every second step, and of success at the end."""

    action_space = gym.spaces.Discrete(2)
    observation_space = gym.spaces.Box(0, 9, (1,))

    def __init__(self, length, limit=99):
        self.length, self.limit = length, limit

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(1, np.float32), {"began": self.length}

    def step(self, action):
        self.time += 1
        is_over, is_cut = self.time == self.length, self.time == self.limit
        info = {"even": self.time} if self.time % 2 == 0 else {}
        info |= {"is_success": bool(action)} if is_over else {}
        return np.full(1, self.time, np.float32), self.time / 4, is_over, is_cut, info


LENGTHS = {"partial": ((2,), (3,), (9, 2), (2, 2)), "together": ((3,), (3, 3), (9, 3))}


def monitored(env, frame_stack, monitor):
    return monitor(VecFrameStack(env, frame_stack) if frame_stack > 1 else env)


def told(info):
    """An info without the time that its episode took."""
    return {**info, "episode": {name: info["episode"][name] for name in "rl"}} if "episode" in info else info


@pytest.mark.parametrize("frame_stack", [1, 2])
@pytest.mark.parametrize(
    ("mode", "lengths"),
    [("SameStep", "partial"), ("SameStep", "together"), ("NextStep", "together"), ("Disabled", "partial")],
)
def test_infos_are_those_of_sb3s_own_monitor(mode, lengths, frame_stack):
    """Each environment's dict, the episode's return and length among it, as SB3's environments and monitor give it."""
    fns = [lambda arguments=arguments: Episodes(*arguments) for arguments in LENGTHS[lengths]]
    ours, theirs = (
        monitored(GymnasiumVecEnv(SyncVectorEnv(fns, autoreset_mode=mode)), frame_stack, monitor)
        for monitor in (LazyMonitor, VecMonitor)
    )
    envs = [ours, theirs, monitored(DummyVecEnv(fns), frame_stack, VecMonitor)]
    for env in envs:
        env.reset()
    rng, num_ends = np.random.default_rng(0), 0
    for _ in range(12):
        actions = rng.integers(0, 2, len(fns))
        steps = [env.step(actions) for env in envs]
        assert isinstance(steps[0][3], Infos)
        seen = [
            (obs, rewards, dones, [told(info) for info in infos], list(env.unwrapped.reset_infos))
            for env, (obs, rewards, dones, infos) in zip(envs, steps, strict=True)
        ]
        for other in seen[1:]:
            assert_same(seen[0], other, leave_out=())
        num_ends += steps[0][2].sum()
    assert num_ends > 8
