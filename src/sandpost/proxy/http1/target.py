"""What a request's target says: the first path segment and the platform's own query parameters.

Nothing is normalised. The first segment decides whose request it is, so it is taken as it stands or refused; everything
behind it is the program's and passes byte for byte: dot segments, double slashes, backslashes, percent-encoding.
"""

import re

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
    first, slash, rest = path[1:].partition(b"/")
    if b"%" in first:
        raise InvalidName("the first path segment is percent-encoded: write the tenant's name as it is")
    if not first and slash:
        raise InvalidName("the path begins with `//`: write `/`, the tenant's name, and what follows")
    if first in (b".", b".."):
        raise InvalidName("the first path segment is a dot segment: write the tenant's name")
    return first.decode("ascii"), slash + rest


def _spelled(text: str) -> bytes:
    """Return a pattern for every percent-encoding of `text`."""
    return b"".join(b"(?:%c|(?i:%%%02x))" % (ord(letter), ord(letter)) for letter in text)


_OURS = re.compile(
    rb"(?:\A|(?<=&))(?:%b|%b[^=&]*+)(?=[=&]|\Z)" % (_spelled("key"), _spelled("webtask_")),
)


def split_query(query: bytes) -> Query:
    """Take `key` and all `webtask_*` out of a query string, however their names are encoded.

    Raises `MalformedRequest` if one of them comes twice: two readers could then take different ones.
    """
    if _OURS.search(query) is None:
        return Query(None, None, {}, query)
    others: list[bytes] = []
    ours: dict[str, bytes] = {}
    for pair in query.split(b"&"):
        if _OURS.match(pair) is None:
            others.append(pair)
            continue
        encoded, _, value = pair.partition(b"=")
        name = _decoded(encoded).decode("latin-1")
        if name in ours:
            raise MalformedRequest(f"the query parameter `{name[:40]}` comes more than once: send it once")
        ours[name] = _decoded(value)
    key = ours.pop("key", None)
    return Query(key, ours.get("webtask_code"), ours, b"&".join(others))


_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")


def _decoded(text: bytes) -> bytes:
    """Decode as a form does: `+` is a space, and an escape that is none stays as it is."""
    if b"+" in text:
        text = text.replace(b"+", b" ")
    if b"%" in text:
        text = _ESCAPE.sub(lambda match: bytes.fromhex(match[1].decode("ascii")), text)
    return text
