"""The programs that are loaded: compiled by hash, run at their first call, unloaded when there are too many.

The least recently used one without a call in flight goes first.
"""

from __future__ import annotations

import gc
import sys

from . import settings
from .failures import FILE
from .reactor import REACTOR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType
    from typing import Any

    from .calls import Call
    from .lifespan import Lifespan

_UNCOLLECTED = 32
"""Programs that are unloaded before garbage is collected: a module is a ring of references."""
_GROWTH = 16 * 1024 * 1024
"""Bytes beyond the first full set of programs that count as not freed."""
_PAGE = 4096

NOTHING, CONTEXT, STREAM, ASGI, WRONG = range(5)
"""What a program offers: no function, a function of the context, one that streams, an ASGI application, another."""


def decode(data: bytes) -> str:
    """Return a program's text: UTF-8, or UTF-16 that says so by its mark. Raises `SyntaxError`."""
    try:
        if len(data) % 2 == 0 and data[:2] in {b"\xff\xfe", b"\xfe\xff"}:
            text = data.decode("utf-16")
        else:
            text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SyntaxError("The program is not UTF-8 text: save it as UTF-8", (FILE, line, 0, None)) from None
    if "\0" in text:
        at = text.index("\0")
        start = text.rfind("\n", 0, at) + 1
        place = (FILE, text.count("\n", 0, at) + 1, at - start + 1, text[start:at])
        raise SyntaxError("source code cannot contain null bytes", place)
    return text


class Program:
    """One program. `shape` is known once it has been run."""

    def __init__(self, code_hash: str, source: str, code: CodeType, size: int) -> None:
        self.source = source
        self.size = size
        self.module_name = f"webtask_{code_hash}"
        self._code: CodeType | None = code
        self._module: ModuleType | None = None
        self.shape = NOTHING
        self.main: Any = None
        """The function, or the application."""
        self.is_async = False
        self.lifespan: Lifespan | None = None
        self.ready = False
        """It has been run, and its application started."""
        self.waiting: list[Call] = []
        """Calls that wait for that."""
        self.calls = 0
        """In flight."""
        self.used = 0

    def run(self) -> None:
        """Run the top level, in a module of its own. Raises what it raises, and then nothing has changed."""
        module = type(sys)(self.module_name)
        module.__file__ = FILE
        # Where classes look up what their annotations name, and pickle what they are.
        sys.modules[self.module_name] = module
        assert self._code is not None
        try:
            exec(self._code, module.__dict__)  # noqa: S102
            self._look(module.__dict__)
        except BaseException:
            sys.modules.pop(self.module_name, None)
            raise
        self._module = module
        self._code = None

    def _look(self, names: dict[str, Any]) -> None:
        main = names.get("main")
        if callable(main):
            self.main = main
            self.shape = _shape_of(main)
            self.is_async = _is_async(main)
        elif callable(app := names.get("app")):
            self.main, self.shape, self.is_async = app, ASGI, True
        else:
            self.shape = NOTHING

    def forget(self) -> None:
        """It is unloaded: what it left running lives on."""
        sys.modules.pop(self.module_name, None)
        if self.lifespan is not None:
            self.lifespan.stop()


def _is_async(main: Any) -> bool:
    code = getattr(main, "__code__", None) or getattr(getattr(main, "__call__", None), "__code__", None)  # noqa: B004
    if code is None and hasattr(main, "func"):
        return _is_async(main.func)
    return bool(getattr(code, "co_flags", 0) & 0x80)  # inspect.CO_COROUTINE


def _shape_of(main: Any) -> int:
    code = getattr(main, "__code__", None)
    if type(main) is type(_shape_of) and code is not None and not hasattr(main, "__wrapped__"):
        most = code.co_argcount
        least = most - len(main.__defaults__ or ())
        if code.co_kwonlyargcount > len(main.__kwdefaults__ or ()):
            return WRONG
    else:
        import inspect

        try:
            found = list(inspect.signature(main).parameters.values())
        except (TypeError, ValueError):
            # Written in C: it says nothing, and is called with the context.
            return CONTEXT
        places = [one for one in found if one.kind in {one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD}]
        most = len(places)
        least = sum(one.default is one.empty for one in places)
        if any(one.kind is one.KEYWORD_ONLY and one.default is one.empty for one in found):
            return WRONG
    if most == 3:
        return STREAM
    return CONTEXT if least <= 1 <= most else WRONG


def compile_program(code_hash: str, data: bytes) -> Program:
    """Compile and run nothing. Raises `SyntaxError` and whatever else the compiler finds."""
    source = decode(data)
    return Program(code_hash, source, compile(source, FILE, "exec", dont_inherit=True), len(data))


class Programs:
    """Those that are loaded, within bounds."""

    def __init__(self) -> None:
        self._by_hash: dict[str, Program] = {}
        self._bytes = 0
        self._clock = 0
        self._uncollected = 0
        # Whether unloading frees memory.
        self._unloaded = 0
        self._base = 0
        self.growing = False

    def get(self, code_hash: str | None) -> Program | None:
        """Return the program of this hash, marked as used now."""
        program = self._by_hash.get(code_hash or "")
        if program is not None:
            self._clock += 1
            program.used = self._clock
        return program

    def load(self, code_hash: str, data: bytes) -> None:
        """Compile and keep. Raises what the compiler says."""
        if self.get(code_hash) is not None:
            return
        program = compile_program(code_hash, data)
        self._make_room(program.size)
        self._clock += 1
        program.used = self._clock
        self._by_hash[code_hash] = program
        self._bytes += program.size

    def forget(self, code_hash: str) -> None:
        """Unload one, called or not."""
        program = self._by_hash.pop(code_hash, None)
        if program is not None:
            self._bytes -= program.size
            program.forget()

    def lifespans(self) -> list[Lifespan]:
        """Return those of applications that have been started."""
        return [program.lifespan for program in self._by_hash.values() if program.lifespan is not None]

    def _make_room(self, size: int) -> None:
        programs = self._by_hash
        while programs and (len(programs) >= settings.PROGRAMS or self._bytes + size > settings.PROGRAM_BYTES):
            idle = [(program.used, code_hash) for code_hash, program in programs.items() if not program.calls]
            if not idle:
                return  # all are being called; calls at once are bounded by the proxy
            self.forget(min(idle)[1])
            self._unloaded += 1
            self._uncollected += 1
        if self._uncollected >= _UNCOLLECTED:
            self._uncollected = 0
            gc.collect()
        if self._unloaded >= settings.PROGRAMS:
            self._unloaded = 0
            REACTOR.call_soon(self._look)

    def _look(self) -> None:
        """After a full set of unloaded programs: has memory grown since the first time, garbage not counted?

        What holds it is the tenant's code (threads, tasks, what it put elsewhere), so the cure is another process.
        """
        if self._base and _memory() - self._base < _GROWTH:
            return
        gc.collect()
        if self._base:
            self.growing = _memory() - self._base > _GROWTH
        else:
            self._base = _memory()


def _memory() -> int:
    """Return the process's own memory, bytes."""
    with open("/proc/self/statm", encoding="ascii") as file:
        _, resident, shared, *_ = file.read().split()
    return (int(resident) - int(shared)) * _PAGE
