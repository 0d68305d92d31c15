"""What a request's target says: the first path segment and the platform's own query parameters.

Nothing is normalised. The first segment decides whose request it is, so it is taken as it stands or refused; everything
behind it is the program's and passes byte for byte: dot segments, double slashes, backslashes, percent-encoding.
"""

from urllib.parse import unquote_to_bytes

import msgspec

from sandpost.model.errors import InvalidName, MalformedRequest


class Query(msgspec.Struct, frozen=True, gc=False):
    """A query string taken apart."""

    key: bytes | None
    """Value of `key`, decoded; None if there is none."""
    code: bytes | None
    """Value of `webtask_code`, decoded."""
    webtask: dict[str, bytes]
    """All parameters whose decoded name begins with `webtask_`, by that name, `webtask_code` among them."""
    rest: bytes
    """All other pairs, untouched and in order."""


def split_target(path: bytes) -> tuple[str, bytes]:
    """Return the first segment and what follows it, from its slash on (or nothing).

    `/acme/a/b` is `("acme", b"/a/b")`, `/` is `("", b"")`. Whether the segment names a tenant, `model.names` says.
    Raises `InvalidName` for a segment that is empty though others follow, `.` or `..`, or percent-encoded.
    """
    end = path.find(b"/", 1)
    first, rest = (path[1:], b"") if end < 0 else (path[1:end], path[end:])
    if b"%" in first:
        raise InvalidName("the first path segment is percent-encoded: write the tenant's name as it is")
    if not first and rest:
        raise InvalidName("the path begins with `//`: write `/`, the tenant's name, and what follows")
    if first in (b".", b".."):
        raise InvalidName("the first path segment is a dot segment: write the tenant's name")
    return first.decode("ascii"), rest


def split_query(query: bytes) -> Query:
    """Take `key` and all `webtask_*` out of a query string, however their names are encoded.

    Raises `MalformedRequest` if one of them comes twice: two readers could then take different ones.
    """
    encoded = b"%" in query or b"+" in query
    if not encoded and b"key" not in query and b"webtask_" not in query:
        return Query(None, None, {}, query)
    others: list[bytes] = []
    ours: dict[str, bytes] = {}
    key: bytes | None = None
    for pair in query.split(b"&"):
        name, _, value = pair.partition(b"=")
        if encoded:
            name = _decoded(name)
        if name == b"key":
            if key is not None:
                raise MalformedRequest(_TWICE % "key")
            key = _decoded(value)
        elif name[:8] == b"webtask_":
            text = name.decode("latin-1")
            if text in ours:
                raise MalformedRequest(_TWICE % ascii(text[:40])[1:-1])
            ours[text] = _decoded(value)
        else:
            others.append(pair)
    if key is None and not ours:
        return Query(None, None, ours, query)
    return Query(key, ours.get("webtask_code"), ours, b"&".join(others))


_TWICE = "the query parameter `%s` comes more than once: send it once"


def _decoded(text: bytes) -> bytes:
    """Decode as a form does: `+` is a space, and an escape that is none stays as it is."""
    if b"+" in text:
        text = text.replace(b"+", b" ")
    return unquote_to_bytes(text) if b"%" in text else text
