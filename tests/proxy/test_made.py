"""What a sandbox has made of a program goes to its tenant's next sandbox, and to nobody else's."""

import asyncio
import hashlib
from collections.abc import Callable

import pytest

from sandpost.model.messages import RouteKey
from sandpost.proxy.code import MADE
from sandpost.proxy.program import Program
from support.proxy import HELLO, LOADED, Finished, Peer, Request, Rig, Sandbox, answer, at, eventually, run, says

HASH = hashlib.sha256(HELLO).hexdigest()
TELLING = answer(b'"ok"', "200 OK", "x-sandpost-made: 1")


def making(made: bytes) -> Sandbox:
    """A sandbox whose calls say that something was made, which it hands out."""

    async def script(_sandbox: Sandbox, peer: Peer, head: Request) -> None:
        await peer.write(made if head.headers[b"x-sandpost-op"] == b"made" else TELLING)

    return Sandbox(script)


def kept(rig: Rig) -> bytes:
    """What a worker has in memory of what was made."""
    program = rig.worker.codes.look("acme", HASH)
    assert program is not None
    return program.made


def asked(sandbox: Sandbox) -> list[bytes]:
    return [one.headers[b"x-sandpost-code"] for one in sandbox.calls if one.headers[b"x-sandpost-op"] == b"made"]


@pytest.mark.parametrize("at_load", [False, True])
def test_what_was_made_goes_to_the_next_sandbox_of_the_tenant_alone(at_load: bool) -> None:
    async def check() -> None:
        first, second, other = making(answer(b"assembly")), Sandbox(says(answer())), Sandbox(says(answer()))
        async with first, second, other, Rig() as rig:
            if at_load:
                first.load_answer = LOADED[:-2] + b"x-sandpost-made: 1\r\n\r\n"
            rig.controller.places.update({"acme": first.place, "other": other.place})
            seen = await rig.call(at("acme"))
            assert (seen.status, "x-sandpost-made" in seen.headers) == (200, False)
            await eventually(lambda: asked(first) == [HASH.encode()] or (at_load and len(asked(first)) == 2))
            await eventually(lambda: kept(rig))
            rig.controller.places["acme"] = second.place
            rig.controller.gone(next(iter(rig.controller.routes)), "idle")
            await eventually(lambda: rig.worker.routes.find(RouteKey("acme", "node", "")) is None)
            assert (await rig.call(at("acme"))).status == 200
            assert (await rig.call(at("other"))).status == 200
            [load] = second.loads
            made = load.headers[b"x-sandpost-made"]
            assert load.body == HELLO + b"assembly" * (int(made) // 8)
            [load] = other.loads
            assert (load.body, b"x-sandpost-made" in load.headers) == (HELLO, False)

    run(check())


def test_it_is_on_disk_for_a_worker_that_begins_anew() -> None:
    async def check() -> None:
        first, second = making(answer(b"assembly")), Sandbox(says(answer()))
        async with first, second, Rig() as rig:
            rig.controller.places["*"] = first.place
            await rig.call(at("acme"))
            await eventually(lambda: kept(rig))
            rig.worker.codes._kept.clear()
            rig.controller.places["*"] = second.place
            rig.controller.gone(next(iter(rig.controller.routes)), "idle")
            await eventually(lambda: rig.worker.routes.find(RouteKey("acme", "node", "")) is None)
            assert (await rig.call(at("acme", f"webtask_code={HASH}"))).status == 200
            [load] = second.loads
            assert load.body == HELLO + b"assembly"

    run(check())


@pytest.mark.parametrize(
    "said",
    [
        answer(b"x" * (MADE + 1)),
        answer(b"assembly", "404 Not Found"),
        answer(b"assembly", wire="2"),
        b"HTTP/1.1 200 OK\r\nx-sandpost-wire: 1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"nonsense\r\n\r\n",
        answer(b""),
    ],
)
def test_what_is_too_long_or_no_answer_is_left(said: bytes) -> None:
    async def check() -> None:
        async with making(said) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            assert (await rig.call(at("acme"))).status == 200
            await eventually(lambda: asked(sandbox))
            # The tenant is served as before.
            assert (await rig.call(at("acme"))).status == 200
            assert kept(rig) == b""

    run(check())


def test_no_more_is_kept_of_a_program_than_there_is_room_for() -> None:
    async def check() -> None:
        half = b"x" * (MADE // 2 + 1)
        async with making(answer(half)) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            for _ in range(3):
                before = len(asked(sandbox))
                assert (await rig.call(at("acme"))).status == 200
                await eventually(lambda before=before: len(asked(sandbox)) > before)  # type: ignore[misc]
            assert kept(rig) == half

    run(check())


def test_a_sandbox_that_never_answers_costs_nobody_a_call() -> None:
    async def check() -> None:
        async def script(_sandbox: Sandbox, peer: Peer, head: Request) -> None:
            if head.headers[b"x-sandpost-op"] != b"made":
                await peer.write(TELLING)

        async with Sandbox(script) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            for _ in range(3):
                assert (await rig.call(at("acme"))).status == 200
            # Asked once at a time.
            assert len(asked(sandbox)) == 1
            rig.controller.gone(next(iter(rig.controller.routes)), "idle")
            await eventually(lambda: rig.worker.routes.find(RouteKey("acme", "node", "")) is None)

    run(check())


def test_what_comes_counts_as_held_and_is_given_up_beyond_the_bound() -> None:
    async def check() -> None:
        ended = asyncio.Event()

        async def script(_sandbox: Sandbox, peer: Peer, head: Request) -> None:
            if head.headers[b"x-sandpost-op"] != b"made":
                await peer.write(TELLING)
                return
            await peer.write(b"HTTP/1.1 200 OK\r\nx-sandpost-wire: 1\r\ncontent-length: 4000000\r\n\r\n")
            await peer.write(b"x" * 1_500_000)
            await peer.reader.read()
            ended.set()

        async with Sandbox(script) as sandbox, Rig(max_programs=2_000_000) as rig:
            rig.controller.places["*"] = sandbox.place
            holding = rig.worker.holding
            assert (await rig.call(at("acme"))).status == 200
            await eventually(lambda: holding.size >= 1_500_000)
            assert (await rig.call(at("other"))).status == 200
            await ended.wait()
            await eventually(lambda: 1_500_000 <= holding.size <= 2_000_000)
            assert (await rig.call(at("acme"))).status == 200

        assert holding.size == 0

    run(check())


TOLD = LOADED[:-2] + b"x-sandpost-made: 1\r\n\r\n"


@pytest.mark.parametrize("disk_waits", [False, True])
def test_a_sandbox_of_one_call_hands_over_what_it_made_at_its_load_before_the_call(disk_waits: bool) -> None:
    async def check() -> None:
        order: list[bytes] = []

        async def script(_sandbox: Sandbox, peer: Peer, head: Request) -> None:
            op = head.headers[b"x-sandpost-op"]
            order.append(op)
            if op == b"made":
                await asyncio.sleep(0.1)
            await peer.write(answer(b"assembly") if op == b"made" else TELLING)

        first, second = Sandbox(script), Sandbox(says(answer()))
        first.load_answer = TOLD
        async with first, second, Rig() as rig:
            rig.tenant("acme", isolation="per_request")
            rig.worker.access._reader.refresh()
            rig.controller.places["*"] = first.place
            if disk_waits:
                put = rig.worker.codes.put

                def later(tenant: str, program: Program, bound: int, done: Callable[[], None]) -> None:
                    def stored() -> None:
                        rig.worker.later(0.05, done)

                    put(tenant, program, bound, stored)

                rig.worker.codes.put = later  # type: ignore[method-assign]
            assert (await rig.call(at("acme"))).status == 200
            await eventually(lambda: rig.controller.all(Finished))
            assert order == [b"made", b"call"]
            assert kept(rig) == b"assembly"
            rig.controller.places["*"] = second.place
            assert (await rig.call(at("acme"))).status == 200
            [load] = second.loads
            assert load.body == HELLO + b"assembly"

    run(check())


def test_nothing_is_taken_of_a_sandbox_of_one_call_once_that_has_begun() -> None:
    async def check() -> None:
        async def script(sandbox: Sandbox, peer: Peer, head: Request) -> None:
            if head.headers[b"x-sandpost-op"] == b"made":
                # Slow until the call is there, which then says what it likes.
                await eventually(lambda: len(sandbox.calls) > 1, 15)
                await peer.write(answer(b"forged"))
            else:
                await peer.write(TELLING)

        async with Sandbox(script) as sandbox, Rig() as rig:
            rig.tenant("acme", isolation="per_request")
            rig.worker.access._reader.refresh()
            rig.controller.places["*"] = sandbox.place
            for said in (LOADED, TOLD):
                sandbox.load_answer = said
                sandbox.calls.clear()
                assert (await rig.call(at("acme"))).status == 200
                await eventually(lambda: rig.controller.all(Finished))
                await asyncio.sleep(0.3)
                assert kept(rig) == b""
                assert len(asked(sandbox)) == (said is TOLD)

    run(check())


def test_a_sandbox_of_one_call_that_hands_over_nothing_ends_a_moment_later() -> None:
    async def check() -> None:
        async def script(_sandbox: Sandbox, peer: Peer, head: Request) -> None:
            if head.headers[b"x-sandpost-op"] != b"made":
                await peer.write(TELLING)

        async with Sandbox(script) as sandbox, Rig() as rig:
            sandbox.load_answer = TOLD
            rig.tenant("acme", isolation="per_request")
            rig.worker.access._reader.refresh()
            rig.controller.places["*"] = sandbox.place
            assert (await rig.call(at("acme"))).status == 200
            await eventually(lambda: rig.controller.all(Finished))
            assert len(rig.controller.all(Finished)) == 1

    run(check())
