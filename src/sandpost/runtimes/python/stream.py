"""`main(context, request, response)`: the request's body and the answer as streams.

For an `async def` the methods that may wait are coroutines; for a `def` they wait in its thread. Both ask the loop for
the same: an operation that is given `done` and calls it once.
"""

from __future__ import annotations

from _thread import allocate_lock

from . import failures
from .body import HIGH_WATER
from .calls import THREADS, exit_by, fail, is_awaitable, raised, run_task, settle
from .context import context_of, headers_of
from .exchange import AnswerError, ClientGoneError
from .reactor import REACTOR
from .tunnel import Tunnel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from typing import Any

    from .calls import Call
    from .exchange import Exchange
    from .threads import Told

    # Whether somebody still waits for it: what nobody took is the next one's.
    Done = Callable[[Any, "BaseException | None"], bool]
    Operation = Callable[[Done], object]


# --- what the loop is asked for -----------------------------------------------------------------------------------


def _read(exchange: Exchange, done: Done) -> None:
    body = exchange.body
    _displace(body.reader)

    def look() -> None:
        body.reader = body.arrived = None
        if body.size:
            data = body.take()
            if not done(data, None):
                body.put_back(data)
        elif body.finished and not body.discard:
            done(b"", None)
        elif exchange.gone or body.discard or body.broken:
            why = "the answer has ended" if body.discard else "the client went away"
            done(None, ClientGoneError(f"{why} before the end of its body"))
        else:
            body.reader, body.arrived = done, look

    look()
    exchange.connection.advance()


def _displace(reader: Done | None) -> None:
    if reader is not None:
        reader(None, RuntimeError("another read() was begun while this one waited: let one at a time read"))


def _send(exchange: Exchange, act: Callable[[], object], done: Done) -> None:
    if exchange.gone:
        done(None, ClientGoneError("the client has gone"))
        return
    try:
        act()
    except ValueError as error:
        done(None, error)
        return
    exchange.connection.when_drained(lambda: done(None, None))


def _wait(operation: Operation) -> Any:
    """In a thread: have the loop do it and wait for the outcome."""
    lock = allocate_lock()
    lock.acquire()
    outcome: list[Any] = []

    def done(value: Any, error: BaseException | None) -> bool:
        outcome.extend((value, error))
        lock.release()
        return True

    REACTOR.post(operation, done)
    lock.acquire()
    value, error = outcome
    if error is not None:
        raise error
    return value


async def _await(operation: Operation, give_back: Callable[[Any], object] | None = None) -> Any:
    """On the loop: the same. `give_back` takes an outcome that came in the turn in which nobody wanted it any more."""
    future: Any = REACTOR.loop().create_future()

    def done(value: Any, error: BaseException | None) -> bool:
        if future.done():
            return False
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)
        return True

    operation(done)
    try:
        return await future
    except BaseException:
        if give_back is not None and future.done() and not future.cancelled() and future.exception() is None:
            give_back(future.result())
        raise


# --- what programs get --------------------------------------------------------------------------------------------


class _Request:
    """`url` is the full target; `upgrade` is None, or the connection of an upgrade request."""

    def __init__(self, exchange: Exchange, upgrade: Any) -> None:
        head = exchange.head
        self._exchange = exchange
        self.method = head.method
        self.url = head.target
        self.path = head.target.partition("?")[0]
        self.headers = headers_of(head)
        self.x_wt = {"container": self.path.split("/", 2)[1] if "/" in self.path else "", "url_format": 1}
        self.upgrade = upgrade


class Request(_Request):
    """For a `def`."""

    def read(self) -> bytes:
        """Return what has come of the body, b"" at its end."""
        return _wait(lambda done: _read(self._exchange, done))  # type: ignore[no-any-return]

    def body(self) -> bytes:
        """Return all of the body."""
        return b"".join(self)

    def __iter__(self) -> Iterator[bytes]:
        while data := self.read():
            yield data


class AsyncRequest(_Request):
    """For an `async def`."""

    async def read(self) -> bytes:
        """Return what has come of the body, b"" at its end."""
        exchange = self._exchange
        data: bytes = await _await(lambda done: _read(exchange, done), exchange.body.put_back)
        return data

    async def body(self) -> bytes:
        """Return all of the body."""
        return b"".join([data async for data in self])

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await self.read():
            yield data


def _as_bytes(data: object) -> bytes:
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise TypeError(f"write() takes text or bytes, not {type(data).__name__}")


class _Response:
    """`status` and `headers` hold until the first part of the body is written; a value may be a list."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.status: Any = 200
        self.headers: Any = {}
        self._status: Any = 200
        self._lines: list[tuple[str, str]] = []

    def prepare(self) -> None:
        """Read what the program has said of the head, where the program runs: it may be its own code."""
        if self._exchange.started:
            return
        lines = []
        for name, value in self.headers.items():
            values = value if isinstance(value, list | tuple) else (value,)
            lines += [(str(name), str(one)) for one in values]
        self._lines = lines
        self._status = self.status

    def begin(self) -> None:
        """Send the head that was prepared."""
        if not self._exchange.started:
            self._exchange.begin(self._status, self._lines)

    def _write(self, data: bytes) -> None:
        self.begin()
        if self._exchange.finished:
            raise AnswerError("the answer has ended")
        self._exchange.write(data)

    def end(self) -> None:
        """The body is whole."""
        self.begin()
        self._exchange.end()


class Response(_Response):
    """For a `def`."""

    def start(self) -> None:
        """Send the head now."""
        self.prepare()
        _wait(lambda done: _send(self._exchange, self.begin, done))

    def write(self, data: object) -> None:
        """Send text or bytes; waits while the client is slow. Raises `ClientGoneError`."""
        part = _as_bytes(data)
        self.prepare()
        _wait(lambda done: _send(self._exchange, lambda: self._write(part), done))


class AsyncResponse(_Response):
    """For an `async def`."""

    async def start(self) -> None:
        """Send the head now."""
        self.prepare()
        await _await(lambda done: _send(self._exchange, self.begin, done))

    async def write(self, data: object) -> None:
        """Send text or bytes; waits while the client is slow. Raises `ClientGoneError`."""
        part = _as_bytes(data)
        self.prepare()
        await _await(lambda done: _send(self._exchange, lambda: self._write(part), done))


class _Raw:
    """The connection of an upgrade request. The program writes the 101 itself."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._exchange = call.exchange
        self._tunnel: Tunnel | None = None
        self._chunks: list[bytes] = []
        self._size = 0
        self._reader: Done | None = None
        self._is_over = False

    def _take(self) -> Tunnel:
        if self._tunnel is None:
            # It may last: an idle limit and the sandbox's age end it.
            self._call.due = 0.0
            self._tunnel = Tunnel(self._exchange, self._received, self._ended)
            self._tunnel.begin()
        return self._tunnel

    def _received(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data)
        if self._size >= HIGH_WATER and self._tunnel is not None:
            self._tunnel.hold(True)
        self._tell()

    def _ended(self) -> None:
        self._is_over = True
        self._tell()

    def _tell(self) -> None:
        if self._reader is not None and (self._chunks or self._is_over):
            reader, self._reader = self._reader, None
            self._read(reader)

    def _read(self, done: Done) -> None:
        self._take()
        reader, self._reader = self._reader, None
        _displace(reader)
        if not self._chunks and not self._is_over:
            self._reader = done
            return
        data = b"".join(self._chunks)
        self._chunks, self._size = [], 0
        if not done(data, None):
            self._put_back(data)
        elif self._tunnel is not None:
            self._tunnel.hold(False)

    def _put_back(self, data: bytes) -> None:
        if data:
            self._chunks.insert(0, data)
            self._size += len(data)
            self._tell()

    def _write(self, data: bytes, done: Done) -> None:
        tunnel = self._take()
        if self._is_over:
            done(None, ClientGoneError("the client has gone"))
            return
        tunnel.write(data)
        self._exchange.connection.when_drained(lambda: done(None, None))


class Raw(_Raw):
    """For a `def`."""

    def read(self) -> bytes:
        """Return what has come, b"" at the end of the connection."""
        return _wait(self._read)  # type: ignore[no-any-return]

    def write(self, data: object) -> None:
        """Send text or bytes."""
        part = _as_bytes(data)
        _wait(lambda done: self._write(part, done))


class AsyncRaw(_Raw):
    """For an `async def`."""

    async def read(self) -> bytes:
        """Return what has come, b"" at the end of the connection."""
        data: bytes = await _await(self._read, self._put_back)
        return data

    async def write(self, data: object) -> None:
        """Send text or bytes."""
        part = _as_bytes(data)
        await _await(lambda done: self._write(part, done))


# --- the call -----------------------------------------------------------------------------------------------------


def begin(call: Call) -> None:
    """Call the program; its answer ends when its function returns."""
    exchange = call.exchange
    context = context_of(exchange.head, call.req_id)
    if call.program.is_async:
        raw = AsyncRaw(call) if exchange.head.upgrade else None
        call.argument = (context, AsyncRequest(exchange, raw), AsyncResponse(exchange))
        run_task(call, _drive(call, None))
    else:
        upgrade = Raw(call) if exchange.head.upgrade else None
        call.argument = (context, Request(exchange, upgrade), Response(exchange))
        THREADS.submit(_call_def, call)


async def _drive(call: Call, awaitable: Any) -> None:
    try:
        await (call.program.main(*call.argument) if awaitable is None else awaitable)
        call.argument[2].prepare()
    except BaseException as error:
        if type(error) is ClientGoneError and call.exchange.ended:
            # Said to the program alone: there is nobody else.
            settle(call)
        else:
            raised(call, failures.SCRIPT_ERROR, error)
    else:
        _finish(call, call.argument[2])


def _call_def(call: Call) -> Told:
    """In a thread."""
    response = call.argument[2]
    try:
        value = call.program.main(*call.argument)
        response.prepare()
    except BaseException as error:
        if issubclass(type(error), SystemExit):
            exit_by(call, error)
        if type(error) is ClientGoneError and call.exchange.ended:
            return _finish, call, response
        return fail, call, call.failure(failures.SYNC_EXCEPTION, error)
    if is_awaitable(value):
        # A plain function around an asynchronous one.
        return run_task, call, _drive(call, value)
    return _finish, call, response


def _finish(call: Call, response: _Response) -> None:
    """The function has returned."""
    exchange = call.exchange
    if call.settled or exchange.gone:
        settle(call)
        return
    if exchange.connection.tunnel is not None:
        settle(call)
        exchange.connection.tunnel.ended()
        exchange.connection.end_tunnel()
        return
    try:
        response.end()
    except ValueError as error:
        fail(call, call.failure(failures.SYNC_EXCEPTION, error))
        return
    settle(call)
