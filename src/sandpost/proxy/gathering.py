"""A program that does not come in one piece with its head."""

from typing import TYPE_CHECKING

from sandpost.model.errors import BodyTooLarge, RequestTimeout, SandpostError
from sandpost.model.units import format_size
from sandpost.proxy.call import Call
from sandpost.proxy.holding import too_many_programs
from sandpost.proxy.http1.body import BodyReader
from sandpost.proxy.http1.errors import malformed
from sandpost.proxy.http1.render import CONTINUE
from sandpost.proxy.plan import Plan

if TYPE_CHECKING:
    from sandpost.proxy.client import Client

_PIECE = 128
"""Bytes of memory that a piece takes besides its own."""
_WHOLE = 10
"""Times `http.body_timeout` that a whole program may take."""


class Gathering:
    """Takes a program that did not come in one piece, within the tenant's limit."""

    def __init__(self, client: "Client", plan: Plan) -> None:
        settings = plan.settings
        assert settings is not None
        self._client = client
        self._plan = plan
        self._limit = settings.limits.code
        body = plan.head.body
        if body.length > self._limit:
            raise code_too_large(self._limit)
        self._reader = BodyReader(body, malformed)
        self._parts: list[bytes] = []
        self.due = client.worker.now() + _WHOLE * client.worker.host.body_timeout
        self.done = False
        client.handler = self
        client.last_data = client.worker.now()
        client.worker.exchanges.add(self)
        if plan.head.expect_continue:
            client.write(CONTINUE)

    def client_data(self, data: bytes) -> None:
        """More of the program."""
        client, reader = self._client, self._reader
        try:
            if not reader.finished:
                pieces = [bytes(piece) for piece in reader.feed(data)]
                self._parts += pieces
                # A piece costs more than its bytes.
                client.worker.holding.add(self._plan.name, self, sum(map(len, pieces)) + _PIECE * len(pieces))
            if reader.received > self._limit:
                raise code_too_large(self._limit)
            if reader.behind:
                client.pause_reading()
                client.worker.soon(self._read_on)
                return
            client.resume_reading()
            if not reader.finished:
                return
            self._end()
            if reader.excess:
                client.keep(reader.excess)
            code = b"".join(self._parts)
            worker, plan = client.worker, self._plan
            if plan.epoch != worker.access.epoch:
                # It may have taken minutes.
                client.judge(plan)
            program = worker.program_of(plan, code)
            Call(worker, client, plan, program.id, program).start()
        except SandpostError as error:
            self._end()
            client.turn_away(error, self._plan, read_to_end=reader.finished)

    def _read_on(self) -> None:
        """Go on with a program that came in many small chunks."""
        if not self.done and self._reader.behind:
            self.client_data(b"")

    def client_eof(self) -> None:
        """Nothing more comes: what has not been read yet may still be the end of the program."""
        while self._reader.behind and not self.done:
            self.client_data(b"")
        if self.done:
            return
        self._end()
        self._client.close()

    def client_lost(self) -> None:
        """The client is gone."""
        self._end()

    def client_writable(self, writable: bool) -> None:
        """Nothing is being written."""

    def look_after(self, now: float) -> None:
        """End a program that stopped coming."""
        if not self.done and now - self._client.last_data > self._client.worker.host.body_timeout:
            self.timed_out()

    def timed_out(self) -> None:
        """It stopped coming, or comes a byte at a time."""
        self._end()
        error = RequestTimeout("the program stopped coming: send it without a pause")
        self._client.turn_away(error, self._plan, read_to_end=False)

    def give_up(self) -> None:
        """The worker holds too much: end it with a 503."""
        self._end()
        client = self._client
        error = too_many_programs(client.worker.host.max_programs)
        client.turn_away(error, self._plan, read_to_end=False)

    def cut(self) -> None:
        """End it now."""
        self._end()
        self._client.abort()

    def _end(self) -> None:
        self.done = True
        self._client.worker.holding.drop(self._plan.name, self)
        self._client.handler = None
        self._client.worker.exchanges.discard(self)


def code_too_large(limit: int) -> BodyTooLarge:
    """Return the error of a program beyond `limit` bytes."""
    return BodyTooLarge(
        f"the program is longer than this tenant's limit of {format_size(limit)}: send less, or raise `limits.code`",
        limit=limit,
        setting="limits.code",
    )
