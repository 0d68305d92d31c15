"""One installation: a call of the builder, and what it sends unpacked beside its place, then moved there."""

import asyncio
import errno
from collections.abc import Callable
from concurrent.futures import Executor
from typing import ParamSpec, TypeVar

from sandpost.api.modules import builder
from sandpost.api.modules.builder import Failed
from sandpost.api.modules.call import Unanswered, body_of, call
from sandpost.model.host import Host
from sandpost.model.modules import Facts, ModuleRecord
from sandpost.model.specs import parse_spec
from sandpost.modules.judge import BadModule, Judge
from sandpost.modules.shelf import Shelf, Staged
from sandpost.modules.unpack import Unpacker

_MARGIN = 30.0
"""Seconds besides the builder's own deadline: a sandbox may have to be started, and the deadline's answer to come."""
P = ParamSpec("P")
T = TypeVar("T")


class Interrupted(Exception):  # noqa: N818 - it says what is wrong
    """It ended before it was done, for no fault of the package that is known."""


class Installation:
    """Installs one module with `thread` for the files. `room` bounds its bytes besides `modules.size`."""

    def __init__(self, host: Host, shelf: Shelf, thread: Executor) -> None:
        self._host = host
        self._shelf = shelf
        self._thread = thread

    async def run(self, record: ModuleRecord, key: str, room: int) -> Facts:
        """Return what stands on the shelf from now on. Raises `Failed`, `Away` or `Interrupted`."""
        spec = parse_spec(record.spec)
        # Dropped in any case: what is cut off at any moment, while a thread works on it too, leaves nothing.
        staged = self._shelf.stage(spec)
        try:
            facts = await self._fetch(record, key, room, staged)
            # The builder's time is not the disk's, which may take long to have all of it.
            await self._do(staged.keep, facts)
        finally:
            await asyncio.shield(self._do(staged.drop))
        # Whoever was faster: what stands there is what counts.
        return await self._do(self._shelf.facts, spec) or facts

    async def _fetch(self, record: ModuleRecord, key: str, room: int, staged: Staged) -> Facts:
        """Let it be installed, and put what comes together."""
        modules, spec = self._host.modules, parse_spec(record.spec)
        target = builder.target_of(spec, modules, scripts=record.scripts)
        try:
            async with call(self._host, target, key, builder.PROGRAM, modules.timeout + _MARGIN) as answer:
                if not answer.own or answer.status != 200:
                    body = await body_of(answer)
                    raise builder.refusal(answer.status, body, modules, own=answer.own)
                judge = Judge(modules.size, modules.files, room, modules.keep)
                unpacker = Unpacker(spec, staged, judge, scripts=record.scripts)
                await self._do(staged.begin)
                async for piece in answer.pieces:
                    await self._do(unpacker.feed, piece)
                return await self._do(unpacker.finish)
        except BadModule as error:
            raise Failed(str(error)) from error
        except Unanswered as error:
            raise Interrupted(f"the installation was cut off: {error}") from error

    async def _do(self, work: Callable[P, T], *args: P.args, **_: P.kwargs) -> T:
        """Do something with the files; what the disk says is told apart from what the connection says."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise Failed("the disk of the state folder is full: make room, then add it again") from error
            raise Interrupted(f"its files cannot be written ({error.strerror or error})") from error
