"""What a management route is: application and OpenAPI document are made from tables of these."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.responses import Response

from sandpost.api.callers import Caller
from sandpost.api.service import Service


@dataclass(frozen=True, slots=True)
class Asked:
    """A request after all checks that do not depend on the route's work."""

    caller: Caller
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Any
    """Of the route's `takes` type; None if it takes nothing."""
    raw_query: bytes = b""
    """As it came, for routes that stream: those read it themselves."""
    headers: Mapping[str, str] = field(default_factory=dict)
    digest: bytes | None = None
    """Of the key; None for root on this machine's socket."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route gives back: `body`, or `stream`, or nothing."""

    status: int
    body: msgspec.Struct | None = None
    stream: Response | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One documented route. Path parameters are `tenant` (checked to be a name) and `id`."""

    method: str
    path: str
    name: str
    """The operation's id in the OpenAPI document."""
    summary: str
    work: Callable[[Service, Asked], Awaitable[Answer]]
    gives: Mapping[int, type[msgspec.Struct] | None]
    """Type of the body of each good status."""
    takes: type[msgspec.Struct] | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    """Query parameters, each with what it means."""
    tenant_may: bool = False
    """Whether a tenant's key is good for it, where it concerns that tenant."""
    streams: tuple[str, ...] = ()
    """Media types of an answer that is a stream of the bodies in `gives`; it reads its query itself."""
    errors: tuple[int, ...] = ()
    """Statuses of errors besides those that any route has, or any that takes a body (`openapi`)."""


PAGING = {
    "after": "Begin after this value, the `next` of the page before.",
    "limit": "Entries of a page, 1 to 10000; 1000 if left out.",
}
