"""The worker's route table, and its questions to the controller: one for each key, however many calls wait.

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
    RouteKey,
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
_READ_WITHIN = 1.0
"""Seconds for which that goes on with an answer in many small chunks: a turn of the loop takes only so many."""
_END_WAIT = 1.5
"""Seconds that new calls wait for the end that a runtime has announced."""


_NONE: dict[RouteKey, Sandbox] = {}


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
        self._current: dict[str, dict[RouteKey, Sandbox]] = {}
        self._questions: dict[int, _Question] = {}
        self._shared: dict[RouteKey, _Question] = {}
        self._held: dict[RouteKey, list[Call]] = {}
        self._seq = 0
        self._connection = 0
        self._table: dict[str, Route] = {}
        self._away_since = self._loop.time()
        self._touched: list[Sandbox] = []

    # --- for calls ----------------------------------------------------------------------------------------

    def find(self, key: RouteKey) -> Sandbox | None:
        """Return the present sandbox of a key, if this worker knows one that takes calls."""
        return self._current.get(key.tenant, _NONE).get(key)

    def having(self, tenant: str, code_hash: str) -> Sandbox | None:
        """Return the tenant's present sandbox in which a program is loaded, as far as this worker knows."""
        for sandbox in self._current.get(tenant, _NONE).values():
            if code_hash in sandbox.loaded:
                return sandbox
        return None

    def ask(self, call: "Call") -> None:
        """Find a sandbox for `call`; it hears `route_found` or `route_refused`, unless it is forgotten."""
        key = call.key
        held = self._held.get(key)
        if held is not None and not call.exclusive:
            held.append(call)
            return
        question = None if call.exclusive else self._shared.get(key)
        if question is None:
            self._seq += 1
            ask = Ask(
                seq=self._seq,
                tenant=call.settings,
                runtime=key.runtime,
                modules=key.modules,
                exclusive=call.exclusive,
                req_id=call.req_id,
                trace_id=call.plan.trace_id,
            )
            question = _Question(self._seq, ask, self._loop.time(), sent=False)
            self._questions[question.seq] = question
            if not call.exclusive:
                self._shared[key] = question
            question.sent = self._send(ask)
        question.waiting.append(call)

    def forget(self, call: "Call") -> None:
        """`call` waits no more."""
        question = self._shared.get(call.key)
        candidates = [question] if question is not None and not call.exclusive else list(self._questions.values())
        for each in candidates:
            if call in each.waiting:
                each.waiting.remove(call)
        held = self._held.get(call.key)
        if held is not None and call in held:
            held.remove(call)

    def ending(self, sandbox: Sandbox) -> None:
        """The runtime says that it ends now: new calls wait until the controller knows, for a while."""
        if self.find(sandbox.key) is sandbox:
            self._drop_current(sandbox)
            self._held.setdefault(sandbox.key, [])
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
            sandbox.leaving = route.leaving
            if not route.exclusive and not route.leaving:
                self._make_current(sandbox)
                question = self._shared.get(sandbox.key)
                if question is not None:
                    waiting, question.waiting = question.waiting, []
                    self._serve(waiting, sandbox)
                self._serve(self._held.pop(sandbox.key, []), sandbox)
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
        if question is not None:
            key = question.ask.key
            if self._shared.get(key) is question:
                del self._shared[key]
        return question

    def _own_calls(self, sandbox: Sandbox) -> int:
        """Return how many calls this worker has in a sandbox, and in its tenant's of other runtimes and sets."""
        others = [other for key, other in self._current.get(sandbox.tenant, _NONE).items() if key != sandbox.key]
        return len(sandbox.calls) + sum(len(other.calls) for other in others)

    def _make_current(self, sandbox: Sandbox) -> None:
        self._current.setdefault(sandbox.tenant, {})[sandbox.key] = sandbox

    def _drop_current(self, sandbox: Sandbox) -> None:
        if self.find(sandbox.key) is sandbox:
            own = self._current[sandbox.tenant]
            del own[sandbox.key]
            if not own:
                del self._current[sandbox.tenant]

    def _did_not_end(self, sandbox: Sandbox) -> None:
        if sandbox.word is not None:
            return
        current = self.find(sandbox.key)
        if current is None:
            current = sandbox
            # One that leaves meanwhile may drain for long: who was held asks for another one.
            if not sandbox.leaving:
                self._make_current(sandbox)
        self._serve(self._held.pop(sandbox.key, []), current)

    def _end(self, gone: Gone, then: Callable[[], None] | None) -> None:
        sandbox = self.sandboxes.pop(gone.sandbox_id, None)
        if sandbox is None:
            if then is not None:
                then()
            return
        sandbox.leaving = sandbox.ending = True
        self._drop_current(sandbox)
        self._counts.ends[gone.word] += 1
        self._loop.call_later(_SETTLE, self._close, sandbox, gone, then, self._loop.time() + _READ_WITHIN)

    def _close(self, sandbox: Sandbox, gone: Gone, then: Callable[[], None] | None, until: float) -> None:
        if any(call.reads_on() for call in sandbox.calls) and self._loop.time() < until:
            self._loop.call_later(_SETTLE, self._close, sandbox, gone, then, until)
            return
        if sandbox.touched:
            # What it did since the last report is still to be counted.
            self._touched.remove(sandbox)
            self._touched.append(sandbox)
        # Calls of the tenant's other runtimes are beside it, not in it. Of those through other workers it is not known.
        others = self._in_flight(sandbox.tenant) - self._own_calls(sandbox) if not sandbox.route.exclusive else 0
        sandbox.end(gone, others_in_flight=max(others, 0), on_empty=then if then is not None else lambda: None)
        held = self._held.pop(sandbox.key, [])
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
