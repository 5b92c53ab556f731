"""Inputs of all kinds for each public entry: the answer is right, or a clear error of ours; nothing hangs or passes nonsense.

python tests/fuzz.py                          # 1,000 inputs for each entry
python tests/fuzz.py --inputs 100000 actions  # more, for one entry
NUMBA_BOUNDSCHECK=1 python tests/fuzz.py      # compiled loops that leave their arrays raise an IndexError

`tests/test_fuzz.py` runs a few inputs of each entry with the other tests.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import functools
import gzip
import io
import struct
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import ram_envs
from ram_envs.actions import ACTION_FORMATS
from ram_envs.env import GlimpseEnv
from ram_envs.vector_env import GlimpseVectorEnv

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # Where train_agent.py is.
NOWHERE = tempfile.mkdtemp()
OURS = (f"{ROOT / 'ram_envs'}/", f"{ROOT / 'agents'}/", str(ROOT / "train_agent.py"))
LONGEST = 60  # Seconds for an input; then it hangs: the process ends and says where.
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 8, 9), np.uint8), np.arange(12) % 3
TASKS = {"classification": {"dataset": IMAGES, "glimpse_size": 4, "num_glimpses": 3}, "catch": {"size": 6, "glimpse_size": 4}}
TASKS["whole-catch"] = {"size": 6}

WHOLE = st.one_of(st.integers(-3, 40), st.sampled_from([2**31 - 1, 2**31, 2**63 - 1, 2**63, -(2**63), 10**30]))
NUMPY = st.one_of(
    st.sampled_from(
        [np.uint8(3), np.int8(-1), np.float32(0.5), np.float64("nan"), np.bool_(True), np.str_("center"), np.int64(7)]
    ),
    arrays.arrays(
        st.sampled_from([np.int64, np.float32, np.uint8, np.bool_, object]), arrays.array_shapes(min_dims=0, max_side=3)
    ),
)
WORDS = st.one_of(
    st.sampled_from(
        ["train", "test", "random", "center", "shuffled", "scene", "box", "dict", "discrete", "middle", "mnist", "", "7"]
    ),
    st.text(max_size=5),
)
PLAIN = st.one_of(st.none(), st.booleans(), WHOLE, st.floats(), WORDS, st.binary(max_size=3), st.complex_numbers(), NUMPY)
ANYTHING = st.recursive(
    PLAIN,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.tuples(inner, inner), st.dictionaries(WORDS, inner, max_size=2)),
    max_leaves=6,
)


@contextlib.contextmanager
def refused_clearly(*others):
    """What is raised within is an error of Gymnasium, or a ValueError, TypeError or one of `others` of ours, with a message."""
    try:
        yield
    except gym.error.Error:
        pass
    except (ValueError, TypeError, *others) as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        if not where.filename.startswith(OURS) or not str(error):
            raise AssertionError(f"refused obscurely, in {where.filename}:{where.lineno}: {error!r}") from error


def check_observation(space, observation):
    assert space.contains(observation), (space, observation)


def fuzz_options(data):
    """Options of single and of batched environments, then an episode in what could be made."""
    task = data.draw(st.sampled_from(sorted(TASKS)), "task")
    names = sorted(ram_envs.env_defaults({"whole-catch": "Catch-v0", "catch": "GlimpseCatch-v0"}.get(task, "GlimpseMNIST-v0")))
    given = data.draw(st.dictionaries(st.sampled_from([*names, "no_such"]), ANYTHING, min_size=1, max_size=3), "options")
    given.pop("task", None)
    options, num_envs = {**TASKS[task], **given}, data.draw(st.none() | ANYTHING, "num_envs")
    with refused_clearly(ram_envs.DataError):
        env = GlimpseEnv(task, **options) if num_envs is None else GlimpseVectorEnv(num_envs=num_envs, task=task, **options)
        with contextlib.closing(env):
            env.action_space.seed(0)
            observation, _ = env.reset(seed=0)
            check_observation(env.observation_space, observation)
            for _ in range(3):
                observation, reward, terminated, *_ = env.step(env.action_space.sample())
                check_observation(env.observation_space, observation)
                assert np.isfinite(reward).all()
                if num_envs is None and terminated:
                    break


def make(task, num_envs, **options):
    """An environment, or a batch, with small scenes."""
    env = (
        GlimpseVectorEnv(num_envs=num_envs, task=task, **TASKS[task], **options)
        if num_envs
        else GlimpseEnv(task, **TASKS[task], **options)
    )
    env.reset(seed=0)
    return env


def fuzz_resets(data):
    """Seeds and options of a reset; one that is refused changes nothing."""
    task, num_envs = data.draw(st.sampled_from(sorted(TASKS)), "task"), data.draw(st.sampled_from([0, 2]), "num_envs")
    env, untouched = make(task, num_envs), make(task, num_envs)
    names = st.sampled_from(["index", "ball_column", "ball_speed", "reset_mask"]) | WORDS
    seed, options = (
        data.draw(st.none() | ANYTHING, "seed"),
        data.draw(st.dictionaries(names, ANYTHING, max_size=2) | ANYTHING, "options"),
    )
    refused = True
    with refused_clearly():
        observation, _ = env.reset(seed=seed, options=options)
        check_observation(env.observation_space, observation)
        refused = False
    if refused:
        one, other = env.reset()[0], untouched.reset()[0]
        assert all(np.array_equal(a, b) for a, b in zip(leaves(one), leaves(other), strict=True))


def leaves(observation):
    return list(observation.values()) if isinstance(observation, dict) else [observation]


def fuzz_actions(data):
    """Actions in each format; one that is refused changes nothing."""
    task, num_envs = data.draw(st.sampled_from(sorted(TASKS)), "task"), data.draw(st.sampled_from([0, 2]), "num_envs")
    form = {} if task == "whole-catch" else {"action_format": data.draw(st.sampled_from(sorted(ACTION_FORMATS)), "format")}
    if task == "classification":
        form |= {"stop_action": data.draw(st.booleans()), "zoom_action": data.draw(st.booleans())}
    env = make(task, num_envs, **form)
    numbers = st.floats() | st.integers(-2, 11) | PLAIN
    rows = arrays.arrays(
        st.sampled_from([np.int64, np.uint8, np.float32, np.float64]), arrays.array_shapes(max_dims=3, max_side=7)
    )
    parts = st.dictionaries(
        st.sampled_from(["location", "class", "move", "stop", "zoom", "more"]), st.lists(numbers, max_size=3) | rows | numbers
    )
    action = data.draw(parts | rows | ANYTHING, "action")
    before = env.task.get_state()
    refused = True
    with refused_clearly():
        observation, reward, *_ = env.step(action)
        check_observation(env.observation_space, observation)
        assert np.isfinite(reward).all()
        refused = False
    if refused:
        after = env.task.get_state()
        assert all(np.array_equal(before[name], after[name]) for name in before)
        env.action_space.seed(0)
        env.step(env.action_space.sample())


def fuzz_glimpses(data):
    """Images and locations of any shape and type."""
    dtypes = st.sampled_from([np.uint8, np.float32, np.float64, np.int64, np.bool_])
    images = data.draw(arrays.arrays(dtypes, arrays.array_shapes(min_dims=1, max_dims=5, max_side=6)) | ANYTHING, "images")
    shape = (len(images), 2) if isinstance(images, np.ndarray) and images.ndim else (1, 2)
    locations = data.draw(arrays.arrays(np.float32, shape) | NUMPY, "locations")
    sizes = data.draw(st.dictionaries(st.sampled_from(["glimpse_size", "num_scales"]), st.integers(-1, 4) | ANYTHING), "sizes")
    with refused_clearly(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        seen = ram_envs.glimpses(images, locations, **sizes)
        assert seen.dtype == np.float32
        assert np.isfinite(seen).all() or not np.isfinite(images).all()


def fuzz_dataset(data):
    """Images and labels of the user's own."""
    dtypes = st.sampled_from([np.uint8, np.float32, np.float64, np.int64, np.bool_, np.uint16])
    numbers = st.one_of(st.floats(0, 1, width=16), st.integers(0, 1))
    images = data.draw(
        arrays.arrays(dtypes, arrays.array_shapes(min_dims=1, max_dims=5, max_side=9))
        | arrays.arrays(np.float32, arrays.array_shapes(min_dims=3, max_dims=4, max_side=9), elements=numbers.map(float))
        | ANYTHING,
        "images",
    )
    num_images = len(images) if isinstance(images, np.ndarray) and images.ndim else 2
    labels = data.draw(
        arrays.arrays(np.int64, num_images, elements=st.integers(-1, 12))
        | arrays.arrays(st.sampled_from([np.uint8, np.float64, "<U3", object]), arrays.array_shapes(max_dims=2, max_side=9))
        | ANYTHING,
        "labels",
    )
    with refused_clearly(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        env = GlimpseEnv(dataset=(images, labels), glimpse_size=2, num_glimpses=2)
        observation, info = env.reset(seed=0)
        check_observation(env.observation_space, observation)
        assert 0 <= info["label"] < env.choices["class"]


def fuzz_pairs(data):
    """Options as a command line has them."""
    with refused_clearly():
        assert isinstance(ram_envs.parse_pairs(data.draw(st.lists(st.text(max_size=12)), "pairs")), dict)


def fuzz_weights(data):
    """Files of trained agents with bytes changed, cut off or added."""
    from ram_envs.agents import load_pretrained

    with tempfile.TemporaryDirectory() as folder:
        path = next((ROOT / "agents/weights").glob("GlimpseCatch*.safetensors"))
        Path(folder, path.name).write_bytes(spoilt(data, path.read_bytes()))
        with refused_clearly():
            load_pretrained("GlimpseCatch-v0", folder=folder, device="cpu")


def spoilt(data, content):
    """The content with some bytes changed, or cut, or with more behind it; changes are more frequent near its beginning."""
    content = bytearray(content)
    for _ in range(data.draw(st.integers(0, 3), "changes")):
        near = data.draw(st.integers(0, min(len(content), 4096) - 1) | st.integers(0, len(content) - 1), "at")
        content[near] = data.draw(st.integers(0, 255), "byte")
    return bytes(content[: data.draw(st.none() | st.integers(0, len(content)), "length")]) + data.draw(
        st.binary(max_size=4), "more"
    )


def fuzz_idx(data):
    """A pair of IDX files with bytes changed, cut off or added, plain and compressed."""
    files = {
        "images": b"\0\0\x08\x03" + struct.pack(">3I", 3, 2, 2) + bytes(12),
        "labels": b"\0\0\x08\x01" + struct.pack(">I", 3) + bytes(3),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            is_packed = data.draw(st.booleans(), "compressed")
            spoil = data.draw(st.sampled_from(["before", "after", "nothing"]), "spoilt")
            content = spoilt(data, content) if spoil == "before" else content
            content = gzip.compress(content) if is_packed else content
            Path(folder, name).write_bytes(spoilt(data, content) if spoil == "after" else content)
        with refused_clearly(ram_envs.DataError):
            images, labels = ram_envs.load_idx(Path(folder, "images"), Path(folder, "labels"))
            assert len(images) == len(labels)


@functools.cache
def checkpoint_bytes():
    from ram_envs.agents import RAM, make_vec_env
    from ram_envs.agents.training.checkpoints import CHECKPOINT, save_checkpoint

    env = make_vec_env("GlimpseCatch-v0", 2, size=6)
    model = RAM("RAMPolicy", env, class_loss="reinforce", policy_kwargs={"hidden_size": 2, "core_size": 2}, device="cpu", seed=0)
    model.learn(10)
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(Path(folder), model, env, {})
        return Path(folder, CHECKPOINT).read_bytes()


def fuzz_checkpoint(data):
    """A checkpoint with bytes changed, cut off or added: noticed, whatever they are."""
    from ram_envs.agents.training.checkpoints import CHECKPOINT, read_checkpoint

    whole = checkpoint_bytes()
    with tempfile.TemporaryDirectory() as folder:
        changed = spoilt(data, whole)
        Path(folder, CHECKPOINT).write_bytes(changed)
        with refused_clearly():
            read_checkpoint(Path(folder))
            assert changed == whole


COMMAND_WORDS = (
    "--algo --env --preset -n --minutes --clock --seed --n-envs --evaluations --eval-freq -params --env-kwargs --num-threads "
    "--resume --no-test -i --nonsense ram ppo GlimpseMNIST-v0 GlimpseCatch-v0 ../x paper cpu nan -1 0 1e9 3 n_envs:4 size:x : "
)


def fuzz_commands(data):
    """What a command line asks for; nothing is trained."""
    from train_agent import parse_config

    arguments = data.draw(st.lists(st.sampled_from(COMMAND_WORDS.split(" ")) | st.text(max_size=4), max_size=6), "arguments")
    with contextlib.redirect_stderr(io.StringIO()) as said, refused_clearly(FileNotFoundError, ModuleNotFoundError):
        try:
            parse_config(["-f", NOWHERE, *arguments])
        except SystemExit as error:
            if error.code != 0 and ": error: " not in said.getvalue():
                raise AssertionError(f"ended with {error.code}") from error


VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), st.sampled_from(["lin_0.1", "lin_", "relu"])
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)


def fuzz_yaml(data):
    """Files of hyperparameters."""
    import yaml

    from ram_envs.agents.training.settings import read_file

    names = st.sampled_from(["GlimpseMNIST-v0", "GlimpseMNIST-v0/paper", "n_envs", "env_wrapper", "policy_kwargs"])
    content = data.draw(
        st.dictionaries(names, st.dictionaries(names, VALUES, max_size=2) | VALUES, max_size=2).map(yaml.safe_dump) | st.text(),
        "text",
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "ram.yml")
        path.write_text(content, encoding="utf-8")
        with refused_clearly():
            assert isinstance(
                read_file(path, "GlimpseMNIST-v0", data.draw(st.sampled_from([None, "paper", "x"]), "preset")), dict
            )


NEEDS_TORCH = ("weights", "yaml", "checkpoint", "commands")
FUZZED = {name.removeprefix("fuzz_"): function for name, function in list(globals().items()) if name.startswith("fuzz_")}


def run(name, num_inputs):
    """Draw inputs for an entry; raises what hypothesis raises at the first fault, made as small as it can."""
    if "torch" in sys.modules:  # A run in this process may have turned off the smallest numbers, which are drawn too.
        sys.modules["torch"].set_flush_denormal(False)
    phases = (Phase.generate, Phase.shrink)
    wanted = settings(
        max_examples=num_inputs,
        deadline=None,
        database=None,
        derandomize=num_inputs < 1000,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )

    def one(data):
        faulthandler.dump_traceback_later(LONGEST, exit=True)
        FUZZED[name](data)
        faulthandler.cancel_dump_traceback_later()

    wanted(given(st.data())(one))()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entries", nargs="*", default=[], help=f"of {', '.join(FUZZED)} (default: all)")
    parser.add_argument("--inputs", type=int, default=1000, help="for each entry (default: 1000)")
    options = parser.parse_args()
    warnings.simplefilter("error", RuntimeWarning)
    for entry in options.entries or FUZZED:
        start = time.perf_counter()
        run(entry, options.inputs)
        print(f"{entry}: {options.inputs} inputs, right or clearly refused, {time.perf_counter() - start:.0f} s", flush=True)
