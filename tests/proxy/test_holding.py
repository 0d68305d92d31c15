"""Programs in memory are bounded for the worker, and who holds most pays for it."""

import asyncio
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from sandpost.proxy.holding import Holding
from support.proxy import KEY, Connection, Rig, Sandbox, answer, at, eventually, run, says

MiB = 1 << 20


class Holder:
    def __init__(self) -> None:
        self.gave_up = False

    def give_up(self) -> None:
        self.gave_up = True


def holding(bound: int) -> tuple[Holding, list[Callable[[], None]]]:
    later: list[Callable[[], None]] = []
    return Holding(later.append, lambda: bound), later


def turn(later: list[Callable[[], None]]) -> None:
    while later:
        later.pop(0)()


def test_the_oldest_of_the_tenant_that_holds_most_gives_up() -> None:
    held, later = holding(100)
    greedy, modest = [Holder() for _ in range(5)], Holder()
    held.add("modest", modest, 30)
    for one in greedy:
        held.add("greedy", one, 20)
    turn(later)
    assert [one.gave_up for one in greedy] == [True, True, False, False, False]
    assert not modest.gave_up
    assert held.size == 90


def test_what_is_dropped_counts_no_more() -> None:
    held, later = holding(100)
    first, second = Holder(), Holder()
    held.add("a", first, 90)
    held.drop("a", first)
    held.drop("a", first)
    held.add("b", second, 90)
    turn(later)
    assert not second.gave_up
    assert held.size == 90


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.integers(0, 50), st.booleans()), max_size=60))
def test_after_each_turn_no_more_is_held_than_the_bound(steps: list[tuple[str, int, int, bool]]) -> None:
    held, later = holding(100)
    holders = {(tenant, number): Holder() for tenant in "abc" for number in range(10)}
    alive: dict[tuple[str, int], int] = {}
    for tenant, number, size, drop in steps:
        holder = holders[tenant, number]
        if drop:
            held.drop(tenant, holder)
            alive.pop((tenant, number), None)
        else:
            held.add(tenant, holder, size)
            alive[tenant, number] = alive.get((tenant, number), 0) + size
        turn(later)
        for key in [key for key in alive if holders[key].gave_up]:
            del alive[key]
            holders[key].gave_up = False
        assert held.size == sum(alive.values()) <= 100


async def begin(rig: Rig, tenant: str, size: int) -> Connection:
    """Send all of a program but its last byte."""
    connection = await rig.connect()
    head = f"POST /{tenant}?key={KEY} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
    connection.writer.write(head.encode() + b" " * (size - 1))
    return connection


def test_a_flood_of_half_programs_is_bounded_and_a_modest_tenant_is_served() -> None:
    async def check() -> None:
        async with Sandbox(says(answer(b"1"))) as sandbox, Rig(max_programs=4 * MiB) as rig:
            rig.controller.places["*"] = sandbox.place
            modest = await begin(rig, "modest", 100_000)
            flood = [await begin(rig, f"flood-{n % 3}", 900_000) for n in range(30)]
            await eventually(lambda: rig.worker.holding.size > 3 * MiB)
            await asyncio.sleep(0.3)
            assert rig.worker.holding.size <= 4 * MiB
            seen = await flood[0].answer()
            assert (seen.status, seen.json["reason"], seen.json["setting"]) == (503, "no_room", "http.max_programs")
            modest.writer.write(b" ")
            assert (await modest.answer()).status == 200
            for one in flood:
                one.writer.transport.abort()
            await eventually(lambda: rig.worker.holding.size == 0)

    run(check())


def test_programs_that_wait_for_a_sandbox_that_takes_none_are_bounded() -> None:
    async def check() -> None:
        async with Sandbox(says(answer(b"1"))) as stuck, Sandbox(says(answer(b"1"))) as well:
            stuck.load_gate = asyncio.Event()
            async with Rig(max_programs=4 * MiB, limits={"deadline": 5.0}) as rig:
                rig.controller.places["*"] = stuck.place
                rig.controller.places["modest"] = well.place
                programs = [b"// %06d" % n + b" " * 900_000 for n in range(20)]
                calls = [asyncio.create_task(rig.call(at("stuck"), program)) for program in programs]
                await eventually(lambda: sum(call.done() for call in calls) >= 15)
                assert rig.worker.holding.size <= 4 * MiB
                assert {call.result().json["reason"] for call in calls if call.done()} == {"no_room"}
                assert (await rig.call(at("modest"))).status == 200
                await asyncio.gather(*calls)
                assert rig.worker.holding.size == 0

    run(check())
