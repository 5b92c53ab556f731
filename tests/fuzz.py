"""Inputs of all kinds for each public entry: the answer is right, or a clear error of ours; nothing hangs or passes nonsense.

python tests/fuzz.py                                     # 1,000 inputs for each entry
python tests/fuzz.py --inputs 100000 actions             # more, for one entry
python tests/fuzz.py --inputs 1 --first 31415 actions    # one of them again
NUMBA_BOUNDSCHECK=1 python tests/fuzz.py                 # compiled loops that leave their arrays raise an IndexError

An input is made out of choices, `draw(n)` one of 0..n-1, so that whatever chooses can drive it: a random generator here, which
is fast, and hypothesis in `tests/test_fuzz.py`, which makes a fault small.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import functools
import gzip
import hashlib
import io
import json
import random
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import gymnasium as gym
import numpy as np
from inputs import (
    DTYPES,
    FLOATS,
    FRACTIONS,
    NUMBERS,
    PIXELS,
    PLAIN,
    SMALL,
    SPOILT,
    TEXT,
    TREE_CHANGES,
    WHOLE,
    WORDS,
    among,
    anything,
    arrays,
    change_tree,
    dicts,
    lists,
    one_of,
    plain,
    spoil,
    tuples,
    whole,
)

import ram_envs
from ram_envs.actions import ACTION_FORMATS
from ram_envs.env import GlimpseEnv
from ram_envs.vector_env import GlimpseVectorEnv

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # Where train_agent.py is.
OURS = (f"{ROOT / 'ram_envs'}/", f"{ROOT / 'agents'}/", str(ROOT / "train_agent.py"))
LONGEST = 60  # Seconds for a hundred inputs; then one hangs: the process ends and says where.
SCRATCH = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)  # In memory, where it can be.
FOLDER = Path(SCRATCH.name)
OUTCOMES = Counter()  # How many were answered and not refused.
FUZZED = {}  # Entry: ({argument: what makes it out of choices}, what checks the answer).


def fuzzes(**makers):
    """Register a check with what makes its arguments."""

    def register(check):
        FUZZED[check.__name__] = makers, check
        return check

    return register


IMAGES = np.random.default_rng(0).integers(0, 256, (12, 8, 9), np.uint8), np.arange(12) % 3
TASKS = {"classification": {"dataset": IMAGES, "glimpse_size": 4, "num_glimpses": 3}, "catch": {"size": 6, "glimpse_size": 2}}
TASKS["whole-catch"] = {"size": 6}
IDS = {"whole-catch": "Catch-v0", "catch": "GlimpseCatch-v0", "classification": "GlimpseMNIST-v0"}
NAMES = {task: among(*ram_envs.env_defaults(env_id), "flatten_observation", "render_mode", "x") for task, env_id in IDS.items()}
TASK = among(*TASKS)


@contextlib.contextmanager
def refused_clearly(*others):
    """What is raised within is an error of Gymnasium, or a ValueError, TypeError or one of `others` of ours, with a message."""
    try:
        yield
        OUTCOMES["right"] += 1
    except gym.error.Error:
        pass
    except (ValueError, TypeError, *others) as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        if not where.filename.startswith(OURS) or not str(error):
            raise AssertionError(f"refused obscurely, in {where.filename}:{where.lineno}: {error!r}") from error


def check_observation(space, observation):
    assert space.contains(observation), (space, observation)
    assert all(np.isfinite(part).all() for part in leaves(observation))


def leaves(observation):
    return list(observation.values()) if isinstance(observation, dict) else [observation]


def are_equal(observation, other):
    return all(np.array_equal(a, b) for a, b in zip(leaves(observation), leaves(other), strict=True))


def make(task, num_envs, **options):
    """An environment, or a batch, with small scenes unless the options say otherwise."""
    options = {"task": task, **TASKS.get(task, {}), **options}
    return GlimpseEnv(**options) if num_envs is None else GlimpseVectorEnv(num_envs=num_envs, **options)


LIKELY = {
    "split": among("train", "validation", "test"),
    "image_order": among("random", "sequential", "shuffled"),
    "action_format": among(*sorted(ACTION_FORMATS)),
    "initial_location": one_of(among("random", "center"), tuples(FRACTIONS, FRACTIONS)),
    "paddle_start": among("middle", "random"),
    "ball_speeds": lists(whole(-2, 2)),
    "glimpse_size": among(1, 2, 3, 4, 8, "scene"),  # Loops are compiled for each.
    "canvas_size": whole(5, 20),
    "dataset": among(IMAGES, (IMAGES[0] / np.float32(255), IMAGES[1])),
    "render_mode": among(None, None, None, "rgb_array"),
    **dict.fromkeys(("stop_action", "zoom_action", "flatten_observation"), among(False, True)),
    **dict.fromkeys(("warp", "affine", "glimpse_cost"), FRACTIONS),
}


def task_and_options(draw):
    task, given = TASK(draw), {}
    for _ in range(1 + draw(5)):
        name = NAMES[task](draw)
        given[name] = one_of(*[LIKELY.get(name, whole(0, 12))] * 3, one_of(PLAIN, SMALL, FRACTIONS, WORDS, anything))(draw)
    return task, given


@fuzzes(task_and_options=task_and_options, num_envs=one_of(among(None), whole(1, 4), whole(1, 4), anything))
def options(task_and_options, num_envs):
    """Options of single and of batched environments, then an episode in what could be made."""
    task, given = task_and_options
    with refused_clearly(ram_envs.DataError), contextlib.closing(make(task, num_envs, **given)) as env:
        if num_envs is not None and env.num_envs > 1000:  # As many as asked for; to seed millions takes its minutes.
            return
        env.action_space.seed(0)
        observation, _ = env.reset(seed=0)
        check_observation(env.observation_space, observation)
        for _ in range(3):
            observation, reward, terminated, *_ = env.step(env.action_space.sample())
            check_observation(env.observation_space, observation)
            assert np.isfinite(reward).all()
            if env.render_mode == "rgb_array":
                assert all(picture.dtype == np.uint8 for picture in np.atleast_2d(env.render()))
            if num_envs is None and terminated:
                break


@functools.cache
def twins(task, num_envs, **options):
    """Two equal environments, which inputs share: each begins with a reset that must leave nothing of those before."""
    return make(task, num_envs, **options), make(task, num_envs, **options)


RESET_NAMES = one_of(among("index", "ball_column", "ball_speed", "reset_mask"), among("index", "reset_mask"), TEXT)
MASKS = arrays((np.bool_, np.int64, object), (1, 2), side=3)
RESETS = dicts(RESET_NAMES, one_of(whole(-2, 12), anything, lists(whole(-2, 12)), arrays(DTYPES, (0, 2), 2), MASKS), longest=3)


@fuzzes(
    task=TASK,
    num_envs=among(None, 2),
    seed=one_of(among(None), WHOLE, lists(WHOLE, 2), anything),
    given=one_of(RESETS, RESETS, anything),
)
def resets(task, num_envs, seed, given):
    """Seeds and options of a reset; one that is refused changes nothing, one that is not leaves nothing behind."""
    env, untouched = twins(task, num_envs)
    for one in (env, untouched):
        one.reset(seed=0)
    refused = True
    with refused_clearly():
        observation, _ = env.reset(seed=seed, options=given)
        check_observation(env.observation_space, observation)
        refused = False
    assert are_equal(env.reset(seed=None if refused else 1)[0], untouched.reset(seed=None if refused else 1)[0])


ROWS = arrays((np.int64, np.uint8, np.float32, np.float64, np.bool_, object), (0, 3), side=7)
PARTS = dicts(
    among("location", "class", "move", "stop", "zoom", "more"),
    one_of(lists(NUMBERS), ROWS, NUMBERS, whole(0, 3), anything),
    longest=4,
)
FORMS = tuples(among(*sorted(ACTION_FORMATS)), among(False, True), among(False, True))


def spoilt_action(draw):
    """Places in an action that fits, by number, and what comes there."""
    return lists(tuples(whole(0, 9), one_of(NUMBERS, anything)), 2)(draw)


@fuzzes(
    task=TASK,
    num_envs=among(None, 2),
    form=FORMS,
    action=one_of(PARTS, PARTS, ROWS, anything),
    spoilt=one_of(among(None), spoilt_action),
)
def actions(task, num_envs, form, action, spoilt):
    """Actions in each format; one that is refused changes nothing."""
    names = () if task == "whole-catch" else ("action_format", "zoom_action", "stop_action")[: 2 if task == "catch" else 3]
    env, untouched = twins(task, num_envs, **dict(zip(names, form, strict=False)))
    for one in (env, untouched):
        one.reset(seed=0)
    if spoilt is not None:
        action = {**fitting(env)} if isinstance(fitting(env), dict) else np.array(fitting(env))
        for place, value in spoilt:
            action = replaced(action, place, value)
    refused = True
    with refused_clearly():
        observation, reward, *_ = env.step(action)
        check_observation(env.observation_space, observation)
        assert np.isfinite(reward).all()
        refused = False
    if refused:
        (one, *results), (other, *others) = (one.step(fitting(env)) for one in (env, untouched))
        assert are_equal(one, other) and all(map(np.array_equal, results[:3], others[:3]))


SPOILT_STATES = lists(tuples(whole(0, 15), whole(0, 40), one_of(WHOLE, NUMBERS, NUMBERS, ROWS, anything)), 2)


@fuzzes(task=TASK, spoilt=SPOILT_STATES)
def states(task, spoilt):
    """A state with other values: it is played on, or refused and changes nothing."""
    env, untouched = make(task, 2), make(task, 2)
    for one in (env, untouched):
        one.reset(seed=0)
    state = env.get_state()
    places = [*((state["task"], name) for name in state["task"]), *((state, name) for name in ("done", "elapsed", "is_seeded"))]
    for place, item, value in spoilt:
        holder, name = places[place % len(places)]
        try:
            changed = np.array(holder[name])
            changed.flat[item % changed.size] = value
        except (TypeError, ValueError, OverflowError, ZeroDivisionError):
            changed = value
        holder[name] = changed
    refused = True
    with refused_clearly():
        env.set_state(state)
        refused = False
    for _ in range(3):
        with contextlib.suppress(gym.error.ResetNeeded):  # A state may have no episode under way.
            observation, *results = env.step(fitting(untouched))
            check_observation(env.observation_space, observation)
        if refused:
            other, *others = untouched.step(fitting(untouched))
            assert are_equal(observation, other) and all(map(np.array_equal, results[:3], others[:3]))


@functools.cache
def fitting(env):
    env.action_space.seed(0)
    return env.action_space.sample()


def replaced(action, place, value):
    """The action with another value in it: a whole part, or one number of it."""
    if isinstance(action, dict) and action:
        name = sorted(action)[place % len(action)]
        return {**action, name: replaced(action[name], place, value) if place > 4 else value}
    if not isinstance(action, np.ndarray) or not action.ndim or not action.size:
        return value
    values = action.astype(object)
    values.flat[place % values.size] = value if np.isscalar(value) else 0
    with contextlib.suppress(TypeError, ValueError, OverflowError), np.errstate(all="ignore"):
        return values.astype(action.dtype)
    return values


def images_and_locations(draw):
    images = one_of(*[arrays((np.uint8, np.float32), (3, 4), side=9)] * 2, arrays(PIXELS, (1, 5), side=6), anything)(draw)
    count = len(images) if isinstance(images, np.ndarray) and images.ndim else 1
    places = np.array([one_of(FRACTIONS, FRACTIONS, FLOATS)(draw) for _ in range(1 + draw(4))])
    with np.errstate(all="ignore"):
        fit = np.resize(places, (count, 2)).astype((np.float32, np.float32, np.float64, np.float16, object)[draw(5)])
    return images, one_of(*[among(fit)] * 3, arrays(DTYPES), anything)(draw)


SIZES = dicts(among("glimpse_size", "num_scales"), one_of(whole(1, 4), whole(1, 4), whole(-1, 4), anything))


@fuzzes(given=images_and_locations, sizes=SIZES)
def glimpses(given, sizes):
    """Images and locations of any shape and type."""
    images, locations = given
    with refused_clearly():
        seen = ram_envs.glimpses(images, locations, **sizes)
        assert seen.dtype == np.float32
        assert np.isfinite(seen).all() or not np.isfinite(images).all()


def images_and_labels(draw):
    ones = arrays(
        (np.float32, np.float64, np.uint8), (3, 4), side=9, elements=one_of(whole(0, 1), lambda draw: draw(1001) / 1000)
    )
    images = one_of(ones, arrays(PIXELS, (3, 4), side=9), arrays(DTYPES, (1, 5), side=9), anything)(draw)
    count = len(images) if isinstance(images, np.ndarray) and images.ndim else 2
    fit = np.resize([whole(-1, 12)(draw) for _ in range(1 + draw(5))], count)
    return images, one_of(among(fit), among(fit.tolist()), arrays(DTYPES, (1, 2), side=9), anything)(draw)


OWN_OPTIONS = dicts(
    among("split", "num_clutter", "canvas_size", "warp", "num_scales", "image_order"), one_of(whole(0, 9), FRACTIONS, WORDS), 1
)


@fuzzes(dataset=one_of(*[images_and_labels] * 4, anything), given=OWN_OPTIONS)
def dataset(dataset, given):
    """Images and labels of the user's own."""
    with refused_clearly(ram_envs.DataError):
        env = GlimpseEnv(dataset=dataset, **{"glimpse_size": 2, "num_glimpses": 2, **given})
        observation, info = env.reset(seed=0)
        check_observation(env.observation_space, observation)
        assert 0 <= info["label"] < env.choices["class"]
        check_observation(env.observation_space, env.step(env.action_space.sample())[0])


PAIRS = one_of(
    TEXT, lambda draw: f"{TEXT(draw)}:{one_of(TEXT, anything)(draw)}", lambda draw: f"a:dict({TEXT(draw)}={anything(draw)})"
)


@fuzzes(pairs=lists(PAIRS))
def pairs(pairs):
    """Options as a command line has them."""
    with refused_clearly():
        assert isinstance(ram_envs.parse_pairs(pairs), dict)


@functools.cache
def small_agent():
    from ram_envs.agents import RAM, make_vec_env

    env = make_vec_env("GlimpseCatch-v0", 2, size=6)
    model = RAM("RAMPolicy", env, class_loss="reinforce", policy_kwargs={"hidden_size": 2, "core_size": 2}, device="cpu", seed=0)
    return model.learn(10), env


@functools.cache
def weights_file():
    from ram_envs.agents import save_pretrained

    result = dict.fromkeys(("seed", "command", "commit", "torch", "machine"), "0")
    result |= {"test_error": 0, "validation_error": 0, "test_episodes": 1, "n_timesteps": 10}
    return save_pretrained(small_agent()[0], FOLDER, "GlimpseCatch-v0", result).read_bytes()


@fuzzes(spoilt=SPOILT, part=among("bytes", "tensors", "config"), changes=TREE_CHANGES)
def weights(spoilt, part, changes):
    """Files of trained agents with bytes changed, cut off or added, or with other things in their header."""
    from ram_envs.agents import load_pretrained

    content = weights_file()
    if part == "bytes":
        content = spoil(content, spoilt)
    else:
        size = struct.unpack("<Q", content[:8])[0]
        header = json.loads(content[8 : 8 + size])
        if part == "tensors":
            header = change_tree(header, changes)
        else:
            config = change_tree(json.loads(header["__metadata__"]["config"]), changes)
            header["__metadata__"]["config"] = json.dumps(config)
        packed = json.dumps(header).encode()
        content = struct.pack("<Q", len(packed)) + packed + content[8 + size :]
    (FOLDER / "GlimpseCatch-v0.safetensors").write_bytes(content)
    with refused_clearly():
        load_pretrained("GlimpseCatch-v0", folder=FOLDER, device="cpu")


FILES = {  # Three images of 2x2 pixels and their labels.
    "images": b"\0\0\x08\x03" + struct.pack(">3I", 3, 2, 2) + bytes(12),
    "labels": b"\0\0\x08\x01" + struct.pack(">I", 3) + bytes(3),
}
IDX = tuples(among(False, True), among("before", "after", "nothing"), SPOILT)


@fuzzes(images=IDX, labels=IDX)
def idx(**files):
    """A pair of IDX files with bytes changed, cut off or added, plain and compressed."""
    for name, (is_packed, when, spoilt) in files.items():
        content = spoil(FILES[name], spoilt) if when == "before" else FILES[name]
        content = gzip.compress(content, 1) if is_packed else content
        (FOLDER / name).write_bytes(spoil(content, spoilt) if when == "after" else content)
    with refused_clearly(ram_envs.DataError):
        images, labels = ram_envs.load_idx(FOLDER / "images", FOLDER / "labels")
        assert len(images) == len(labels)


@functools.cache
def checkpoint_file():
    """A whole checkpoint, and the arrays in it."""
    from ram_envs.agents.training.checkpoints import CHECKPOINT, save_checkpoint

    save_checkpoint(FOLDER, *small_agent(), {})
    with np.load(FOLDER / CHECKPOINT) as arrays:
        return (FOLDER / CHECKPOINT).read_bytes(), dict(arrays)


@fuzzes(spoilt=SPOILT, changes=TREE_CHANGES, is_signed=among(False, False, False, False, True))
def checkpoint(spoilt, changes, is_signed):
    """A checkpoint with bytes changed, cut off or added, which is noticed, or of other content with its checksum."""
    from ram_envs.agents.training.checkpoints import CHECKPOINT, read_checkpoint

    unchanged, content = checkpoint_file()
    changed = spoil(unchanged, spoilt)
    if is_signed:
        tree = json.dumps(change_tree(json.loads(content["tree"].tobytes()), changes)).encode()
        np.savez(file := io.BytesIO(), **{**content, "tree": np.frombuffer(tree, np.uint8)})
        changed = file.getvalue() + hashlib.sha256(file.getvalue()).digest()
    (FOLDER / CHECKPOINT).write_bytes(changed)
    with refused_clearly():
        assert isinstance(read_checkpoint(FOLDER), dict)
        assert is_signed or changed == unchanged


COMMAND_WORDS = (
    "--algo --env --preset -n --minutes --clock --seed --n-envs --evaluations --eval-freq -params --env-kwargs --num-threads "
    "--resume --no-test -i --nonsense --images --index --episodes --split --progress --device --eval-only ram ppo "
    "GlimpseMNIST-v0 GlimpseCatch-v0 ../x paper cpu nan -1 0 1e9 3 n_envs:4 size:x learning_rate:lin_0.1 "
)


@functools.cache
def command_line():
    from train_agent import make_parser

    return make_parser()


@fuzzes(arguments=lists(one_of(among(*COMMAND_WORDS.split(" ")), among(*COMMAND_WORDS.split(" ")), TEXT, PAIRS), 6))
def commands(arguments):
    """What a command line asks for; nothing is trained."""
    from train_agent import read_config

    arguments = ["-f", str(FOLDER / "nowhere"), *arguments]
    with contextlib.redirect_stderr(io.StringIO()) as said, refused_clearly(OSError, ImportError, ram_envs.DataError):
        try:
            read_config(command_line().parse_args(arguments), arguments)
        except SystemExit as error:
            OUTCOMES["right"] -= error.code != 0
            if error.code != 0 and ": error: " not in said.getvalue():
                raise AssertionError(f"ended with {error.code}") from error


YAML_NAMES = among("GlimpseMNIST-v0", "GlimpseMNIST-v0/paper", "n_envs", "env_wrapper", "policy_kwargs", "env_kwargs", "policy")
WRAPPERS = lists(dicts(one_of(among("ram_envs.wrappers.ActionFormat"), TEXT), one_of(dicts(TEXT, plain), plain), 1), 2)
TREES = dicts(
    YAML_NAMES, one_of(dicts(YAML_NAMES, one_of(plain, plain, WRAPPERS), 3), dicts(YAML_NAMES, plain), plain), shortest=1
)


@fuzzes(content=one_of(TREES, TREES, TEXT), spoilt=one_of(among(None), SPOILT), preset=among(None, "paper", "x"))
def yaml(content, spoilt, preset):
    """Files of hyperparameters."""
    from ram_envs.agents.training.settings import read_file

    content = content if isinstance(content, str) else json.dumps(content)  # Which is YAML, too.
    content = content.encode("utf-8", "surrogatepass") or b" "
    (FOLDER / "ram.yml").write_bytes(content if spoilt is None else spoil(content, spoilt))
    with refused_clearly():
        assert isinstance(read_file(FOLDER / "ram.yml", "GlimpseMNIST-v0", preset), dict)


NEEDS_TORCH = ("weights", "yaml", "checkpoint", "commands")


def check(entry, draw):
    """Make an input out of choices and check the answer; what it was stands in the note of an error."""
    makers, function = FUZZED[entry]
    arguments = {name: maker(draw) for name, maker in makers.items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", RuntimeWarning)
            function(**arguments)
    except BaseException as error:
        raise AssertionError(f"{entry}(**{repr(arguments)[:3000]})") from error


def run_random(entry, first, num_inputs):
    """Inputs by their numbers; returns the seconds of the slowest."""
    slowest = 0.0
    for number in range(first, first + num_inputs):
        start = time.perf_counter()
        if number % 100 == 0:
            faulthandler.dump_traceback_later(LONGEST, exit=True)  # In place of the one before.
        try:
            check(entry, random.Random(f"{entry} {number}").randrange)
        except AssertionError as error:
            raise SystemExit(
                f"{''.join(traceback.format_exception(error))}\nfuzz.py --inputs 1 --first {number} {entry}"
            ) from None
        slowest = max(slowest, time.perf_counter() - start)
    faulthandler.cancel_dump_traceback_later()
    return slowest


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entries", nargs="*", default=[], help=f"of {', '.join(FUZZED)} (default: all)")
    parser.add_argument("--inputs", type=int, default=1000, help="for each entry (default: 1000)")
    parser.add_argument("--first", type=int, default=0, help="the number of the first (default: 0)")
    given = parser.parse_args()
    for entry in given.entries or FUZZED:
        start = time.perf_counter()
        OUTCOMES.clear()
        slowest = run_random(entry, given.first, given.inputs)
        seconds = time.perf_counter() - start
        said = f"{given.inputs} inputs, {given.inputs - OUTCOMES['right']} refused clearly, the others right"
        print(f"{entry}: {said}, {seconds:.0f} s, at most {slowest:.2f} s for one", flush=True)
