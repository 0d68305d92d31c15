"""What a program gets of a request: query, headers, body."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .head import Head

_FORM = "application/x-www-form-urlencoded"


class Context(dict):  # type: ignore[type-arg]
    """The fields by item and by attribute alike. A program may add its own."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            if name in {"body", "body_raw"}:
                # Only a call with a body has them.
                return None
            raise AttributeError(f"the context has no field {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(f"the context has no field {name!r}") from None


def unquote(text: str) -> str:
    """Decode `%XX` as UTF-8; what is no such thing stays as it is."""
    if "%" not in text:
        return text
    first, *parts = text.encode("utf-8", "surrogatepass").split(b"%")
    decoded = [first]
    for part in parts:
        try:
            decoded.append(bytes.fromhex(part[:2].decode("ascii")) + part[2:] if part[:2].isalnum() else b"%" + part)
        except ValueError:
            decoded.append(b"%" + part)
    return b"".join(decoded).decode("utf-8", "replace")


def pairs(text: str) -> dict[str, Any]:
    """Read a query or a form: a name that comes again has a list of its values."""
    found: dict[str, Any] = {}
    if "+" in text:
        text = text.replace("+", " ")
    for part in text.split("&"):
        if not part:
            continue
        name, _, value = part.partition("=")
        name, value = unquote(name), unquote(value)
        known = found.get(name)
        if known is None:
            found[name] = value
        elif isinstance(known, list):
            known.append(value)
        else:
            found[name] = [known, value]
    return found


def query_of(target: str) -> dict[str, Any]:
    """Return a target's query without the platform's own keys."""
    _, mark, text = target.partition("?")
    if not mark or not text:
        return {}
    found = pairs(text)
    for name in [name for name in found if name == "key" or name.startswith("webtask_")]:
        del found[name]
    return found


def headers_of(head: Head) -> dict[str, str]:
    """Return the headers; those that come again are joined."""
    headers: dict[str, str] = {}
    for name, value in head.lines:
        if name in headers:
            headers[name] += ("; " if name == "cookie" else ", ") + value
        else:
            headers[name] = value
    return headers


def context_of(head: Head, req_id: str) -> Context:
    """Make a call's context."""
    query = query_of(head.target)
    return Context(id=req_id, query=query, params={}, secrets={}, data=query.copy(), meta={}, headers=headers_of(head))


def add_body(context: Context, kind: str, data: bytes) -> None:
    """Add `body_raw`, and `body` if it is a form or valid JSON."""
    if not data:
        return
    text = data.decode("utf-8", "replace")
    context["body_raw"] = text
    if kind == _FORM:
        context["body"] = pairs(text)
    elif kind == "application/json" or (kind.endswith("+json") and len(kind) > 5):
        import json

        try:
            context["body"] = json.loads(text)
        except (ValueError, RecursionError):
            pass  # the program has `body_raw`
