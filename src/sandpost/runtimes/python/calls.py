"""One call of a program, from its request to its one answer.

A call is settled once, on the loop, by whatever comes first. What is the program's own code (its function, the text of
its exceptions, what its results are made of) runs where the program runs: for a `def` that is a thread.
"""

from __future__ import annotations

from time import monotonic

from . import failures, frames, streams
from .context import add_body, context_of
from .head import frame_id_of
from .programs import ASGI, CONTEXT, NOTHING, STREAM, WRONG
from .reactor import REACTOR
from .results import dumps, is_falsy
from .scope import context_of as scope_of
from .threads import Threads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import Task
    from collections.abc import Coroutine
    from contextvars import Context as Scope
    from typing import Any, NoReturn

    from .exchange import Exchange
    from .failures import Failure, Kind
    from .programs import Program
    from .threads import Told

_JSON = b"content-type: application/json\r\n"
_RESULT = b"x-sandpost-source: webtask\r\n" + _JSON
_SOURCES = {
    "webtask": b"x-sandpost-source: webtask\r\n",
    "compiler": b"x-sandpost-source: compiler\r\n",
    "": b"",
}
_ENDS = {failures.EXIT, failures.CRASH}
_OFF_STACK = {failures.ASYNC_EXCEPTION, *_ENDS}

THREADS = Threads()
_tasks: set[Task[None]] = set()
"""asyncio itself does not keep them."""


class Call:
    """`due` is when its caller gives up, 0 if that is not known; `context` the one that its code runs in."""

    __slots__ = (
        "_ended",
        "argument",
        "context",
        "due",
        "exchange",
        "frame_id",
        "partial",
        "program",
        "req_id",
        "settled",
    )

    in_flight = 0
    """Calls that somebody waits for."""

    def __init__(self, program: Program, exchange: Exchange, req_id: str) -> None:
        self.program = program
        self.exchange = exchange
        self.req_id = req_id
        self.frame_id = frame_id_of(exchange.head)
        self.settled = False
        self.partial: dict[int, str] = {}
        """What was printed and has no line's end yet, by level."""
        self.context: Scope = scope_of(self)
        self.argument: Any = None
        deadline = exchange.head.deadline
        self.due = monotonic() + deadline if deadline else 0.0
        self._ended = False

    def over(self) -> None:
        """The exchange has ended."""
        if not self._ended:
            self._ended = True
            self.program.calls -= 1
            Call.in_flight -= 1

    def failure(self, kind: Kind, error: BaseException) -> Failure:
        """Render what the program raised."""
        return failures.carried(kind, self.req_id, error, self.program.source, self.program.module_name)


THREADS.in_flight = lambda: Call.in_flight


# --- answers ------------------------------------------------------------------------------------------------------


def settle(call: Call) -> None:
    """Nothing more is to come: the program has answered by itself, or nobody is there."""
    call.settled = True
    streams.end_of(call)


def succeed(call: Call, body: bytes) -> None:
    """Answer with a result."""
    streams.end_of(call)
    if call.settled:
        return
    call.settled = True
    call.exchange.answer(200, _RESULT, body)


def fail(call: Call, failure: Failure) -> None:
    """Answer with a failure; if that is too late, the log alone gets it."""
    streams.end_of(call)
    frames.write(50, call.frame_id, failure.record)
    if call.settled:
        return
    call.settled = True
    exchange = call.exchange
    if exchange.started:
        exchange.break_off()
    else:
        exchange.close = exchange.close or failure.kind in _OFF_STACK
        exchange.answer(failure.status, lines_of(failure), failure.body)


def lines_of(failure: Failure) -> bytes:
    """Return the header lines of a failure's answer."""
    kind = failure.kind
    end = f"x-sandpost-end: {kind.reason}\r\n" if kind in _ENDS else ""
    return _SOURCES[kind.source] + f"x-sandpost-error: {kind.reason}\r\n{end}".encode() + _JSON


def charge(call: Call | None, error: BaseException) -> None:
    """Give an exception that nobody caught to its call if that can still be told, else to the log. From any thread."""
    if issubclass(type(error), SystemExit):
        exit_by(call, error)
    if call is None:
        failure = failures.carried(failures.ASYNC_EXCEPTION, "", error)
        frames.write(50, "", failure.record)
    else:
        REACTOR.post(fail, call, call.failure(failures.ASYNC_EXCEPTION, error))


def exit_by(call: Call | None, error: BaseException) -> NoReturn:
    """A program has asked for the end of its process."""
    from .guard import leave

    leave(call, error)


# --- running ------------------------------------------------------------------------------------------------------


def start(call: Call) -> None:
    """Run a call; its answer comes when it comes. The program counts as in use until the exchange is over."""
    program = call.program
    program.calls += 1
    Call.in_flight += 1
    call.exchange.owner = call
    call.exchange.go_on()
    if program.ready:
        _enter(call)
        return
    program.waiting.append(call)
    if len(program.waiting) == 1:
        THREADS.submit(_run_top_level, call)


def _run_top_level(call: Call) -> Told:
    program = call.program
    try:
        if program.main is None:
            program.run()
    except SystemExit as error:
        exit_by(call, error)
    except BaseException as error:
        return _not_ready, program, call.failure(failures.COMPILATION_FAILED, error)
    return _started, call


def _started(call: Call) -> None:
    program = call.program
    if program.shape == ASGI and program.lifespan is None:
        from .lifespan import Lifespan

        Lifespan(program, call).start(_ready, _lifespan_failed)
    else:
        _ready(program)


def _lifespan_failed(call: Call, error: BaseException) -> None:
    _not_ready(call.program, call.failure(failures.COMPILATION_FAILED, error))


def _ready(program: Program) -> None:
    program.ready = True
    waiting, program.waiting = program.waiting, []
    for call in waiting:
        _enter(call)


def _not_ready(program: Program, failure: Failure) -> None:
    """Whoever waited hears the same; the next call tries again."""
    waiting, program.waiting = program.waiting, []
    first = waiting[0].req_id
    for call in waiting:
        # Rendered for the first: only the id differs.
        body = failure.body if call.req_id == first else _with_id(failure.body, first, call.req_id)
        fail(call, failures.Failure(failure.kind, failure.status, body, failure.record))


def _with_id(body: bytes, old: str, new: str) -> bytes:
    if not old:
        return body
    said, told = (b'"req_id":' + dumps(text) for text in (old, new))
    return body.replace(said, told, 1)


def _enter(call: Call) -> None:
    shape = call.program.shape
    if shape == CONTEXT:
        exchange = call.exchange
        context = context_of(exchange.head, call.req_id)
        call.argument = context
        if exchange.head.has_body:
            kind = exchange.head.media_type()

            def with_body(data: bytes) -> None:
                add_body(context, kind, data)
                _call_with_context(call)

            exchange.body.gather(with_body)
            exchange.connection.advance()
        else:
            _call_with_context(call)
    elif shape == STREAM:
        from .stream import begin

        begin(call)
    elif shape == ASGI:
        from .asgi import begin as begin_asgi

        begin_asgi(call)
    else:
        assert shape in {NOTHING, WRONG}
        wrong = failures.NO_FUNCTION if shape == NOTHING else failures.WRONG_SIGNATURE
        fail(call, failures.plain(wrong, call.req_id))


def _call_with_context(call: Call) -> None:
    if call.program.is_async:
        run_task(call, _answer_of(call, None))
    else:
        THREADS.submit(_call_def, call)


def run_task(call: Call, work: Coroutine[Any, Any, None]) -> None:
    """Have `work`, which raises nothing, run on asyncio's loop as part of the call."""
    loop = REACTOR.loop()
    task: Task[None] = loop.create_task(work, context=call.context)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard, context=call.context)


async def _answer_of(call: Call, awaitable: Any) -> None:
    """Answer with what the function, or what it has returned to be awaited, comes to."""
    try:
        value = await (call.program.main(call.argument) if awaitable is None else awaitable)
    except BaseException as error:
        raised(call, failures.SCRIPT_ERROR, error)
    else:
        _give(call, value)


def raised(call: Call, kind: Kind, error: BaseException) -> None:
    """On the loop: the program's own function has raised."""
    if issubclass(type(error), SystemExit):
        exit_by(call, error)
    fail(call, call.failure(kind, error))


def _give(call: Call, value: object) -> None:
    try:
        body = b"{}" if is_falsy(value) else dumps(value)
    except SystemExit as error:
        exit_by(call, error)
    except BaseException as error:
        fail(call, call.failure(failures.NOT_SERIALIZABLE, error))
    else:
        succeed(call, body)


def _call_def(call: Call) -> Told:
    """In a thread."""
    if call.exchange.gone:
        # It waited for a thread for longer than its caller did.
        return None
    try:
        value = call.program.main(call.argument)
    except SystemExit as error:
        exit_by(call, error)
    except BaseException as error:
        return fail, call, call.failure(failures.SYNC_EXCEPTION, error)
    if is_awaitable(value):
        # A plain function around an asynchronous one.
        return _go_on, call, value
    try:
        return succeed, call, b"{}" if is_falsy(value) else dumps(value)
    except SystemExit as error:
        exit_by(call, error)
    except BaseException as error:
        return fail, call, call.failure(failures.NOT_SERIALIZABLE, error)


def is_awaitable(value: object) -> bool:
    """Whether `await` takes it. Whoever made its class may have made that class's own lookups, too."""
    try:
        return hasattr(type(value), "__await__")
    except BaseException:
        return False


def _go_on(call: Call, awaitable: Any) -> None:
    run_task(call, _answer_of(call, awaitable))
