"""Browsers may call: what CORS preflights are answered, and what answers carry. Pure (Fetch standard, section 3.2)."""

_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"

ALLOW_ORIGIN = (b"access-control-allow-origin", b"*")
EXPOSE = (b"access-control-expose-headers", b"*")


def is_preflight(method: bytes, headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether this is a browser's question and not the program's business."""
    if method != b"OPTIONS":
        return False
    names = {name for name, _ in headers}
    return b"origin" in names and b"access-control-request-method" in names


def preflight_headers(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers of a preflight's answer (204)."""
    asked = dict(headers)
    method = asked.get(b"access-control-request-method", b"")
    known = _METHODS if method in _METHODS.split(b", ") or not method.isalpha() else _METHODS + b", " + method
    answer = [
        ALLOW_ORIGIN,
        (b"access-control-allow-methods", known),
        # `*` does not cover Authorization, so what was asked is repeated.
        (b"access-control-allow-headers", asked.get(b"access-control-request-headers", b"*")),
        (b"access-control-max-age", b"86400"),
    ]
    if b"access-control-request-private-network" in asked:
        answer.append((b"access-control-allow-private-network", b"true"))
    return answer
