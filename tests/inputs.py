"""What makes inputs out of choices: each maker is called with `draw`, of which draw(n) is one of 0..n-1."""

from __future__ import annotations

import functools
import json
import math
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np


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
        shape = [(draw(4 * side) + 3) // 4 for _ in range(dims[0] + draw(dims[1] - dims[0] + 1))]
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
    if not array.size or array.dtype == object:
        return array
    return np.frombuffer(b"\0" + array.tobytes(), np.uint8)[1:].view(array.dtype).reshape(array.shape)


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
    *(complex(1, 2), bytearray(3), memoryview(b"abc"), np.array([[1, 2]]).T, np.ma.masked),
)
PLAIN = one_of(among(None, True, False), WHOLE, SMALL, FLOATS, FRACTIONS, WORDS, OBJECTS, arrays(DTYPES))

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
