"""Ways out of sandboxes: kept in the firewall, told to egress, looked after; what was met is told to the tenant."""

import asyncio
import time
from collections.abc import Callable, Iterable

import msgspec

from sandpost.controller.lifecycle import Fleet, Sandbox
from sandpost.controller.notes import Notes
from sandpost.controller.record import Record
from sandpost.logs.setup import get_logger
from sandpost.model.egress import Egress, parse_egress
from sandpost.model.errors import EngineError, InvalidValue, SandpostError
from sandpost.model.host import Host
from sandpost.model.messages import Noted, WayOpened
from sandpost.network import conntrack, firewall, forwarding

log = get_logger()

LOOK_EVERY = 30.0
"""Seconds between two looks at the whole table; when somebody has changed it, a look is at once."""
UPLINKS_EVERY = 5.0
SOON = 0.005
"""Seconds that a look waits for more of the same: a program that loads rules changes many things at once."""
_CLOSED = Egress("none", "none")


class Ways:
    """See the module. `tell_egress` sends; `tell_tenant` writes a note about a sandbox into its tenant's log."""

    def __init__(
        self,
        host: Host,
        fleet: Fleet,
        *,
        tell_egress: Callable[[msgspec.Struct], None],
        tell_tenant: Callable[[Sandbox, str], None],
    ) -> None:
        self._host = host
        self._fleet = fleet
        self._tell_egress = tell_egress
        self._tell_tenant = tell_tenant
        self._loop = asyncio.get_running_loop()
        self._writer: firewall.Writer | None = None
        self.notes = Notes()
        self.repairs = 0
        self.tracked = conntrack.Tracked(0, 0)
        self._full = False
        self._look: asyncio.Task[None] | None = None
        self._look_at = 0.0
        self._uplinks_at = 0.0

    @property
    def writer(self) -> firewall.Writer:
        """The one writer; there is one from `begin` on."""
        if self._writer is None:
            raise EngineError("the firewall is not open yet")
        return self._writer

    def begin(self, records: Iterable[Record]) -> None:
        """Take over the ways of running sandboxes, close all others, and let answers in. Raises `EngineError`."""
        self._writer = firewall.Writer(self._host)
        self._writer.begin(
            {
                record.slot: _way(record)
                for record in records
                if record.tenant is not None and record.phase in {"assigned", "draining"}
            }
        )
        self._check_uplinks()
        self._loop.add_reader(self._writer.notices, self._noticed)

    def take_up(self, host: Host) -> None:
        """The settings changed: egress may ask other resolvers."""
        self._host = host
        if self._writer is None:
            return
        try:
            self._writer.take_up(host)
        except EngineError as error:
            # A look at the table finds them missing, and repairs it.
            log.error("the firewall does not know the new resolvers yet", error=error.message)  # noqa: TRY400

    def close(self) -> None:
        """Let go; the table stands on."""
        if self._writer is None:
            return
        self._loop.remove_reader(self._writer.notices)
        if self._look is not None:
            self._look.cancel()
        self._writer.close()

    def open(self, sandbox: Sandbox) -> None:
        """Open a tenant's way as its record says, or change it. Raises `EngineError`."""
        self.writer.open(sandbox.record.slot, _way(sandbox.record))
        self._tell_egress(WayOpened(way=self._fleet.way(sandbox)))

    def shut(self, sandbox: Sandbox) -> None:
        """Close a way; if that fails, `forget` tries again until it does."""
        try:
            self.writer.shut(sandbox.record.slot)
        except EngineError as error:
            log.error("a way out could not be closed", sandbox_id=sandbox.sandbox_id, error=error.message)  # noqa: TRY400

    async def forget(self, slot: int) -> None:
        """Let nothing of a sandbox that is gone wait for the next one of its address. Raises `EngineError`."""
        # What could not be closed at its end must be before somebody else has the address.
        self.writer.shut(slot)
        self.writer.forget_talks(slot)
        try:
            if await asyncio.to_thread(self.writer.forget_connections, slot):
                self.writer.forgotten(slot)
        except OSError as error:
            raise EngineError(f"connections of an ended sandbox cannot be forgotten: {error}") from error

    def noted(self, noted: Noted) -> None:
        """Egress has something for a tenant's log."""
        sandbox = self._fleet.sandboxes.get(noted.sandbox_id)
        if sandbox is not None and sandbox.record.tenant is not None:
            self._pass_on(self.notes.passed(noted, time.monotonic()))

    # --- once a second ------------------------------------------------------------------------------------

    def second(self, now: float) -> None:
        """Tell what was met, and look after what others may have changed."""
        # First of all: while the table is not there, the rest fails.
        if now >= self._look_at:
            self._look_soon()
        by_slot = {one.record.slot: one for own in self._fleet.tenants.values() for one in own.values()}
        for hit in self.writer.hits():
            sandbox = by_slot.get(hit.slot)
            if sandbox is not None:
                limits = sandbox.record.limits
                self._pass_on(
                    self.notes.hit(sandbox.sandbox_id, hit.kind, hit.times, now, limits=limits, addresses=hit.addresses)
                )
        for key in self.notes.due(now):
            known = self._fleet.sandboxes.get(key[0])
            self._pass_on(self.notes.again(key, known.record.limits if known is not None else None, now))
        if now >= self._uplinks_at:
            self._uplinks_at = now + UPLINKS_EVERY
            self._check_uplinks()
        self._check_tracked()

    def _pass_on(self, noted: Noted | None) -> None:
        sandbox = None if noted is None else self._fleet.sandboxes.get(noted.sandbox_id)
        if noted is not None and sandbox is not None:
            self._tell_tenant(sandbox, noted.text)

    def _check_uplinks(self) -> None:
        self.writer.guard(forwarding.open_uplinks(self._host))

    def _check_tracked(self) -> None:
        """Let tenants have what is left of the table of connections; say when it fills up and when no longer."""
        self.tracked = conntrack.read()
        full = not self.tracked.roomy if self._full else self.tracked.full
        self.writer.admit(self.tracked.pace, crowded=full)
        if full != self._full:
            self._full = full
            if full:
                log.error(
                    "the kernel's table of connections is nearly full: sandboxes begin none to the outside, and those "
                    "of other programs will be dropped",
                    connections=self.tracked.count, room=self.tracked.room, help=conntrack.HELP,
                )  # fmt: skip
            else:
                log.info("the kernel's table of connections has room again", connections=self.tracked.count)

    # --- who else changes the table -----------------------------------------------------------------------

    def _noticed(self) -> None:
        if self.writer.altered():
            self._look_soon()

    def _look_soon(self) -> None:
        self._look_at = self._loop.time() + LOOK_EVERY
        if self._look is None or self._look.done():
            self._look = self._loop.create_task(self._look_and_repair())

    async def _look_and_repair(self) -> None:
        try:
            await asyncio.sleep(SOON)
            wrong = (await asyncio.to_thread(self.writer.look))()
            if not wrong:
                return
            self.repairs += 1
            self.writer.repair()
            self._check_uplinks()
        except (SandpostError, OSError, ValueError) as error:
            log.error("the firewall could not be looked at or repaired; tried again", error=str(error))  # noqa: TRY400
            self._look_at = self._loop.time() + 1.0
        else:
            log.error("the firewall's table was altered by somebody and is repaired", wrong=wrong)


def _way(record: Record) -> firewall.Way:
    try:
        egress = parse_egress(record.egress)
    except InvalidValue:
        # Of another release, which knows policies that this one does not: closed is never wrong.
        egress = _CLOSED
    return firewall.Way(record.tenant or "", egress, record.limits)
