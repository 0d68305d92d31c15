"""Management requests (/api, /logs) on their way to the api's unix socket: as they came, streamed both ways."""

from typing import TYPE_CHECKING

from sandpost.model.errors import BadGateway, SandpostError, Unavailable
from sandpost.proxy import cors, forwarded
from sandpost.proxy.exchange import NEVER, Exchange
from sandpost.proxy.http1.render import render_request
from sandpost.proxy.http1.response import ResponseHead
from sandpost.proxy.plan import Plan
from sandpost.proxy.upstream import Upstream

if TYPE_CHECKING:
    from sandpost.proxy.client import Client
    from sandpost.proxy.worker import Worker

_HEAD_WITHIN = 60.0
"""Seconds that the api has to begin its answer; after that a stream of records may take as long as it likes."""
_STREAMS = (b"application/x-ndjson", b"text/event-stream")
_REST = 3600.0
"""Seconds that the reader of a stream may take nothing: what it misses meanwhile lies with the bus, not here."""


class Passage(Exchange):
    """One such request. Each has a connection of its own, so that none meets one that the api is closing.

    `endless`: it is a stream, whose end nobody waits for.
    """

    __slots__ = ("_counted", "endless")

    def __init__(self, worker: "Worker", client: "Client", plan: Plan) -> None:
        super().__init__(worker, client, plan)
        self._counted = False
        self.endless = False

    def start(self) -> None:
        """Begin."""
        self.expect_body(0)
        self.client.handler = self
        self.worker.exchanges.add(self)
        self.due = self.began + _HEAD_WITHIN
        self.worker.api.open(self)

    def up_ready(self, up: Upstream) -> None:
        """Connected: write the head; the body may follow at once."""
        self.up = up
        head = self.plan.head
        rendered = render_request(
            head.method, head.target, head.headers, body=head.body, drop=forwarded.NAMES, upgrade=None
        )
        assert up.transport is not None
        up.transport.write(rendered[:-2] + self.client.forwarded(self.plan) + b"\r\n")
        self.begin_body()

    def up_failed(self, _error: str) -> None:
        """The api is not there."""
        if not self.done:
            self.fail(
                Unavailable(
                    "the api does not answer, so nothing can be managed now (running code does not need it): try again",
                    retry_after=1,
                    component="api",
                )
            )

    def on_head(self, head: ResponseHead, rest: bytes) -> None:
        """Pass it on."""
        self.due = NEVER
        if any(name == b"content-type" and value.startswith(_STREAMS) for name, value in head.headers):
            self.endless = True
            self.client.expect_stream(_REST)
        extra = []
        names = {name for name, _ in head.headers}
        if b"x-wt-response-source" not in names:
            extra.append((b"x-wt-response-source", b"proxy"))
        if self.plan.origin and b"access-control-allow-origin" not in names:
            extra += [cors.ALLOW_ORIGIN, cors.EXPOSE]
        self.start_answer(head, rest, extra, frozenset())

    def lost_before_head(self) -> None:
        """The api ended while it worked on this."""
        self.fail(_lost())

    def timed_out(self) -> None:
        """The api does not begin its answer."""
        self.fail(_lost())

    def released(self, _reusable: bool) -> None:
        """Close the connection."""
        up, self.up = self.up, None
        if up is None:
            self.worker.api.forget(self)
        else:
            up.end()

    def neutral_bytes(self) -> bytes:
        """Return nothing: whether a client of the api has gone shows when it is written to."""
        return b""


def _lost() -> SandpostError:
    return BadGateway("the api ended before it answered: look whether the change was made before you try again")
