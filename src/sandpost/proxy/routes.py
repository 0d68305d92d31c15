"""The worker's route table, and its questions to the controller: one a tenant, however many calls wait.

A route ends in three steps: it is taken out of the table, its calls are told, its connections end; when the last of
them has ended the controller gets its `Ack`, and may deal the address again.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import msgspec

from sandpost.logs.setup import get_logger
from sandpost.model.errors import SandpostError, Unavailable
from sandpost.model.messages import (
    Ack,
    Activity,
    Ask,
    Assigned,
    Finished,
    Gone,
    Granted,
    Hit,
    Leaving,
    Refused,
    Route,
    Table,
)
from sandpost.proxy.figures import Counts
from sandpost.proxy.refusal import from_refusal
from sandpost.proxy.sandbox import Sandbox

if TYPE_CHECKING:
    from sandpost.proxy.call import Call

log = get_logger()

CONTROLLER_GRACE = 2.0
"""Seconds that calls wait for a controller that is away; a restart takes less."""
_SETTLE = 0.002
"""Seconds between hearing of an end and telling the calls, so that answers already here are read."""
_END_WAIT = 1.5
"""Seconds that new calls wait for the end that a runtime has announced."""


class Send(Protocol):
    """Sends a message to the controller; False while there is no connection."""

    def __call__(self, message: msgspec.Struct) -> bool:
        """Send."""


@dataclass(eq=False)
class _Question:
    """An `Ask` without its answer."""

    seq: int
    ask: Ask
    asked_at: float
    sent: bool
    waiting: "list[Call]" = field(default_factory=list)


class Routes:
    """See the module."""

    def __init__(self, counts: Counts, send: Send, in_flight: Callable[[str], int]) -> None:
        self._counts = counts
        self._send = send
        self._in_flight = in_flight
        self._loop = asyncio.get_running_loop()
        self.sandboxes: dict[str, Sandbox] = {}
        self._current: dict[str, Sandbox] = {}
        self._questions: dict[int, _Question] = {}
        self._by_tenant: dict[str, _Question] = {}
        self._held: dict[str, list[Call]] = {}
        self._seq = 0
        self._connection = 0
        self._table: dict[str, Route] = {}
        self._away_since = self._loop.time()
        self._touched: list[Sandbox] = []

    # --- for calls ----------------------------------------------------------------------------------------

    def find(self, tenant: str) -> Sandbox | None:
        """Return the tenant's present sandbox, if this worker knows one that takes calls."""
        return self._current.get(tenant)

    def ask(self, call: "Call") -> None:
        """Find a sandbox for `call`; it hears `route_found` or `route_refused`, unless it is forgotten."""
        tenant = call.plan.name
        held = self._held.get(tenant)
        if held is not None and not call.exclusive:
            held.append(call)
            return
        question = None if call.exclusive else self._by_tenant.get(tenant)
        if question is None:
            self._seq += 1
            ask = Ask(seq=self._seq, tenant=call.settings, exclusive=call.exclusive, req_id=call.req_id)
            question = _Question(self._seq, ask, self._loop.time(), sent=False)
            self._questions[question.seq] = question
            if not call.exclusive:
                self._by_tenant[tenant] = question
            question.sent = self._send(ask)
        question.waiting.append(call)

    def forget(self, call: "Call") -> None:
        """`call` waits no more."""
        question = self._by_tenant.get(call.plan.name)
        candidates = [question] if question is not None and not call.exclusive else list(self._questions.values())
        for each in candidates:
            if call in each.waiting:
                each.waiting.remove(call)
        held = self._held.get(call.plan.name)
        if held is not None and call in held:
            held.remove(call)

    def ending(self, sandbox: Sandbox) -> None:
        """The runtime says that it ends now: new calls wait until the controller knows, for a while."""
        if self._current.get(sandbox.tenant) is sandbox:
            del self._current[sandbox.tenant]
            self._held.setdefault(sandbox.tenant, [])
            self._loop.call_later(_END_WAIT, self._did_not_end, sandbox)

    def touch(self, sandbox: Sandbox) -> None:
        """Note that the next report is to name `sandbox`."""
        sandbox.touched = True
        self._touched.append(sandbox)

    def finished(self, sandbox: Sandbox) -> None:
        """The one call of an exclusive sandbox is over."""
        sandbox.leaving = True

    def activities(self) -> list[Activity]:
        """Return what the controller is to hear of since the last report."""
        touched, self._touched = self._touched, []
        reports = []
        for sandbox in touched:
            report = sandbox.activity()
            reports.append(report)
            # As long as calls are under way, and once more when the last has ended.
            sandbox.touched = report.in_flight > 0 and sandbox.word is None
            if sandbox.touched:
                self._touched.append(sandbox)
        return reports

    # --- from the controller ------------------------------------------------------------------------------

    def connected(self) -> None:
        """A new connection to the controller: everything it knows of us begins anew."""
        self._connection += 1
        self._table = {}

    def disconnected(self) -> None:
        """The controller is away; routes stay good."""
        self._away_since = self._loop.time()
        for question in self._questions.values():
            question.sent = False

    def take_table(self, table: Table) -> None:
        """Part of the whole table; what is not in it is gone."""
        for route in table.routes:
            self._table[route.sandbox_id] = route
        if not table.last:
            return
        listed, self._table = self._table, {}
        for sandbox_id in list(self.sandboxes):
            if sandbox_id not in listed:
                tenant = self.sandboxes[sandbox_id].tenant
                message = "the sandbox ended while the controller was away"
                self._end(Gone(seq=0, sandbox_id=sandbox_id, tenant=tenant, word="platform", message=message), None)
        for route in listed.values():
            self._add(route)
        for question in self._questions.values():
            if not question.sent:
                question.sent = self._send(question.ask)

    def assigned(self, message: Assigned) -> None:
        """A route begins."""
        self._add(message.route)

    def granted(self, message: Granted) -> None:
        """A question is answered."""
        question = self._pop(message.seq)
        if question is None:
            # Its calls were served by a route that another worker asked for, or are gone.
            return
        self._counts.route_seconds.add(self._loop.time() - question.asked_at)
        sandbox = self._add(message.route)
        self._serve(question.waiting, sandbox)
        if message.route.exclusive and not sandbox.calls:
            self._end_unused(sandbox)

    def refused(self, message: Refused) -> None:
        """A question is answered: no sandbox."""
        question = self._pop(message.seq)
        if question is None:
            return
        for call in question.waiting:
            if not call.done:
                call.route_refused(from_refusal(message.refusal))

    def leaving(self, message: Leaving) -> None:
        """No new calls for this sandbox."""
        sandbox = self.sandboxes.get(message.sandbox_id)
        if sandbox is not None:
            sandbox.leaving = True
            self._drop_current(sandbox)

    def hit(self, message: Hit) -> None:
        """A limit was met that ends nothing."""
        sandbox = self.sandboxes.get(message.sandbox_id)
        if sandbox is not None:
            sandbox.hits.append((self._loop.time(), message.text))

    def gone(self, message: Gone) -> None:
        """A sandbox has ended."""
        connection = self._connection

        def acknowledge() -> None:
            # The number belongs to the connection that it came on.
            if connection == self._connection:
                self._send(Ack(seq=message.seq))

        self._end(message, acknowledge)

    def give_up_waiting(self, now: float) -> None:
        """Refuse calls that have waited for a controller that is away (called four times a second)."""
        if not self._questions or now - self._away_since < CONTROLLER_GRACE:
            return
        for question in [question for question in self._questions.values() if not question.sent]:
            if now - question.asked_at >= CONTROLLER_GRACE:
                self._pop(question.seq)
                for call in question.waiting:
                    if not call.done:
                        call.route_refused(controller_away())

    # --- inside -------------------------------------------------------------------------------------------

    def _add(self, route: Route) -> Sandbox:
        sandbox = self.sandboxes.get(route.sandbox_id)
        if sandbox is None:
            sandbox = self.sandboxes[route.sandbox_id] = Sandbox(route, self._counts, self._send)
            if not route.exclusive:
                self._current[route.tenant] = sandbox
                question = self._by_tenant.get(route.tenant)
                if question is not None:
                    waiting, question.waiting = question.waiting, []
                    self._serve(waiting, sandbox)
                self._serve(self._held.pop(route.tenant, []), sandbox)
        return sandbox

    def _serve(self, waiting: "list[Call]", sandbox: Sandbox) -> None:
        for call in waiting:
            if call.done:
                continue
            if sandbox.leaving:
                self.ask(call)
            else:
                call.route_found(sandbox)

    def _end_unused(self, sandbox: Sandbox) -> None:
        """The call that asked for this exclusive sandbox is gone."""
        sandbox.leaving = True
        self._send(Finished(sandbox_id=sandbox.sandbox_id))

    def _pop(self, seq: int) -> _Question | None:
        question = self._questions.pop(seq, None)
        if question is not None and self._by_tenant.get(question.ask.tenant.name) is question:
            del self._by_tenant[question.ask.tenant.name]
        return question

    def _drop_current(self, sandbox: Sandbox) -> None:
        if self._current.get(sandbox.tenant) is sandbox:
            del self._current[sandbox.tenant]

    def _did_not_end(self, sandbox: Sandbox) -> None:
        if sandbox.word is not None or sandbox.leaving:
            return
        if sandbox.tenant not in self._current:
            self._current[sandbox.tenant] = sandbox
        self._serve(self._held.pop(sandbox.tenant, []), self._current[sandbox.tenant])

    def _end(self, gone: Gone, then: Callable[[], None] | None) -> None:
        sandbox = self.sandboxes.pop(gone.sandbox_id, None)
        if sandbox is None:
            if then is not None:
                then()
            return
        sandbox.leaving = True
        self._drop_current(sandbox)
        self._counts.ends[gone.word] += 1
        self._loop.call_later(_SETTLE, self._close, sandbox, gone, then)

    def _close(self, sandbox: Sandbox, gone: Gone, then: Callable[[], None] | None) -> None:
        if sandbox.touched:
            # What it did since the last report is still to be counted.
            self._touched.remove(sandbox)
            self._touched.append(sandbox)
        others = self._in_flight(sandbox.tenant) - len(sandbox.calls) if not sandbox.route.exclusive else 0
        sandbox.end(gone, others_in_flight=max(others, 0), on_empty=then if then is not None else lambda: None)
        held = self._held.pop(sandbox.tenant, [])
        for call in held:
            if not call.done:
                self.ask(call)


def controller_away() -> SandpostError:
    """Return the error of a call that needs a sandbox while nobody can give one."""
    return Unavailable(
        "the controller is away, so no sandbox can be had (tenants that have one are served): try again",
        retry_after=1,
        component="controller",
    )
