"""The form of every record: bunyan's core fields, its levels and its time. Pure but for reading the clock."""

import time
from collections.abc import Mapping
from typing import Final

NAME: Final = "sandpost"
VERSION: Final = 0

TRACE: Final = 10
DEBUG: Final = 20
INFO: Final = 30
WARN: Final = 40
ERROR: Final = 50
FATAL: Final = 60
LEVELS: Final[Mapping[str, int]] = {
    "trace": TRACE, "debug": DEBUG, "info": INFO, "warn": WARN, "error": ERROR, "fatal": FATAL,
}  # fmt: skip
"""Levels by the names that people give them."""

CORE: Final = frozenset({"name", "hostname", "pid", "level", "time", "msg", "v"})
"""Fields that every record has; nothing else may be called so."""

_second = (-1, "")


def timestamp(at: float) -> str:
    """Return `at` (seconds since the epoch) in ISO 8601 with milliseconds, such as `2024-05-17T12:00:00.125Z`."""
    global _second  # noqa: PLW0603 - the text of the present second, made once a second and not once a record
    milliseconds = int(at * 1000)
    whole = milliseconds // 1000
    known, text = _second
    if whole != known:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
        _second = (whole, text)
    return f"{text}.{milliseconds % 1000:03d}Z"
