"""Makes sandboxes and removes them: FIFOs, engine, warm-up; and watches each for its end."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from sandpost.controller import farewell, processes
from sandpost.controller.ends import Evidence, judge
from sandpost.controller.fifos import Fifos
from sandpost.controller.lifecycle import Sandbox
from sandpost.controller.meter import Meter
from sandpost.controller.record import Record
from sandpost.controller.warmup import warm
from sandpost.engines.contract import Engine, SandboxSpec, Started
from sandpost.kernel.descriptors import close_all
from sandpost.logs.setup import get_logger
from sandpost.model.ends import NAMED, End
from sandpost.model.errors import SEE_OUTPUT, EngineError
from sandpost.model.host import SANDBOX_PORT, Host

log = get_logger()

_STATUS_WITHIN = 0.1
"""Seconds after a process's end within which the supervisor, its parent, has told the status."""
_NAMED_WITHIN = 0.02
"""Seconds after a shared sandbox's end within which a proxy has told, if one can, that the guilty call was named."""
_RETRY = 0.2
_RETRY_MAX = 5.0
_MAX_STATUSES = 4096


class Maker:
    """`ready`, `failed`, `ended` and `removed` tell the outcome; each is called in the event loop."""

    def __init__(self, host: Host, engine: Engine, fifos: Fifos, meter: Meter) -> None:
        self._host = host
        self._engine = engine
        self._fifos = fifos
        self._meter = meter
        self._loop = asyncio.get_running_loop()
        self._watches: dict[str, tuple[processes.Watch, Callable[[], None]]] = {}
        self._by_pid: dict[int, Sandbox] = {}
        self._statuses: dict[int, int] = {}
        self._starts: set[asyncio.Task[None]] = set()
        self._removals: set[asyncio.Task[None]] = set()
        self.parent_tells: Callable[[], bool] = lambda: False
        """Whether there is a supervisor that will tell wait statuses."""
        self.is_shared: Callable[[Sandbox], bool] = lambda _sandbox: False
        """Whether calls of several proxies may be in it."""
        self.ready: Callable[[Sandbox, float], None]
        self.failed: Callable[[Sandbox, str], None]
        self.ended: Callable[[Sandbox, End, str], None]
        self.removed: Callable[[Sandbox], None]
        self.forget: Callable[[int], Awaitable[None]]
        """Let nothing that the kernel knows of a slot's sandbox wait for its next one; `EngineError`."""

    def start(self, sandbox: Sandbox) -> None:
        """Begin to make a sandbox."""
        self._own(self._starts, self._start(sandbox))

    def remove(self, sandbox: Sandbox) -> None:
        """Kill a sandbox, at once or when it has taken its farewell, and begin to remove all it has."""
        watch, undo = self._watches.pop(sandbox.sandbox_id, (None, None))
        self._by_pid.pop(sandbox.pid, None)
        patience = farewell.due(sandbox.record, sandbox.record.word or "platform")
        if watch is not None and undo is not None:
            undo()
            if not patience:
                watch.kill()
                watch.close()
                watch = None
        self._own(self._removals, self._remove(sandbox, watch, patience))

    def adopt(self, sandbox: Sandbox) -> None:
        """Watch a sandbox that runs already; if it has just ended, `ended` says so."""
        try:
            self._watch(sandbox)
        except (EngineError, OSError):
            self._conclude(sandbox, self._statuses.pop(sandbox.pid, None))

    async def answers(self, record: Record, patience: float) -> bool:
        """Whether a pooled sandbox answers its warm-up call."""
        try:
            await warm(address(self._host, record.slot), SANDBOX_PORT, patience=patience)
        except EngineError as error:
            log.warning("a pooled sandbox does not answer", sandbox_id=record.sandbox_id, error=error.message)
            return False
        return True

    def exited(self, pid: int, status: int) -> None:
        """The supervisor has reaped a process."""
        sandbox = self._by_pid.get(pid)
        if sandbox is not None:
            self._conclude(sandbox, status)
        else:
            self._statuses[pid] = status
            if len(self._statuses) > _MAX_STATUSES:
                del self._statuses[next(iter(self._statuses))]

    def cause(self, record: Record) -> tuple[End, str]:
        """Say why a sandbox has ended that no longer runs, though nobody watched it."""
        found = self._engine.consumption(record.sandbox_id, record.group_id)
        status = self._statuses.pop(record.pid, None)
        if status is None and (found is None or not found.oom_kills):
            return "platform", "platform: it ended while no controller was there"
        return judge(
            Evidence(
                limits=record.limits,
                oom_kills=found.oom_kills if found else 0,
                parent_full=found.parent_full if found else False,
                peak_memory=found.peak_memory if found else 0,
                status=status,
                share=record.exclusive,
            )
        )

    async def settle(self, patience: float) -> None:
        """Wait until starts and removals under way are done, for so long at most."""
        tasks = [*self._starts, *self._removals]
        if tasks:
            await asyncio.wait(tasks, timeout=patience)

    async def close(self) -> None:
        """Let go of everything; what runs goes on."""
        tasks = [*self._starts, *self._removals]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for watch, undo in self._watches.values():
            watch.close()
            undo()
        self._watches.clear()

    # --- inside -------------------------------------------------------------------------------------------

    def _own(self, tasks: "set[asyncio.Task[None]]", work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        tasks.add(task)

        def done(task: "asyncio.Task[None]") -> None:
            tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("a start or a removal broke off: a fault of the controller", exc_info=error)

        task.add_done_callback(done)

    async def _start(self, sandbox: Sandbox) -> None:
        begun = time.monotonic()
        try:
            await self._make(sandbox)
        except EngineError as error:
            self._start_failed(sandbox, error.message)
        except OSError as error:
            self._start_failed(
                sandbox, f"{error}: see the limits of the controller's process and of {self._host.run_dir}"
            )
        except Exception as error:
            # Whatever it is, the place among the parallel starts comes back.
            log.exception("a start broke off: a fault of the controller", sandbox_id=sandbox.sandbox_id)
            self._start_failed(sandbox, f"{type(error).__name__}: see the controller's log")
        else:
            if sandbox.phase == "starting":
                self._meter.read(sandbox, time.monotonic())
                self.ready(sandbox, time.monotonic() - begun)

    def _start_failed(self, sandbox: Sandbox, message: str) -> None:
        log.error("a sandbox could not be started", sandbox_id=sandbox.sandbox_id, error=message)
        self.failed(sandbox, message)

    async def _make(self, sandbox: Sandbox) -> None:
        record = sandbox.record
        told, tells = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            started = await self._launch(sandbox, tells)
            if sandbox.phase != "starting":
                raise EngineError("the sandbox was ended while it started")
            sandbox.pid, sandbox.start_time = started.pid, started.start_time
            self._watch(sandbox)
            await warm(
                address(self._host, record.slot), SANDBOX_PORT, ready=told, wanted=lambda: sandbox.phase == "starting"
            )
        finally:
            os.close(told)

    async def _launch(self, sandbox: Sandbox, ready: int) -> Started:
        """Start its processes; `ready` and its FIFOs are theirs then."""
        record, ends = sandbox.record, [ready]
        try:
            stdout, stderr, frames = await self._fifos.make(record.sandbox_id)
            ends += (stdout, stderr, frames)
            return await self._engine.start(
                SandboxSpec(
                    sandbox_id=record.sandbox_id, group_id=record.group_id, slot=record.slot, runtime=record.runtime,
                    engine=record.engine, limits=record.limits, stdout=stdout, stderr=stderr, frames=frames,
                    ready=ready,
                )
            )  # fmt: skip
        finally:
            close_all(ends)

    def _watch(self, sandbox: Sandbox) -> None:
        try:
            watch = processes.Watch(sandbox.pid, lambda: self._process_ended(sandbox))
        except ProcessLookupError:
            raise EngineError(f"the sandbox ended as it started: {SEE_OUTPUT}") from None
        # It has not been reaped, so what was told of this number was another's.
        self._statuses.pop(sandbox.pid, None)
        record = sandbox.record
        try:
            undo = self._engine.watch_memory(
                record.sandbox_id, record.group_id, lambda: self._conclude(sandbox, None, killed=1)
            )
        except BaseException:
            watch.close()
            raise
        self._watches[record.sandbox_id] = (watch, undo)
        self._by_pid[sandbox.pid] = sandbox

    def _process_ended(self, sandbox: Sandbox) -> None:
        status = self._statuses.pop(sandbox.pid, None)
        if status is None and self.parent_tells():
            self._loop.call_later(_STATUS_WITHIN, self._conclude, sandbox, None)
        else:
            self._conclude(sandbox, status)

    def _conclude(self, sandbox: Sandbox, status: int | None, *, killed: int = 0) -> None:
        """It has ended, or has to (`killed` by the kernel for want of memory): find out why."""
        if sandbox.phase == "gone":
            return
        if status is None and (held := self._watches.get(sandbox.sandbox_id)) is not None:
            status = held[0].status()
        found = self._meter.read(sandbox, time.monotonic())
        word, message = judge(
            Evidence(
                limits=sandbox.record.limits,
                oom_kills=max(killed, found.oom_kills if found else 0),
                parent_full=found.parent_full if found else False,
                status=status,
                peak_memory=sandbox.peak_memory,
                in_flight=sandbox.calls_in_flight,
                share=sandbox.record.exclusive,
            )
        )
        if word in NAMED and not sandbox.named and self.is_shared(sandbox):
            self._loop.call_later(_NAMED_WITHIN, self._end, sandbox, word, message)
        else:
            self._end(sandbox, word, message)

    def _end(self, sandbox: Sandbox, word: End, message: str) -> None:
        if sandbox.phase != "gone":
            self.ended(sandbox, word, message)

    async def _remove(self, sandbox: Sandbox, watch: processes.Watch | None, patience: float) -> None:
        record, delay = sandbox.record, _RETRY
        if watch is not None:
            began = time.monotonic()
            await farewell.take(watch, patience)
            self._meter.parted(sandbox, time.monotonic() - began)
        while True:
            try:
                await self._engine.remove(record.sandbox_id, record.group_id, record.slot)
                await self.forget(record.slot)
                break
            except (EngineError, OSError) as error:
                log.error("a sandbox could not be removed; tried again", sandbox_id=record.sandbox_id, error=str(error))  # noqa: TRY400
                await asyncio.sleep(delay)
                delay = min(2 * delay, _RETRY_MAX)
        self._fifos.remove(record.sandbox_id)
        self.removed(sandbox)


def address(host: Host, slot: int) -> str:
    """Return where the sandbox of a slot answers."""
    return str(host.slot_addresses(slot)[1])
