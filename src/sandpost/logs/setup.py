"""Structured logs of the platform's processes: one JSON object a line on stderr, in bunyan's form, and in the system's
stream once there is a `Journal`.

`configure` is called once, first thing in a process. Modules take `log = get_logger()` at import and say
`log.info("sandbox assigned", sandbox_id=.., tenant=..)`: a constant sentence, then typed fields. A field called
like one of bunyan's own (`pid`, `name`, ..) is written with a trailing underscore. What looks like a key leaves
no process: the finished line is searched, so no nesting, traceback or third-party logger gets around it.
"""

import atexit
import contextlib
import logging
import os
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any, cast

import msgspec

# structlog imports rich where there is one, for a console renderer that no part uses: a third of a part's start
# and 5 MB of each process. Told that there is none, it does without.
_RICH = sys.modules.get("rich")
sys.modules["rich"] = cast("Any", None)
import structlog  # noqa: E402
from structlog.typing import FilteringBoundLogger  # noqa: E402

if _RICH is None:
    del sys.modules["rich"]
else:
    sys.modules["rich"] = _RICH

from sandpost.logs import bunyan  # noqa: E402
from sandpost.logs.journal import Journal  # noqa: E402
from sandpost.model.names import SYSTEM  # noqa: E402

_LEVELS = {**bunyan.LEVELS, "warning": bunyan.WARN, "exception": bunyan.ERROR, "critical": bunyan.FATAL}
"""By the names of a logger's methods."""
_KEY = re.compile(rb"sp_([0-9a-f]{8})_[A-Za-z0-9]+")
# The value ends where a query's value or the JSON string does; escapes are eaten whole, so the line stays JSON.
_QUERY_KEY = re.compile(rb'(?i)(?<![a-z0-9])(key=)(?:[^&\s"\\]|\\.)+')
_BEARER = re.compile(rb'(?i)\b(bearer )(?:[^\s"\\]|\\.)+')
# Loggers that would write request lines, with their queries, at level info.
_REQUEST_LOGGERS = ("uvicorn.access", "httpx", "httpcore")


def get_logger() -> FilteringBoundLogger:
    """Return the process's logger; it may be taken before `configure` runs."""
    return cast("FilteringBoundLogger", structlog.get_logger())


def configure(part: str, index: int = 0, *, level: int = logging.INFO) -> None:
    """Send this process's logs, the standard library's loggers and uncaught exceptions to stderr.

    `part` becomes `component`; proxy workers also carry `worker`. `level` is one of the standard library's.
    """
    renderer = _Renderer(part, index)
    structlog.configure(
        processors=[renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda: _out,
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.addHandler(_Handler(renderer))
    root.setLevel(level)
    for name in _REQUEST_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


def connect(path: str) -> Journal:
    """Send this process's logs to the bus too, by the socket at `path`; return the way, also for other streams."""
    journal = _out.journal = Journal(path)
    atexit.register(journal.flush)
    return journal


def hide_keys(line: bytes) -> bytes:
    """Replace the secret part of whatever looks like a key in an encoded record."""
    line = _KEY.sub(rb"sp_\1_[hidden]", line)
    line = _QUERY_KEY.sub(rb"\1[hidden]", line)
    return _BEARER.sub(rb"\1[hidden]", line)


class _Out:
    """Writes finished lines. A reader that is gone or full costs the line, never the process."""

    def __init__(self) -> None:
        self.journal: Journal | None = None

    def msg(self, line: bytes) -> None:
        if self.journal is not None:
            self.journal.add(SYSTEM, line, time.time())
            self.journal.flush()
        with contextlib.suppress(OSError):
            os.write(2, line)

    debug = info = warn = warning = error = exception = critical = fatal = msg


_out = _Out()


class _Renderer:
    """The one structlog processor: an event and its fields in, the finished line out."""

    def __init__(self, part: str, index: int) -> None:
        self._head: dict[str, Any] = {"name": bunyan.NAME, "hostname": socket.gethostname(), "pid": os.getpid()}
        self._origin: dict[str, Any] = {"component": part}
        if part == "proxy":
            self._origin["worker"] = index
        self._encode = msgspec.json.Encoder(enc_hook=repr).encode

    def __call__(self, _logger: Any, method: str, event: MutableMapping[str, Any]) -> bytes:
        message = event.pop("event", "")
        exception = _exception_of(event.pop("exc_info", None))
        return self.line(_LEVELS.get(method, bunyan.INFO), message, event, exception)

    def line(
        self, level: int, message: Any, fields: MutableMapping[str, Any], exception: BaseException | None = None
    ) -> bytes:
        record = {
            **self._head,
            "level": level,
            **self._origin,
            "msg": str(message),
            "time": bunyan.timestamp(time.time()),
            "v": bunyan.VERSION,
        }
        if exception is not None:
            record["err"] = _describe(exception)
        for name, value in fields.items():
            shown = value
            if isinstance(value, BaseException):
                shown = _describe(value)
            elif isinstance(value, bytes):  # base64, its form in JSON, would hide a key from us
                shown = value.decode("utf-8", "backslashreplace")
            record[f"{name}_" if name in bunyan.CORE else name] = shown
        try:
            encoded = self._encode(record)
        except (TypeError, ValueError, RecursionError):
            # Lone surrogates (file names), keys that are no text, cycles: shown, not lost.
            encoded = self._encode({str(name): _plain(value) for name, value in record.items()})
        return hide_keys(encoded) + b"\n"


class _Handler(logging.Handler):
    """Takes records of the standard library's logging (asyncio, uvicorn, warnings) into the same stream."""

    def __init__(self, renderer: _Renderer) -> None:
        super().__init__()
        self._renderer = renderer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception as error:
            message = f"{record.msg!r} cannot be formatted: {error}"
        level = min(max(record.levelno // 10 * 10 + 10, bunyan.TRACE), bunyan.FATAL)
        exception = record.exc_info[1] if record.exc_info else None
        _out.msg(self._renderer.line(level, message, {"logger": record.name}, exception))


def _exception_of(exc_info: Any) -> BaseException | None:
    """Return the exception that structlog's `exc_info` means: True, an exception, or a triple of `sys.exc_info`."""
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return cast("BaseException | None", exc_info[1])
    return sys.exc_info()[1] if exc_info else None


def _describe(error: BaseException) -> dict[str, str]:
    """Return bunyan's `err` of an exception."""
    stack = "".join(traceback.format_exception(error))
    return {"name": type(error).__name__, "message": str(error), "stack": stack}


def _plain(value: Any) -> Any:
    """Return something encodable that shows `value`."""
    if isinstance(value, bool | int | float) and -(1 << 63) <= value < 1 << 63:
        return value
    text = value if isinstance(value, str) else repr(value)
    return text.encode("utf-8", "backslashreplace").decode()


def _log_uncaught(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
    get_logger().critical("uncaught exception", exc_info=error)


def _log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    name = args.thread.name if args.thread else "?"
    get_logger().critical("uncaught exception in a thread", thread=name, exc_info=args.exc_value)
