"""Routes and ends: one question a tenant, exactly one answer a call, an acknowledgement after the last connection."""

import asyncio

import msgspec
import pytest

from sandpost.model.ends import End
from sandpost.model.messages import Activity, Gone, Refusal, RouteKey
from sandpost.proxy import call as call_module
from sandpost.proxy import routes as routes_module
from sandpost.proxy import sandbox as sandbox_module
from support.proxy import (
    HELLO,
    Ack,
    Ask,
    Finished,
    Named,
    Peer,
    Replace,
    Report,
    Request,
    Rig,
    Sandbox,
    answer,
    at,
    eventually,
    request,
    run,
    says,
)


async def hang(_sandbox: Sandbox, peer: Peer, _request: Request) -> None:
    """Never answer; return when the connection ends."""
    await peer.reader.read()


def test_a_herd_of_first_requests_asks_once() -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            rig.controller.silent = True
            calls = [asyncio.create_task(rig.call(at("acme"))) for _ in range(50)]
            await eventually(lambda: rig.worker.counts.in_flight == 50)
            [ask] = rig.controller.all(Ask)
            assert ask.tenant.name == "acme"
            [channel] = rig.controller._listener.channels
            rig.controller.answer(channel, ask)
            assert [(await call).status for call in calls] == [200] * 50
            assert len(rig.controller.all(Ask)) == 1
            assert len(sandbox.loads) == 1

    run(check())


def test_the_end_is_acknowledged_when_the_last_connection_has_ended() -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            for _ in range(3):
                await rig.call(at("acme"))
            [known] = rig.worker.routes.sandboxes.values()
            assert known.pool.connections
            open_at_ack: list[int] = []
            send = rig.worker.routes._send

            def watch(message: object) -> bool:
                if isinstance(message, Ack):
                    open_at_ack.append(len(known.pool.connections))
                return send(message)  # type: ignore[arg-type]

            rig.worker.routes._send = watch
            seq = rig.controller.gone(known.sandbox_id, "idle")
            await eventually(lambda: rig.controller.all(Ack))
            assert [ack.seq for ack in rig.controller.all(Ack)] == [seq]
            assert open_at_ack == [0]
            await eventually(lambda: not sandbox.open)
            # The next call asks anew.
            assert (await rig.call(at("acme"))).status == 200
            assert len(rig.controller.all(Ask)) == 2

    run(check())


def test_the_end_of_a_sandbox_that_is_not_known_is_acknowledged_at_once() -> None:
    async def check() -> None:
        async with Rig() as rig:
            rig.controller.places["*"] = ("127.0.0.1", 1)
            route = rig.controller.route("acme", exclusive=True)
            seq = rig.controller.gone(route.sandbox_id, "done")
            assert (await eventually(lambda: rig.controller.all(Ack)))[0].seq == seq

    run(check())


@pytest.mark.parametrize(
    ("word", "status", "reason", "fault"),
    [
        ("memory", 500, "memory", "code"),
        ("exit", 500, "exit", "code"),
        ("crash", 500, "crash", "code"),
        ("blocked", 500, "blocked", "code"),
        ("cpu", 500, "cpu", "code"),
        ("evicted", 502, "evicted", "platform"),
        ("platform", 502, "platform", "platform"),
        ("age", 502, "age", "platform"),
    ],
)
def test_a_call_under_way_is_told_the_word_once(word: End, status: int, reason: str, fault: str) -> None:
    async def check() -> None:
        async with Sandbox(hang) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            call = asyncio.create_task(rig.call(at("acme")))
            await eventually(lambda: sandbox.calls)
            [sandbox_id] = rig.controller.routes
            rig.controller.gone(sandbox_id, word, "memory: 128MiB reached")
            seen = await call
            assert (seen.status, seen.json["reason"], seen.json["fault"]) == (status, reason, fault)
            assert seen.json["code"] == status
            assert not seen.json["retryable"]
            assert "shared" not in seen.json
            if word == "blocked":
                assert seen.json["message"] == "Blocked event loop"
                assert seen.json["error"] == "Script generated an unhandled asynchronous exception."
            else:
                assert "128MiB" in seen.json["message"]
            assert len(sandbox.calls) == 1, "a call was run again"
            assert rig.worker.counts.in_flight == 0

    run(check())


def test_calls_that_shared_the_sandbox_are_told_so() -> None:
    async def check() -> None:
        async with Sandbox(hang) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            calls = [asyncio.create_task(rig.call(at("acme"))) for _ in range(3)]
            await eventually(lambda: len(sandbox.calls) == 3)
            rig.controller.gone(next(iter(rig.controller.routes)), "memory")
            for call in calls:
                seen = await call
                assert (seen.status, seen.json["reason"], seen.json["shared"]) == (500, "memory", True)

    run(check())


@pytest.mark.parametrize("word", ["exit", "memory"])
def test_who_has_heard_of_the_guilty_call_from_the_controller_alone_is_a_neighbour_too(word: End) -> None:
    async def check() -> None:
        async with Sandbox(hang) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            call = asyncio.create_task(rig.call(at("acme")))
            await eventually(lambda: sandbox.calls)
            rig.controller.gone(next(iter(rig.controller.routes)), word, named=True)
            seen = await call
            # What a runtime names decides of its own ends alone.
            expected = (502, "neighbour_call") if word == "exit" else (500, word)
            assert (seen.status, seen.json["reason"]) == expected

    run(check())


def test_the_answer_of_an_end_by_memory_says_which_setting_and_how_much() -> None:
    async def check() -> None:
        async with Sandbox(hang) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            call = asyncio.create_task(rig.call(at("acme")))
            await eventually(lambda: sandbox.calls)
            rig.controller.gone(next(iter(rig.controller.routes)), "memory", setting="limits.memory", limit=64 << 20)
            seen = await call
            assert (seen.status, seen.json["setting"], seen.json["limit"]) == (500, "limits.memory", 64 << 20)

    run(check())


def test_when_the_guilty_call_is_named_the_others_are_neighbours() -> None:
    async def check() -> None:
        async def script(sandbox: Sandbox, peer: Peer, head: Request) -> None:
            if b"guilty" in head.line:
                await peer.write(
                    answer(b'{"reason":"exit"}', "500 E", "x-sandpost-error: exit", "x-sandpost-end: exit")
                )
            else:
                await hang(sandbox, peer, head)

        async with Sandbox(script) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            neighbour = asyncio.create_task(rig.call(at("acme")))
            await eventually(lambda: sandbox.calls)
            guilty = asyncio.create_task(rig.call(at("acme", "guilty=1")))
            await eventually(lambda: len(sandbox.calls) == 2)
            [named] = await eventually(lambda: rig.controller.all(Named))
            # A call that comes between the announcement and the end waits for the next sandbox.
            late = asyncio.create_task(rig.call(at("acme", "late=1")))
            await asyncio.sleep(0.1)
            assert len(sandbox.calls) == 2
            async with Sandbox(says(answer(b"next"))) as successor:
                rig.controller.places["*"] = successor.place
                # Its caller may come back through another worker: he hears of it when that one has heard of the end.
                assert not guilty.done()
                assert named.sandbox_id in rig.controller.routes
                rig.controller.gone(next(iter(rig.controller.routes)), "exit")
                seen = await guilty
                assert (seen.status, seen.body) == (500, b'{"reason":"exit"}')
                seen = await neighbour
                assert (seen.status, seen.json["reason"]) == (502, "neighbour_call")
                assert (await late).body == b"next"

    run(check())


def test_an_end_that_is_announced_and_does_not_come_delays_its_own_answer_alone() -> None:
    async def check() -> None:
        script = says(answer(b"bye", "500 E", "x-sandpost-error: exit", "x-sandpost-end: exit"))
        async with Sandbox(script) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            async with asyncio.timeout(10):
                seen = await rig.call(at("acme"))
            assert (seen.status, seen.body) == (500, b"bye")
            assert rig.worker.counts.in_flight == 0

    run(check())


def test_a_lost_connection_waits_for_the_word() -> None:
    async def check() -> None:
        async with Sandbox(hang) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            call = asyncio.create_task(rig.call(at("acme")))
            await eventually(lambda: sandbox.calls)
            sandbox.die()
            await asyncio.sleep(0.3)
            assert not call.done()
            rig.controller.gone(next(iter(rig.controller.routes)), "memory", "memory: 128 MiB")
            assert (await call).json["reason"] == "memory"

    run(check())


def test_without_a_word_the_caller_hears_what_is_unknown() -> None:
    async def check() -> None:
        async with Sandbox(hang) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            call = asyncio.create_task(rig.call(at("acme")))
            await eventually(lambda: sandbox.calls)
            began = asyncio.get_running_loop().time()
            sandbox.die()
            seen = await call
            assert (seen.status, seen.json["fault"], seen.json["retryable"]) == (502, "platform", False)
            assert "unknown" in seen.json["message"]
            assert 1 < asyncio.get_running_loop().time() - began < 6

    run(check())


def test_the_word_of_an_end_may_come_from_the_next_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    # It looks while the word is on its way from the routes to it, too.
    monkeypatch.setattr(call_module, "_LOOK_AGAIN", 0.05)
    monkeypatch.setattr(routes_module, "_SETTLE", 0.5)

    async def check() -> None:
        async with Sandbox(hang) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            call = asyncio.create_task(rig.call(at("acme")))
            await eventually(lambda: sandbox.calls)
            rig.controller.close()
            await eventually(lambda: not rig.worker.link.table_known)
            sandbox.die()
            # A controller needs that long to start on a busy machine.
            await asyncio.sleep(8)
            assert not call.done()
            sandbox_id, _ = rig.controller.routes.popitem()
            rig.controller.ended = [Gone(seq=1, sandbox_id=sandbox_id, tenant="acme", word="memory", message="128 MiB")]
            rig.controller.open()
            assert (await call).json["reason"] == "memory"

    run(check())


def test_a_call_that_lost_its_connection_in_time_is_not_told_to_answer_sooner() -> None:
    async def check() -> None:
        async with Sandbox(hang) as sandbox, Rig(limits={"deadline": 1.0}) as rig:
            rig.controller.places["*"] = sandbox.place
            call = asyncio.create_task(rig.call(at("acme")))
            await eventually(lambda: sandbox.calls)
            rig.controller.close()
            sandbox.die()
            seen = await call
            assert (seen.status, seen.json["fault"], seen.json["retryable"]) == (502, "platform", False)
            assert "unknown" in seen.json["message"]

    run(check())


def test_a_call_of_which_nothing_was_written_goes_to_the_next_sandbox() -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as first, Rig() as rig:
            rig.controller.places["*"] = first.place
            first.load_gate = asyncio.Event()
            call = asyncio.create_task(rig.call(at("acme")))
            await eventually(lambda: first.loads)
            async with Sandbox(says(answer(b"second"))) as second:
                rig.controller.places["*"] = second.place
                rig.controller.gone(next(iter(rig.controller.routes)), "evicted")
                assert (await call).body == b"second"
            assert not first.calls

    run(check())


def test_a_sandbox_that_leaves_finishes_its_calls_and_gets_no_new_ones() -> None:
    async def check() -> None:
        go_on = asyncio.Event()

        async def script(_sandbox: Sandbox, peer: Peer, _request: Request) -> None:
            await go_on.wait()
            await peer.write(answer(b"old"))

        async with Sandbox(script) as old, Sandbox(says(answer(b"new"))) as new, Rig() as rig:
            rig.controller.places["*"] = old.place
            call = asyncio.create_task(rig.call(at("acme")))
            await eventually(lambda: old.calls)
            [sandbox_id] = rig.controller.routes
            rig.controller.places["*"] = new.place
            rig.controller.routes.clear()
            rig.controller.leave(sandbox_id)
            await eventually(lambda: rig.worker.routes.find(RouteKey("acme", "node", "")) is None)
            assert (await rig.call(at("acme"))).body == b"new"
            go_on.set()
            assert (await call).body == b"old"

    run(check())


def test_a_wish_for_a_successor_is_passed_on_and_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_module, "_REPLACE_AGAIN", 60)

    async def check() -> None:
        async with Sandbox(says(answer(b"a", "200 OK", "x-sandpost-replace: 1"))) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            for _ in range(3):
                assert (await rig.call(at("acme"))).status == 200
            await eventually(lambda: rig.controller.all(Replace))
            assert len(rig.controller.all(Replace)) == 1
            monkeypatch.setattr(sandbox_module, "_REPLACE_AGAIN", 0)
            assert (await rig.call(at("acme"))).status == 200
            await eventually(lambda: len(rig.controller.all(Replace)) == 2)

    run(check())


def test_without_the_controller_warm_tenants_are_served_and_cold_ones_told_why() -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            assert (await rig.call(at("warm"))).status == 200
            rig.controller.close()
            await eventually(lambda: not rig.worker.link.table_known)
            assert (await rig.call(at("warm"))).status == 200
            began = asyncio.get_running_loop().time()
            seen = await rig.call(at("cold"))
            assert (seen.status, seen.headers["retry-after"]) == (503, "1")
            assert "controller" in seen.json["message"]
            assert asyncio.get_running_loop().time() - began < 8
            # It comes back while a call waits: nobody notices.
            waiting = asyncio.create_task(rig.call(at("cold")))
            await asyncio.sleep(0.2)
            rig.controller.open()
            assert (await waiting).status == 200

    run(check())


def test_a_route_that_is_missing_after_a_reconnect_is_gone() -> None:
    async def check() -> None:
        async with Sandbox(hang) as sandbox, Sandbox(says(answer(b"new"))) as other, Rig() as rig:
            rig.controller.places |= {"acme": sandbox.place, "kept": other.place}
            assert (await rig.call(at("kept"))).status == 200
            call = asyncio.create_task(rig.call(at("acme")))
            await eventually(lambda: sandbox.calls)
            rig.controller.close()
            gone = next(route for route in rig.controller.routes.values() if route.tenant == "acme")
            del rig.controller.routes[gone.sandbox_id]
            rig.controller.open()
            seen = await call
            assert (seen.status, seen.json["reason"]) == (502, "platform")
            assert not sandbox.open
            asked = len(rig.controller.all(Ask))
            assert (await rig.call(at("kept"))).status == 200
            assert len(rig.controller.all(Ask)) == asked

    run(check())


def test_a_refusal_is_the_callers_answer() -> None:
    async def check() -> None:
        async with Rig() as rig:
            rig.controller.refusal = Refusal(
                reason="no_room", status=503, message="the host is full", retryable=True, retry_after=7
            )
            seen = await rig.call(at("acme"))
            assert (seen.status, seen.json["reason"], seen.json["code"]) == (503, "no_room", 503)
            assert seen.headers["retry-after"] == "7"
            rig.controller.refusal = Refusal(reason="held_back", status=429, message="x", fault="code", retry_after=1)
            seen = await rig.call(at("acme"))
            assert (seen.status, seen.json["fault"]) == (429, "code")

    run(check())


def test_each_call_of_a_per_request_tenant_has_a_sandbox_of_its_own() -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            rig.tenant("single", isolation="per_request")
            rig.worker.access._reader.refresh()
            answers = await asyncio.gather(*(rig.call(at("single")) for _ in range(4)))
            assert [seen.status for seen in answers] == [200] * 4
            assert all(ask.exclusive for ask in rig.controller.all(Ask))
            await eventually(lambda: len(rig.controller.all(Ack)) == 4)
            finished = [message.sandbox_id for message in rig.controller.all(Finished)]
            assert len(set(finished)) == len(finished) == 4
            assert not rig.worker.routes.sandboxes
            assert not sandbox.open

    run(check())


def test_activity_is_reported_with_what_is_in_flight() -> None:
    async def check() -> None:
        async with Sandbox(says(answer(b"12345"))) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            for _ in range(3):
                await rig.call(at("acme"))

            def reported() -> list[Activity]:
                return [activity for report in rig.controller.all(Report) for activity in report.activities]

            await eventually(lambda: sum(activity.calls for activity in reported()) == 3)
            seen = reported()
            assert sum(activity.bytes_out for activity in seen) == 15
            assert seen[-1].in_flight == 0

    run(check())


def test_a_call_is_reported_while_its_program_is_loaded() -> None:
    """The controller lets a sandbox leave that has none in flight, and ends it two seconds later."""

    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            sandbox.load_gate = asyncio.Event()
            call = asyncio.create_task(rig.call(at("acme")))
            await eventually(lambda: rig.controller.all(Report))
            [activity] = rig.controller.all(Report)[0].activities
            assert (activity.in_flight, activity.calls, bool(sandbox.calls)) == (1, 0, False)
            sandbox.load_gate.set()
            assert (await call).status == 200

    run(check())


def test_calls_that_waited_for_the_first_table_go_into_no_sandbox_that_leaves() -> None:
    async def check() -> None:
        async with Sandbox(says(answer(b"old"))) as old, Sandbox(says(answer(b"new"))) as new, Rig() as rig:
            rig.controller.close()
            call = asyncio.create_task(rig.call(at("acme")))
            await eventually(lambda: rig.worker.counts.in_flight == 1)
            rig.controller.places["*"] = old.place
            leaving = msgspec.structs.replace(rig.controller.route("acme"), leaving=True)
            rig.controller.routes[leaving.sandbox_id] = leaving
            rig.controller.places["*"] = new.place
            rig.controller.route("acme")
            rig.controller.open()
            assert (await call).body == b"new"
            assert not old.calls

    run(check())


def test_a_call_that_waits_for_its_connection_is_sent_once_however_often_it_is_to_go_on() -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            await rig.call(at("acme"))
            [known] = rig.worker.routes.sandboxes.values()
            connect = known.pool._connect

            async def slowly(*arguments: object) -> object:
                await asyncio.sleep(0.2)
                return await connect(*arguments)  # type: ignore[arg-type]

            known.pool._connect = slowly
            for idle in list(known.pool._idle):
                idle.end()
            known.pool._idle.clear()
            waiting = asyncio.create_task(rig.call(at("acme")))
            [call] = await eventually(lambda: list(known.calls))
            for _ in range(3):
                await asyncio.sleep(0.03)
                call._try_again()
            assert (await waiting).status == 200
            await asyncio.sleep(0.5)
            assert len(sandbox.calls) == 2
            assert rig.worker.counts.in_flight == 0

    run(check())


def test_bytes_are_counted_of_programs_bodies_and_answers() -> None:
    body = b"a body of its own"

    async def takes_and_says(_sandbox: Sandbox, peer: Peer, request: Request) -> None:
        if b"expect" in request.headers:
            await peer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            assert await peer.reader.readexactly(len(body)) == body
        await peer.write(answer(b"12345"))

    async def check() -> None:
        async with Sandbox(takes_and_says) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            code = (await rig.call(at("acme"))).headers["x-sandpost-code"]
            await rig.call(at("acme"))
            await rig.call(at("acme", f"webtask_code={code}"), body, "PUT")

            def reported() -> tuple[int, int, int]:
                seen = [activity for report in rig.controller.all(Report) for activity in report.activities]
                return sum(a.calls for a in seen), sum(a.bytes_in for a in seen), sum(a.bytes_out for a in seen)

            await eventually(lambda: reported() == (3, 2 * len(HELLO) + len(body), 15))

    run(check())


def test_a_sandbox_that_takes_no_connection_is_a_503_and_nothing_is_lost() -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = ("127.0.0.1", 1)
            seen = await rig.call(at("acme"))
            assert (seen.status, seen.json["retryable"]) == (503, True)
            rig.controller.places["*"] = sandbox.place
            rig.controller.gone(next(iter(rig.controller.routes)), "platform")
            assert (await rig.call(at("acme"))).status == 200

    run(check())


def test_a_client_that_leaves_while_it_waits_leaves_nothing_behind() -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            rig.controller.silent = True
            connection = await rig.connect()
            await connection.send(request(at("acme"), HELLO))
            await eventually(lambda: rig.worker.counts.in_flight == 1)
            connection.writer.transport.abort()
            await eventually(lambda: rig.worker.counts.in_flight == 0)
            rig.controller.silent = False
            [channel] = rig.controller._listener.channels
            rig.controller.answer(channel, rig.controller.all(Ask)[0])
            assert (await rig.call(at("acme"))).status == 200
            assert len(sandbox.calls) == 1

    run(check())
