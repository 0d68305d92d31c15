"""Which records of a stream are wanted: by level, by a pattern of their message, by their fields. Pure.

A record is parsed no further than the fields that are asked for. Patterns are RE2's: no pattern and no text makes one
take longer than its length allows, and what a pattern may take of memory is bounded.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import re2

from sandpost.logs import bunyan
from sandpost.model.errors import InvalidValue

MAX_PATTERN = 1000
"""Bytes of a pattern."""
MAX_FIELDS = 16
MAX_NAME = 200
MAX_VALUE = 1000
_PATTERN_MEMORY = 256 << 10
"""Bytes for a pattern and what it has learned; a library keeps the last 128."""
_UNNAMED = re.compile(r'["\\\x00-\x1f]')
"""What JSON escapes in a name: the parser looks for names as they stand in a record."""
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for. Equal ones want the same records. `level`: at least; `message`: as `f.msg` has it."""

    level: int = 0
    message: str = ""
    fields: tuple[tuple[str, str], ...] = ()


EVERYTHING = Wanted()


class Filter:
    """Tells which records pass. Raises `InvalidValue` for what cannot be asked for."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self._negated, self._search = _pattern(wanted.message)
        self._fields = _checked(wanted.fields)
        names = ["level"] if wanted.level else []
        if self._search is not None:
            names.append("msg")
        for name, _ in self._fields:
            names += [name, name.partition(".")[0]]
        self._at = {name: number for number, name in enumerate(dict.fromkeys(names))}
        kind = msgspec.defstruct(
            "Seen",
            [(f"field{number}", Any, _ABSENT) for number in self._at.values()],
            rename={f"field{number}": name for name, number in self._at.items()},
        )
        self._decode = msgspec.json.Decoder(kind).decode

    @property
    def works(self) -> bool:
        """Whether anything is left out at all."""
        return bool(self._at)

    def passes(self, line: bytes, offset: int) -> bool:
        """Whether the record `line` at `offset` is wanted."""
        if not self._at:
            return True
        try:
            seen = msgspec.structs.astuple(self._decode(line))
        except (msgspec.DecodeError, RecursionError):
            return False
        if self.wanted.level:
            level = seen[self._at["level"]]
            if not isinstance(level, int | float) or level < self.wanted.level:
                return False
        if self._search is not None:
            message = seen[self._at["msg"]]
            found = isinstance(message, str) and self._search(message.encode("utf-8", "replace")) is not None
            if found is self._negated:
                return False
        return all(
            (str(offset) if name == "offset" else self._text(seen, name)) == value for name, value in self._fields
        )

    def _text(self, seen: tuple[Any, ...], name: str) -> str | None:
        """Return the field `name` as text; None if the record has none.

        A field that is called so, dots and all, comes first; else each part between dots is a step into the record.
        """
        value = seen[self._at[name]]
        if value is _ABSENT:
            first, *steps = name.split(".")
            value = seen[self._at[first]]
            for step in steps:
                value = value.get(step, _ABSENT) if isinstance(value, dict) else _ABSENT
        if value is _ABSENT:
            return None
        return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def level(text: str) -> int:
    """Return the number of a level by its name or number."""
    number = bunyan.LEVELS.get(text)
    if number is None:
        if not text.isascii() or not text.isdecimal() or not 1 <= len(text) <= 3:
            raise InvalidValue(f"`level` must be one of {', '.join(bunyan.LEVELS)}, or a number of 0 to 999")
        number = int(text)
    return number


def _pattern(text: str) -> tuple[bool, Any]:
    """Return whether what matches is not wanted, and what finds it; None if there is no pattern."""
    if not text:
        return False, None
    negated = text.startswith("!") and not text.startswith("!!")
    pattern = text.removeprefix("!")
    if not pattern:
        raise InvalidValue("`f.msg` has no pattern behind its `!`")
    if len(pattern.encode()) > MAX_PATTERN:
        raise InvalidValue(f"the pattern of `f.msg` is longer than {MAX_PATTERN} bytes: ask for less at once")
    options = re2.Options()
    options.max_mem = _PATTERN_MEMORY
    options.log_errors = False
    options.never_capture = True
    try:
        # Bytes: nobody asks where in the text it was found.
        return negated, re2.compile(pattern.encode(), options).search
    except re2.error as error:
        why = str(error.args[0], "utf-8", "replace")
        raise InvalidValue(f"the pattern of `f.msg` is none of RE2's: {why}") from None


def _checked(fields: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    if len(fields) > MAX_FIELDS:
        raise InvalidValue(f"more than {MAX_FIELDS} parameters `f.{{property}}`: ask for fewer")
    for name, value in fields:
        if not name:
            raise InvalidValue("`f.` names no property: write `f.req_id=..`")
        if len(name) > MAX_NAME or len(value) > MAX_VALUE:
            raise InvalidValue(
                f"`f.{name[:40]}` is longer than {MAX_NAME} characters, or its value than {MAX_VALUE}: no record has it"
            )
        if _UNNAMED.search(name):
            raise InvalidValue('a property that has `"`, `\\` or a control character in its name cannot be asked for')
    return fields
