"""The wire of docs/runtime.md: one HTTP server, four operations."""

from __future__ import annotations

from _socket import AF_INET, SO_REUSEADDR, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, SOL_SOCKET, socket, socketpair

from . import failures, frames
from .calls import Call, lines_of, start
from .connection import Connection
from .exchange import Notice
from .head import frame_id_of, is_hash, req_id_of
from .modules import NotInstalledError, OtherModulesError, take
from .programs import Programs
from .reactor import REACTOR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .exchange import Exchange

_BACKLOG = 511
_PYTHON = frozenset({"", "text/x-python", "application/x-python", "text/python", "application/python"})
_WARM_UP_SOURCE = b"def main(context):\n    return {'data': context.data}\n"
_WARM_UP_HASH = "0" * 64
_WARM_UP = (
    f"PUT / HTTP/1.1\r\nx-sandpost-op: load\r\nx-sandpost-code: {_WARM_UP_HASH}\r\n"
    f"content-length: {len(_WARM_UP_SOURCE)}\r\n\r\n".encode()
    + _WARM_UP_SOURCE
    + b"GET /?a=b HTTP/1.1\r\nx-sandpost-op: call\r\nconnection: close\r\n"
    + f"x-sandpost-code: {_WARM_UP_HASH}\r\n\r\n".encode()
)
_OF_PROGRAMS = (NotInstalledError, SyntaxError, ValueError, OverflowError, MemoryError, RecursionError)
"""What a program's choice of modules, and its text in the compiler, can make a load raise."""
_IDLE = 0.25
"""Seconds of quiet after `warm` before that is imported which only some programs need."""

PROGRAMS = Programs()


class _Quiet:
    """Whether calls have come since the warm-up."""

    loads = 0


def handle(exchange: Exchange) -> None:
    """Serve one request."""
    try:
        _dispatch(exchange)
    except Exception as error:
        # Nothing here raises by itself: a program has changed what the runtime is built on.
        Notice.ask()
        frames.write(50, "", f"{failures.INTERNAL}\n{failures.stack_of(error, '', '')}")
        exchange.break_off()


def _dispatch(exchange: Exchange) -> None:
    op = exchange.head.op
    if op == "call":
        _call(exchange)
    elif op == "probe":
        exchange.answer(204, b"", b"")
    elif op == "load":
        _load(exchange)
    elif op == "warm":
        _warm(exchange)
    else:
        _refuse(exchange, failures.BAD_REQUEST, "x-sandpost-op must be probe, warm, load or call.")


def _refuse(exchange: Exchange, kind: failures.Kind, message: str = "", lines: bytes = b"") -> None:
    failure = failures.plain(kind, req_id_of(exchange.head), message)
    exchange.answer(failure.status, lines_of(failure) + lines, failure.body)


def _call(exchange: Exchange) -> None:
    program = PROGRAMS.get(exchange.head.code)
    if program is None:
        _refuse(exchange, failures.UNKNOWN_CODE, lines=b"x-sandpost-unknown: 1\r\n")
        return
    start(Call(program, exchange, req_id_of(exchange.head)))


def _load(exchange: Exchange) -> None:
    head = exchange.head
    exchange.go_on()
    _Quiet.loads += 1
    if not is_hash(head.code):
        _refuse(
            exchange,
            failures.BAD_REQUEST,
            "x-sandpost-code must be the SHA-256 of the program in lower-case hexadecimal.",
        )
    elif head.media_type() not in _PYTHON:
        _refuse(exchange, failures.UNSUPPORTED_LANGUAGE)
    elif PROGRAMS.get(head.code) is not None:
        exchange.answer(204, b"", b"")
    else:
        exchange.body.gather(lambda data: _compile(exchange, head.code or "", data))


def _compile(exchange: Exchange, code_hash: str, data: bytes) -> None:
    try:
        if code_hash != _WARM_UP_HASH:
            take(exchange.head.modules or "")
        PROGRAMS.load(code_hash, data)
    except OtherModulesError as error:
        _refuse(exchange, failures.OTHER_MODULES, str(error))
        return
    except Exception as error:
        if not isinstance(error, _OF_PROGRAMS):
            # A program has changed what the runtime is built on: this one would refuse good programs from now on.
            Notice.ask()
        req_id = req_id_of(exchange.head)
        failure = failures.carried(failures.COMPILATION_FAILED, req_id, error)
        frames.write(50, frame_id_of(exchange.head), failure.record)
        exchange.answer(failure.status, lines_of(failure), failure.body)
        return
    if PROGRAMS.growing:
        Notice.ask()
    exchange.answer(204, b"", b"")


class _WarmUp:
    """The near end of the warm-up's connection."""

    def __init__(self, near: socket, then: Callable[[], object]) -> None:
        self._near = near
        self._then = then
        near.setblocking(False)
        REACTOR.add_reader(near.fileno(), self._readable)
        near.send(_WARM_UP)

    def _readable(self) -> None:
        try:
            data = self._near.recv(65536)
        except BlockingIOError:
            return
        if not data:
            REACTOR.remove_reader(self._near.fileno())
            self._near.close()
            self._then()


def _warm(exchange: Exchange) -> None:
    """Once through everything that a tenant's first answer needs, on a connection within the process."""
    near, far = socketpair()

    def done() -> None:
        PROGRAMS.forget(_WARM_UP_HASH)
        exchange.answer(204, b"", b"")
        REACTOR.call_later(_IDLE, _prepare, _Quiet.loads)

    _WarmUp(near, done)
    Connection(far, handle)


def _prepare(loads: int) -> None:
    """While it waits in a pool: import what asynchronous programs and failures need."""
    if _Quiet.loads != loads:
        return
    REACTOR.loop()


class Listener:
    """Takes connections."""

    def __init__(self, port: int) -> None:
        self._socket = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK)
        self._socket.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        self._socket.bind(("0.0.0.0", port))
        self._socket.listen(_BACKLOG)
        self.port: int = self._socket.getsockname()[1]
        REACTOR.add_reader(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        while True:
            try:
                fd, _ = self._socket._accept()  # type: ignore[attr-defined]
            except BlockingIOError:
                return
            except OSError:
                # Out of descriptors, or the other end has gone: those that wait are tried again a moment later.
                REACTOR.remove_reader(self._socket.fileno())
                REACTOR.call_later(0.1, REACTOR.add_reader, self._socket.fileno(), self._accept)
                return
            Connection(socket(fileno=fd), handle)
