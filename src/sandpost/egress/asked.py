"""From a message of a sandbox to the bytes of its answer, the same by UDP and TCP."""

import time

from sandpost.egress import question as questions
from sandpost.egress.answer import render
from sandpost.egress.counts import Counts
from sandpost.egress.notes import Notes
from sandpost.egress.question import Malformed, Question
from sandpost.egress.resolver import Resolver
from sandpost.egress.ways import Sandbox


class Asked:
    """Answers messages."""

    def __init__(self, resolver: Resolver, counts: Counts, notes: Notes) -> None:
        self._resolver = resolver
        self._counts = counts
        self._notes = notes

    def at_once(self, sandbox: Sandbox, wire: bytes, *, by_tcp: bool = False) -> bytes | Question:
        """Return the answer (empty: none is sent), or the question if it takes `later`."""
        self._counts.questions += 1
        now = time.monotonic()
        budget = sandbox.tenancy.budget
        if not budget.ask(now):
            # Not parsed: a flood costs what its datagrams cost, and little more.
            self._counts.refused["too_many_questions"] += 1
            self._notes.add(sandbox.id, "too_many_questions", "more questions for names a second than egress.rate")
            return questions.refusal(wire) if len(wire) >= questions.LEAST and budget.tell(now) else b""
        question = questions.read(wire)
        if isinstance(question, Malformed):
            self._counts.refused["malformed"] += 1
            return question.reply
        answer = self._resolver.at_once(sandbox, question)
        return question if answer is None else render(question, answer, by_tcp=by_tcp)

    async def later(self, sandbox: Sandbox, question: Question, *, by_tcp: bool = False) -> bytes:
        """Return the answer to what took asking."""
        return render(question, await self._resolver.ask(sandbox, question), by_tcp=by_tcp)
