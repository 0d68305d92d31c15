"""Records of a tenant's stream: what his code wrote, and what the platform tells him there. Pure.

A record of user output says `sandbox: true`; no text from inside a sandbox can make or unmake that field, its
tenant, sandbox or time.
"""

import msgspec

from sandpost.logs import bunyan
from sandpost.logs.said import Said
from sandpost.logs.text import safe_text
from sandpost.model.units import format_size

_PID_INSIDE = 1
"""Processes of a sandbox are numbered inside; the runtime is its first."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One bunyan record of a tenant's stream. `time` is when the platform read it."""

    name: str = bunyan.NAME
    hostname: str
    pid: int
    level: int
    time: str
    msg: str
    v: int = bunyan.VERSION
    container: str
    sandbox: bool | msgspec.UnsetType = msgspec.UNSET
    sandbox_id: str | msgspec.UnsetType = msgspec.UNSET
    req_id: str | msgspec.UnsetType = msgspec.UNSET
    offset: int | msgspec.UnsetType = msgspec.UNSET


_encode = msgspec.json.Encoder().encode


def user_record(said: Said, *, hostname: str, tenant: str, sandbox_id: str, at: float) -> Record:
    """Make the record of what a sandbox of `tenant` said; `at` is seconds since the epoch."""
    return Record(
        hostname=hostname,
        pid=_PID_INSIDE,
        level=said.level,
        time=bunyan.timestamp(at),
        msg=safe_text(said.text),
        container=tenant,
        sandbox=True,
        sandbox_id=sandbox_id,
        req_id=said.req_id or msgspec.UNSET,
    )


def notice(
    text: str, *, hostname: str, pid: int, tenant: str, at: float, level: int = bunyan.WARN, sandbox_id: str = ""
) -> Record:
    """Make a record by which the platform tells `tenant` something in his own stream, about a sandbox or all."""
    return Record(
        hostname=hostname, pid=pid, level=level, time=bunyan.timestamp(at), msg=text, container=tenant,
        sandbox_id=sandbox_id or msgspec.UNSET,
    )  # fmt: skip


def encode(record: Record) -> bytes:
    """Return the record as one line of JSON, its end included."""
    return _encode(record) + b"\n"


def dropped(lines: int, seconds: float, reason: str) -> str:
    """Return the sentence that tells of dropped lines, such as `1,204 lines dropped in 3.0 s: over 1 MiB/s`."""
    return f"{lines:,} {'line' if lines == 1 else 'lines'} dropped in {seconds:.1f} s: {reason}"


def over_rate(rate: int) -> str:
    """Return the reason of lines dropped beyond `rate` bytes a second."""
    size = format_size(rate)
    number = size.rstrip("BKMGTi")
    return f"over {number} {size[len(number) :]}/s"
