"""One call of a program: a sandbox, the program loaded there, the exchange; exactly one answer, by the deadline.

A call goes through: choose (a sandbox, or wait for one), load (the program, if this worker has not seen it there),
connect, write, read. Until a byte of it is written it may be sent to another sandbox or again; afterwards never.
"""

import random
from typing import TYPE_CHECKING

from sandpost.model.ends import FATAL, NAMED
from sandpost.model.errors import (
    BadGateway,
    DeadlinePassed,
    NeighbourCall,
    SandboxEnded,
    SandboxLost,
    SandpostError,
    Unavailable,
    UnknownCode,
)
from sandpost.model.messages import Finished, Gone, RouteKey
from sandpost.model.runtimes import DEFAULT
from sandpost.model.units import format_duration
from sandpost.proxy import cors
from sandpost.proxy.exchange import Exchange
from sandpost.proxy.holding import disk_behind, too_many_programs
from sandpost.proxy.http1.body import Kind
from sandpost.proxy.http1.errors import BrokenResponse
from sandpost.proxy.http1.render import CONTINUE
from sandpost.proxy.http1.response import ResponseHead
from sandpost.proxy.load import Failure, source_of
from sandpost.proxy.plan import Plan, Way
from sandpost.proxy.program import Program
from sandpost.proxy.reply import WIRE
from sandpost.proxy.sandbox import Sandbox
from sandpost.proxy.upgrade import Tunnel
from sandpost.proxy.upstream import Upstream

if TYPE_CHECKING:
    from sandpost.proxy.client import Client
    from sandpost.proxy.quota import Seat
    from sandpost.proxy.worker import Worker

WORD_WAIT = 1.5
"""Seconds that a call whose connection broke waits to hear why its sandbox ended."""
AWAY_WAIT = 15.0
"""The same while no controller is there to know: the next one finds out, and starts slowly on a busy machine."""
_LOOK_AGAIN = 0.25
MAX_TRIES = 4
"""Sandboxes that a call tries before it is refused, none of which got a byte of it."""
MAX_PAUSE = 0.5
"""Seconds between two loads of a program that the runtime has unloaded before its call came."""
MAX_LAST_WORDS = 256 * 1024
"""Bytes of an answer that are held until the end of its sandbox is known."""
_OURS = frozenset({b"x-wt-response-source"})


class Call(Exchange):
    """See the module. `limits` are the tenant's."""

    __slots__ = (
        "_apart", "_asked", "_connecting", "_fetching", "_holds", "_last_words", "_looked", "_posted", "_program",
        "_reason", "_reloads", "_storing", "_tries", "code_hash", "exclusive", "key", "limits", "place", "sandbox",
        "seat", "settings", "waited", "written",
    )  # fmt: skip

    def __init__(
        self,
        worker: "Worker",
        client: "Client",
        plan: Plan,
        code_hash: str,
        program: Program | None,
    ) -> None:
        super().__init__(worker, client, plan)
        settings = plan.settings
        assert settings is not None
        self.settings = settings
        self.limits = settings.limits
        self.exclusive = settings.isolation == "per_request"
        self.code_hash = code_hash
        self.key = RouteKey(plan.name, DEFAULT, "") if program is None else _key(plan.name, program)
        """What its sandbox is found by; of a program that is called by hash it is known once that was found."""
        self.sandbox: Sandbox | None = None
        self.seat: Seat | None = None
        self.written = False
        """Whether a byte may have reached the sandbox."""
        self.waited = False
        """Whether it had to wait for the controller."""
        self._program = program
        self._posted = 0 if program is None else len(program.code)
        self._fetching = False
        self._holds = False
        self._looked = False
        """Whether it was looked for what sandboxes have made of its program."""
        self._storing = False
        self._asked = False
        self._connecting: Sandbox | None = None
        """The sandbox that a connection is being made to for this call."""
        self._apart = False
        """Whether records tell of it alone."""
        self._reason = ""
        """Why the platform refused it or broke it off."""
        self._tries = 0
        self._reloads = 0
        self.place = 0
        """Of its sandbox: how many calls had come and gone when it came."""
        self._last_words: list[bytes] | None = None
        """The answer of the call that ends its sandbox, held until every worker has heard of the end."""

    # --- on the way to the sandbox ----------------------------------------------------------------------------

    def start(self) -> None:
        """Begin; raises what refuses the call before anything is taken for it."""
        worker, plan = self.worker, self.plan
        if plan.way is Way.CALL:
            self.expect_body(self.limits.body)
        self.seat = worker.quota.begin(plan.name, self.limits, self.began)
        worker.counts.in_flight += 1
        self._apart = worker.told.begin(plan.name, self.req_id, plan.trace_id)
        worker.exchanges.add(self)
        self.client.handler = self
        self.due = self.began + self.limits.deadline
        program = self._program
        if program is not None and not worker.codes.stored(plan.name, self.code_hash):
            if worker.codes.behind:
                self.fail(disk_behind())
                return
            self._storing = True
            worker.codes.put(plan.name, program, self.limits.stored_code, self._stored)
            if self.done:
                return
            self._hold(program)
        if program is None and not self._at_hand():
            # Known before a sandbox is asked for: a wrong hash costs none.
            self._fetch()
            return
        self._choose()

    def _at_hand(self) -> bool:
        """Whether the program is loaded or in memory."""
        codes, name = self.worker.codes, self.plan.name
        if not self.exclusive:
            sandbox = self.worker.routes.having(name, self.code_hash)
            if sandbox is not None:
                self.key = sandbox.key
                codes.renew(name, self.code_hash)
                return True
        program = codes.look(name, self.code_hash)
        if program is None:
            return False
        self._take(program)
        return True

    def _take(self, program: Program) -> None:
        self._program = program
        self.key = _key(self.plan.name, program)

    def _fetch(self) -> None:
        self._fetching = True
        self.worker.codes.fetch(self.plan.name, self.code_hash, self._fetched)

    def _stored(self) -> None:
        self._storing = False
        sandbox = self.sandbox
        if self.done or self.up is not None or sandbox is None or self.code_hash not in sandbox.loaded:
            return
        if not (self.exclusive and sandbox.fetching):
            self._connect()

    def _choose(self) -> None:
        sandbox = None if self.exclusive else self.worker.routes.find(self.key)
        if sandbox is not None:
            self.route_found(sandbox)
        else:
            self.waited = self._asked = True
            self.worker.routes.ask(self)

    def route_found(self, sandbox: Sandbox) -> None:
        """A sandbox is there."""
        self.sandbox = sandbox
        self._asked = False
        sandbox.join(self)
        # Also while it loads its program: the controller must not take the sandbox for idle.
        if not sandbox.touched:
            self.worker.routes.touch(sandbox)
        if self.code_hash in sandbox.loaded:
            if not self._storing:
                self._connect()
        else:
            self._load(sandbox)

    def route_refused(self, error: SandpostError) -> None:
        """There will be no sandbox."""
        self.fail(error)

    def _load(self, sandbox: Sandbox) -> None:
        if self._fetching:
            return
        # The kept one may come with what a sandbox has made of it, which the posted one does not.
        self._program = self.worker.codes.look(self.plan.name, self.code_hash) or self._program
        if self._program is None:
            self._fetch()
            return
        program = self._program
        self._hold(program)
        if program.makes and not program.made and not self._looked:
            self._looked = self._fetching = True
            self.worker.codes.add_made(self.plan.name, program, self._fetched)
            return
        sandbox.load(program, self)

    def _hold(self, program: Program) -> None:
        """The program stays in memory until the call is under way."""
        if not self._holds:
            self._holds = True
            self.worker.holding.add(self.plan.name, self, len(program.code))

    def _let_go(self) -> None:
        """What is needed again is found among the kept ones."""
        if self._holds:
            self._holds = False
            self.worker.holding.drop(self.plan.name, self)
        self._program = None

    def give_up(self) -> None:
        """The worker holds too many programs: end it with a 503; nothing of it was run."""
        self.fail(too_many_programs(self.worker.host.max_programs))

    def _fetched(self, program: Program | None) -> None:
        self._fetching = False
        if self.done:
            return
        if program is None:
            self.fail(unknown_code(self.plan.name, self.code_hash))
            return
        self._take(program)
        self._hold(program)
        if self.sandbox is not None:
            self.sandbox.load(program, self)
        elif not self._asked:
            self._choose()

    def load_ended(self, failure: Failure | None, *, made: bool) -> None:
        """The program is loaded, or cannot be. `made`: there is something to be fetched for the next sandbox."""
        sandbox = self.sandbox
        if self.done or sandbox is None:
            return
        sandbox.forget_load(self.code_hash, self)
        if failure is None:
            if made:
                self._fetch_made(sandbox)
            self._let_go()
            if self.exclusive and sandbox.fetching:
                # A call could put something else in its place, and other callers' calls would run that: it is fetched
                # before any has begun, or not at all.
                sandbox.when_fetched(lambda: self._made_fetched(sandbox))
            elif not self._storing:
                self._connect()
            return
        if failure.replace:
            sandbox.ask_replaced(self.worker.now())
        self._finish_with(failure)

    def _made_fetched(self, sandbox: Sandbox) -> None:
        sandbox.stop_fetching()
        if not self.done and self.sandbox is sandbox and sandbox.word is None and not self._storing:
            self._connect()

    def load_refused(self, error: BadGateway) -> None:
        """The sandbox answered the load with what is not understood; no user code ran."""
        sandbox = self.sandbox
        if self.done or sandbox is None:
            return
        sandbox.forget_load(self.code_hash, self)
        self.fail(error)

    def load_broke(self, error: str, *, wire: bytes | None) -> None:
        """The program could not be sent; no user code ran."""
        sandbox = self.sandbox
        if self.done or sandbox is None:
            return
        sandbox.forget_load(self.code_hash, self)
        if wire is not None:
            sandbox.suspect_broken(f"wire version {wire[:20]!r}")
            self.fail(_other_wire())
            return
        self._doubt(error)

    def _connect(self) -> None:
        sandbox = self.sandbox
        assert sandbox is not None
        # Asked for by more than one way (a program that was stored, a try that was put off), a call is sent once.
        if self.up is not None or self._connecting is sandbox:
            return
        up = sandbox.pool.take(self)
        if up is not None:
            self.up_ready(up)
        else:
            self._connecting = sandbox

    def up_ready(self, up: Upstream) -> None:
        """Connected: write the head."""
        sandbox, worker, plan = self.sandbox, self.worker, self.plan
        assert sandbox is not None
        assert up.transport is not None
        self._connecting = None
        self.up = up
        up.transport.write(
            b"".join(
                (
                    plan.line,
                    self.code_hash.encode(),
                    b"\r\nx-sandpost-req: ",
                    self.req_id.encode(),
                    b"\r\nx-sandpost-deadline: %d\r\n" % (self.limits.deadline * 1000),
                    self.client.forwarded(plan),
                    plan.fields,
                    b"\r\n",
                )
            )
        )
        if not self.written:
            self.written = True
            sandbox.begun += 1
        # From the first time on: a sandbox could ask for its program again and again.
        if not self._reloads:
            self.due = worker.now() + self.limits.deadline

    def up_failed(self, error: str) -> None:
        """No connection."""
        self._connecting = None
        if not self.done:
            self._doubt(error)

    def _doubt(self, error: str) -> None:
        """Nothing was written, and the sandbox does not take it: it may have ended, or will take it soon."""
        self._tries += 1
        sandbox = self.sandbox
        assert sandbox is not None
        if self._tries >= MAX_TRIES:
            sandbox.suspect_broken(error)
            self.fail(
                Unavailable("the tenant's sandbox takes no connection: try again", retry_after=1, component="sandbox")
            )
            return
        self.worker.later(0.1 * 2**self._tries, self._try_again)

    def _try_again(self) -> None:
        sandbox = self.sandbox
        if self.done or self.up is not None or sandbox is None or sandbox.word is not None:
            return
        self.route_found(sandbox)

    # --- the answer -------------------------------------------------------------------------------------------

    def up_data(self, data: bytes) -> None:
        """Bytes came; an answer like the last one on this connection goes the short way."""
        up = self.up
        words = self._last_words
        if words is not None:
            words.append(data)
            if sum(map(len, words)) > MAX_LAST_WORDS:
                self._tell_last_words()
            return
        if self.answer is not None or up is None or self._partial:
            super().up_data(data)
            return
        head_in = up.head_in
        size = len(head_in)
        if (
            size
            and len(data) == size + up.head_length
            and up.head_plan is self.plan
            and up.head_date is self.worker.date
            and up.head_code == self.code_hash
            and self.client.keep_alive
            and data.startswith(head_in)
            and self.reader is None
            and not self.done
        ):
            self.head_out = True
            self.ending()
            self.client.write(b"".join((up.head_out, self.req_id.encode(), b"\r\n\r\n", data[size:])))
            self._finish_short(up)
            return
        super().up_data(data)

    def _finish_short(self, up: Upstream) -> None:
        """End as `finish` does, for an answer that was complete at once with status 200."""
        self.done = True
        self.passed_out(up.head_length)
        self.ended(200)
        if self._paused_up and up.transport is not None:
            up.transport.resume_reading()
        self._release(reusable=True)
        self.client.answered(read_to_end=True)

    def on_head(self, head: ResponseHead, rest: bytes) -> None:
        """Check what the runtime says of itself, and pass on what is the program's."""
        sandbox, up = self.sandbox, self.up
        assert sandbox is not None
        wire = source = unknown = end = replace = made = None
        own_origin = False
        for name, value in head.headers:
            if name[:2] == b"x-":
                if name == b"x-sandpost-wire":
                    wire = value
                elif name == b"x-sandpost-source":
                    source = value
                elif name == b"x-sandpost-unknown":
                    unknown = value
                elif name == b"x-sandpost-end":
                    end = value
                elif name == b"x-sandpost-replace":
                    replace = value
                elif name == b"x-sandpost-made":
                    made = value
            elif name == b"access-control-allow-origin":
                own_origin = True
        if head.upgrade is not None:
            self._upgrade(head, rest)
            return
        if wire != WIRE:
            if wire is not None:
                sandbox.suspect_broken(f"wire version {wire[:20]!r}")
                self.fail(_other_wire())
                return
            raise BrokenResponse("it did not come from the runtime (no x-sandpost-wire)")
        if unknown is not None and head.status == 404:
            self._reload()
            return
        if end is not None and not sandbox.named:
            sandbox.name()
            self.worker.routes.ending(sandbox)
            # The caller may call again at once, through another worker: that one must not send it to this sandbox.
            self._last_words = [self._last_head + rest]
            self.worker.later(WORD_WAIT, self._tell_last_words)
            return
        if replace is not None:
            sandbox.ask_replaced(self.worker.now())
        if made is not None and not self.exclusive:
            self._fetch_made(sandbox)
        extra = [(b"x-wt-response-source", source_of(source))]
        if self.plan.way is Way.CODE:
            extra.append((b"x-sandpost-code", self.code_hash.encode()))
        if self.plan.origin and not own_origin:
            extra += [cors.ALLOW_ORIGIN, cors.EXPOSE]
        # The last one, so that the head can be kept without it.
        own_id = self.req_id.encode()
        extra.append((b"x-sandpost-req", own_id))
        plan, code_hash, client = self.plan, self.code_hash, self.client
        plain = (
            up is not None
            and head.status == 200
            and head.body.kind is Kind.LENGTH
            and head.keep_alive
            and end is None
            and replace is None
            and made is None
            and self.reader is None
            and client.stays()
        )
        raw = self._last_head
        rendered = self.start_answer(head, rest, extra, _OURS)
        if plain and up is not None and not up.closed:
            up.head_in, up.head_out, up.head_length = raw, rendered[: -len(own_id) - 4], head.body.length
            up.head_plan, up.head_date, up.head_code = plan, self.worker.date, code_hash

    def _fetch_made(self, sandbox: Sandbox) -> None:
        """Keep what the sandbox has made of the program for the tenant's next one."""
        worker, tenant, code_hash = self.worker, self.plan.name, self.code_hash
        codes, bound = worker.codes, self.limits.stored_code
        if not codes.behind:
            sandbox.fetch_made(code_hash, worker.holding, lambda made: codes.put_made(tenant, code_hash, made, bound))

    def _reload(self) -> None:
        """The runtime has unloaded the program: no user code ran, no byte of the body was sent."""
        sandbox, up = self.sandbox, self.up
        assert sandbox is not None
        self.up = None
        if up is not None:
            up.end()
        if self.sending:
            self.fail(BadGateway("the runtime asked for the body of a call whose program it does not have"))
            return
        self._partial = b""
        self.written = False
        sandbox.begun -= 1
        sandbox.loaded.pop(self.code_hash, None)
        # The first time it was unloaded since its last call; later others are loaded between its load and its call, and
        # those who tried in step would do it to one another again.
        pause = min(0.01 * 2**self._reloads, MAX_PAUSE) * random.uniform(0.5, 1.5) if self._reloads else 0.0  # noqa: S311
        self._reloads += 1
        if self.worker.now() + pause >= self.began + self.limits.deadline:
            self.fail(
                Unavailable(
                    "the tenant calls more different programs at once than its sandbox keeps: try again, or raise "
                    "`limits.programs`",
                    retry_after=1,
                    component="sandbox",
                )
            )
        elif pause:
            self.worker.later(pause, self._load_again, sandbox)
        else:
            self._load(sandbox)

    def _load_again(self, sandbox: Sandbox) -> None:
        if not self.done and self.sandbox is sandbox and sandbox.word is None:
            self.route_found(sandbox)

    def _upgrade(self, head: ResponseHead, rest: bytes) -> None:
        up, sandbox = self.up, self.sandbox
        assert up is not None
        assert sandbox is not None
        Tunnel(self, up, head, rest)

    def _finish_with(self, failure: Failure) -> None:
        """Answer with what the runtime said about loading the program."""
        self.done = True
        self._release(reusable=False)
        self.ended(failure.status)
        extra = [
            (b"content-type", b"application/json"),
            (b"x-wt-response-source", failure.source),
            (b"x-sandpost-req", self.req_id.encode()),
        ]
        if self.plan.way is Way.CODE:
            extra.append((b"x-sandpost-code", self.code_hash.encode()))
        self.client.tell(failure.status, failure.body_for(self.req_id), extra, self.plan, self.body_complete())

    def neutral_bytes(self) -> bytes:
        """Return what can be sent to the client now without meaning anything; nothing if there is no such thing."""
        if not self.head_out:
            # Of the interim heads the one that every client knows.
            return CONTINUE if self.plan.head.minor else b""
        return b"0" if self._framing is Kind.CHUNKED else b""

    # --- what can happen --------------------------------------------------------------------------------------

    def _tell_last_words(self) -> None:
        words, self._last_words = self._last_words, None
        if words is None or self.done:
            return
        super().up_data(b"".join(words))
        if not self.done and self.up is None:
            super().up_lost(clean=True)

    def up_lost(self, clean: bool) -> None:
        """The upstream connection has ended."""
        if self._last_words is not None:
            self.up = None
            return
        super().up_lost(clean)

    def lost_before_head(self) -> None:
        """The connection ended without an answer: hear first whether the sandbox did."""
        sandbox = self.sandbox
        assert sandbox is not None
        if sandbox.word is not None:
            return
        self.worker.later(WORD_WAIT, self._no_word)
        sandbox.probe.ask(self.worker.now(), self._sandbox_lives)

    def _sandbox_lives(self) -> None:
        if not self._hears_soon() and self.up is None:
            self.fail(BadGateway("the program closed the connection before it answered", fault="code"))

    def _hears_soon(self) -> bool:
        """Return whether this call has ended, or will hear in a moment why its sandbox did."""
        return self.done or (self.sandbox is not None and self.sandbox.ending)

    def _no_word(self, waited: float = WORD_WAIT) -> None:
        if self._hears_soon():
            return
        if not self.worker.link.table_known and waited < AWAY_WAIT:
            # The next controller finds out why.
            self.worker.later(_LOOK_AGAIN, self._no_word, waited + _LOOK_AGAIN)
            return
        self._fail_without_word()

    def _fail_without_word(self) -> None:
        sandbox = self.sandbox
        if sandbox is not None:
            sandbox.suspect_broken("connections break and no end is known")
        self.fail(
            BadGateway(
                "the connection to the sandbox broke after the call was sent; whether the program ran to its end is "
                "unknown, so it was not run again"
            )
        )

    def sandbox_gone(self, gone: Gone, *, shared: bool, named: bool) -> None:
        """The sandbox has ended. A call of which nothing was written goes to another one."""
        word = gone.word
        self._tell_last_words()
        if self.done:
            return
        sandbox = self.sandbox
        if not self.written and self._tries < MAX_TRIES:
            self._tries += 1
            if sandbox is not None:
                sandbox.forget_load(self.code_hash, self)
                sandbox.pool.forget(self)
                sandbox.leave(self)
            self.sandbox = None
            self._choose()
            return
        if named and word in NAMED:
            self.fail(NeighbourCall(f"another call ended the sandbox ({word}) that this one shared with it"))
        elif word in FATAL:
            self.fail(
                SandboxEnded(gone.message, word=word, shared=shared, limit=gone.limit or None, setting=gone.setting)
            )
        else:
            self.fail(SandboxLost(f"{gone.message}; the call was not run again", word=word))

    def fail(self, error: SandpostError) -> None:
        """Tell the caller, with the limits that were met meanwhile."""
        sandbox = self.sandbox
        if sandbox is not None and sandbox.hits and (met := [text for at, text in sandbox.hits if at >= self.began]):
            error.details["limits_met"] = met
        self._reason = error.to_dict()["reason"]
        super().fail(error)

    def withdraw(self, error: SandpostError) -> None:
        """Its key is good no longer."""
        self.fail(error)

    def timed_out(self) -> None:
        """The deadline."""
        sandbox = self.sandbox
        limit = format_duration(self.limits.deadline)
        if sandbox is None:
            self.worker.routes.forget(self)
            self.fail(
                Unavailable(
                    f"no sandbox within {limit}: the controller did not answer", retry_after=1, component="controller"
                )
            )
            return
        if self.written and self.up is None and self._last_words is None:
            # Its connection broke in time; no controller told why. More time would not have helped the program.
            self._fail_without_word()
            return
        if not self.exclusive:
            sandbox.deadline_passed(self.worker.now())
        self.fail(
            DeadlinePassed(
                f"no complete answer within {limit}, the tenant's limit: answer sooner, or raise `limits.deadline`",
                limit=self.limits.deadline,
                setting="limits.deadline",
            )
        )

    def passed_in(self, size: int) -> None:
        """Count for the controller."""
        if self.sandbox is not None:
            self.sandbox.bytes_in += size
        self.worker.counts.bytes_in += size

    def passed_out(self, size: int) -> None:
        """Count for the controller."""
        if self.sandbox is not None:
            self.sandbox.bytes_out += size
        self.worker.counts.bytes_out += size

    def ended(self, status: int) -> None:
        """Count; a program that came with the call is part of what its client sent."""
        if self._posted:
            self.passed_in(self._posted)
        counts = self.worker.counts
        counts.statuses[status] += 1
        seconds = self.worker.now() - self.began
        counts.call_seconds.add(seconds)
        if self.waited:
            counts.first_seconds.add(seconds)
        sandbox_id = "" if self.sandbox is None else self.sandbox.sandbox_id
        self.worker.told.end(
            self.plan.name, self.req_id, status, seconds,
            trace_id=self.plan.trace_id, sandbox_id=sandbox_id, reason=self._reason, apart=self._apart,
        )  # fmt: skip

    def released(self, reusable: bool) -> None:
        """Give back the connection, the sandbox and the seat."""
        worker, sandbox, up = self.worker, self.sandbox, self.up
        self.up = None
        self._let_go()
        if sandbox is None:
            if self.waited:
                worker.routes.forget(self)
        else:
            sandbox.calls.discard(self)
            if up is None:
                if not self.written:
                    sandbox.forget_load(self.code_hash, self)
                    sandbox.pool.forget(self)
            elif reusable and not self.exclusive:
                sandbox.pool.give(up)
            else:
                up.end()
            if self.exclusive:
                worker.routes.finished(sandbox)
                sandbox.when_fetched(lambda: worker.tell(Finished(sandbox_id=sandbox.sandbox_id)))
        self.ending()

    def ending(self) -> None:
        """Give back the seat."""
        seat, self.seat = self.seat, None
        if seat is not None:
            self.worker.quota.end(seat)
            self.worker.counts.in_flight -= 1


def unknown_code(tenant: str, code_hash: str) -> UnknownCode:
    """Return the error of a hash that nothing is kept under."""
    return UnknownCode(
        f"tenant `{tenant}` has no program {code_hash[:12]}..: POST it again (programs are kept for a day after "
        "their last use, within `limits.stored_code`)"
    )


def _key(tenant: str, program: Program) -> RouteKey:
    return RouteKey(tenant, program.language.runtime, program.own_set)


def _other_wire() -> BadGateway:
    return BadGateway("the sandbox's runtime speaks another version of the wire: it is replaced")
