"""What is under way for all tenants together: who has most gives way, and is told which bound was met."""

import asyncio
from collections import Counter
from functools import partial
from typing import Any

import dns.message
import dns.rcode
from dns.rdatatype import RdataType
from hypothesis import given
from hypothesis import strategies as st

from sandpost.egress.answer import Answer
from sandpost.egress.counts import Counts
from sandpost.egress.notes import Notes
from sandpost.egress.question import Question
from sandpost.egress.resolver import MOST_ASKING, MOST_ASKING_ALL, Resolver
from sandpost.egress.shares import Shares
from sandpost.egress.tenancy import Tenancies
from sandpost.egress.upstream import Upstream
from sandpost.egress.ways import Sandbox
from sandpost.model.messages import Way

EACH, MOST = 4, 10


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans())))
def test_who_has_less_than_another_is_never_refused_and_no_bound_is_passed(steps: list[tuple[str, bool]]) -> None:
    shares = Shares(EACH, MOST, "things")
    held: dict[int, str] = {}
    over: dict[int, Any] = {}
    for number, (tenant, comes) in enumerate(steps):
        count = Counter(held.values())
        own = [one for one, owner in held.items() if owner == tenant]
        if not comes:
            for one in own[:1]:
                del held[one]
                over.pop(one)()
            continue
        why = shares.refusal(tenant)
        if count[tenant] < EACH and (len(held) < MOST or count[tenant] < max(count.values())):
            assert why is None
            ended = shares.add(tenant, partial(held.pop, number))
            gone = [one for one in over if one not in held]
            assert len(gone) == (sum(count.values()) == MOST)
            for one in gone:
                # As a task does that was cancelled: too late to change anything.
                over.pop(one)()
            held[number], over[number] = tenant, ended
        elif count[tenant] >= EACH:
            assert why == f"this tenant has {EACH} things already"
        else:
            assert why == f"all tenants together have {MOST} things, and none has more than this one"
        assert len(held) <= MOST


def test_of_the_tenant_that_has_most_the_oldest_goes() -> None:
    shares = Shares(EACH, MOST, "things")
    gone: list[str] = []
    for tenant, count in (("a", 3), ("b", 4), ("c", 3)):
        for number in range(count):
            shares.add(tenant, partial(gone.append, f"{tenant}{number}"))
    shares.add("d", lambda: None)
    assert gone == ["b0"]


class Dead(Upstream):
    """No name of `slow.example` is answered."""

    def __init__(self) -> None:
        self.asked = 0
        self.full = asyncio.Event()

    async def ask(self, name: dns.name.Name, kind: RdataType) -> dns.message.Message:
        self.asked += 1
        if self.asked == MOST_ASKING_ALL:
            self.full.set()
        if name.to_text().endswith(".slow.example."):
            await asyncio.Event().wait()
        response = dns.message.make_response(dns.message.make_query(name, kind))
        response.flags |= dns.flags.RA
        return response


def test_names_that_are_not_answered_shut_nobody_out_of_the_resolver() -> None:
    async def body() -> None:
        upstream, notes = Dead(), Notes()
        resolver = Resolver(upstream, Counts(), notes, own=())
        tenancies = Tenancies(rate=100)

        def sandbox(tenant: str) -> Sandbox:
            way = Way(sandbox_id=f"of-{tenant}", tenant=tenant, address="10.0.0.1", egress="public")
            return Sandbox(way, tenancies.get(tenant, 0.0))

        def ask(asker: Sandbox, name: str) -> asyncio.Task[Answer]:
            query = dns.message.make_query(name + ".", RdataType.A)
            return asyncio.create_task(resolver.ask(asker, Question(query, name, RdataType.A, 512, edns=False)))

        crowd = [sandbox(f"flood{number}") for number in range(MOST_ASKING_ALL // MOST_ASKING)]
        waiting = [ask(one, f"n{n}.slow.example") for one in crowd for n in range(MOST_ASKING)]
        async with asyncio.timeout(10):
            await upstream.full.wait()
            modest = await ask(sandbox("modest"), "www.example.com")
        assert modest.rcode == dns.rcode.NOERROR
        (refused,) = [task.result() for task in waiting if task.done()]
        assert refused.rcode == dns.rcode.REFUSED
        (note,) = notes.take()
        assert (note.sandbox_id, note.kind) == ("of-flood0", "too_many_questions")
        assert "all tenants together have 1024 questions" in note.text
        # At its own bound one is told of that one.
        full = await ask(crowd[1], "one-more.slow.example")
        assert full.rcode == dns.rcode.REFUSED
        (note,) = notes.take()
        assert "this tenant has 64 questions" in note.text
        resolver.close()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(body())
