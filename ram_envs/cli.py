"""Options as they are written on a command line: NAME:VALUE."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import Any


def parse_pairs(pairs: Iterable[str]) -> dict[str, Any]:
    """["size:12", "name:x"] as {"size": 12, "name": "x"}: a value is a Python literal, or else text.

    Raises:
        ValueError: a name or the colon is missing.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        name, colon, text = pair.partition(":")
        if not name or not colon:
            raise ValueError(f"{pair!r} must have the form NAME:VALUE")
        try:
            values[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            values[name] = text
    return values
