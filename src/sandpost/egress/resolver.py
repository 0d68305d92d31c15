"""Answers questions: from what is kept at once, else by asking upstream, within every bound of the tenant."""

import asyncio
import time
from collections.abc import Collection, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

from dns.edns import EDECode
from dns.rdatatype import RdataType

from sandpost.egress.answer import Answer, failed, refused
from sandpost.egress.cache import Cache
from sandpost.egress.counts import Counts
from sandpost.egress.judge import judge
from sandpost.egress.notes import Notes
from sandpost.egress.question import Question
from sandpost.egress.scrub import scrub
from sandpost.egress.shares import Shares
from sandpost.egress.upstream import NoAnswer, Upstream
from sandpost.egress.ways import Sandbox
from sandpost.logs.setup import get_logger

MOST_ASKING = 64
"""Questions of one tenant that wait for an upstream at once."""
MOST_ASKING_ALL = 1024
"""Of all tenants: beyond it the one that has most gives up its oldest."""
_FAILED_FOR = 2
"""Seconds for which a failure is kept: a program that asks again in a loop does not ask the upstream."""
_UNTOLD = frozenset({"name_local"})
"""Kinds of refusals that are no news to a tenant: every program that looks up its own host's name causes them."""

log = get_logger()

_Asked = tuple[str, str, RdataType]


class _Asking:
    """A question of a tenant's that is asked upstream, for all its sandboxes that ask it."""

    def __init__(self, fetch: Coroutine[Any, Any, Answer]) -> None:
        self.task = asyncio.create_task(fetch)
        self.instead: Answer | None = None

    async def answer(self) -> Answer:
        # One sandbox that goes does not take the answer from the others of its tenant.
        await asyncio.wait((self.task,))
        return self.instead or self.task.result()

    def give_up(self, why: str) -> None:
        self.instead = _too_many(why)
        self.task.cancel()


class Resolver:
    """One event loop's. `own`: names of this machine."""

    def __init__(self, upstream: Upstream, counts: Counts, notes: Notes, own: Collection[str]) -> None:
        self.upstream = upstream
        self.own = frozenset(own)
        self.cache = Cache()
        self._counts = counts
        self._notes = notes
        self._asking: dict[_Asked, _Asking] = {}
        self._shares = Shares(MOST_ASKING, MOST_ASKING_ALL, "questions waiting for an answer")

    def at_once(self, sandbox: Sandbox, question: Question) -> Answer | None:
        """Return the answer if it takes no asking."""
        now = time.monotonic()
        answer = judge(question, sandbox.policy, self.own)
        if answer is None:
            answer = self.cache.get(sandbox.tenancy.name, (question.name, question.type), now)
            if answer is None:
                return None
            self._counts.kept += 1
        return self._told(sandbox, question, answer)

    async def ask(self, sandbox: Sandbox, question: Question) -> Answer:
        """Return the answer to a question for which `at_once` had none."""
        return self._told(sandbox, question, await self._ask(sandbox, question))

    async def leads_to(self, sandbox: Sandbox, question: Question, address: str) -> bool:
        """Whether the question's name has `address` for this tenant; asks if it was not told so lately."""
        now = time.monotonic()
        if sandbox.tenancy.learned.knows(question.name, address, now):
            return True
        # After a restart of ours nothing is learned, and programs keep addresses longer than we do.
        if sandbox.tenancy.budget.ask(now) and self.at_once(sandbox, question) is None:
            await self.ask(sandbox, question)
        return sandbox.tenancy.learned.knows(question.name, address, time.monotonic())

    def close(self) -> None:
        """Break off what is being asked."""
        for asking in self._asking.values():
            asking.task.cancel()

    def _told(self, sandbox: Sandbox, question: Question, answer: Answer) -> Answer:
        if answer.why is not None:
            self._counts.refused[answer.why.kind] += 1
            if answer.why.kind not in _UNTOLD:
                self._notes.add(sandbox.id, answer.why.kind, f"{question.name}: {answer.why.text}")
        elif answer.addresses and sandbox.policy.kind == "allow":
            # Before the answer is sent: the program may connect in the same moment.
            sandbox.tenancy.learned.learn(question.name, answer.addresses, answer.ttl, time.monotonic())
        return answer

    async def _ask(self, sandbox: Sandbox, question: Question) -> Answer:
        tenancy, key = sandbox.tenancy, (question.name, question.type)
        asked = (tenancy.name, *key)
        asking = self._asking.get(asked)
        if asking is None:
            if why := self._shares.refusal(tenancy.name):
                return _too_many(why)
            delay = tenancy.budget.fetch(question.name, time.monotonic())
            if delay is None:
                text = "too many new names below one domain: names are not for carrying data"
                return refused("too_many_names", EDECode.PROHIBITED, text)
            asking = self._asking[asked] = _Asking(self._fetch(sandbox, question, delay))
            over = self._shares.add(tenancy.name, partial(asking.give_up, self._shares.given_up))

            def done(_: asyncio.Task[Answer]) -> None:
                del self._asking[asked]
                over()

            asking.task.add_done_callback(done)
        return await asking.answer()

    async def _fetch(self, sandbox: Sandbox, question: Question, delay: float) -> Answer:
        if delay:
            await asyncio.sleep(delay)
        began = time.monotonic()
        name = question.asked.canonicalize()
        hints = sandbox.policy.kind == "public"
        try:
            message = await self.upstream.ask(name, question.type)
            answer = scrub(name, question.type, message, hints=hints)
        except NoAnswer as error:
            answer = failed("upstream_failed", EDECode.NO_REACHABLE_AUTHORITY, str(error))
        except Exception as error:
            # What strangers write is parsed here: whatever it breaks costs this one answer.
            log.exception("an upstream's answer broke its handling", err=error)
            answer = failed("upstream_failed", EDECode.OTHER, "the answer cannot be handled")
        now = time.monotonic()
        self._counts.fetched.add(now - began)
        if not sandbox.tenancy.budget.receive(answer.size, now):
            text = "too many bytes of answers within a minute: names are not for carrying data"
            return refused("too_many_bytes", EDECode.PROHIBITED, text)
        kept = answer if answer.why is None else replace(answer, ttl=_FAILED_FOR)
        self.cache.put(sandbox.tenancy.name, (question.name, question.type), kept, now)
        return answer


def _too_many(why: str) -> Answer:
    return refused("too_many_questions", EDECode.PROHIBITED, why)
