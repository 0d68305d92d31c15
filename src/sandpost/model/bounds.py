"""What each limit may be, and how people write it. Pure; settings, api and command line check with this alone."""

import difflib
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sandpost.model.errors import ConfigError, InvalidValue
from sandpost.model.limits import Isolation, Limits, MiB
from sandpost.model.units import format_duration, format_size, parse_duration, parse_size

Kind = Literal["size", "duration", "count", "share"]

SANDBOX_MEMORY = 32 * MiB
"""Below this a runtime does not live: idle it has 11 MB, and up to 25 MB right after a program was loaded."""
SANDBOX_PIDS = 16
"""Node alone is eight threads."""


@dataclass(frozen=True, slots=True)
class Bound:
    """Least and greatest value of a limit: bytes, seconds, a count or a share; `off`: 0 is allowed as well."""

    kind: Kind
    least: float
    greatest: float
    off: bool = False


BOUNDS: Mapping[str, Bound] = {
    "memory": Bound("size", SANDBOX_MEMORY, 1 << 40),
    "memory_guaranteed": Bound("size", 0, 1 << 40),
    "cpu": Bound("share", 0.05, 1024),
    "pids": Bound("count", SANDBOX_PIDS, 32768),
    # A tmpfs of size or inodes 0 would be one without a limit.
    "tmp": Bound("size", 64 << 10, 1 << 40),
    "tmp_inodes": Bound("count", 16, 1 << 24),
    "files": Bound("count", 64, 1 << 20),
    "code": Bound("size", 1, 64 * MiB),
    "body": Bound("size", 1, 1 << 50, off=True),
    "calls": Bound("count", 1, 100_000),
    "rate": Bound("count", 1, 1_000_000, off=True),
    "deadline": Bound("duration", 1, 3600),
    "blocked_after": Bound("duration", 1, 3600),
    "cpu_seconds": Bound("duration", 0.1, 3600, off=True),
    "upgrade_idle": Bound("duration", 1, 86400),
    "idle": Bound("duration", 1, 365 * 86400, off=True),
    "age": Bound("duration", 10, 365 * 86400, off=True),
    "count": Bound("count", 1, 1 << 40, off=True),
    "output": Bound("size", 1, 1 << 40, off=True),
    "bandwidth_in": Bound("size", 1 << 10, 1 << 40, off=True),
    "bandwidth_out": Bound("size", 1 << 10, 1 << 40, off=True),
    "connections": Bound("count", 1, 1_000_000, off=True),
    "connection_rate": Bound("count", 1, 1_000_000, off=True),
    "programs": Bound("count", 1, 65536),
    "stored_code": Bound("size", 1, 1 << 40),
    "per_request_at_once": Bound("count", 1, 256),
}


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `: did you mean ..?` with the known name most like `name`, or the list of a few."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f": did you mean `{close[0]}`?" if close else f": there are {', '.join(f'`{one}`' for one in known)}"


def parse_limit(name: str, value: Any) -> int | float:
    """Return limit `name` of a number (bytes, seconds, count) or of text with a unit, or raise `InvalidValue`."""
    bound = BOUNDS.get(name)
    if bound is None:
        raise InvalidValue(f"there is no limit `{name[:80]}`{nearest(name, BOUNDS)}")
    number = _number(name, bound, value)
    if number == 0 and bound.off:
        return number
    if not bound.least <= number <= bound.greatest:
        off = ", or 0 for no limit" if bound.off else ""
        raise InvalidValue(
            f"limits.{name} is {format_limit(name, number)}: choose {format_limit(name, bound.least)} to "
            f"{format_limit(name, bound.greatest)}{off}"
        )
    return number


def format_limit(name: str, value: float) -> str:
    """Return a limit's value as people write it, such as `128MiB`, `30s`, `100`."""
    kind = BOUNDS[name].kind
    if kind == "size":
        return format_size(int(value))
    if kind == "duration":
        return format_duration(value)
    return f"{value:g}" if kind == "share" else str(int(value))


def check_together(limits: Limits, isolation: Isolation = "per_tenant", given: Collection[str] = ()) -> None:
    """Raise `InvalidValue` if limits contradict each other. `given` names those that somebody chose."""
    if limits.blocked_after > limits.deadline and "blocked_after" in given:
        raise InvalidValue(
            f"limits.blocked_after ({format_duration(limits.blocked_after)}) is above limits.deadline "
            f"({format_duration(limits.deadline)}), which would always come first: lower the one or raise the other"
        )
    if limits.memory_guaranteed > limits.memory:
        raise InvalidValue(
            f"limits.memory_guaranteed ({format_size(limits.memory_guaranteed)}) is above limits.memory "
            f"({format_size(limits.memory)}): lower the one or raise the other"
        )
    if limits.stored_code < limits.code:
        raise InvalidValue(
            f"limits.stored_code ({format_size(limits.stored_code)}) does not hold one program of limits.code "
            f"({format_size(limits.code)}): raise the one or lower the other"
        )
    if isolation == "per_request":
        each = limits.per_request_at_once
        if limits.memory // each < SANDBOX_MEMORY or limits.pids // each < SANDBOX_PIDS:
            raise InvalidValue(
                f"with `per_request` each of {each} sandboxes gets 1/{each} of limits.memory and limits.pids, which is "
                f"below {format_size(SANDBOX_MEMORY)} or {SANDBOX_PIDS}: raise them or lower limits.per_request_at_once"
            )


def _number(name: str, bound: Bound, value: Any) -> int | float:
    try:
        if isinstance(value, str):
            return _from_text(bound.kind, value.strip())
        # True is an int to Python, and to nobody who writes limits.
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _exact(bound.kind, value)
    except (ConfigError, ValueError, OverflowError) as error:
        raise InvalidValue(f"limits.{name}: {error}") from error
    raise InvalidValue(f"limits.{name} must be {_WRITTEN[bound.kind]}")


_WRITTEN: Mapping[Kind, str] = {
    "size": "a number of bytes or text such as `64MiB`",
    "duration": "a number of seconds or text such as `5s`",
    "count": "a whole number",
    "share": "a number such as 0.5",
}


def _from_text(kind: Kind, text: str) -> int | float:
    if kind == "size":
        return parse_size(text)
    if kind == "duration":
        # 0 is off, whatever the unit would be.
        return 0.0 if text == "0" else parse_duration(text)
    try:
        return int(text) if kind == "count" else _exact(kind, float(text))
    except ValueError:
        raise ValueError(f"`{text[:80]}` is not {_WRITTEN[kind]}") from None


def _exact(kind: Kind, value: float) -> int | float:
    if not math.isfinite(value):
        raise ValueError(f"{value} is not {_WRITTEN[kind]}")
    if kind in ("duration", "share"):
        return float(value)
    if value != int(value):
        raise ValueError(f"{value} is not {_WRITTEN[kind]}")
    return int(value)
