"""The modules of this host: the queue of those that were asked for, and the one process that works on it.

The table says what was asked for, the shelf what is there. Whoever holds the lock of the folder works; a start of it
removes what was left half made and lets table and shelf say the same again (`recovery`).
"""

import asyncio
import contextlib
import fcntl
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import msgspec

from sandpost.api.modules.builder import Away, Failed, url_of
from sandpost.api.modules.install import Installation, Interrupted
from sandpost.api.modules.recovery import available, collectable, recovered
from sandpost.api.modules.tenancy import Tenancy
from sandpost.api.modules.waits import Waits
from sandpost.kernel import threads
from sandpost.logs.setup import get_logger
from sandpost.model.errors import ModulesFull, SandpostError, Unavailable
from sandpost.model.modules import ModuleRecord
from sandpost.model.specs import Spec, parse_spec
from sandpost.model.units import show_size
from sandpost.modules.shelf import Shelf
from sandpost.store import Writer

if TYPE_CHECKING:
    from sandpost.api.service import Service

log = get_logger()
T = TypeVar("T")

LOCK_RETRY = 0.5
"""Seconds between looks whether the former api has let go."""
TROUBLE = 2.0
"""Seconds until the queue is looked at again when the store or the disk failed."""
PATIENCE = 86400.0
"""Seconds of failed tries after which a module that could not be installed for a registry's sake, or the host's, is
given up."""
MOST_CUT = 3
"""Installations of one module in a row that may be cut off."""
_ENDING = 10.0
"""Seconds that an installation has to leave nothing behind when it is broken off."""


class Modules:
    """See the module. Begins when it is made; `close` leaves no sandbox and nothing half made."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._shelf = Shelf(service.host.modules_ready)
        self._thread = threads.started(1, "modules")
        self._tenancy = Tenancy(service)
        self._waits = Waits()
        self._running: dict[Spec, asyncio.Task[None]] = {}
        self._leaving: Counter[Spec] = Counter()
        """What is being removed, by so many, and must not begin again meanwhile."""
        self._wake = asyncio.Event()
        self._works = False
        """Whether this process holds the lock and has recovered."""
        self._task = asyncio.create_task(self._work(), name="modules")

    async def close(self) -> None:
        """End; what is being installed is broken off, and is queued still."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown(wait=True)

    # --- what is asked of it --------------------------------------------------------------------------------------

    async def listing(self) -> list[ModuleRecord]:
        """Return all modules by their specs."""
        return await self._service.store(lambda writer: writer.modules())

    async def add(self, specs: list[Spec], *, scripts: bool) -> list[ModuleRecord]:
        """Queue what is neither there nor queued, all or none; return the records of all that were asked for.

        What waits for its next try is tried at once.
        """
        settings, now = self._service.host.modules, time.time()
        for spec in specs:
            url_of(settings, spec.registry)
        asked = {str(spec): spec for spec in specs}

        def work(writer: Writer) -> tuple[list[ModuleRecord], list[Spec]]:
            known = {one.spec: one for one in writer.modules()}
            fresh = {
                text: ModuleRecord(spec=text, scripts=scripts, asked_at=now)
                for text in asked
                if text not in known or known[text].state == "failed"
            }
            if len(known | fresh) > settings.count:
                raise ModulesFull(
                    f"there would be more than {settings.count} modules, which is what `modules.count` allows: remove "
                    "some with `sandpost module rm` or `gc`, or raise it"
                )
            writer.put_modules(list(fresh.values()))
            waiting = [spec for text, spec in asked.items() if text not in fresh and known[text].state == "queued"]
            return [(known | fresh)[text] for text in asked], waiting

        records, waiting = await self._service.store(work)
        for spec in waiting:
            self._waits.forget(spec)
        self._wake.set()
        return records

    def reconsider(self) -> None:
        """Try again what waits: the settings are others now."""
        self._waits = Waits()
        self._wake.set()

    async def remove(self, specs: list[Spec]) -> list[ModuleRecord]:
        """Remove modules, in whatever state they are; return those that were there."""
        wanted = {str(spec) for spec in specs}
        with self._leave(specs):
            await self._break_off(*specs)
            return await self._remove(lambda records: [one for one in records if one.spec in wanted])

    async def collect(self, *, keep: int | None, older_than: float | None) -> list[ModuleRecord]:
        """Remove what `recovery.collectable` says; return it."""

        def chosen(records: list[ModuleRecord]) -> list[ModuleRecord]:
            found = collectable(records, keep=keep, older_than=older_than, now=time.time())
            return sorted(found, key=lambda one: one.spec)

        specs = {one.spec for one in chosen(await self.listing())}
        with self._leave([parse_spec(spec) for spec in specs]):
            # Chosen again at the removal: what was asked for meanwhile stays.
            return await self._remove(lambda records: [one for one in chosen(records) if one.spec in specs])

    @contextlib.contextmanager
    def _leave(self, specs: list[Spec]) -> Iterator[None]:
        """Let none of these begin meanwhile."""
        if not self._works:
            raise Unavailable("the modules are held by an api that ends just now: try again", retry_after=1)
        leaving = Counter(specs)
        self._leaving += leaving
        try:
            yield
        finally:
            self._leaving -= leaving
            self._wake.set()

    async def _remove(self, choose: Callable[[list[ModuleRecord]], list[ModuleRecord]]) -> list[ModuleRecord]:
        def work(writer: Writer) -> list[ModuleRecord]:
            found = choose(writer.modules())
            writer.remove_modules([one.spec for one in found])
            return found

        # The row first: a start takes a folder without one up again, but would install a row's missing folder anew.
        found = await self._service.store(work)
        for one in found:
            spec = parse_spec(one.spec)
            await self._do(lambda spec=spec: self._shelf.remove(spec))  # type: ignore[misc]
            self._waits.drop(spec)
        if found:
            log.info("modules removed", modules=[one.spec for one in found])
        return found

    # --- the work -------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        with contextlib.ExitStack() as held:
            await self._steadily(lambda: self._lock(held))
            try:
                await self._steadily(self._recover)
                self._works = True
                while True:
                    self._wake.clear()
                    wait = await self._steadily(self._fill)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(wait):
                            await self._wake.wait()
            finally:
                # Before the lock goes: the next one removes what it finds half made.
                self._works = False
                await self._break_off(*self._running)
                with contextlib.suppress(SandpostError):
                    await self._tenancy.end()
                await self._do(_nothing)

    async def _steadily(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return what `work` gives, however often it takes: a store or disk in trouble is not so for ever."""
        while True:
            try:
                return await work()
            except (SandpostError, OSError) as error:
                log.warning("the modules cannot be worked on", problem=str(error))
            except Exception:
                log.exception("the work on modules failed")
            await asyncio.sleep(TROUBLE)

    async def _lock(self, held: contextlib.ExitStack) -> None:
        """Wait until no other process of this installation works on the modules."""
        await self._do(self._shelf.make)
        fd = os.open(self._service.host.modules_lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        held.callback(os.close, fd)
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                await asyncio.sleep(LOCK_RETRY)
            else:
                return

    async def _recover(self) -> None:
        await self._tenancy.end(anyway=True)
        swept = await self._do(self._shelf.sweep)
        there = await self._do(lambda: {spec: self._shelf.facts(spec) for spec in self._shelf.versions()})
        for spec, facts in there.items():
            if facts is None:
                log.warning("a folder among the modules is none that was made here, and is removed", module=str(spec))
                await self._do(lambda spec=spec: self._shelf.remove(spec))  # type: ignore[misc]
        whole = {str(spec): facts for spec, facts in there.items() if facts is not None}

        def work(writer: Writer) -> list[ModuleRecord]:
            changed = recovered(writer.modules(), whole, time.time())
            writer.put_modules(changed)
            return changed

        changed = await self._service.store(work)
        if swept or changed:
            log.info("modules recovered", swept=swept, changed=[one.spec for one in changed])

    async def _fill(self) -> float | None:
        """Begin what may begin now; return the seconds until more may; None: not before something happens."""
        now, settings = asyncio.get_running_loop().time(), self._service.host.modules
        records = await self.listing()
        queued = sorted((one for one in records if one.state == "queued"), key=self._turn)
        if not queued and not self._running:
            await self._tenancy.end()
        room = settings.keep - sum(one.size for one in records)
        later = []
        for one in queued:
            spec = parse_spec(one.spec)
            due = self._waits.due(spec)
            if spec in self._running or spec in self._leaving:
                continue
            if due > now:
                later.append(due)
            elif not self._running or self._fits_beside(room):
                key = await self._tenancy.begin()
                if spec in self._leaving:
                    continue
                task = asyncio.create_task(self._install(spec, key, room), name=f"module {spec}")
                self._running[spec] = task
                # Not at the task's own end: one that is cancelled before its first step has none.
                task.add_done_callback(partial(self._done, spec))
        return max(0.0, min(later) - now) if later else None

    def _turn(self, one: ModuleRecord) -> tuple[int, float, str]:
        return self._waits.tries(parse_spec(one.spec)), one.asked_at, one.spec

    def _fits_beside(self, room: int) -> bool:
        """Whether a further one may be installed now: each may take all that one may."""
        settings, count = self._service.host.modules, len(self._running)
        return count < settings.parallel and room >= (count + 1) * settings.size

    async def _install(self, spec: Spec, key: str, room: int) -> None:
        try:
            record = await self._begun(spec)
            if record is not None:
                await self._put(await self._outcome(spec, record, key, room))
        except Exception as error:
            if not isinstance(error, SandpostError):
                log.exception("a module's installation failed as it never should", module=str(spec))
            # The store: what is said of the module is behind until it can be written again.
            self._waits.again(spec, asyncio.get_running_loop().time(), registry=False)

    def _done(self, spec: Spec, _: asyncio.Task[None]) -> None:
        del self._running[spec]
        self._wake.set()

    async def _begun(self, spec: Spec) -> ModuleRecord | None:
        """Say in the table that it is being installed; return what is asked for. None: it is done by now, or removed.

        The list that it was chosen from may be as old as it takes to set the builder up.
        """

        def work(writer: Writer) -> ModuleRecord | None:
            for one in writer.modules():
                if one.spec == str(spec) and one.state == "queued":
                    writer.put_modules([msgspec.structs.replace(one, reason="it is being installed")])
                    return one
            return None

        return await self._service.store(work)

    async def _outcome(self, spec: Spec, record: ModuleRecord, key: str, room: int) -> ModuleRecord:
        """Install a module; return what is to be written of it."""
        try:
            if room <= 0:
                keep = show_size(self._service.host.modules.keep)
                raise Failed(f"the store is full (`modules.keep`, {keep}): `sandpost module gc` and `rm` make room")  # noqa: TRY301
            facts = await Installation(self._service.host, self._shelf, self._thread).run(record, key, room)
        except (Failed, SandpostError) as error:
            self._waits.forget(spec)
            return self._failed(record, str(error))
        except Away as error:
            return await self._later(spec, record, str(error), registry=error.registry)
        except Interrupted as error:
            self._waits.cuts[spec] += 1
            if self._waits.cuts[spec] >= MOST_CUT:
                return self._failed(record, f"{error}; {MOST_CUT} times in a row")
            return await self._later(spec, record, str(error), registry=False)
        self._waits.forget(spec)
        log.info("module available", module=str(spec), size=facts.size, files=facts.files, scripts=facts.scripts)
        return available(record, facts)

    def _failed(self, record: ModuleRecord, reason: str) -> ModuleRecord:
        log.warning("module failed", module=record.spec, reason=reason)
        self._waits.drop(parse_spec(record.spec))
        return msgspec.structs.replace(record, state="failed", reason=reason, done_at=time.time())

    async def _later(self, spec: Spec, record: ModuleRecord, reason: str, *, registry: bool) -> ModuleRecord:
        now = asyncio.get_running_loop().time()
        if self._waits.waited(spec, now) > PATIENCE:
            return self._failed(record, f"{reason}; given up after a day")
        wait, others = self._waits.again(spec, now, registry=registry)
        text = f"{reason}; {_next_try(wait)}"
        log.warning("module waits", module=str(spec), reason=text)
        if registry:
            running = {str(one) for one in self._running}
            why = f"`{spec}` could not be had, so all of {spec.registry} wait: {reason}"
            own = {str(one): waiting.due - now for one, waiting in self._waits.modules.items()}

            def tell_others(writer: Writer) -> None:
                writer.put_modules(
                    [
                        msgspec.structs.replace(one, reason=f"{why}; {_next_try(max(others, own.get(one.spec, 0.0)))}")
                        for one in writer.modules()
                        if one.state == "queued"
                        and one.spec.startswith(f"{spec.registry}:")
                        and one.spec not in running
                    ]
                )

            await self._service.store(tell_others)
        return msgspec.structs.replace(record, reason=text)

    async def _break_off(self, *specs: Spec) -> None:
        tasks = [self._running[spec] for spec in specs if spec in self._running]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_ENDING)

    async def _put(self, record: ModuleRecord) -> None:
        await self._service.store(lambda writer: writer.put_modules([record]))

    async def _do(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _next_try(wait: float) -> str:
    at = time.strftime("%H:%M:%S", time.gmtime(time.time() + wait))
    return f"next try in {wait:.0f} s, at {at} UTC"


def _nothing() -> None:
    """All that the thread was given before is done."""
