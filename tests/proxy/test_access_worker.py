"""Who may call, with what, within which limits, and how each refusal reads."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sandpost.auth.keys import Key, key_digest
from sandpost.logs import figures
from sandpost.model.figures import Figures
from sandpost.proxy import access
from sandpost.store import TenantRecord
from support.proxy import (
    HELLO,
    KEY,
    Answer,
    Connection,
    Peer,
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

UNTYPED = b"return function (cb) { cb(null, 1) }"


@pytest.mark.parametrize(
    ("method", "target", "status", "reason"),
    [
        ("POST", "/acme", 403, "no_credentials"),
        ("POST", "/acme?key=wrong", 403, "wrong_key"),
        ("POST", "/ACME?key=KEY", 400, "invalid_name"),
        ("POST", "/a%2fb?key=KEY", 400, "invalid_name"),
        ("POST", "/a%00b?key=KEY", 400, "invalid_name"),
        ("POST", "/..?key=KEY", 400, "invalid_name"),
        ("POST", "//acme?key=KEY", 400, "invalid_name"),
        ("POST", "/" + "a" * 64 + "?key=KEY", 400, "invalid_name"),
        ("POST", "/-acme?key=KEY", 400, "invalid_name"),
        ("POST", "/metrics?key=KEY", 404, "not_found"),
        ("POST", "/?key=KEY", 404, "not_found"),
        ("GET", "/acme?key=KEY", 405, "method_not_allowed"),
        ("PUT", "/acme?key=KEY", 405, "method_not_allowed"),
        ("POST", "/acme?key=KEY&key=KEY", 400, "malformed_request"),
        ("POST", "/acme?key=KEY&webtask_code=xyz", 404, "unknown_code"),
        ("POST", "/acme?key=KEY&webtask_code=" + "0" * 64, 404, "unknown_code"),
        ("DELETE", "/health", 405, "method_not_allowed"),
        ("GET", "/health/other", 404, "not_found"),
    ],
)
def test_bad_requests_get_a_typed_error_and_the_next_is_served(
    method: str, target: str, status: int, reason: str
) -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            connection = await rig.connect()
            seen = await connection.call(target.replace("KEY", KEY), HELLO, method)
            assert (seen.status, seen.json["reason"], seen.json["code"]) == (status, reason, status)
            assert seen.json["message"]
            assert seen.json["req_id"]
            assert KEY.encode() not in seen.body
            assert not sandbox.calls
            assert (await connection.call(at("acme"), HELLO)).status == 200

    run(check())


def test_the_message_without_credentials_is_the_formats() -> None:
    async def check() -> None:
        async with Rig() as rig:
            seen = await rig.call("/acme")
            assert seen.json["message"] == "rejecting request without Authorization header or key URL query parameter"

    run(check())


def test_two_different_keys_are_ambiguous() -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            assert (await rig.call(at("acme"), HELLO, "POST", "Authorization: Bearer other")).status == 400
            assert (await rig.call(at("acme"), HELLO, "POST", f"Authorization: bearer {KEY}")).status == 200
            assert (await rig.call(at("acme"), HELLO, "POST", "Authorization: Basic abc")).status == 200
            assert sandbox.calls[-1].headers[b"authorization"] == b"Basic abc"

    run(check())


def test_a_tenants_key_is_good_for_that_tenant_and_until_it_is_revoked() -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            rig.tenant("acme")
            rig.writer.add_key(Key(id="00000001", digest=key_digest(b"acme-key"), tenant="acme", created_at=0))
            connection = await rig.connect()
            await eventually(lambda: rig.worker.access._reader.key(key_digest(b"acme-key")))
            assert (await connection.call("/acme?key=acme-key", HELLO)).status == 200
            seen = await connection.call("/other?key=acme-key", HELLO)
            assert (seen.status, seen.json["reason"]) == (403, "not_authorized")
            rig.writer.revoke_key("00000001")
            revoked_at = time.monotonic()
            while (await connection.call("/acme?key=acme-key", HELLO)).status == 200:
                assert time.monotonic() - revoked_at < 3
            assert (await connection.call("/acme?key=acme-key", HELLO)).json["reason"] == "wrong_key"

    run(check())


def test_what_runs_by_a_revoked_key_ends_and_what_others_run_goes_on() -> None:
    async def check() -> None:
        async def script(_sandbox: Sandbox, peer: Peer, head: Request) -> None:
            if b"upgrade" in head.headers:
                await peer.write(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: echo\r\nconnection: Upgrade\r\n\r\n")
                while data := await peer.reader.read(65536):
                    await peer.write(data)
            elif b"stream" in head.line:
                await peer.write(
                    b"HTTP/1.1 200 OK\r\nx-sandpost-wire: 1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n"
                )
                await asyncio.sleep(30)
            elif b"slow" in head.line:
                await asyncio.sleep(30)
            await peer.write(answer())

        async with Sandbox(script) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            rig.tenant("acme")
            for number, key in enumerate((b"good", b"bad")):
                rig.writer.add_key(Key(id=f"{number + 1:08x}", digest=key_digest(key), tenant="acme", created_at=0))
            await eventually(lambda: rig.worker.access._reader.key(key_digest(b"bad")))
            code = (await rig.call("/acme?key=good")).headers["x-sandpost-code"]

            async def begin(key: str, what: str, *headers: str) -> Connection:
                connection = await rig.connect()
                await connection.send(request(f"/acme?key={key}&webtask_code={code}&{what}", b"", "GET", *headers))
                return connection

            upgrade = ("Connection: Upgrade", "Upgrade: echo")
            sockets = {key: await begin(key, "ws", *upgrade) for key in ("good", "bad")}
            streams = {key: await begin(key, "stream") for key in ("good", "bad")}
            for each in [*sockets.values(), *streams.values()]:
                assert (await each.head()).status in {101, 200}
            slow = await begin("bad", "slow")
            half = await rig.connect()
            await half.send(request("/acme?key=bad", HELLO)[:-1])
            await eventually(lambda: len(rig.worker.exchanges) == 6)
            rig.writer.revoke_key("00000002")
            async with asyncio.timeout(1):
                assert await sockets["bad"].ended()
                seen = await slow.answer()
                assert (seen.status, seen.json["reason"]) == (403, "wrong_key")
                assert not (await streams["bad"].rest()).endswith(b"0\r\n\r\n")
            await half.send(HELLO[-1:])
            assert (await half.answer()).json["reason"] == "wrong_key"
            await sockets["good"].send(b"still here")
            assert await sockets["good"].reader.readexactly(10) == b"still here"
            assert len(rig.worker.exchanges) == 2
            assert rig.worker.quota.in_flight("acme") == 2

    run(check())


def test_a_key_or_a_tenant_is_good_the_moment_it_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    # No look at the store but those that calls bring about.
    monkeypatch.setattr(access, "REFRESH", 60)

    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            for number in range(1, 11):
                name, key = f"t{number}", f"key-{number}"
                await asyncio.sleep(0.005)
                assert (await rig.call(f"/{name}?key={key}")).json["reason"] == "wrong_key"
                await asyncio.sleep(0.005)
                rig.tenant(name)
                rig.writer.add_key(Key(id=f"{number:08x}", digest=key_digest(key.encode()), tenant=name, created_at=0))
                assert (await rig.call(f"/{name}?key={key}")).status == 200

    run(check())


def test_a_removed_tenants_programs_are_gone_from_memory_and_disk() -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            for name in ("acme", "other"):
                rig.tenant(name)
            await eventually(lambda: rig.worker.access._reader.tenant("other"))
            code = (await rig.call(at("acme"))).headers["x-sandpost-code"]
            await rig.call(at("other"))
            folder = Path(rig.host.code_dir)
            assert (folder / "acme" / code).exists()
            rig.writer.remove_tenant("acme")
            [known] = [one for one in rig.worker.routes.sandboxes.values() if one.tenant == "acme"]
            rig.controller.gone(known.sandbox_id, "drained")
            await eventually(lambda: not (folder / "acme").exists())
            rig.tenant("acme")
            seen = await rig.call(at("acme", f"webtask_code={code}"), b"")
            assert (seen.status, seen.json["reason"]) == (404, "unknown_code")
            assert (await rig.call(at("other", f"webtask_code={code}"), b"")).status == 200

    run(check())


def test_a_suspended_tenant_is_refused_within_a_second() -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            connection = await rig.connect()
            assert (await connection.call(at("acme"), HELLO)).status == 200
            rig.writer.put_tenant(TenantRecord(name="acme", state="suspended"))
            began = time.monotonic()
            while (seen := await connection.call(at("acme"), HELLO)).status == 200:
                assert time.monotonic() - began < 3
            assert (seen.status, seen.json["reason"]) == (403, "suspended")
            rig.writer.put_tenant(TenantRecord(name="acme"))
            while (await connection.call(at("acme"), HELLO)).status != 200:
                assert time.monotonic() - began < 6

    run(check())


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/x-www-form-urlencoded", 200),
        ("application/javascript; charset=utf-8", 200),
        ("text/javascript", 200),
        ("text/plain", 200),
        ("application/json", 200),
        ("text/x-ruby", 415),
        ("text/x-python; charset=utf-8", 200),
        ("application/x-python", 200),
        ("text/x-csharp", 200),
        ("application/typescript", 200),
        ("text/typescript; charset=utf-8", 200),
        ("application/x-typescript", 200),
        ("text/tsx", 415),
        ("Text/JavaScript", 200),
        ("application/x-ecmascript", 200),
        ("text/html", 200),
        ("text/x-markdown", 200),
        ("application/octet-stream", 200),
        ("text/ruby", 415),
        ("application/ruby", 415),
        ("text/php", 415),
        ("application/x-httpd-php", 415),
        ("application/x-python-code", 200),
        ("text/x-java-source", 415),
        ("application/PHP; charset=utf-8", 415),
    ],
)
def test_the_content_type_chooses_the_language(content_type: str, status: int) -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            seen = await rig.call(at("acme"), HELLO, "POST", f"Content-Type: {content_type}")
            assert seen.status == status
            if status == 415:
                assert seen.json["languages"] == ["javascript", "typescript", "python", "csharp"]
            else:
                assert b"content-type" not in sandbox.calls[0].headers

    run(check())


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, "invalid_code"),
        (b"\xef\xbb\xbf" + UNTYPED, 400, "invalid_code"),
        (UNTYPED.decode().encode("utf-16"), 400, "invalid_code"),
        (UNTYPED.decode().encode("utf-16-le"), 400, "invalid_code"),
        (b"\xff\xfe\xfa", 400, "invalid_code"),
        (b"//#sandpost language=perl\n" + UNTYPED, 415, "unsupported_language"),
        (b"# sandpost: language=ruby\n" + UNTYPED, 415, "unsupported_language"),
        (b"// sandpost: language=javascript\n" + UNTYPED, 200, ""),
        (b"// sandpost: language=JavaScript\n" + UNTYPED, 200, ""),
        (b"// sandpost:language=JAVASCRIPT\n" + UNTYPED, 200, ""),
        (b"// sandpost:language=C#\n" + UNTYPED, 200, ""),
        (b"// sandpost language=Perl\n" + UNTYPED, 415, "unsupported_language"),
        (b"// sandboxed language=perl\n" + UNTYPED, 200, ""),
        (b"// sandpost: language=typescript\n" + UNTYPED, 200, ""),
        (b"// sandpost: language=typescrpit\n" + UNTYPED, 415, "unsupported_language"),
        (b"// sandpost: langauge=typescript\n" + UNTYPED, 400, "invalid_code"),
        (b" " * (2 << 20), 413, "body_too_large"),
    ],
)
def test_bodies_that_are_no_program(body: bytes, status: int, reason: str) -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            connection = await rig.connect()
            connection.writer.write(request(at("acme"), body))
            seen = await connection.answer()
            assert seen.status == status
            if reason:
                assert seen.json["reason"] == reason
                assert not sandbox.calls
            if status == 413:
                assert "limits.code" in seen.json["message"]
                assert "1MiB" in seen.json["message"]
            assert (await rig.call(at("acme"))).status == 200

    run(check())


def test_chunked_code_is_bounded_and_compressed_code_refused() -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig(limits={"code": 1000}) as rig:
            rig.controller.places["*"] = sandbox.place
            connection = await rig.connect()
            head = f"POST {at('acme')} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            await connection.send(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(HELLO), HELLO))
            assert (await connection.answer()).status == 200
            await connection.send(head + b"1000\r\n" + bytes(0x1000))
            seen = await connection.answer()
            assert (seen.status, seen.headers["connection"]) == (413, "close")
            assert (await rig.call(at("acme"), HELLO, "POST", "Content-Encoding: gzip")).status == 415

    run(check())


def test_a_body_beyond_the_limit_is_refused_before_and_while_it_comes() -> None:
    async def check() -> None:
        async def swallow(_sandbox: Sandbox, peer: Peer, head: Request) -> None:
            if b"expect" in head.headers:
                await peer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                await peer.reader.read()
            else:
                await peer.write(answer())

        async with Sandbox(swallow) as sandbox, Rig(limits={"body": 10_000}) as rig:
            rig.controller.places["*"] = sandbox.place
            code = (await rig.call(at("acme"))).headers["x-sandpost-code"]
            target = at("acme", f"webtask_code={code}")
            seen = await rig.call(target, bytes(10_001), "PUT")
            assert (seen.status, seen.json["setting"], seen.json["limit"]) == (413, "limits.body", 10_000)
            connection = await rig.connect()
            await connection.send(f"PUT {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
            for _ in range(3):
                await connection.send(b"1000\r\n" + bytes(0x1000) + b"\r\n")
                await asyncio.sleep(0.02)
            assert (await connection.answer()).status == 413

    run(check())


def test_calls_at_once_and_calls_a_second_are_limited_and_named() -> None:
    async def check() -> None:
        go_on = asyncio.Event()

        async def wait(_sandbox: Sandbox, peer: Peer, _head: Request) -> None:
            await go_on.wait()
            await peer.write(answer())

        async with Sandbox(wait) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            rig.tenant("few", calls=2)
            rig.tenant("slow", rate=3)
            await eventually(lambda: rig.worker.access._reader.tenant("slow"))
            calls = [asyncio.create_task(rig.call(at("few"))) for _ in range(2)]
            await eventually(lambda: len(sandbox.calls) == 2)
            seen = await rig.call(at("few"))
            assert (seen.status, seen.json["reason"], seen.headers["retry-after"]) == (429, "too_many_calls", "1")
            assert seen.json["setting"] == "limits.calls"
            assert seen.json["limit"] == 2
            go_on.set()
            assert [(await call).status for call in calls] == [200, 200]
            assert (await rig.call(at("few"))).status == 200
            # Begun within one second; the clock may turn once in between.
            statuses = [(await rig.call(at("slow"))).status for _ in range(8)]
            assert 3 <= statuses.count(200) <= 6
            assert statuses.count(429) >= 2

    run(check())


def test_forwarded_headers_are_believed_from_trusted_proxies_alone() -> None:
    async def check() -> None:
        told = ("X-Forwarded-For: 203.0.113.7", "X-Forwarded-Proto: https", "X-Forwarded-Host: sandpost.example")
        async with Sandbox(says(answer())) as sandbox:
            for trusted, expected in ([], b"127.0.0.1"), (["127.0.0.0/8"], b"203.0.113.7, 127.0.0.1"):
                async with Rig(trusted_proxies=trusted) as rig:
                    rig.controller.places["*"] = sandbox.place
                    assert (await rig.call(at("acme"), HELLO, "POST", *told)).status == 200
                    headers = sandbox.calls[-1].headers
                    assert headers[b"x-forwarded-for"] == expected
                    assert headers[b"x-forwarded-proto"] == (b"https" if trusted else b"http")
                    assert headers[b"x-forwarded-host"] == (b"sandpost.example" if trusted else b"test")

    run(check())


def test_a_browser_may_call() -> None:
    async def check() -> None:
        asks = (
            "Origin: https://a.example",
            "Access-Control-Request-Method: PUT",
            "Access-Control-Request-Headers: x-a",
        )
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            for target in ("/acme", at("acme"), at("acme", "webtask_code=" + "0" * 64), "/api/tenants"):
                seen = await rig.call(target, b"", "OPTIONS", *asks)
                assert (seen.status, seen.headers["access-control-allow-origin"]) == (204, "*"), target
                assert "PUT" in seen.headers["access-control-allow-methods"]
                assert seen.headers["access-control-allow-headers"] == "x-a"
            seen = await rig.call(at("acme"), HELLO, "POST", "Origin: https://a.example")
            assert seen.headers["access-control-allow-origin"] == "*"
            seen = await rig.call("/acme", HELLO, "POST", "Origin: https://a.example")
            assert (seen.status, seen.headers["access-control-allow-origin"]) == (403, "*")
            assert "access-control-allow-origin" not in (await rig.call(at("acme"))).headers

    run(check())


def test_a_programs_own_cors_policy_stands() -> None:
    async def check() -> None:
        own = answer(b"a", "200 OK", "Access-Control-Allow-Origin: https://mine.example")
        async with Sandbox(says(own)) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            seen = await rig.call(at("acme"), HELLO, "POST", "Origin: https://a.example")
            assert seen.headers["access-control-allow-origin"] == "https://mine.example"

    run(check())


async def health(rig: Rig, target: str = "/health") -> Answer:
    """Return what a worker says of itself, which waits for nobody."""
    async with asyncio.timeout(5):
        return await rig.call(target, b"", "GET")


def test_health_names_what_is_missing() -> None:
    async def check() -> None:
        async with Rig() as rig:
            assert (await health(rig, "/health/live")).status == 200
            seen = await health(rig)
            assert (seen.status, seen.json["components"]["api"]) == (503, "away")
            server = await asyncio.start_unix_server(lambda _, writer: writer.close(), rig.host.api_socket)
            seen = await health(rig)
            assert (seen.status, seen.json["status"]) == (200, "ok")
            rig.controller.close()
            await eventually(lambda: not rig.worker.link.table_known)
            # Restarts take less than the grace.
            assert (await health(rig)).status == 200
            rig.worker.link._away_since -= 10
            seen = await health(rig)
            assert (seen.status, seen.json["components"]["controller"]) == (503, "away")
            server.close()

    run(check())


def test_health_names_a_log_bus_that_is_away_or_cannot_be_written_and_stays_well() -> None:
    async def check() -> None:
        async with Rig() as rig:
            server = await asyncio.start_unix_server(lambda _, writer: writer.close(), rig.host.api_socket)

            async def logs(problem: str, age: float) -> Any:
                left = Figures(
                    part="collector", index=0, pid=1, at=time.time() - age, samples=[], problem=problem
                )  # fmt: skip
                figures.write(rig.host.metrics_dir, left)
                seen = await health(rig)
                assert (seen.status, seen.json["status"]) == (200, "ok")
                # Anybody may ask: of where the bus is nothing is said.
                assert b"kafka1" not in seen.body
                return seen.json["components"]["logs"]

            assert (await health(rig)).json["components"]["logs"] == "away"
            assert await logs("", 0) == "ok"
            assert await logs("kafka1:9092 does not answer", 0) == "cannot be written"
            assert await logs("", 20) == "away"
            Path(rig.host.metrics_dir, "collector-0.json").write_text("rubbish")
            assert (await health(rig)).json["components"]["logs"] == "away"
            server.close()

    run(check())


def test_figures_are_left_once_a_second() -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            for _ in range(3):
                await rig.call(at("acme"))
            await rig.call("/acme")
            path = Path(rig.host.metrics_dir) / "proxy-0.json"

            def written() -> dict[str, float] | None:
                if not path.exists():
                    return None
                figures = msgspec.json.decode(path.read_bytes(), type=Figures)
                assert (figures.part, figures.pid) == ("proxy", os.getpid())
                found = {"".join([s.name, *s.labels.values()]): s.count or s.value for s in figures.samples}
                return found if found.get("sandpost_calls_total200") == 3 else None

            found = await eventually(written)
            assert found["sandpost_call_seconds"] == 3
            assert found["sandpost_refusals_totalno_credentials"] == 1
            assert b"acme" not in path.read_bytes()

    run(check())


def test_a_content_type_and_a_first_line_that_contradict_each_other_are_told() -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            code = b"// sandpost: language=javascript\n" + UNTYPED
            seen = await rig.call(at("acme"), code, "POST", "Content-Type: application/typescript")
            assert (seen.status, seen.json["reason"]) == (400, "invalid_code")
            assert "the content type says typescript, the pragma in the first line javascript" in seen.json["message"]
            assert not sandbox.loads
            assert (await rig.call(at("acme"), code, "POST", "Content-Type: application/javascript")).status == 200

    run(check())
