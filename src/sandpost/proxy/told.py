"""What tenants read of their calls in their own streams: two records a call, or beyond a rate one a second for all.

Of calls that were refused before anybody's key was accepted the operator reads, in the system's stream.
"""

import os
import socket
import time
from collections import Counter
from collections.abc import Callable

from sandpost.logs import bunyan
from sandpost.logs.journal import Journal
from sandpost.model.names import SYSTEM

_IDLE = 60
"""Seconds after which a tenant who calls nothing is forgotten."""
_STATUSES = 10
"""Statuses that a sum names."""


class _Calls:
    """Of one stream: records that may still be written in this second, and the sum of the calls that got none."""

    __slots__ = ("count", "head", "idle", "left", "longest", "shortest", "statuses")

    def __init__(self, stream: str, left: int) -> None:
        self.left = left
        self.idle = 0
        # Names of tenants and ids need no escape.
        self.head = b"" if stream == SYSTEM else b',"container":"%b"' % stream.encode()
        self.clear()

    def clear(self) -> None:
        self.count = 0
        self.statuses: Counter[int] = Counter()
        self.shortest = self.longest = 0.0

    def add(self, status: int, seconds: float) -> None:
        self.shortest = min(self.shortest, seconds) if self.count else seconds
        self.longest = max(self.longest, seconds)
        self.count += 1
        self.statuses[status] += 1


class Told:
    """Of one worker. `rate`: calls a second of a tenant that get records of their own; 0: nothing is written."""

    def __init__(self, journal: Journal, index: int, rate: Callable[[], int]) -> None:
        self._journal = journal
        self._rate = rate
        self._streams: dict[str, _Calls] = {}
        self._head = b'{"name":"%b","hostname":"%b","pid":%d,"level":%d,"time":"' % (
            bunyan.NAME.encode(), socket.gethostname().encode(), os.getpid(), bunyan.INFO,
        )  # fmt: skip
        self._worker = b',"component":"proxy","worker":%d' % index

    def begin(self, tenant: str, req_id: str, trace_id: str) -> bool:
        """A call begins; return whether its end is to be told by itself."""
        calls = self._of(tenant)
        if calls.left <= 0:
            return False
        calls.left -= 1
        text = req_id.encode()
        self._write(tenant, calls, b"new webtask request %b" % text, _ids(text, trace_id))
        return True

    def end(
        self,
        tenant: str,
        req_id: str,
        status: int,
        seconds: float,
        *,
        trace_id: str,
        sandbox_id: str,
        reason: str,
        apart: bool,
    ) -> None:
        """A call has ended. `status` 0: without a complete answer. `apart`: what `begin` returned."""
        calls = self._of(tenant)
        if not apart:
            calls.add(status, seconds)
            return
        self._finished(tenant, calls, req_id, status, seconds, trace_id=trace_id, sandbox_id=sandbox_id, reason=reason)

    def refused(self, tenant: str, req_id: str, status: int, reason: str, trace_id: str = "") -> None:
        """A call was refused before it began. `tenant`: empty if no key of his came with it."""
        stream = tenant or SYSTEM
        calls = self._of(stream)
        if calls.left <= 0:
            calls.add(status, 0.0)
            return
        calls.left -= 1
        self._finished(stream, calls, req_id, status, 0.0, trace_id=trace_id, sandbox_id="", reason=reason)

    def second(self) -> None:
        """A second has passed: write the sums, let each stream write again."""
        rate = self._rate()
        for stream, calls in list(self._streams.items()):
            if calls.count and rate:
                self._write(stream, calls, _sum(calls).encode(), b',"requests":%d' % calls.count)
            calls.idle = 0 if calls.count or calls.left < rate else calls.idle + 1
            calls.clear()
            calls.left = rate
            if calls.idle > _IDLE:
                del self._streams[stream]

    def _of(self, stream: str) -> _Calls:
        calls = self._streams.get(stream)
        if calls is None:
            calls = self._streams[stream] = _Calls(stream, self._rate())
        return calls

    def _finished(
        self,
        stream: str,
        calls: _Calls,
        req_id: str,
        status: int,
        seconds: float,
        *,
        trace_id: str,
        sandbox_id: str,
        reason: str,
    ) -> None:
        how = b"with HTTP %d" % status if status else b"without a complete answer"
        milliseconds = seconds * 1000
        text = req_id.encode()
        self._write(
            stream,
            calls,
            b"finished webtask request %b %b in %.0fms" % (text, how, milliseconds),
            b"".join(
                (
                    _ids(text, trace_id),
                    b',"sandbox_id":"%b"' % sandbox_id.encode() if sandbox_id else b"",
                    b',"status":%d,"duration_ms":%.3f' % (status, milliseconds),
                    b',"reason":"%b"' % reason.encode() if reason else b"",
                )
            ),
        )

    def _write(self, stream: str, calls: _Calls, text: bytes, fields: bytes) -> None:
        at = time.time()
        head = calls.head or self._worker
        line = b'%b%b","msg":"%b","v":%d%b%b}\n' % (
            self._head, bunyan.timestamp(at).encode(), text, bunyan.VERSION, head, fields,
        )  # fmt: skip
        self._journal.add(stream, line, at)


def _ids(req_id: bytes, trace_id: str) -> bytes:
    """Return the fields that say which call it is."""
    return b',"req_id":"%b","trace_id":"%b"' % (req_id, trace_id.encode()) if trace_id else b',"req_id":"%b"' % req_id


def _sum(calls: _Calls) -> str:
    """Return such as `1,204 webtask requests in the last second: 1,190 with HTTP 200, 14 with HTTP 500; 0 to 12ms`."""
    shown = [
        f"{count:,} {f'with HTTP {status}' if status else 'without a complete answer'}"
        for status, count in calls.statuses.most_common(_STATUSES)
    ]
    span = f"{calls.shortest * 1000:.0f} to {calls.longest * 1000:.0f}ms"
    requests = "webtask request" if calls.count == 1 else "webtask requests"
    return f"{calls.count:,} {requests} in the last second: {', '.join(shown)}; {span}"
