"""What several modules ask of their arguments."""

from __future__ import annotations

from typing import Any

import numpy as np


def check_whole(name: str, given: Any, least: int) -> None:
    """Raise a ValueError that names the argument if it is not a whole number of at least `least`."""
    if isinstance(given, bool) or not isinstance(given, (int, np.integer)) or given < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {given!r}")
