"""What a request's head asks for: everything that can be known of it before its body. Pure.

Clients repeat their heads to the byte, so a worker keeps plans by head (`Plans`); a plan therefore says nothing of a
connection, of the clock or of the store, but for the verdict about its key, which has an epoch.
"""

import enum
from typing import TYPE_CHECKING

from sandpost.model.errors import MalformedRequest, MethodNotAllowed, NotFound, UnknownCode
from sandpost.model.names import is_code_hash, tenant_name
from sandpost.model.wire import METHODS
from sandpost.proxy import cors, forwarded, program, trace
from sandpost.proxy.http1.body import Body, Kind
from sandpost.proxy.http1.render import render_request
from sandpost.proxy.http1.request import RequestHead
from sandpost.proxy.http1.target import split_query, split_target

if TYPE_CHECKING:
    from sandpost.model.languages import Language
    from sandpost.model.limits import Tenant

EMPTY = Body(Kind.LENGTH, 0)
_METHODS = sorted(METHODS)
_CODE_FIELDS = frozenset({b"content-type", b"content-encoding"})


class Way(enum.Enum):
    """Who answers."""

    CODE = "code"
    """A POST whose body is a program."""
    CALL = "call"
    """A call of known code; body, method and upgrade are the program's."""
    PREFLIGHT = "preflight"
    API = "api"
    HEALTH = "health"


class Plan:
    """One head, understood. `line` and `fields` are the head towards the sandbox, to be joined around our own lines."""

    __slots__ = (
        "chunked",
        "code_hash",
        "epoch",
        "fields",
        "head",
        "host",
        "key",
        "length",
        "line",
        "name",
        "origin",
        "settings",
        "size",
        "trace_id",
        "typed",
        "way",
    )

    def __init__(self, head: RequestHead, way: Way, name: str = "") -> None:
        self.head = head
        self.way = way
        self.name = name
        self.size = head.size
        self.length = head.body.length if head.body.kind is Kind.LENGTH else 0
        """Bytes of a body whose length is announced."""
        self.chunked = head.body.kind is Kind.CHUNKED
        self.host = head.get(b"host") or b""
        self.origin = head.get(b"origin") is not None
        self.key: bytes | None = None
        self.code_hash = ""
        self.typed: Language | None = None
        """The language of the program, if the content type chose it."""
        self.trace_id = trace.trace_id(head.headers)
        self.line = b""
        self.fields = b""
        # The verdict about the key, good while the store is at `epoch`.
        self.settings: Tenant | None = None
        self.epoch = -1

    def body_in(self, rest: bytes) -> bool:
        """Whether `rest`, which follows the head, has all of the body."""
        return not self.chunked and len(rest) >= self.length


class Plans:
    """Plans by the bytes of their heads, in a bounded memory that starts anew when it is full."""

    MAX = 1024
    MAX_HEAD = 2048

    def __init__(self) -> None:
        self.known: dict[bytes, Plan] = {}

    def learn(self, raw: bytes, head: RequestHead) -> Plan:
        """Return the plan of `head`, whose bytes are `raw`; raises what `make` raises."""
        plan = make(head)
        # Each head of a trace is another one.
        if len(raw) <= self.MAX_HEAD and not plan.trace_id:
            if len(self.known) >= self.MAX:
                self.known.clear()
            self.known[raw] = plan
        return plan


def make(head: RequestHead) -> Plan:
    """Return what `head` asks for, or raise why it asks for nothing that is there."""
    first, rest = split_target(head.path) if head.path != b"*" else ("", b"")
    if first in {"api", "logs"}:
        return Plan(head, Way.PREFLIGHT if cors.is_preflight(head.method.encode(), head.headers) else Way.API, first)
    if first == "health":
        if rest not in {b"", b"/", b"/live"}:
            raise NotFound("there is `/health` and `/health/live`")
        if head.method not in {"GET", "HEAD"}:
            raise MethodNotAllowed("/health is read by GET", allow=["GET", "HEAD"])
        return Plan(head, Way.HEALTH, rest.strip(b"/").decode())
    if first in {"", "metrics"}:
        raise NotFound("there is nothing here: POST a program to `/{tenant}?key=..`")
    if cors.is_preflight(head.method.encode(), head.headers):
        return Plan(head, Way.PREFLIGHT, first)
    return _call(head, tenant_name(first))


def _call(head: RequestHead, name: str) -> Plan:
    query = split_query(head.query)
    plan = Plan(head, Way.CODE if query.code is None else Way.CALL, name)
    plan.key, drop = _credentials(head, query.key)
    target = head.path + b"?" + query.rest if query.rest else head.path
    drop = drop | forwarded.NAMES
    if not plan.trace_id:
        drop = drop | trace.NAMES
    if plan.way is Way.CODE:
        if head.method != "POST":
            raise MethodNotAllowed(
                f"{head.method[:20]} needs `webtask_code=HASH`, the x-sandpost-code of an earlier answer; "
                "only a POST carries a program",
                allow=["POST"],
            )
        body, upgrade, drop = EMPTY, None, drop | _CODE_FIELDS
    else:
        assert query.code is not None
        if head.method not in METHODS:
            # The runtime's parser would end the connection without a word.
            raise MethodNotAllowed(
                f"no program can be called with {head.method}: methods are case-sensitive, and those that can be are "
                f"{', '.join(_METHODS)}",
                allow=_METHODS,
            )
        plan.code_hash = query.code.decode("latin-1")
        if not is_code_hash(plan.code_hash):
            raise UnknownCode("webtask_code is not a SHA-256 in 64 lower-case hexadecimal digits")
        body, upgrade = head.body, head.upgrade
    extra = [(b"expect", b"100-continue")] if not body.empty else []
    if plan.trace_id:
        extra.append((b"x-sandpost-trace", plan.trace_id.encode()))
    rendered = render_request(head.method, target, head.headers, body=body, extra=extra, drop=drop, upgrade=upgrade)
    line, _, fields = rendered.partition(b"\r\n")
    plan.line = line + b"\r\nx-sandpost-op: call\r\nx-sandpost-code: "
    plan.fields = fields[:-2]
    return plan


def check_code_type(plan: Plan) -> None:
    """Take up the language that the head says; raise if it is none that runs here."""
    head = plan.head
    plan.typed = program.language_of((head.get(b"content-type") or b"").decode("latin-1"))
    program.check_encoding((head.get(b"content-encoding") or b"").decode("latin-1"))


def _credentials(head: RequestHead, query_key: bytes | None) -> tuple[bytes | None, frozenset[bytes]]:
    """Return the key, and the fields that the program must not see for it."""
    bearer: bytes | None = None
    for name, value in head.headers:
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            if bearer is not None:
                raise MalformedRequest("there is more than one Authorization: send one")
            bearer = value[7:].strip(b" \t")
    if bearer is None:
        return query_key, frozenset()
    if query_key is not None and query_key != bearer:
        raise MalformedRequest("`key` and Authorization carry different keys: send one of them")
    return bearer, frozenset({b"authorization"})
