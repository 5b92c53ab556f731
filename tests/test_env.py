"""What environments tell of themselves, and how tasks and their options are named."""

import gymnasium as gym
import numpy as np
import pytest
from conftest import DATASET, make, make_vec

import ram_envs
from ram_envs.datasets import load_images
from ram_envs.env import fits_memory, parse_pairs

GREY = np.random.default_rng(0).integers(0, 256, (12, 10, 14), np.uint8)
RGB = np.random.default_rng(0).integers(0, 256, (12, 10, 14, 3), np.uint8)
LABELS = np.arange(12) % 3


def own(images=GREY, **options):
    return gym.make("GlimpseClassification-v0", dataset=(images, LABELS), **options).unwrapped


@pytest.mark.parametrize(
    ("env_id", "options", "shape", "choices"),
    [
        ("GlimpseMNIST-v0", {"stop_action": True}, (28, 28), {"class": 10, "stop": 2}),
        ("GlimpseClutteredMNIST100-v0", {"zoom_action": True, "action_format": "box"}, (100, 100), {"class": 10, "zoom": 3}),
        ("GlimpseCatch-v0", {"size": 12, "zoom_action": True, "num_zooms": 2}, (12, 12), {"move": 3, "zoom": 2}),
        ("Catch-v0", {}, (24, 24), {"move": 3}),
    ],
)
def test_the_public_face(env_id, options, shape, choices):
    for env in (make(env_id, **options).unwrapped, make_vec(2, env_id, **options).unwrapped):
        assert (env.scene_shape, env.choices) == (shape, choices)
        has_images = "MNIST" in env_id
        assert env.has_labels == has_images
        assert env.choice_names == (tuple("0123456789") if has_images else ("left", "stay", "right"))
        expected = (DATASET, "train", len(load_images(DATASET).labels)) if has_images else (None, None, None)
        assert (env.dataset, env.split, env.num_images) == expected
        env.reset(seed=0)
        frame = env.frame()
        assert frame.scene.shape == shape and frame.names == env.choice_names
        space = getattr(env, "single_observation_space", env.observation_space)
        assert getattr(space, "scene_shape", shape) == shape


def test_scenes_of_ones_own_images():
    assert own().scene_shape == (10, 14)
    assert own(RGB).scene_shape == (3, 10, 14)
    assert own(RGB, canvas_size=20).scene_shape == (3, 20, 20)
    assert own(glimpse_size="scene").observation_space["glimpse"].shape == (1, 14, 14)
    assert make("GlimpseCatch-v0", glimpse_size="scene", num_scales=1).observation_space["glimpse"].shape == (1, 24, 24)


def test_images_are_evaluated_each_once():
    evaluation = make(glimpse_cost=0.1).unwrapped.evaluation("test")
    assert evaluation == ram_envs.Evaluation(
        {"split": "test", "image_order": "sequential"}, len(load_images(DATASET, "test").labels), None
    )
    envs = make_vec(10, **evaluation.env_kwargs)
    assert envs.unwrapped.num_images == evaluation.num_episodes
    assert envs.reset()[1]["index"].tolist() == list(range(10))
    with pytest.raises(ValueError, match=r"split must be one of \('train', 'validation', 'test'\), got 'tests'"):
        make().unwrapped.evaluation("tests")


def test_games_are_evaluated_from_seeds_of_their_split():
    for env in (make("Catch-v0"), make_vec(2, "GlimpseCatch-v0")):
        assert env.unwrapped.evaluation("validation") == ram_envs.Evaluation({}, 2_000, 1_000_000)
        assert (
            env.unwrapped.evaluation("test") == ram_envs.seeded_evaluation("test") == ram_envs.Evaluation({}, 10_000, 2_000_000)
        )
    with pytest.raises(ValueError, match="split must be one of"):
        ram_envs.seeded_evaluation("final")


def test_arrays_are_one_split_and_never_another():
    assert own().evaluation("train").num_episodes == 12
    assert own(split="test").evaluation("test").num_episodes == 12
    for given, asked in (("train", "test"), ("train", "validation"), ("test", "train")):
        with pytest.raises(ValueError, match=f"split must be '{given}', got '{asked}': .*register_dataset"):
            own(split=given).evaluation(asked)


@pytest.mark.usefixtures("fresh_datasets")
def test_a_registered_data_set_is_known_by_its_name():
    sets = {
        "train": (GREY, LABELS),
        "validation": (GREY[:5], LABELS[:5]),
        "test": ram_envs.ImageSet("other", GREY[:7], LABELS[:7], 3),
    }
    ram_envs.register_dataset("mine", sets.__getitem__)
    env = gym.make("GlimpseClassification-v0", dataset="mine", split="test").unwrapped
    assert (env.dataset, env.num_images) == ("other", 7)
    assert [env.evaluation(split).num_episodes for split in sets] == [12, 5, 7]


def test_statistics_of_glimpses_disturb_nothing():
    env, fresh = (make(num_scales=2).unwrapped for _ in range(2))
    env.reset(seed=0), fresh.reset(seed=0)
    mean, deviations = env.glimpse_statistics()
    assert 0.09 < mean < 0.14
    assert deviations == pytest.approx([0.306, 0.276], abs=0.005)
    np.testing.assert_equal(env.reset(), fresh.reset())
    mean, deviations = make_vec(2, "GlimpseCatch-v0").unwrapped.glimpse_statistics()
    assert mean < 0.02 and deviations == sorted(deviations, reverse=True)
    assert (
        own(RGB, canvas_size=20, num_clutter=1).glimpse_statistics()
        == own(RGB, canvas_size=20, num_clutter=1, image_order="sequential").glimpse_statistics()
    )
    with pytest.raises(ValueError, match="Catch shows no glimpses"):
        make("Catch-v0").unwrapped.glimpse_statistics()


def test_defaults_of_every_id(env_id):
    defaults = ram_envs.env_defaults(env_id)
    made_with = {name: value for name, value in ram_envs.ENVIRONMENTS[env_id].items() if name != "task"}
    assert ram_envs.env_defaults("GlimpseMNISTBox-v0")["action_format"] == "box"
    assert made_with.items() <= defaults.items()
    if "Fashion" not in env_id:
        assert type(make(env_id).unwrapped.task)(1, **defaults).observation_space == make(env_id).unwrapped.observation_space


def test_defaults_of_others():
    assert ram_envs.env_defaults("CartPole-v1") == {}
    assert ram_envs.env_defaults("ram_envs:Catch-v0") == {
        "size": 24,
        "height": None,
        "width": None,
        "ball_speeds": (-1, 0, 1),
        "paddle_start": "middle",
    }
    with pytest.raises(gym.error.NameNotFound):
        ram_envs.env_defaults("Ketch-v0")


class Guess(ram_envs.Task):
    """A number of 0 or 1 is drawn; the reward is 1 for saying it."""

    choices, choice_names, scene_shape, reset_options = {"number": 2}, ("zero", "one"), (1, 1), ()
    state_names = (*ram_envs.Task.state_names, "numbers")

    def __init__(self, num_envs=1, *, offset: int = 0):
        self.num_envs, self.offset = num_envs, offset
        self.observation_space, self.action_space = gym.spaces.Box(0, 9, (1,), np.float32), gym.spaces.Discrete(2)
        self.streams, self.terminated = np.zeros(num_envs, np.uint64), np.zeros(num_envs, bool)
        self.numbers = np.zeros(num_envs, np.int64)

    def begin(self, where, options):
        draws, self.streams[where] = ram_envs.sampling.draw_uniform(self.streams[where], 1)
        self.numbers[where] = draws[:, 0] < 0.5
        self.terminated[where] = False

    def step(self, action, num_actions, where):
        self.terminated[...] = True if where is None else where
        return (np.reshape(action, -1) == self.numbers).astype(np.float64)

    def observe(self):
        return (self.numbers[:, None] + self.offset).astype(np.float32)

    def info(self):
        return {}


@pytest.fixture
def guess_id():
    """The task above as an environment."""
    ram_envs.register_task("guess", Guess)
    gym.register(
        "Guess-v0", "ram_envs.env:GlimpseEnv", vector_entry_point="ram_envs.vector_env:GlimpseVectorEnv", kwargs={"task": "guess"}
    )
    yield "Guess-v0"
    del gym.registry["Guess-v0"]


def test_a_task_of_ones_own(guess_id):
    assert ram_envs.env_defaults(guess_id) == {"offset": 0}
    env = gym.make(guess_id, offset=3)
    obs, _ = env.reset(seed=0)
    assert env.step(int(obs[0] - 3))[1:3] == (1.0, True)
    envs = gym.make_vec(guess_id, num_envs=50, autoreset_mode="SameStep")
    obs, _ = envs.reset(seed=0)
    assert envs.step(obs[:, 0].astype(int))[1].all()
    assert envs.unwrapped.evaluation("test").num_episodes == 10_000
    with pytest.raises(ValueError, match="offset must be a whole number, got 'x'"):
        gym.make(guess_id, offset="x")
    with pytest.raises(ValueError, match="there is such a task already"):
        ram_envs.register_task("catch", Guess)
    with pytest.raises(TypeError, match=r"a class made from ram_envs\.Task"):
        ram_envs.register_task("other", dict)
    with pytest.raises(ValueError, match=r"task must be one of .*'catch'.* got 'no such'"):
        ram_envs.GlimpseEnv("no such")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_glimpses": 2.0}, "num_glimpses must be a whole number, got 2.0"),
        ({"num_clutter": True}, "num_clutter must be a whole number, got True"),
        ({"canvas_size": "60"}, "canvas_size must be a whole number or None, got '60'"),
        ({"glimpse_size": 8.0}, "glimpse_size must be a whole number or text, got 8.0"),
        ({"stop_action": "false"}, "stop_action must be True or False, got 'false'"),
        ({"warp": None}, "warp must be a number, got None"),
        ({"warp": 10**400}, "warp must be a number that 64 bits can hold, got 1000"),
        ({"clutter_size": 10**30}, "clutter_size must be a whole number that 64 bits can hold, got 1000"),
        ({"glimpse_cost": np.zeros(3)}, "glimpse_cost must be a number, got array"),
        ({"image_order": np.array([1, 2])}, "image_order must be text, got array"),
        ({"split": ["train"]}, "split must be text"),
    ],
)
def test_options_of_a_wrong_kind_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_batches_larger_than_the_memory_are_refused():
    with pytest.raises(ValueError, match="num_envs must be a whole number of at least 1 and less than 2\\*\\*31, got 2147483648"):
        ram_envs.GlimpseVectorEnv("catch", 2**31)
    with pytest.raises(ValueError, match="num_envs=7 with these options needs more memory than there is: 16 GiB"), fits_memory(7):
        raise MemoryError("16 GiB")


def test_small_numbers_of_numpy_are_as_good():
    """Computed with as they are, they would wrap."""
    small = make_vec(np.uint8(200), num_clutter=np.uint8(60), canvas_size=np.uint8(64), stop_action=np.bool_(False))
    plain = make_vec(200, num_clutter=60, canvas_size=64)
    np.testing.assert_equal(small.reset(seed=0), plain.reset(seed=0))
    assert small.num_envs == 200 and type(small.unwrapped.num_envs) is int


@pytest.mark.parametrize("bad", [1.5, "ab", [1, 2, 3]])
def test_bad_seeds_and_options_of_a_reset_are_named(bad):
    envs = make_vec(2, "Catch-v0")
    with pytest.raises(ValueError, match="seed must be a whole number or a list of num_envs=2 of them"):
        envs.reset(seed=bad)
    with pytest.raises(ValueError, match=r"options of reset\(\) must be a dict"):
        envs.reset(options=bad)


def test_pairs_with_the_dicts_of_rl_zoo3():
    pairs = ["a:dict(net_arch=[64, 64])", "b: dict( x = dict(pi=[-1.5], vf=()), w=None)", "c:{'d': dict()}", "e:dictionary"]
    expected = {"net_arch": [64, 64]}, {"x": {"pi": [-1.5], "vf": ()}, "w": None}, {"d": {}}, "dictionary"
    assert tuple(parse_pairs(pairs).values()) == expected


@pytest.mark.parametrize("code", ["activation_fn=nn.Tanh", "a=print(1)", "**{}", "[]", "a=1", "a=" + "(" * 300])
def test_pairs_run_no_code(code, capsys):
    text = f"a:dict({code})" if code != "a=1" else "a:dict(a=1"
    with pytest.raises(ValueError, match="must hold numbers, text, lists and dicts alone: no code is run"):
        parse_pairs([text])
    assert parse_pairs(["a:print(1)", "b:x.dict(a=1)"]) == {"a": "print(1)", "b": "x.dict(a=1)"}
    assert not capsys.readouterr().out


def test_pairs():
    assert parse_pairs(["a:1e-3", "b:x", "c:(0,1)", "d:center", "e:True", "f:{'g': 1}"]) == {
        "a": 1e-3,
        "b": "x",
        "c": (0, 1),
        "d": "center",
        "e": True,
        "f": {"g": 1},
    }
    as_in_yaml = parse_pairs(["a:true", "b:false", "c:null", "d:truest"])
    assert list(as_in_yaml.values()) == [True, False, None, "truest"]


@pytest.mark.parametrize("bad", ["nothing", ":3", ""])
def test_what_is_no_pair_is_named(bad):
    with pytest.raises(ValueError, match=f"'{bad}' must have the form NAME:VALUE"):
        parse_pairs(["a:1", bad])
