"""What failed, as the JSON body of docs/runtime.md and as text for the log.

Reads what a program raised: its `__str__` is the program's code and may do anything, so whoever renders does it where
the program ran, and every read is guarded.
"""

from __future__ import annotations

from _thread import allocate_lock

from .exchange import plain_status
from .modules import hint
from .results import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

FILE = "webtask.py"
_OURS = __file__.rpartition("/")[0] + "/"
# Characters that are passed on of a stack, and of each other text. At six bytes a character, the most that JSON makes
# of one, a failure stays below the 512 KiB that a proxy reads of the answer to a load.
_STACK = 32768
_TEXT = 16384
_UNSHOWN = "[a value that cannot be shown]"
_TRACE: Any = BaseException.__traceback__


class Kind:
    """A way to fail. `message` is fixed for those that carry no error of the program's."""

    __slots__ = ("error", "message", "reason", "source", "status")

    def __init__(self, status: int, reason: str, source: str, error: str = "", message: str = "") -> None:
        self.status = status
        self.reason = reason
        self.source = source
        self.error = error
        self.message = message


SCRIPT_ERROR = Kind(400, "script_error", "webtask", "Script returned an error.")
SYNC_EXCEPTION = Kind(500, "sync_exception", "webtask", "Script generated an unhandled synchronous exception.")
ASYNC_EXCEPTION = Kind(500, "async_exception", "webtask", "Script generated an unhandled asynchronous exception.")
NOT_SERIALIZABLE = Kind(
    400, "not_serializable", "webtask", "Error when JSON serializing the result of the Python code."
)
COMPILATION_FAILED = Kind(400, "compilation_failed", "compiler", "Supplied code does not compile or load.")
NO_FUNCTION = Kind(
    400, "no_function", "compiler", "Supplied code must return or export a function.", "Invalid webtask code"
)
WRONG_SIGNATURE = Kind(
    400,
    "wrong_signature",
    "compiler",
    "The function must have one of these signatures: def main(context), async def main(context), "
    "def main(context, request, response), async def main(context, request, response).",
    "Invalid webtask code",
)
EXIT = Kind(500, "exit", "webtask", "Script ended its process.")
CRASH = Kind(500, "crash", "webtask", "Script ended its process.")
UNKNOWN_CODE = Kind(404, "unknown_code", "", "", "No program with this hash is loaded here: load it first.")
OTHER_MODULES = Kind(409, "other_modules", "")
BAD_REQUEST = Kind(400, "bad_request", "")
UNSUPPORTED_LANGUAGE = Kind(
    415, "unsupported_language", "", "", "This runtime runs Python: send text/x-python."
)  # fmt: skip
KINDS = (
    SCRIPT_ERROR, SYNC_EXCEPTION, ASYNC_EXCEPTION, NOT_SERIALIZABLE, COMPILATION_FAILED, NO_FUNCTION, WRONG_SIGNATURE,
    EXIT, CRASH, UNKNOWN_CODE, OTHER_MODULES, BAD_REQUEST, UNSUPPORTED_LANGUAGE,
)  # fmt: skip
INTERNAL = "The runtime failed at a request; its connection was closed."


class Failure:
    """A failure, rendered: nothing of the program's is read any more."""

    __slots__ = ("body", "kind", "record", "status")

    def __init__(self, kind: Kind, status: int, body: bytes, record: str) -> None:
        self.kind = kind
        self.status = status
        self.body = body
        self.record = record


def plain(kind: Kind, req_id: str, message: str = "") -> Failure:
    """Render a failure that carries no error of the program's."""
    said = message or kind.message
    body: dict[str, object] = {"code": kind.status, "reason": kind.reason}
    if req_id:
        body["req_id"] = req_id
    if kind.error:
        body["error"] = kind.error
    if said:
        body["message"] = said
    record = f"{said}: {kind.error}" if kind.source == "compiler" else said
    return Failure(kind, kind.status, dumps(body), record)


def carried(kind: Kind, req_id: str, error: BaseException, source: str = "", module: str = "") -> Failure:
    """Render a failure with the error that the program raised, or that came of it.

    `source` is the program's text, whose lines go into the stack, and `module` what its module is called.
    """
    advice = hint(error)
    name, text = type(error).__name__, _text_of(error) + advice
    chosen = _chosen_status(error)
    status = kind.status
    if kind in {SYNC_EXCEPTION, SCRIPT_ERROR}:
        if chosen:
            # Who gives an exception a status means it for the caller.
            kind, status = SCRIPT_ERROR, chosen
        elif advice:
            # An import that finds nothing is the same mistake in a function as at the top level.
            kind, status = COMPILATION_FAILED, COMPILATION_FAILED.status
    stack = stack_of(error, source, module)
    body: dict[str, object] = {"code": status, "reason": kind.reason}
    if req_id:
        body["req_id"] = req_id
    body["error"] = kind.error
    body["details"] = _cut(f"{name}: {text}" if text else name)
    message = _cut(text)
    if kind is COMPILATION_FAILED:
        message, line, column = _place(error, text or name)
        if line:
            body["line"] = line
        if column:
            body["column"] = column
    body["name"] = _cut(name)
    body["message"] = message
    body["stack"] = stack
    return Failure(kind, status, dumps(body), f"{kind.error}\n{stack}")


def stack_of(error: BaseException, source: str, module: str) -> str:
    """Return the traceback as Python shows it, from where the program was entered."""
    try:
        text = _render(error, source)
    except BaseException:
        text = f"{type(error).__name__}: {_text_of(error)}"
    if module:
        # Each program's module has a name of its own; its author knows of none.
        text = text.replace(f"{module}.", "")
    return text.rstrip("\n")[:_STACK]


_rendering = allocate_lock()


def _render(error: BaseException, source: str) -> str:
    import linecache
    import traceback

    with _rendering:
        # All programs have the same file name; the lines are those of the one that failed.
        linecache.cache[FILE] = (len(source), None, source.splitlines(keepends=True), FILE)
        try:
            shown = traceback.TracebackException(type(error), error, _entered(_trace_of(error)), compact=True)
        finally:
            linecache.cache.pop(FILE, None)
    _drop_ours(shown, ())
    return "".join(shown.format())


def _trace_of(error: BaseException) -> TracebackType | None:
    """Return its traceback without asking its class, which may be the program's."""
    return _TRACE.__get__(error)  # type: ignore[no-any-return]


def _entered(trace: TracebackType | None) -> TracebackType | None:
    """Leave out what called the program: the runtime, and what of the library stands between."""
    at = trace
    while at is not None and at.tb_frame.f_code.co_filename != FILE:
        at = at.tb_next
    return trace if at is None else at


def _drop_ours(shown: object, seen: tuple[int, ...]) -> None:
    """Leave the runtime's frames out, of what led to an exception too."""
    stack = getattr(shown, "stack", None)
    if stack is None or id(shown) in seen or len(seen) > 50:
        return
    stack[:] = [frame for frame in stack if not frame.filename.startswith(_OURS)]
    for further in (getattr(shown, "__cause__", None), getattr(shown, "__context__", None)):
        _drop_ours(further, (*seen, id(shown)))
    for inner in getattr(shown, "exceptions", None) or ():
        _drop_ours(inner, (*seen, id(shown)))


def _text_of(error: BaseException) -> str:
    try:
        text: Any = getattr(error, "msg", None) if issubclass(type(error), SyntaxError) else str(error)
    except BaseException:
        return _UNSHOWN
    if not issubclass(type(text), str):
        return _UNSHOWN
    # A subclass of `str` may be the program's.
    return str.__str__(text)


def _chosen_status(error: BaseException) -> int:
    """Return the status that the error asks for, if it is one from 400 to 599."""
    for name in ("status_code", "statusCode"):
        try:
            status = plain_status(getattr(error, name, None))
        except BaseException:
            return 0
        if 400 <= status <= 599:
            return status
    return 0


def _place(error: BaseException, text: str) -> tuple[str, int, int]:
    """Return message, line and column (from 1) of what does not compile or load; 0 for what is not known."""
    line = column = 0
    if type(error) in {SyntaxError, IndentationError, TabError} and getattr(error, "filename", None) == FILE:
        line, column = getattr(error, "lineno", None) or 0, getattr(error, "offset", None) or 0
    else:
        trace = _trace_of(error)
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == FILE:
                line = trace.tb_lineno
            trace = trace.tb_next
    message = f"Compilation failed: {_cut(text)}"
    if line:
        message += f" (line {line}, column {column})" if column else f" (line {line})"
    return message, line, max(column, 0)


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT else f"{text[:_TEXT]} [{len(text) - _TEXT} characters cut]"
