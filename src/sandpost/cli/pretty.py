"""Shows a record to people: a line (or several, below each other) of time, level, call, message.

What programs wrote stands in records; nothing of it acts on the terminal.
"""

import datetime as dt
from typing import Any

import msgspec

from sandpost.logs import bunyan

_LEVELS = {number: name.upper() for name, number in bunyan.LEVELS.items()}
_COLOURS = {10: "2", 20: "36", 30: "32", 40: "33", 50: "31", 60: "1;31"}
_SHOWN = frozenset({"name", "hostname", "pid", "level", "time", "msg", "v", "container", "req_id", "sandbox", "offset"})
"""Fields that have a place of their own, or say nothing that is not known here."""
_CALL = 16
"""Columns of a call's id."""


class Pretty:
    """Writes records to stdout, with `colours` or without."""

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours

    def write(self, record: bytes) -> None:
        """Show one record, JSON."""
        print(self.shown(record), flush=True)

    def shown(self, record: bytes) -> str:
        """Return the record as it is shown, without a line end behind it."""
        try:
            fields = msgspec.json.decode(record)
        except (msgspec.DecodeError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            return plain(record.decode("utf-8", "replace"))
        level = fields.get("level")
        number = level if isinstance(level, int) else 30
        name = _LEVELS.get(number, str(number)[:5])
        call = plain(str(fields.get("req_id", "")))[:_CALL]
        # Whose words these are: the program's, or the platform's about it.
        whose = " " if fields.get("sandbox") is True else "*"
        clock, label, origin = _clock(fields.get("time")), f"{name:<5}", f"{call:<{_CALL}} {whose} "
        head = f"{clock} {label} {origin}"
        first, *rest = plain(_text(fields.get("msg", "")), keep="\n\t").split("\n")
        more = "".join(f" {plain(name)}={plain(_text(value))}" for name, value in fields.items() if name not in _SHOWN)
        body = "\n".join([first, *(" " * len(head) + line for line in rest)])
        if not self._colours:
            return head + body + more
        colour = _COLOURS.get(number // 10 * 10, "0")
        head = f"{clock} \x1b[0;{colour}m{label}\x1b[0;2m {origin}"
        body = f"\x1b[{colour}m{body}\x1b[0m" if number >= 40 else body
        return f"\x1b[2m{head}\x1b[0m{body}" + (f"\x1b[2m{more}\x1b[0m" if more else "")


def plain(text: str, keep: str = "") -> str:
    """Return `text` without anything that a terminal would obey, but for what is in `keep`."""
    return "".join(letter if letter.isprintable() or letter in keep else "?" for letter in text)


def harmless(record: bytes) -> bytes:
    """Return JSON that means the same, in which what a terminal would obey is escaped."""
    text = record.decode("utf-8", "replace")
    if text.isprintable():
        return record
    return "".join(letter if letter.isprintable() or letter == "\t" else _escaped(letter) for letter in text).encode()


def _escaped(letter: str) -> str:
    units = letter.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _clock(time: Any) -> str:
    """Return the time of day here, with milliseconds, and the date before it if it is another day's."""
    try:
        moment = dt.datetime.fromisoformat(time).astimezone()
    except (TypeError, ValueError, OverflowError):
        return f"{'?':<12}"
    shown = moment.strftime("%H:%M:%S.") + f"{moment.microsecond // 1000:03d}"
    return shown if moment.date() == dt.datetime.now().astimezone().date() else f"{moment:%m-%d} {shown}"
