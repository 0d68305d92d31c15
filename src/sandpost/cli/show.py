"""Prints results: tables for people, JSON for programs."""

import datetime as dt
import sys
from collections.abc import Iterable, Sequence
from typing import Any

_WIDE = 400
"""Columns where there is no terminal: nothing is cut."""


def as_json(value: Any) -> None:
    """Print `value` (types or plain values) as JSON, indented."""
    import msgspec  # noqa: PLC0415 - not every command prints JSON

    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str, right: Sequence[str] = ()) -> None:
    """Print a table; `right` names columns of numbers; `empty` is said if there are no rows."""
    from rich.console import Console  # noqa: PLC0415 - takes a third of a command's start
    from rich.table import Table  # noqa: PLC0415 - the same

    rows = list(rows)
    if not rows:
        print(empty)
        return
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    for row in rows:
        made.add_row(*(_plain(cell) for cell in row))
    # Numbers and names are data: no markup, no colours of their own.
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else _WIDE)
    with console.capture() as text:
        console.print(made)
    for line in text.get().splitlines():
        print(line.rstrip())


def pairs(lines: Iterable[tuple[str, str]]) -> None:
    """Print names and values below each other."""
    lines = list(lines)
    width = max((len(name) for name, _ in lines), default=0)
    for name, value in lines:
        print(f"{name:<{width}}  {_plain(value)}")


def ago(moment: float | None, now: float) -> str:
    """Return how long ago `moment` was, in its greatest unit."""
    if moment is None:
        return "-"
    return span(max(0.0, now - moment))


def span(seconds: float) -> str:
    """Return a duration in its greatest unit, such as `5m`."""
    for length, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:.0f}s"


def time_of(moment: float) -> str:
    """Return a moment in local time."""
    return dt.datetime.fromtimestamp(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def words(counts: dict[Any, int]) -> str:
    """Return counts by word, most frequent first."""
    return ", ".join(f"{word} {count}" for word, count in sorted(counts.items(), key=lambda item: -item[1])) or "-"


def _plain(cell: str) -> str:
    """Return `cell` without anything that a terminal would obey: labels come from strangers."""
    return "".join(letter if letter.isprintable() else "?" for letter in cell)
