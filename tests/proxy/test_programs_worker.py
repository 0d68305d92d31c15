"""Programs on their way to a sandbox: sent once, found by hash, kept on disk within a bound."""

import asyncio
import hashlib
import os
import random
import time
from pathlib import Path

import pytest

from sandpost.model.languages import JAVASCRIPT, LANGUAGES, Language
from sandpost.model.limits import Isolation
from sandpost.proxy import call as call_module
from sandpost.proxy import code as code_module
from sandpost.proxy.code import CodeStore
from sandpost.proxy.program import Program, examine
from support.proxy import (
    HELLO,
    Ask,
    Peer,
    Replace,
    Request,
    Rig,
    Sandbox,
    Suspect,
    answer,
    at,
    eventually,
    real_runtime,
    run,
    says,
)

HASH = hashlib.sha256(HELLO).hexdigest()
UNKNOWN = b"HTTP/1.1 404 Not Found\r\nx-sandpost-wire: 1\r\nx-sandpost-unknown: 1\r\ncontent-length: 2\r\n\r\n{}"


def test_a_program_is_sent_once_however_many_wait_for_it() -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            assert (await rig.call(at("acme"), b"return 1")).status == 200
            sandbox.load_gate = asyncio.Event()
            calls = [asyncio.create_task(rig.call(at("acme"))) for _ in range(20)]
            await eventually(lambda: rig.worker.counts.in_flight == 20)
            sandbox.load_gate.set()
            assert [(await call).status for call in calls] == [200] * 20
            assert [load.headers[b"x-sandpost-code"] for load in sandbox.loads].count(HASH.encode()) == 1
            assert sandbox.loads[-1].body == HELLO

    run(check())


def test_a_program_that_was_unloaded_is_sent_again_and_no_body_is_lost() -> None:
    async def check() -> None:
        known = False

        async def script(sandbox: Sandbox, peer: Peer, head: Request) -> None:
            nonlocal known
            if not known:
                known = True
                await peer.write(UNKNOWN)
                if b"expect" in head.headers:
                    peer.writer.close()
                return
            body = b""
            if b"expect" in head.headers:
                await peer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = await peer.reader.readexactly(int(head.headers[b"content-length"]))
            await peer.write(answer(b"got " + body))

        async with Sandbox(script) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            assert (await rig.call(at("acme"))).body == b"got "
            assert len(sandbox.loads) == 2
            known = False
            assert (await rig.call(at("acme", f"webtask_code={HASH}"), b"body", "PUT")).body == b"got body"
            assert len(sandbox.loads) == 3

    run(check())


def test_a_sandbox_that_asks_for_its_program_again_and_again_gets_no_further_deadline() -> None:
    async def check() -> None:
        loop = asyncio.get_running_loop()
        asked_at = 0.0

        async def asks(sandbox: Sandbox, peer: Peer, _request: Request) -> None:
            nonlocal asked_at
            # Three times only: the pauses between are random and grow, and must not use up the deadline themselves.
            if len(sandbox.calls) <= 3:
                await asyncio.sleep(0.3)
                asked_at = loop.time()
                await peer.write(UNKNOWN)
            else:
                await peer.reader.read()

        async with Sandbox(asks) as sandbox, Rig(limits={"deadline": 2.0}) as rig:
            rig.controller.places["*"] = sandbox.place
            seen = await rig.call(at("acme"))
            assert (seen.status, seen.json["reason"]) == (504, "deadline")
            assert loop.time() - asked_at < 2.0
            assert len(sandbox.calls) == 4

    run(check())


def test_a_runtime_that_never_keeps_a_program_is_a_503_that_may_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    # By chance the last pause could end just before the deadline, which would then be the answer. As it is, 1.9 s are
    # waited, and the next pause is 1.9 s.
    monkeypatch.setattr(random, "uniform", lambda _, most: most)
    monkeypatch.setattr(call_module, "MAX_PAUSE", 60)

    async def check() -> None:
        async with Sandbox(says(UNKNOWN)) as sandbox, Rig(limits={"deadline": 3.5}) as rig:
            rig.controller.places["*"] = sandbox.place
            seen = await rig.call(at("acme"))
            assert (seen.status, seen.json["reason"], seen.json["retryable"]) == (503, "unavailable", True)
            assert "limits.programs" in seen.json["message"]
            assert seen.headers["retry-after"] == "1"
            assert 4 <= len(sandbox.loads) < 12
            assert not rig.controller.all(Suspect)

    run(check())


def test_programs_that_evict_one_another_before_their_calls_are_all_called() -> None:
    async def check() -> None:
        async with real_runtime(programs=1) as place, Rig() as rig:
            rig.controller.places["*"] = place
            for lap in range(3):
                calls = [rig.call(at("acme"), b"return cb => cb(null, '%d %d')" % (lap, n)) for n in range(60)]
                answers = await asyncio.gather(*calls)
                assert [seen.body for seen in answers] == [b'"%d %d"' % (lap, n) for n in range(60)]

    run(check())


def test_a_call_that_waits_to_load_again_goes_to_the_next_sandbox() -> None:
    async def check() -> None:
        async with Sandbox(says(UNKNOWN)) as first, Sandbox(says(answer(b"next"))) as second, Rig() as rig:
            rig.controller.places["*"] = first.place
            call = asyncio.create_task(rig.call(at("acme")))
            await eventually(lambda: len(first.loads) >= 5)
            rig.controller.places["*"] = second.place
            rig.controller.gone(next(iter(rig.controller.routes)), "idle")
            assert (await call).body == b"next"
            assert len(second.calls) == 1

    run(check())


def test_why_a_program_does_not_load_reaches_each_caller_with_its_own_id() -> None:
    async def check() -> None:
        async with real_runtime() as place, Rig() as rig:
            rig.controller.places["*"] = place
            answers = await asyncio.gather(*(rig.call(at("acme"), b"return function (cb { }") for _ in range(5)))
            assert {seen.status for seen in answers} == {400}
            assert {seen.headers["x-wt-response-source"] for seen in answers} == {"compiler"}
            assert all(seen.json["message"].startswith("Compilation failed") for seen in answers)
            assert len({seen.json["req_id"] for seen in answers}) == 5

    run(check())


def test_a_long_compile_error_is_a_400_and_its_sandbox_lives() -> None:
    async def check() -> None:
        async with real_runtime() as place, Rig() as rig:
            rig.controller.places["*"] = place
            name = b"A" * 140_000
            seen = await rig.call(at("acme"), b"let " + name + b"; let " + name + b"; return cb => cb(null, 1)")
            assert seen.status == 400
            assert seen.json["message"].startswith("Compilation failed: Identifier 'AAA")
            assert not rig.controller.all(Suspect)

    run(check())


@pytest.mark.parametrize(
    "load_answer",
    [
        b"HTTP/1.1 400 Bad Request\r\nx-sandpost-wire: 1\r\ncontent-length: 600000\r\n\r\n" + b"a" * 600_000,
        b"HTTP/1.1 400 Bad Request\r\nx-sandpost-wire: 1\r\ncontent-length: 1\r\n\r\naa",
        b"HTTP/1.1 503 Busy\r\nx-sandpost-wire: 1\r\ncontent-length: 0\r\n\r\n",
        b"rubbish\r\n\r\n",
    ],
    ids=["too long", "bytes behind it", "another status", "rubbish"],
)
def test_a_load_that_is_answered_strangely_is_a_502_of_its_own_caller(load_answer: bytes) -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            assert (await rig.call(at("acme"))).status == 200
            sandbox.load_answer = load_answer
            seen = await rig.call(at("acme"), b"return 1")
            assert (seen.status, seen.json["reason"], seen.json["fault"]) == (502, "bad_gateway", "code")
            assert len(sandbox.loads) == 2
            assert (await rig.call(at("acme"))).status == 200
            assert not rig.controller.all(Suspect)

    run(check())


def large(n: int) -> bytes:
    """Return a program of 1 MiB."""
    return (b"return cb => cb(null, %d) //" % n).ljust(1 << 20, b"x")


def test_large_programs_wait_their_turn_and_none_is_lost() -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            assert (await rig.call(at("acme"))).status == 200
            sandbox.load_gate = asyncio.Event()
            calls = [asyncio.create_task(rig.call(at("acme"), large(n))) for n in range(12)]
            await eventually(lambda: len(sandbox.loads) == 5)
            await eventually(lambda: rig.worker.counts.in_flight == 12)
            await asyncio.sleep(0.1)
            assert len(sandbox.loads) == 5, "more than 4 MiB are under way"
            # Those who leave lose their turn and take none.
            for call in calls[:2] + calls[10:]:
                call.cancel()
            await eventually(lambda: rig.worker.counts.in_flight == 8)
            sandbox.load_gate.set()
            assert [(await call).status for call in calls[2:10]] == [200] * 8
            assert len({load.headers[b"x-sandpost-code"] for load in sandbox.loads}) <= 11

    run(check())


def test_a_call_that_waits_for_its_turn_meets_its_deadline() -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig(limits={"deadline": 1.5}) as rig:
            rig.controller.places["*"] = sandbox.place
            assert (await rig.call(at("acme"))).status == 200
            sandbox.load_gate = asyncio.Event()
            answers = await asyncio.gather(*(rig.call(at("acme"), large(n)) for n in range(12)))
            assert {(seen.status, seen.json["reason"]) for seen in answers} == {(504, "deadline")}
            sandbox.load_gate.set()
            assert (await rig.call(at("acme"), large(99))).status == 200

    run(check())


def test_calls_that_wait_for_their_turn_go_to_the_next_sandbox() -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as first, Sandbox(says(answer())) as second, Rig() as rig:
            rig.controller.places["*"] = first.place
            first.load_gate = asyncio.Event()
            calls = [asyncio.create_task(rig.call(at("acme"), large(n))) for n in range(12)]
            await eventually(lambda: rig.worker.counts.in_flight == 12 and len(first.loads) == 4)
            rig.controller.places["*"] = second.place
            rig.controller.gone(next(iter(rig.controller.routes)), "memory")
            assert [(await call).status for call in calls] == [200] * 12
            assert len(first.loads) == 4

    run(check())


def test_a_program_outlives_its_sandbox_and_its_worker() -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            code = (await rig.call(at("acme"))).headers["x-sandpost-code"]
            path = Path(rig.host.code_dir) / "acme" / code
            assert path.read_bytes() == HELLO, "the answer came before others can find the program"
            # As another worker would: from disk, in a fresh sandbox.
            rig.worker.codes._kept.clear()
            rig.controller.gone(next(iter(rig.controller.routes)), "idle")
            assert (await rig.call(at("acme", f"webtask_code={code}"), b"", "GET")).status == 200
            # Of another tenant it is unknown.
            assert (await rig.call(at("other", f"webtask_code={code}"), b"", "GET")).status == 404

    run(check())


def test_programs_of_many_kinds_run_in_the_real_runtime() -> None:
    async def check() -> None:
        async with real_runtime() as place, Rig() as rig:
            rig.controller.places["*"] = place
            connection = await rig.connect()
            for n in range(300):
                seen = await connection.call(at("acme"), b"return function (cb) { cb(null, %d) }" % n)
                assert (seen.status, seen.body) == (200, b"%d" % n or b"{}") if n else seen.status == 200
            seen = await connection.call(
                at("acme"), b"return (ctx, req, res) => { res.statusCode = 201; res.end('x') }"
            )
            assert (seen.status, seen.body) == (201, b"x")
            seen = await connection.call(at("acme"), b"return function (cb) { process.exit(3) }")
            assert (seen.status, seen.json["reason"]) == (500, "exit")

    run(check())


def test_an_unknown_hash_costs_no_sandbox() -> None:
    async def check() -> None:
        async with Rig() as rig:
            seen = await rig.call(at("acme", "webtask_code=" + "0" * 64), b"", "GET")
            assert (seen.status, seen.json["reason"]) == (404, "unknown_code")
            assert not rig.controller.all(Ask)

    run(check())


def test_a_use_by_hash_keeps_a_program_for_another_day() -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            code = (await rig.call(at("acme"))).headers["x-sandpost-code"]
            path = Path(rig.host.code_dir) / "acme" / code
            past = time.time() - 80_000
            os.utime(path, (past, past))
            rig.worker.codes._touched.clear()
            assert (await rig.call(at("acme", f"webtask_code={code}"), b"", "GET")).status == 200
            await eventually(lambda: path.stat().st_mtime > past + 1000)
            # What is no longer on disk is written again by the next POST.
            path.unlink()
            rig.worker.codes._touched.clear()
            rig.worker.codes._missed.clear()
            assert (await rig.call(at("acme", f"webtask_code={code}"), b"", "GET")).status == 200
            assert (await rig.call(at("acme"))).status == 200
            assert path.read_bytes() == HELLO

    run(check())


def store(folder: Path, work: object) -> None:
    """Run `work(store)` with a store of its own."""

    async def check() -> None:
        made = CodeStore(str(folder))
        try:
            await work(made)  # type: ignore[operator]
        finally:
            made.close()

    run(check())


async def put(kept: CodeStore, code: bytes, bound: int = 1 << 30, typed: Language | None = None) -> str:
    """Keep a program and wait until it is on disk."""
    program, done = examine(code, typed), asyncio.Event()
    kept.put("acme", program, bound, done.set)
    await done.wait()
    return program.id


async def fetch(kept: CodeStore, name: str) -> Program | None:
    """Look on disk."""
    found: asyncio.Future[Program | None] = asyncio.get_running_loop().create_future()
    kept.fetch("acme", name, found.set_result)
    return await found


def test_a_program_cut_short_by_a_crash_is_not_found(tmp_path: Path) -> None:
    async def work(kept: CodeStore) -> None:
        name = await put(kept, b"return 1")
        path = tmp_path / "acme" / name
        path.write_bytes(b"retu")
        assert await fetch(kept, name) is None
        assert not path.exists()

    store(tmp_path, work)


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda language: language.name)
def test_a_kept_program_keeps_its_language(tmp_path: Path, language: Language) -> None:
    async def work(kept: CodeStore) -> None:
        name = await put(kept, b"return cb => cb(null, 1)", typed=language)
        kept._kept.clear()
        found = await fetch(kept, name)
        assert found == Program(name, language, b"return cb => cb(null, 1)")
        kept._touched.clear()
        path = next((tmp_path / "acme").iterdir())
        os.utime(path, (1, 1))
        kept.renew("acme", name)
        await eventually(lambda: path.stat().st_mtime > 1)

    store(tmp_path, work)


def test_the_same_bytes_in_two_languages_are_two_kept_programs(tmp_path: Path) -> None:
    async def work(kept: CodeStore) -> None:
        names = [await put(kept, b"return cb => cb(null, 1)", typed=language) for language in LANGUAGES]
        kept._kept.clear()
        found = [await fetch(kept, name) for name in names]
        assert [program.language for program in found if program is not None] == list(LANGUAGES)

    store(tmp_path, work)


def test_the_least_recently_used_go_first_when_a_tenant_has_too_many(tmp_path: Path) -> None:
    async def work(kept: CodeStore) -> None:
        first = await put(kept, b"first")
        used = await put(kept, b"used")
        past = time.time() - 1000
        os.utime(tmp_path / "acme" / first, (past, past))
        names = [await put(kept, b"%d" % n, bound=20 * 4096) for n in range(40)]
        left = set(os.listdir(tmp_path / "acme"))
        assert 15 <= len(left) <= 20
        assert names[-1] in left
        assert first not in left
        assert used not in left

    store(tmp_path, work)


def test_what_was_not_used_for_a_day_goes(tmp_path: Path) -> None:
    async def work(kept: CodeStore) -> None:
        old, new = await put(kept, b"old"), await put(kept, b"new")
        past = time.time() - code_module.KEPT_FOR - 10
        os.utime(tmp_path / "acme" / old, (past, past))
        kept._sweep_disk()
        assert os.listdir(tmp_path / "acme") == [new]

    store(tmp_path, work)


def test_a_full_or_foreign_disk_costs_the_keeping_and_no_call(tmp_path: Path) -> None:
    async def work(kept: CodeStore) -> None:
        name = await put(kept, b"return 1")
        assert kept.look("acme", name) == examine(b"return 1", None)

    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    store(blocked / "below", work)


@pytest.mark.parametrize("name", ["../../etc/passwd", "A" * 64, ""])
def test_only_hashes_name_files(tmp_path: Path, name: str) -> None:
    async def work(kept: CodeStore) -> None:
        with pytest.raises(AssertionError):
            kept._path("acme", name, JAVASCRIPT)

    store(tmp_path, work)


def test_the_language_that_a_content_type_says_reaches_the_runtime_and_stays_with_the_hash() -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            plain = await rig.call(at("acme"), HELLO, "POST", "Content-Type: text/javascript")
            typed = await rig.call(at("acme"), HELLO, "POST", "Content-Type: text/typescript")
            form = await rig.call(at("acme"), HELLO, "POST", "Content-Type: application/x-www-form-urlencoded")
            assert plain.headers["x-sandpost-code"] == form.headers["x-sandpost-code"] == HASH
            assert typed.headers["x-sandpost-code"] == hashlib.sha256(b"typescript\0" + HELLO).hexdigest()
            loads = [
                (load.headers[b"x-sandpost-code"].decode(), load.headers[b"content-type"]) for load in sandbox.loads
            ]
            assert loads == [
                (HASH, b"application/javascript"),
                (typed.headers["x-sandpost-code"], b"application/typescript"),
            ]

    run(check())


def test_typescript_is_called_by_its_hash_after_its_sandbox_and_its_worker_forgot_it() -> None:
    async def check() -> None:
        code = b"const f = <T,>(a: T) => a;\nreturn (context: any, cb: any) => cb(null, f(context.data.n))"
        async with Rig() as rig:
            async with real_runtime() as place:
                rig.controller.places["*"] = place
                seen = await rig.call(at("acme", "n=1"), code, "POST", "Content-Type: application/typescript")
                assert seen.body == b'"1"'
                rig.controller.gone(next(iter(rig.controller.routes)), "idle")
            async with real_runtime() as place:
                rig.controller.places["*"] = place
                rig.worker.codes._kept.clear()
                target = at("acme", f"webtask_code={seen.headers['x-sandpost-code']}&n=2")
                assert (await rig.call(target, b"", "GET")).body == b'"2"'

    run(check())


def test_a_runtime_that_asks_for_another_at_a_load_gets_it() -> None:
    async def check() -> None:
        async with Sandbox(says(answer(b"1"))) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            refused = b'{"reason":"compilation_failed"}'
            sandbox.load_answer = answer(refused, "400 Bad Request", "x-sandpost-replace: 1")
            for program in (b"return (", b"return )"):
                seen = await rig.call(at("acme"), program)
                assert (seen.status, seen.body) == (400, refused)
            assert len(sandbox.loads) == 2
            await eventually(lambda: rig.controller.all(Replace))
            assert len(rig.controller.all(Replace)) == 1

    run(check())


PYTHON = b"# sandpost: language=python\ndef main(context):\n    return 1"


def test_a_program_goes_to_the_sandbox_of_its_languages_runtime() -> None:
    async def check() -> None:
        async with Sandbox(says(answer(b"js"))) as node, Sandbox(says(answer(b"py"))) as python, Rig() as rig:
            rig.controller.places.update({"node": node.place, "python": python.place})
            assert (await rig.call(at("acme"))).body == b"js"
            assert (await rig.call(at("acme"), PYTHON)).body == b"py"
            assert (await rig.call(at("acme"), b"main = 1", "POST", "Content-Type: text/x-python")).body == b"py"
            assert (await rig.call(at("acme"))).body == b"js"
            assert [load.headers[b"content-type"] for load in python.loads] == [b"text/x-python"] * 2
            assert [load.headers[b"content-type"] for load in node.loads] == [b"application/javascript"]
            assert [ask.runtime for ask in rig.controller.all(Ask)] == ["node", "python"]

    run(check())


@pytest.mark.parametrize("isolation", ["per_tenant", "per_request"])
@pytest.mark.parametrize("known", ["loaded", "in memory", "on disk"])
def test_a_call_by_hash_goes_to_the_runtime_that_its_program_had(known: str, isolation: Isolation) -> None:
    async def check() -> None:
        async with Sandbox(says(answer(b"js"))) as node, Sandbox(says(answer(b"py"))) as python, Rig() as rig:
            rig.tenant("acme", isolation)
            rig.controller.places.update({"node": node.place, "python": python.place})
            # The tenant has both, so that a wrong one would take it.
            assert (await rig.call(at("acme"))).body == b"js"
            code = (await rig.call(at("acme"), PYTHON)).headers["x-sandpost-code"]
            if known != "loaded":
                for route in list(rig.controller.routes.values()):
                    if route.runtime == "python":
                        rig.controller.gone(route.sandbox_id, "idle")
                await eventually(lambda: isolation == "per_request" or len(rig.worker.routes.sandboxes) == 1)
            if known == "on disk":
                rig.worker.codes._kept.clear()
            seen = await rig.call(at("acme", f"webtask_code={code}"), b"", "GET")
            assert (seen.status, seen.body) == (200, b"py")
            assert len(node.loads) == 1

    run(check())


def test_an_end_of_one_runtime_ends_no_call_of_the_other() -> None:
    async def check() -> None:
        gate = asyncio.Event()

        async def waits(sandbox: Sandbox, peer: Peer, head: Request) -> None:
            await gate.wait()
            await peer.write(answer(b"js"))

        async with Sandbox(waits) as node, Sandbox(says(answer(b"py"))) as python, Rig() as rig:
            rig.controller.places.update({"node": node.place, "python": python.place})
            call = asyncio.create_task(rig.call(at("acme")))
            assert (await rig.call(at("acme"), PYTHON)).body == b"py"
            [gone] = [route for route in rig.controller.routes.values() if route.runtime == "python"]
            rig.controller.gone(gone.sandbox_id, "crash")
            await eventually(lambda: len(rig.worker.routes.sandboxes) == 1)
            gate.set()
            assert (await call).body == b"js"

    run(check())
