"""What a worker knows of one sandbox: its route, its connections, what is loaded in it, the calls it has."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol

from sandpost.logs.setup import get_logger
from sandpost.model.messages import Activity, Gone, Named, Replace, Route, Suspect
from sandpost.proxy.figures import Counts
from sandpost.proxy.holding import Holding
from sandpost.proxy.load import Waiter
from sandpost.proxy.loads import Loads
from sandpost.proxy.made import Fetch
from sandpost.proxy.probe import Probe
from sandpost.proxy.program import Program
from sandpost.proxy.upstream import Pool

if TYPE_CHECKING:
    from sandpost.model.ends import End
    from sandpost.proxy.call import Call

log = get_logger()

PROBE_AFTER = 1.0
"""Seconds that a call has run when the loop begins to be probed."""
PROBE_ANSWER = 1.0
"""Seconds that a sandbox has for its probe after a call's deadline."""
_KNOWN_LOADED = 4096
_HITS = 4
_SUSPECT_AGAIN = 1.0
_REPLACE_AGAIN = 2.0
_CPU_AGAIN = 0.5
_FETCHES = 4
"""Programs about which one sandbox is asked at once; others are asked for with their next answer."""
_FETCH_WAIT = 1.0
"""Seconds that a sandbox of one call has, between load and call, to hand over what it has made."""


class Tell(Protocol):
    """Sends a message to the controller."""

    def __call__(self, message: Named | Replace | Suspect) -> object:
        """Send if connected."""


class Sandbox:
    """One sandbox. It leaves the table when the controller says that it is gone."""

    def __init__(self, route: Route, counts: Counts, tell: Tell) -> None:
        self.route = route
        self.sandbox_id = route.sandbox_id
        self.tenant = route.tenant
        self.key = route.key
        self._loop = asyncio.get_running_loop()
        self._counts = counts
        self._tell = tell
        address, port = route.host, route.port
        self.pool = Pool(lambda factory: self._loop.create_connection(factory, address, port), counts)
        self.probe = Probe(self.pool)
        # What is loaded, as far as this worker knows; the runtime may have unloaded some.
        self.loaded: OrderedDict[str, None] = OrderedDict()
        self._loads = Loads(self.pool, counts, self.note_loaded)
        # What it is asked for that it has made, by program.
        self._fetches: dict[str, Fetch] = {}
        self._when_fetched: Callable[[], object] | None = None
        # Calls that have chosen this sandbox.
        self.calls: set[Call] = set()
        self.leaving = False
        """Takes no new calls."""
        self.ending = False
        """Its end is known; its calls hear the word in a moment."""
        self.word: End | None = None
        """Why it ended; None while it lives."""
        self.hits: deque[tuple[float, str]] = deque(maxlen=_HITS)
        """Limits that were met without an end, and when."""
        self.named = False
        """The runtime said which call ends it (what it says decides bodies alone)."""
        # For the controller: since the last report.
        self.touched = False
        self.begun = 0
        self.bytes_in = 0
        self.bytes_out = 0
        # How many calls have chosen it.
        self._joined = 0
        # Its wish to be replaced, and suspicion.
        self._replace_asked_at = 0.0
        self._suspected_at = 0.0
        self._cpu_asked_at = 0.0
        self._deadline_at = 0.0

    def join(self, call: "Call") -> None:
        """A call has chosen this sandbox."""
        self.calls.add(call)
        self._joined += 1
        call.place = self._joined - len(self.calls)

    def leave(self, call: "Call") -> None:
        """A call is over, or has been sent elsewhere."""
        self.calls.discard(call)

    def note_loaded(self, code_hash: str) -> None:
        """Remember that the program is loaded."""
        loaded = self.loaded
        loaded[code_hash] = None
        if len(loaded) > _KNOWN_LOADED:
            loaded.popitem(last=False)

    def load(self, program: Program, waiter: Waiter) -> None:
        """Load the program for `waiter`, together with whoever waits for the same."""
        self._loads.load(program, waiter)

    def forget_load(self, code_hash: str, waiter: Waiter) -> None:
        """`waiter` waits no more, or its load has ended."""
        self._loads.forget(code_hash, waiter)

    def fetch_made(self, code_hash: str, holding: Holding, then: Callable[[bytes], None]) -> None:
        """Ask for what the sandbox has made of a program, unless that is being done."""
        if code_hash in self._fetches or len(self._fetches) >= _FETCHES or self.word is not None:
            return

        def ended(made: bytes) -> None:
            del self._fetches[code_hash]
            if made:
                then(made)
            if not self._fetches:
                self._fetched()

        fetch = self._fetches[code_hash] = Fetch(self.pool, self.tenant, code_hash, holding, ended)
        fetch.start()

    def when_fetched(self, then: Callable[[], object]) -> None:
        """Run `then` once nothing is being fetched, or after a moment."""
        self._when_fetched = then
        if self._fetches:
            self._loop.call_later(_FETCH_WAIT, self._fetched)
        else:
            self._fetched()

    @property
    def fetching(self) -> bool:
        """Whether something is being fetched."""
        return bool(self._fetches)

    def stop_fetching(self) -> None:
        """Take nothing more of what was asked for."""
        for fetch in list(self._fetches.values()):
            fetch.cancel()

    def _fetched(self) -> None:
        then, self._when_fetched = self._when_fetched, None
        if then is not None:
            then()

    def end(self, gone: Gone, *, others_in_flight: int, on_empty: Callable[[], None]) -> None:
        """The sandbox has ended: tell its calls, close its connections; `on_empty` runs when none is left."""
        self.word, self.leaving = gone.word, True
        named = self.named or gone.named
        self.probe.close()
        self._loads.close()
        self.stop_fetching()
        calls = list(self.calls)
        shared = others_in_flight + sum(call.written for call in calls) > 1
        for call in calls:
            call.sandbox_gone(gone, shared=shared, named=named)
        self.pool.close(on_empty)

    def watch(self, now: float) -> None:
        """Probe if a call has run for long, and report silence (called four times a second)."""
        if self.word is not None:
            return
        self._watch_cpu(now)
        asked_at = self.probe.asked_at
        if self._deadline_at and not asked_at:
            self._deadline_at = 0.0
        oldest = min((call.began for call in self.calls), default=now)
        if not asked_at:
            if now - oldest >= PROBE_AFTER:
                self.probe.ask(now)
            return
        silent_for = now - asked_at
        if self._deadline_at and now - self._deadline_at >= PROBE_ANSWER:
            self._suspect("deadline", now, silent_for, "silent after a call's deadline")
        elif self.calls and silent_for >= min(call.limits.blocked_after for call in self.calls):
            self._suspect("loop", now, silent_for, "the loop does not answer")
        if silent_for >= PROBE_AFTER:
            # The same question, for when the connection of the probe was what broke.
            self.probe.ask(now)

    def _watch_cpu(self, now: float) -> None:
        """Ask the controller to look, once the oldest call could have used up its CPU seconds."""
        oldest = min(self.calls, key=lambda call: call.began, default=None)
        if oldest is None or not oldest.limits.cpu_seconds:
            return
        age = now - oldest.began
        if age >= oldest.limits.cpu_seconds / oldest.limits.cpu and now - self._cpu_asked_at >= _CPU_AGAIN:
            self._cpu_asked_at = now
            beside = self._joined - oldest.place
            self._tell(Suspect(sandbox_id=self.sandbox_id, kind="cpu", silent_for=age, calls=beside))

    def deadline_passed(self, now: float) -> None:
        """A call met its deadline: ask whether the loop turns, and report if it does not within a second."""
        if self.word is None and not self._deadline_at:
            self._deadline_at = now
            self.probe.ask(now)

    def name(self) -> None:
        """The runtime said which call ends it: calls that came through other workers must know, too."""
        self.named = True
        self._tell(Named(sandbox_id=self.sandbox_id))

    def ask_replaced(self, now: float) -> None:
        """The runtime asks for a successor. Said again while it does: a controller does not heed a new sandbox."""
        if self._replace_asked_at and now - self._replace_asked_at < _REPLACE_AGAIN:
            return
        self._replace_asked_at = now
        self._tell(Replace(sandbox_id=self.sandbox_id))

    def suspect_broken(self, detail: str) -> None:
        """Report that the sandbox does not speak the wire."""
        self._suspect("broken", self._loop.time(), 0.0, detail)

    def _suspect(self, kind: Literal["deadline", "loop", "broken"], now: float, silent_for: float, detail: str) -> None:
        if self._suspected_at and now - self._suspected_at < _SUSPECT_AGAIN:
            return
        self._suspected_at = now
        self._counts.suspects[kind] += 1
        log.info("sandbox suspected", sandbox_id=self.sandbox_id, tenant=self.tenant, kind=kind, detail=detail)
        self._tell(Suspect(sandbox_id=self.sandbox_id, kind=kind, silent_for=silent_for, detail=detail))

    def activity(self) -> Activity:
        """Return what happened since the last report, and begin anew."""
        report = Activity(
            sandbox_id=self.sandbox_id,
            in_flight=len(self.calls),
            calls=self.begun,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
        )
        self.begun = self.bytes_in = self.bytes_out = 0
        return report
