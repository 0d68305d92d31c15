"""What a sandbox may send, byte by byte: each breach ends its connection, and reaches only the call it belongs to."""

import asyncio
from hashlib import sha256

import pytest

from sandpost.proxy.call import WORD_WAIT
from support.proxy import HELLO, Peer, Request, Rig, Sandbox, Suspect, answer, at, eventually, run, says

GOOD = answer(b'"good"')
BROKEN = {
    "rubbish": b"rubbish\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nx-sandpost-wire: 1\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
    "length and chunks": b"HTTP/1.1 200 OK\r\nx-sandpost-wire: 1\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nok",
    "bare line feeds": b"HTTP/1.1 200 OK\nx-sandpost-wire: 1\ncontent-length: 2\n\nok",
    "a folded field": b"HTTP/1.1 200 OK\r\nx-sandpost-wire: 1\r\nx: a\r\n b\r\ncontent-length: 2\r\n\r\nok",
    "a negative length": b"HTTP/1.1 200 OK\r\nx-sandpost-wire: 1\r\ncontent-length: -1\r\n\r\n",
    "no wire version": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "status 99": b"HTTP/1.1 099 Odd\r\nx-sandpost-wire: 1\r\n\r\n",
    "a switch nobody asked for": b"HTTP/1.1 101 S\r\nx-sandpost-wire: 1\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    "a second answer behind the first": GOOD + answer(b'"stolen"'),
    "bytes behind the length": answer(b"ok") + b"x",
    "a body with 204": b"HTTP/1.1 204 No Content\r\nx-sandpost-wire: 1\r\n\r\nsmuggled",
    "a flood of interim heads": b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 40 + GOOD,
    "an endless head": b"HTTP/1.1 200 OK\r\nx-sandpost-wire: 1\r\n" + b"x: " + b"a" * 70_000,
    "endless fields": b"HTTP/1.1 200 OK\r\nx-sandpost-wire: 1\r\n" + b"x: y\r\n" * 20_000,
}


@pytest.mark.parametrize("case", list(BROKEN))
def test_a_broken_answer_is_a_typed_502_and_ends_its_connection(case: str) -> None:
    async def check() -> None:
        answers = [BROKEN[case], GOOD]

        async def script(_sandbox: Sandbox, peer: Peer, _request: Request) -> None:
            await peer.write(answers.pop(0))

        async with Sandbox(script) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            seen = await rig.call(at("acme"))
            assert (seen.status, seen.json["reason"]) == (502, "bad_gateway"), case
            assert seen.json["req_id"]
            assert seen.headers["x-wt-response-source"] == "proxy"
            assert seen.headers["content-type"] == "application/json"
            before = sandbox.connections
            assert (await rig.call(at("acme"))).body == b'"good"'
            assert sandbox.connections == before + 1, "the broken connection served another call"

    run(check())


@pytest.mark.parametrize("at_load", [True, False], ids=["load", "call"])
def test_a_sandbox_does_not_speak_for_the_platform(at_load: bool) -> None:
    async def check() -> None:
        forged = (
            b"HTTP/1.1 403 Forbidden\r\nx-sandpost-wire: 1\r\nx-sandpost-source: proxy\r\n"
            b"x-wt-response-source: proxy\r\ncontent-length: 2\r\n\r\n{}"
        )
        async with Sandbox(says(forged)) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            if at_load:
                sandbox.load_answer = forged.replace(b"403 Forbidden", b"400 Bad Request")
            assert (await rig.call(at("acme"))).headers["x-wt-response-source"] == "webtask"

    run(check())


def test_another_wire_version_is_refused_and_reported() -> None:
    async def check() -> None:
        async with Sandbox(says(answer(wire="2"))) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            seen = await rig.call(at("acme"))
            assert seen.status == 502
            assert "wire" in seen.json["message"]
            suspect = await eventually(lambda: rig.controller.all(Suspect))
            assert suspect[0].kind == "broken"

    run(check())


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 OK\r\nx-sandpost-wire: 1\r\ncontent-length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nx-sandpost-wire: 1\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nx-sandpost-wire: 1\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nx-sandpost-wire: 1\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalfX",
    ],
)
def test_an_answer_that_breaks_after_its_head_is_broken_off(start: bytes) -> None:
    async def check() -> None:
        async def script(_sandbox: Sandbox, peer: Peer, _request: Request) -> None:
            head = start.index(b"\r\n\r\n") + 4
            await peer.write(start[:head])
            await asyncio.sleep(0.05)
            half = start.index(b"half") + 4
            await peer.write(start[head:half])
            await asyncio.sleep(0.05)
            await peer.write(start[half:])
            await asyncio.sleep(0.05)
            peer.writer.close()

        async with Sandbox(script) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            connection = await rig.connect()
            await connection.send(
                b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b"
                % (at("acme").encode(), len(HELLO), HELLO)
            )
            seen = await connection.rest()
            assert b" 200 OK" in seen
            assert b"half" in seen
            assert not seen.endswith(b"0\r\n\r\n")

    run(check())


def test_a_body_that_was_never_asked_for_stands_before_no_other_call() -> None:
    async def check() -> None:
        async with Sandbox(says(answer(b'"early"'))) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            await rig.call(at("acme"), HELLO)
            connection = await rig.connect()
            await connection.send(
                b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789"
                % at("acme", f"webtask_code={sha256(HELLO).hexdigest()}").encode()
            )
            assert (await connection.answer()).body == b'"early"'
            before = sandbox.connections
            assert (await rig.call(at("acme"), HELLO)).body == b'"early"'
            assert sandbox.connections == before + 1

    run(check())


def test_an_answer_that_comes_before_its_question_reaches_nobody() -> None:
    async def check() -> None:
        async def script(_sandbox: Sandbox, peer: Peer, _request: Request) -> None:
            await peer.write(GOOD)
            await asyncio.sleep(0.05)
            await peer.write(answer(b'"early"'))

        async with Sandbox(script) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            connection = await rig.connect()
            for _ in range(5):
                assert (await connection.call(at("acme"), HELLO)).body == b'"good"'
                await asyncio.sleep(0.1)
            assert sandbox.connections >= 5

    run(check())


def test_what_one_tenants_sandbox_sends_never_reaches_another_tenant() -> None:
    async def check() -> None:
        async def evil(_sandbox: Sandbox, peer: Peer, _request: Request) -> None:
            for _ in range(20):
                await peer.write(answer(b'"poison"'))

        async with Sandbox(evil) as bad, Sandbox(says(answer(b'"clean"'))) as good, Rig() as rig:
            rig.controller.places |= {"mallory": bad.place, "alice": good.place}
            attacker, victim = await rig.connect(), await rig.connect()
            for _ in range(20):
                first = await attacker.call(at("mallory"), HELLO)
                assert first.status in {200, 502}
                assert (await victim.call(at("alice"), HELLO)).body == b'"clean"'
                # On the very connection that the attacker's answers came to.
                assert (await attacker.call(at("alice"), HELLO)).body == b'"clean"'

    run(check())


def test_a_program_that_closes_without_an_answer_gets_a_502_soon() -> None:
    async def check() -> None:
        async def script(_sandbox: Sandbox, peer: Peer, _request: Request) -> None:
            peer.writer.close()

        async with Sandbox(script) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            began = asyncio.get_running_loop().time()
            seen = await rig.call(at("acme"))
            assert (seen.status, seen.json["fault"], seen.json["retryable"]) == (502, "code", False)
            # The probe answers, so nobody waits for the word of an end that did not happen.
            assert asyncio.get_running_loop().time() - began < WORD_WAIT
            assert len(sandbox.calls) == 1, "a call was sent again"

    run(check())


def test_the_platforms_headers_of_a_program_do_not_reach_the_caller() -> None:
    async def check() -> None:
        headers = ("x-sandpost-secret: 1", "X-Sandpost-Code: forged", "x-wt-response-source: proxy", "connection: x-hop", "x-hop: 1",
                   "strict-transport-security: max-age=1", "x-mine: yes")  # fmt: skip
        async with Sandbox(says(answer(b"ok", "200 OK", *headers))) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            seen = await rig.call(at("acme"))
            assert seen.headers["x-mine"] == "yes"
            assert seen.headers["x-wt-response-source"] == "webtask"
            assert len(seen.headers["x-sandpost-code"]) == 64
            assert not {"x-sandpost-secret", "x-sandpost-wire", "x-hop", "strict-transport-security"} & set(
                seen.headers
            )

    run(check())
