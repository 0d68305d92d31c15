"""Modules of the standard library that know of calls: adapted when a program has imported them, which most never do."""

from __future__ import annotations

import sys

from . import calls, streams
from .scope import CURRENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any


def _logging(logging: Any) -> None:
    """Records that go to one of our streams keep their level."""
    handler = logging.StreamHandler
    emit = handler.emit

    def to_frames(self: Any, record: Any) -> None:
        stream = self.stream
        if not isinstance(stream, streams.Stream):
            emit(self, record)
            return
        try:
            stream.record(_level_of(record.levelno), self.format(record))
        except RecursionError:
            raise
        except Exception:
            self.handleError(record)

    handler.emit = to_frames


def _level_of(number: int) -> int:
    """Return the level of a log record: 10 trace to 50 error."""
    return 50 if number >= 40 else 40 if number >= 30 else 30 if number >= 20 else 20 if number >= 10 else 10


def _warnings(warnings: Any) -> None:
    """A warning is a record of its own level."""

    def show(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
        text = warnings.formatwarning(message, category, filename, lineno, line)
        if file is not None:
            file.write(text)
        else:
            streams.ERR.record(40, text.rstrip("\n"))

    warnings.showwarning = show


def _threading(threading: Any) -> None:
    """A thread belongs to the call that started it, and so does what it fails with."""
    thread = threading.Thread
    start, bootstrap = thread.start, thread._bootstrap_inner

    def start_for_call(self: Any) -> None:
        self._sandpost_call = CURRENT.get()
        start(self)

    def run_for_call(self: Any) -> None:
        CURRENT.set(self._sandpost_call)
        bootstrap(self)

    def on_failure(told: Any) -> None:
        if told.exc_type is not SystemExit and told.exc_value is not None:
            calls.charge(CURRENT.get(), told.exc_value)

    thread.start = start_for_call
    thread._bootstrap_inner = run_for_call
    threading.excepthook = on_failure


def _executors(thread: Any) -> None:
    """Work that is given to a pool belongs to the call that gave it, whoever started the pool's threads."""
    item = thread._WorkItem
    begin, run = item.__init__, item.run

    def begin_for_call(self: Any, *args: Any, **named: Any) -> None:
        begin(self, *args, **named)
        self._sandpost_call = CURRENT.get()

    def run_for_call(self: Any) -> None:
        CURRENT.set(self._sandpost_call)
        run(self)

    item.__init__ = begin_for_call
    item.run = run_for_call


_ADAPT: dict[str, Callable[[Any], None]] = {
    "logging": _logging,
    "warnings": _warnings,
    "threading": _threading,
    "concurrent.futures.thread": _executors,
}


class _Loader:
    """Loads as the real one does, then adapts."""

    def __init__(self, loader: Any, adapt: Callable[[Any], None]) -> None:
        self._loader = loader
        self._adapt = adapt

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)  # type: ignore[no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__loader__ = module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._adapt(module)


class _Finder:
    """Finds what is to be adapted by way of the others."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        adapt = _ADAPT.get(name)
        if adapt is None:
            return None
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(name, path, target)) is not None:
                spec.loader = _Loader(spec.loader, adapt)  # type: ignore[assignment]
                return spec
        return None


def install() -> None:
    """Adapt what is there, and the rest when it comes."""
    for name, adapt in _ADAPT.items():
        if name in sys.modules:
            adapt(sys.modules[name])
    sys.meta_path.insert(0, _Finder())
