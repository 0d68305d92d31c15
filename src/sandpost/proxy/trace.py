"""The trace that a request belongs to, by its `traceparent`. Pure (W3C Trace Context, section 3.2)."""

import re
from collections.abc import Iterable

from sandpost.proxy.http1._grammar import Field

NAMES = frozenset({b"traceparent", b"tracestate"})
_PARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


def trace_id(headers: Iterable[Field]) -> str:
    """Return the trace id, 32 hexadecimal digits; empty without a valid `traceparent`, or with more than one.

    Of versions that are still to come only the beginning is known, and what follows it is let be.
    """
    values = [value for name, value in headers if name == b"traceparent"]
    found = _PARENT.fullmatch(values[0]) if len(values) == 1 else None
    if found is None or (found[1] == b"00" and found[3] is not None):
        return ""
    return found[2].decode()
