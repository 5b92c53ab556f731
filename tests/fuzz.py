"""Inputs of all kinds for each public entry: the answer is right, or a clear error of ours; nothing hangs or passes nonsense.

python tests/fuzz.py                                     # 1,000 inputs for each entry
python tests/fuzz.py --inputs 100000 actions             # more, for one entry
python tests/fuzz.py --inputs 1 --first 31415 actions    # one of them again
python tests/fuzz.py --atheris --inputs 100000 actions   # what reaches new code is varied further (pip install atheris)
NUMBA_BOUNDSCHECK=1 python tests/fuzz.py                 # compiled loops that leave their arrays raise an IndexError

An input is made out of choices, `draw(n)` one of 0..n-1, so that whatever chooses can drive it: a random generator here, which
is fast, atheris, which is guided by the code reached, and hypothesis in `tests/test_fuzz.py`, which makes a fault small.
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
import math
import random
import struct
import sys
import tempfile
import time
import traceback
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # Where train_agent.py is.
if "--atheris" in sys.argv:
    import atheris

    watched = atheris.instrument_imports(include=["ram_envs", "train_agent"], enable_loader_override=False)
else:
    watched = contextlib.nullcontext()
with watched:
    import gymnasium as gym

    import ram_envs
    from ram_envs.actions import ACTION_FORMATS
    from ram_envs.env import GlimpseEnv
    from ram_envs.vector_env import GlimpseVectorEnv

OURS = (f"{ROOT / 'ram_envs'}/", f"{ROOT / 'agents'}/", str(ROOT / "train_agent.py"))
LONGEST = 60  # Seconds for an input; then it hangs: the process ends and says where.
SCRATCH = tempfile.TemporaryDirectory(
    dir="/dev/shm" if Path("/dev/shm").is_dir() else None
)  # In memory: files are written often.
FOLDER = Path(SCRATCH.name)
FUZZED = {}  # Entry: ({argument: what makes it out of choices}, what checks the answer).


def fuzzes(**makers):
    """Register a check with what makes its arguments."""

    def register(check):
        FUZZED[check.__name__] = makers, check
        return check

    return register


# What makes values out of choices.


def among(*values):
    return lambda draw: values[draw(len(values))]


def one_of(*makers):
    return lambda draw: makers[draw(len(makers))](draw)


def whole(low, high):
    return lambda draw: low + draw(high - low + 1)


def lists(maker, longest=3):
    return lambda draw: [maker(draw) for _ in range(draw(longest + 1))]


def tuples(*makers):
    return lambda draw: tuple(maker(draw) for maker in makers)


def dicts(names, maker, longest=2, shortest=0):
    return lambda draw: {names(draw): maker(draw) for _ in range(shortest + draw(longest - shortest + 1))}


def arrays(dtypes, dims=(0, 3), side=3, elements=None):
    """Arrays of any shape, of one to five values over and over, in any layout."""
    layouts = (
        lambda a: a,
        lambda a: a,
        lambda a: a.T,
        lambda a: a[..., ::-1] if a.ndim else a,
        unaligned,
        other_endian,
        read_only,
    )

    def make(draw):
        dtype = np.dtype(dtypes[draw(len(dtypes))])
        shape = [draw(side + 1) for _ in range(dims[0] + draw(dims[1] - dims[0] + 1))]
        values = [(elements or NUMBERS)(draw) for _ in range(1 + draw(5))]
        if dtype.kind in "iu":
            values = [int(value) % 2**64 if math.isfinite(value) else 2**63 for value in values]
            array = np.array(values, np.uint64)
        else:
            array = np.array(values, dtype if dtype.kind in "OU" else np.float64)
        with np.errstate(all="ignore"):
            array = np.resize(array, shape).astype(dtype)
        return layouts[draw(len(layouts))](array)

    return make


def unaligned(array):
    return np.frombuffer(b"\0" + array.tobytes(), np.uint8)[1:].view(array.dtype).reshape(array.shape) if array.size and array.dtype != object else array


def other_endian(array):
    return array.astype(array.dtype.newbyteorder())


def read_only(array):
    array.flags.writeable = False
    return array


def anything(draw, depth=2):
    kind = draw(8 if depth else 5)
    inner = functools.partial(anything, depth=depth - 1)
    if kind < 5:
        return PLAIN(draw)
    return lists(inner)(draw) if kind == 5 else tuples(inner, inner)(draw) if kind == 6 else dicts(WORDS, inner)(draw)


def bits(draw):
    return struct.unpack("d", draw(2**64).to_bytes(8, "little"))[0]


def powers(draw):
    return (1 - 2 * draw(2)) * 2 ** draw(70) + draw(3) - 1


SMALL = whole(-3, 40)
WHOLE = one_of(SMALL, SMALL, among(2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, -(2**63), 10**30, 10**400), powers)
FRACTIONS = one_of(lambda draw: draw(2001) / 1000 - 1, among(0.0, -0.0, 0.5, 1.0, -1.0, 1.0000001, 255.0))
FLOATS = one_of(FRACTIONS, among(math.nan, math.inf, -math.inf, 1e308, 3.5e38, 5e-324, 1e-40, 2.0**53, 1e10, -1e10), bits)
NUMBERS = one_of(whole(-2, 11), FRACTIONS, FLOATS, lambda draw: min(WHOLE(draw), 10**30))
DTYPES = (np.int64, np.float32, np.uint8, np.float64, np.bool_, np.int8, np.uint64, np.float16, np.complex64, "<U3", object)
PIXELS = (np.uint8, np.float32, np.float64, np.int64, np.bool_, np.uint16, np.float16, np.int8)
CHARACTERS = one_of(
    among(*"abcdeNone0123456789.:=,-_+/\\~[]{}()'\"#&*!|>%@`$ \n\t\r\0", "\ud800", "٣", "²", "é", "ß", "\u202e", "😀"),
    lambda draw: chr(draw(0x110000)),
)
TEXT = one_of(
    *([lambda draw: "".join(lists(CHARACTERS, 8)(draw))] * 3), among("", "7", "nan", "-1", "1e999", "True", "None", "[" * 300)
)
WORDS = one_of(
    among("train", "test", "random", "center", "shuffled", "scene", "box", "dict", "discrete", "middle", "mnist", "rgb_array"),
    TEXT,
)
OBJECTS = among(
    *(np.uint8(3), np.int8(-1), np.float32(0.5), np.float64("nan"), np.bool_(True), np.str_("center"), np.int64(7)),
    *(np.datetime64("NaT"), Fraction(1, 3), object(), int, len, range(3), {1, 2}, slice(2), Ellipsis, Path("x"), b"", b"\xff1"),
    *(complex(1, 2), bytearray(3), memoryview(b"abc"), np.array([[1, 2]]).T, np.ma.masked, np.matrix([[1, 2]])),
)
PLAIN = one_of(among(None, True, False), WHOLE, SMALL, FLOATS, FRACTIONS, WORDS, OBJECTS, arrays(DTYPES))

# Entries.

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


def task_and_options(draw):
    task = TASK(draw)
    return task, dicts(NAMES[task], one_of(PLAIN, SMALL, FRACTIONS, WORDS, anything), longest=4, shortest=1)(draw)


@fuzzes(task_and_options=task_and_options, num_envs=one_of(among(None), whole(1, 4), whole(1, 4), anything))
def options(task_and_options, num_envs):
    """Options of single and of batched environments, then an episode in what could be made."""
    task, given = task_and_options
    with refused_clearly(ram_envs.DataError), contextlib.closing(make(task, num_envs, **given)) as env:
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


@functools.cache
def fitting(env):
    env.action_space.seed(0)
    return env.action_space.sample()


def replaced(action, place, value):
    """The action with another value in it: a whole part, or one number of it."""
    if isinstance(action, dict):
        name = sorted(action)[place % len(action)]
        return {**action, name: replaced(np.array(action[name]), place, value) if place > 4 else value}
    if not action.ndim:
        return value
    values = action.astype(object)
    values.flat[place % values.size] = value if np.isscalar(value) else 0
    with contextlib.suppress(TypeError, ValueError, OverflowError), np.errstate(all="ignore"):
        return values.astype(action.dtype)
    return values


def images_and_locations(draw):
    images = one_of(arrays(PIXELS, (1, 5), side=6), arrays(PIXELS, (3, 4), side=9), anything)(draw)
    count = len(images) if isinstance(images, np.ndarray) and images.ndim else 1
    places = np.array([FLOATS(draw) for _ in range(1 + draw(4))])
    with np.errstate(all="ignore"):
        fit = np.resize(places, (count, 2)).astype((np.float32, np.float64, np.float16, object)[draw(4)])
    return images, one_of(among(fit), among(fit), anything)(draw)


@fuzzes(given=images_and_locations, sizes=dicts(among("glimpse_size", "num_scales"), one_of(whole(-1, 4), whole(1, 9), anything)))
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


PLACES = one_of(whole(0, 63), whole(0, 4095), whole(0, 2**32))
SPOILT = tuples(lists(tuples(PLACES, whole(0, 255)), 3), one_of(among(None), among(None), PLACES), lists(whole(0, 255), 4))


def spoil(content, spoilt):
    """The content with some bytes changed, or cut, or with more behind it; changes are more frequent near its beginning."""
    changes, length, more = spoilt
    content = bytearray(content)
    for place, byte in changes:
        content[place % len(content)] = byte
    return bytes(content[: None if length is None else length % (len(content) + 1)]) + bytes(more)


def plain(draw, depth=2):
    """What JSON and YAML can hold."""
    kind, inner = draw(9 if depth else 7), functools.partial(plain, depth=depth - 1)
    if kind < 7:
        return one_of(
            among(None, True, False), WHOLE, SMALL, FLOATS, FRACTIONS, TEXT, among("lin_0.1", "lin_", "relu", "float32")
        )(draw)
    return lists(inner)(draw) if kind == 7 else dicts(TEXT, inner)(draw)


TREE_CHANGES = lists(tuples(lists(whole(0, 30), 6), among("replace", "remove", "repeat", "rename"), plain), 2)


def change_tree(tree, changes):
    """Lists and dicts with something in them replaced, left out, doubled or renamed."""
    root = [json.loads(json.dumps(tree))]
    for path, kind, value in changes:
        parent, name = root, 0
        for step in path:
            if not isinstance(parent[name], list | dict) or not parent[name]:
                break
            parent = parent[name]
            name = step % len(parent) if isinstance(parent, list) else sorted(parent)[step % len(parent)]
        if kind == "rename" and isinstance(parent, dict):
            parent[str(value)] = parent.pop(name)
        elif kind == "remove" and parent is not root:
            del parent[name]
        else:
            parent[name] = [parent[name]] * 2 if kind == "repeat" else value
    return root[0]


@functools.cache
def weights_file():
    path = next((ROOT / "agents/weights").glob("GlimpseCatch*.safetensors"))
    return path.name, path.read_bytes()


@fuzzes(spoilt=SPOILT, part=among("bytes", "tensors", "config"), changes=TREE_CHANGES)
def weights(spoilt, part, changes):
    """Files of trained agents with bytes changed, cut off or added, or with other things in their header."""
    from ram_envs.agents import load_pretrained

    name, content = weights_file()
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
    (FOLDER / name).write_bytes(content)
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
    from ram_envs.agents import RAM, make_vec_env
    from ram_envs.agents.training.checkpoints import CHECKPOINT, save_checkpoint

    env = make_vec_env("GlimpseCatch-v0", 2, size=6)
    model = RAM("RAMPolicy", env, class_loss="reinforce", policy_kwargs={"hidden_size": 2, "core_size": 2}, device="cpu", seed=0)
    model.learn(10)
    save_checkpoint(FOLDER, model, env, {})
    with np.load(FOLDER / CHECKPOINT) as arrays:
        return (FOLDER / CHECKPOINT).read_bytes(), dict(arrays)


@fuzzes(spoilt=SPOILT, changes=TREE_CHANGES, is_signed=among(False, True))
def checkpoint(spoilt, changes, is_signed):
    """A checkpoint with bytes changed, cut off or added: noticed, whatever they are; or with other things in it, and its checksum."""
    from ram_envs.agents.training.checkpoints import CHECKPOINT, read_checkpoint

    whole, arrays = checkpoint_file()
    changed = spoil(whole, spoilt)
    if is_signed:
        tree = json.dumps(change_tree(json.loads(arrays["tree"].tobytes()), changes)).encode()
        np.savez(file := io.BytesIO(), **{**arrays, "tree": np.frombuffer(tree, np.uint8)})
        changed = file.getvalue() + hashlib.sha256(file.getvalue()).digest()
    (FOLDER / CHECKPOINT).write_bytes(changed)
    with refused_clearly():
        assert isinstance(read_checkpoint(FOLDER), dict)
        assert is_signed or changed == whole


COMMAND_WORDS = (
    "--algo --env --preset -n --minutes --clock --seed --n-envs --evaluations --eval-freq -params --env-kwargs --num-threads "
    "--resume --no-test -i --nonsense --images --index --episodes --split --progress --device --eval-only ram ppo GlimpseMNIST-v0 "
    "GlimpseCatch-v0 ../x paper cpu nan -1 0 1e9 3 n_envs:4 size:x learning_rate:lin_0.1 "
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
    with contextlib.redirect_stderr(io.StringIO()) as said, refused_clearly(FileNotFoundError, ModuleNotFoundError, ram_envs.DataError):
        try:
            read_config(command_line().parse_args(arguments), arguments)
        except SystemExit as error:
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
    faulthandler.dump_traceback_later(LONGEST, exit=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", RuntimeWarning)
            function(**arguments)
    except BaseException as error:
        raise AssertionError(f"{entry}(**{repr(arguments)[:3000]})") from error
    finally:
        faulthandler.cancel_dump_traceback_later()


def run_random(entry, first, num_inputs):
    """Inputs by their numbers; returns the seconds of the slowest."""
    slowest = 0.0
    for number in range(first, first + num_inputs):
        start = time.perf_counter()
        try:
            check(entry, random.Random(f"{entry} {number}").randrange)
        except AssertionError as error:
            raise SystemExit(
                f"{''.join(traceback.format_exception(error))}\nfuzz.py --inputs 1 --first {number} {entry}"
            ) from None
        slowest = max(slowest, time.perf_counter() - start)
    return slowest


def run_guided(entry, num_inputs):
    """Inputs that atheris chooses; it ends the process, and leaves what made a fault in a file "crash-..."."""

    def one(content):
        provider = atheris.FuzzedDataProvider(content)
        check(entry, lambda n: provider.ConsumeIntInRange(0, n - 1))

    atheris.Setup(
        [sys.argv[0], f"-runs={num_inputs}", "-len_control=0", "-max_len=512", f"-artifact_prefix={tempfile.gettempdir()}/"], one
    )
    atheris.Fuzz()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entries", nargs="*", default=[], help=f"of {', '.join(FUZZED)} (default: all)")
    parser.add_argument("--inputs", type=int, default=1000, help="for each entry (default: 1000)")
    parser.add_argument("--first", type=int, default=0, help="the number of the first (default: 0)")
    parser.add_argument("--atheris", action="store_true", help="guided by the code that inputs reach; of one entry")
    given = parser.parse_args()
    for entry in given.entries or FUZZED:
        start = time.perf_counter()
        if given.atheris:
            run_guided(entry, given.inputs)
        slowest = run_random(entry, given.first, given.inputs)
        seconds = time.perf_counter() - start
        print(
            f"{entry}: {given.inputs} inputs, right or clearly refused, {seconds:.0f} s, the slowest {slowest:.2f} s", flush=True
        )
