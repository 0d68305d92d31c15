"""Recognises bunyan's own records among the lines that a program prints. Pure.

A line is one only if it is a JSON object with all of bunyan's core fields in their types; anything else is text. The
program shares nothing with us but these bytes: whatever it says about itself is kept beside what we know.
"""

import re
from collections.abc import Callable
from typing import Any

import msgspec

from sandpost.logs.text import safe_text

OURS = frozenset(
    {
        "container", "sandbox", "sandbox_id", "req_id", "offset", "time", "hostname", "pid", "v", "trace_id", "span_id",
    }
)  # fmt: skip
"""Fields that the platform alone writes. A program's own are found under `app.` and their name."""
PREFIX = "app."
MAX_DEPTH = 16
_MAX_LEVEL = 1 << 15
_MAX_INTEGER = 1 << 63
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:?\d\d)", re.ASCII)
_CORE: dict[str, Callable[[Any], bool]] = {
    "name": lambda value: type(value) is str,
    "hostname": lambda value: type(value) is str,
    "pid": lambda value: type(value) is int,
    "level": lambda value: type(value) is int and 0 < value < _MAX_LEVEL,
    "msg": lambda value: type(value) is str,
    "time": lambda value: type(value) is str and _TIME.fullmatch(value) is not None,
    "v": lambda value: type(value) is int and value >= 0,
}
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class _NoRecordError(Exception):
    """It is JSON, but nothing that we hand on."""


def recognise(line: bytes) -> dict[str, Any] | None:
    """Return the fields of a bunyan record that `line` is, as they may stand beside ours; None if it is text.

    Strings are safe text. What is called like one of ours, or begins with `app.`, is called `app.` and its name, so
    that no two fields meet. Of a name that comes twice the last counts. Deeper than `MAX_DEPTH`, or with a number
    that has no 64 bits, it is text. Never raises; a line is bounded by its decoder.
    """
    if not line.startswith(b"{") or not line.endswith(b"}"):
        return None
    try:
        found = _decode(line)
        if not _has_core(found):
            return None
        fields = {_safe(name): _plain(value, 1) for name, value in found.items()}
    except (msgspec.MsgspecError, ValueError, RecursionError, _NoRecordError):
        return None
    # Names that differ by what is not shown are one name now.
    return {_own_name(name): value for name, value in fields.items()} if _has_core(fields) else None


def _has_core(fields: dict[str, Any]) -> bool:
    return all(name in fields and right(fields[name]) for name, right in _CORE.items())


def _own_name(name: str) -> str:
    return PREFIX + name if name in OURS or name.startswith(PREFIX) else name


def _plain(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return _safe(value)
    if isinstance(value, int):
        if not -_MAX_INTEGER <= value < _MAX_INTEGER:
            raise _NoRecordError
        return value
    if isinstance(value, list | dict):
        if depth >= MAX_DEPTH:
            raise _NoRecordError
        if isinstance(value, list):
            return [_plain(one, depth + 1) for one in value]
        return {_safe(name): _plain(one, depth + 1) for name, one in value.items()}
    return value


def _safe(text: str) -> str:
    return safe_text(text.encode())
