"""Records of what a tenant's code wrote. Pure.

A record of user output says `sandbox: true`; no text from inside a sandbox can make or unmake that field, its
tenant, sandbox or time. No record has an `offset`: that is its place on the bus, and readers put it in.
"""

from typing import Any

import msgspec

from sandpost.logs import bunyan, programs
from sandpost.logs.said import Said
from sandpost.logs.text import safe_text

_PID_INSIDE = 1
"""Processes of a sandbox are numbered inside; the runtime is its first."""


_encode = msgspec.json.Encoder().encode


class Scribe:
    """Writes the records of what one sandbox says. `time` is when the platform read it."""

    def __init__(self, *, hostname: str, tenant: str, sandbox_id: str) -> None:
        self._hostname = hostname
        self._ours = {"container": tenant, "sandbox": True, "sandbox_id": sandbox_id}
        # All that does not change from record to record is rendered once.
        self._head = b'{"name":%b,"hostname":%b,"pid":%d,' % (_encode(bunyan.NAME), _encode(hostname), _PID_INSIDE)
        ours = _encode(self._ours)[1:-1]
        self._tail = b',"v":%d,%b}\n' % (bunyan.VERSION, ours)
        self._with_request = b',"v":%d,%b,"req_id":%%b%%b}\n' % (bunyan.VERSION, ours.replace(b"%", b"%%"))

    def line(self, said: Said, time: str, *, raw: bool) -> bytes:
        """Return a record with its line end.

        `raw`: the program wrote it past our runtime, and it may be a record of the program's own.
        """
        if raw and (fields := programs.recognise(said.text)) is not None:
            return self._own(fields, time)
        tail = self._tail
        if said.req_id:
            trace = b',"trace_id":"%b"' % said.trace_id.encode() if said.trace_id else b""
            tail = self._with_request % (_encode(said.req_id), trace)
        return b'%b"level":%d,"time":"%b","msg":%b%b' % (
            self._head, said.level, time.encode(), _encode(safe_text(said.text)), tail,
        )  # fmt: skip

    def _own(self, fields: dict[str, Any], time: str) -> bytes:
        core = {
            "name": fields.pop("name"),
            "hostname": self._hostname,
            "pid": _PID_INSIDE,
            "level": fields.pop("level"),
            "time": time,
            "msg": fields.pop("msg"),
            "v": bunyan.VERSION,
        }
        return _encode({**core, **self._ours, **fields}) + b"\n"
