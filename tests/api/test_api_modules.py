"""The queue of modules: the real api, a scripted proxy in the place of the one whose sandboxes install."""

import asyncio
import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpost.api.modules import builder, install, waits
from sandpost.api.modules.install import Installation
from sandpost.api.modules.recovery import collectable
from sandpost.api.modules.waits import Waits
from sandpost.ipc.channel import Channel, Listener
from sandpost.model.bounds import check_together
from sandpost.model.egress import parse_egress
from sandpost.model.host import Modules
from sandpost.model.limits import Limits
from sandpost.model.messages import Hello, Reload, ToSupervisor
from sandpost.model.modules import FACTS, Facts, ModuleRecord
from sandpost.model.names import BUILDER
from sandpost.model.specs import Spec, parse_spec
from sandpost.modules.shelf import Shelf, Staged
from support.builder import SETTINGS, Bench, Order, Said, ScriptedProxy, archive, good
from support.installation import host_in, wait_for
from support.kafka import authority


@pytest.fixture(scope="module")
def shared_bench() -> Iterator[Bench]:
    with Bench() as made:
        yield made


@pytest.fixture
def bench(shared_bench: Bench) -> Iterator[Bench]:
    shared_bench.proxy.answer = good
    shared_bench.proxy.calls.clear()
    yield shared_bench
    for spec in shared_bench.specs():
        assert shared_bench.remove(spec) == 204


def test_a_module_is_queued_then_there_with_its_hashes_and_its_size(bench: Bench) -> None:
    [queued] = bench.add("npm:@scope/x@1.0.0")
    assert (queued["state"], queued["registry"], queued["name"], queued["version"]) == (
        "queued",
        "npm",
        "@scope/x",
        "1.0.0",
    )
    done = bench.until("npm:@scope/x@1.0.0", "available")
    assert (done["size"], done["files"], done["reason"], done["scripts"]) == (12, 2, "", False)
    assert done["integrity"] == {"@scope/x@1.0.0": "sha512-x"}
    place = bench.ready / "npm/@scope/x/1.0.0"
    assert sorted(os.listdir(place)) == [FACTS, "node_modules"]
    assert (place / "node_modules/@scope/x/package.json").read_bytes() == b"{}"
    # Sandboxes' users read it.
    assert (place.stat().st_mode & 0o777, place.stat().st_uid) == (0o755, bench.made.host.users.api)


def test_the_builder_is_a_tenant_with_a_key_while_something_is_installed_and_not_afterwards(bench: Bench) -> None:
    bench.add("npm:a@1.0.0")
    bench.until("npm:a@1.0.0", "available")
    [call] = bench.proxy.calls
    assert call.path == f"/{BUILDER}"
    assert call.program == builder.PROGRAM
    assert call.key is not None
    # Good for that tenant alone.
    assert call.key.tenant == BUILDER
    assert call.tenant is not None
    assert (call.tenant.isolation, call.tenant.egress) == (
        "per_request", "allow:files.example.com:443,npm.example.com:4873,pypi.example.com:443",
    )  # fmt: skip
    wait_for(lambda: bench.made.call("GET", f"/api/tenants/{BUILDER}").status_code == 404)
    assert all(key["tenant"] != BUILDER for key in bench.made.call("GET", "/api/keys").json()["keys"])


@pytest.mark.parametrize(("method", "path"), [("PUT", ""), ("DELETE", ""), ("POST", "/keys")])
def test_nobody_else_sets_the_builder_up(bench: Bench, method: str, path: str) -> None:
    answer = bench.made.call(method, f"/api/tenants/{BUILDER}{path}", {} if method != "DELETE" else None)
    assert (answer.status_code, answer.json()["reason"]) == (400, "invalid_name")


def test_what_is_there_or_queued_is_not_asked_for_again_and_what_failed_is(bench: Bench) -> None:
    bench.proxy.answer = lambda _: Said(b'{"away": false, "reason": "no such version"}', 422)
    bench.add("npm:a@1.0.0")
    failed = bench.until("npm:a@1.0.0", "failed")
    assert failed["reason"] == "no such version"
    bench.proxy.answer = good
    bench.add("npm:a@1.0.0", "npm:a@1.0.0")
    done = bench.until("npm:a@1.0.0", "available")
    assert bench.add("npm:a@1.0.0")[0]["done_at"] == done["done_at"]
    time.sleep(0.3)
    assert len(bench.proxy.calls) == 2


def test_all_are_queued_or_none(bench: Bench) -> None:
    for wrong in ("npm:b@^1", "lodash", "npm:../b@1.0.0"):
        [problem] = bench.add("npm:a@1.0.0", wrong, status=400)
        assert problem["reason"] in {"invalid_value", "invalid_name"}
    [problem] = bench.add(*(f"npm:n{number}@1.0.0" for number in range(9)), status=503)
    assert (problem["reason"], problem["retryable"]) == ("modules_full", False)
    assert "modules.count" in problem["message"]
    assert bench.add(status=400)[0]["reason"] == "invalid_value"
    assert bench.add(*["npm:a@1.0.0"] * 101, status=400)[0]["reason"] == "invalid_value"
    assert bench.specs() == []


def test_a_registry_that_is_not_set_says_how_to_set_it() -> None:
    with Bench(msgspec.structs.replace(SETTINGS, pypi="")) as bench:
        [problem] = bench.add("npm:a@1.0.0", "pypi:b==1", status=400)
        assert "`modules.pypi` is not set" in problem["message"]
        assert "SIGHUP" in problem["message"]
        assert bench.specs() == []


def test_any_key_reads_and_the_operators_alone_changes(bench: Bench) -> None:
    bench.made.call("PUT", "/api/tenants/reader", {})
    key = bench.made.call("POST", "/api/tenants/reader/keys", {}).json()["key"]
    bench.add("npm:a@1.0.0")
    answer = bench.made.call("GET", "/api/modules", key=key)
    assert [one["spec"] for one in answer.json()["modules"]] == ["npm:a@1.0.0"]
    for method, path, body in (
        ("POST", "/api/modules", {"modules": ["npm:b@1.0.0"]}),
        ("DELETE", "/api/modules?spec=npm:a@1.0.0", None),
        ("POST", "/api/modules/gc", {}),
    ):
        assert bench.made.call(method, path, body, key=key).status_code == 403
    bench.made.call("DELETE", "/api/tenants/reader")


def test_a_list_comes_in_pages_without_hashes(bench: Bench) -> None:
    specs = ["npm:a@1.0.0", "npm:b@1.0.0", "npm:c@1.0.0"]
    bench.add(*specs)
    page = bench.made.call("GET", "/api/modules?limit=2").json()
    assert [one["spec"] for one in page["modules"]] == specs[:2]
    assert all("integrity" not in one for one in page["modules"])
    rest = bench.made.call("GET", f"/api/modules?limit=2&after={page['next']}").json()
    assert ([one["spec"] for one in rest["modules"]], rest["next"]) == (specs[2:], None)


# --- what goes wrong ------------------------------------------------------------------------------------------------

LARGE = (2 << 20) - 4096


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (lambda order: Said(archive(order, LARGE)), "larger than `modules.size` (1 MiB)"),
        (lambda _: Said(b"<html>" * 1000), "no tar"),
        (lambda order: Said(archive({**order, "name": "other"})), "does not hold `node_modules/x/package.json`"),
        (lambda order: Said(archive(order)[:1536]), "ends in the middle"),
        (lambda order: Said(archive(order), 200, own=False), "the builder failed"),
        (lambda _: Said(b'{"reason": "memory", "message": "m"}', 500, own=False), "`modules.memory` (1GiB)"),
        (lambda _: Said(b'{"reason": "deadline", "message": "m"}', 504, own=False), "`modules.timeout` (10m)"),
        (lambda _: Said(b'{"reason": "sync_exception", "message": "it threw"}', 500), "it threw"),
        (lambda _: Said(b"x" * 300_000, 500, own=False), "status 500"),
        (lambda _: Said(b'{"away": false, "reason": "' + b"y" * 5000 + b'"}', 422), "yyy"),
    ],
)
def test_what_cannot_be_installed_fails_with_its_reason_and_leaves_nothing(
    bench: Bench, said: Callable[[Order], Said], told: str
) -> None:
    bench.proxy.answer = said
    bench.add("npm:x@1.0.0")
    reason = bench.until("npm:x@1.0.0", "failed")["reason"]
    assert told in reason
    assert len(reason) < 1000
    assert not (bench.ready / "npm/x").exists()


def test_what_is_cut_off_is_tried_again_and_given_up_in_the_end(bench: Bench) -> None:
    bench.proxy.answer = lambda order: Said(archive(order, 100_000), cut=50_000)
    bench.add("npm:x@1.0.0")
    waiting = bench.until("npm:x@1.0.0", "queued", "cut off")
    assert "next try in 5 s" in waiting["reason"]
    assert not (bench.ready / "npm/x").exists()
    # What waits for its own sake keeps nobody else.
    bench.proxy.answer = good
    bench.add("npm:y@1.0.0")
    bench.until("npm:y@1.0.0", "available", within=4)
    bench.until("npm:x@1.0.0", "available")


def test_a_registry_that_is_away_is_told_and_all_of_its_modules_wait_for_it(bench: Bench) -> None:
    bench.proxy.answer = lambda order: (
        good(order) if order["registry"] == "pypi" else Said(b'{"away": true, "reason": "it does not answer"}', 424)
    )
    bench.add("npm:a@1.0.0")
    assert "it does not answer; next try in 5 s, at " in bench.until("npm:a@1.0.0", "queued", "next try")["reason"]
    bench.add("npm:b@1.0.0", "pypi:p==1")
    # Another registry's modules go on. (What it sends is of npm's form, and no wheel's: that does not matter here.)
    bench.until("pypi:p==1", "available", within=4)
    assert [call.order["name"] for call in bench.proxy.calls] == ["a", "p"]
    bench.proxy.answer = good
    bench.until("npm:a@1.0.0", "available")
    bench.until("npm:b@1.0.0", "available")
    tries = [call.at for call in bench.proxy.calls if call.order["name"] == "a"]
    assert tries[1] - tries[0] >= waits.FIRST


def test_a_package_that_its_registry_cannot_give_keeps_no_other_waiting_for_long(bench: Bench) -> None:
    bench.proxy.answer = lambda order: (
        good(order) if order["name"] != "a" else Said(b'{"away": true, "reason": "502 of a.tgz"}', 424)
    )
    bench.add("npm:a@1.0.0", "npm:b@1.0.0", "npm:c@1.0.0")
    told = bench.until("npm:b@1.0.0", "queued", "next try in 5 s")["reason"]
    assert told.startswith("`npm:a@1.0.0` could not be had, so all of npm wait: 502 of a.tgz; next try in 5 s, at ")
    bench.until("npm:b@1.0.0", "available", within=10)
    # The registry answers, so the next one waits for nothing.
    bench.until("npm:c@1.0.0", "available", within=2)
    assert bench.until("npm:a@1.0.0", "queued")["reason"].startswith("502 of a.tgz; next try in ")
    bench.proxy.answer = good
    bench.add("npm:a@1.0.0")
    bench.until("npm:a@1.0.0", "available", within=4)


def test_what_waits_is_tried_at_once_where_somebody_asks_again_or_the_settings_change(bench: Bench) -> None:
    bench.proxy.answer = lambda _: Said(b'{"away": true, "reason": "it does not answer"}', 424)
    for tries in (1, 2, 3):
        bench.add("npm:a@1.0.0")
        wait_for(lambda tries=tries: len(bench.proxy.calls) == tries, 4)  # type: ignore[misc]
        bench.until("npm:a@1.0.0", "queued", "next try")
    # A new one of the same registry waits with it.
    bench.add("npm:b@1.0.0")
    time.sleep(0.3)
    assert len(bench.proxy.calls) == 3
    bench.proxy.answer = good
    reload(bench)
    bench.until("npm:a@1.0.0", "available", within=4)
    bench.until("npm:b@1.0.0", "available", within=4)


def reload(bench: Bench) -> None:
    """Let the api read its settings again, as a supervisor does after SIGHUP."""

    async def work() -> None:
        greeted = asyncio.Event()
        channels: list[Channel[ToSupervisor]] = []

        def on_message(channel: Channel[ToSupervisor], message: ToSupervisor, _fds: list[int]) -> None:
            if isinstance(message, Hello):
                channels.append(channel)
                greeted.set()

        path = bench.made.host.supervisor_socket
        listener: Listener[ToSupervisor] = Listener(
            path, ToSupervisor, on_message, lambda _: None, admit=lambda _: True
        )
        try:
            async with asyncio.timeout(10):
                await greeted.wait()
            channels[0].send(Reload())
            await asyncio.to_thread(wait_for, lambda: "settings taken up" in bench.made.log())
        finally:
            listener.close()

    asyncio.run(work())


@pytest.mark.parametrize(("reason", "status"), [("no_room", 503), ("wrong_key", 403)])
def test_a_proxy_that_takes_no_call_is_no_fault_of_the_module(bench: Bench, reason: str, status: int) -> None:
    body = msgspec.json.encode({"reason": reason, "message": "not now"})
    bench.proxy.answer = lambda _: Said(body, status, own=False)
    bench.add("npm:a@1.0.0")
    assert (
        "no sandbox to install it in could be had (not now)" in bench.until("npm:a@1.0.0", "queued", "next")["reason"]
    )


def test_a_full_store_fails_and_says_what_makes_room() -> None:
    with Bench(msgspec.structs.replace(SETTINGS, keep=1 << 20)) as bench:
        bench.proxy.answer = lambda order: Said(archive(order, (1 << 20) - 20))
        bench.add("npm:a@1.0.0")
        bench.until("npm:a@1.0.0", "available")
        bench.add("npm:b@1.0.0")
        reason = bench.until("npm:b@1.0.0", "failed")["reason"]
        assert reason == (
            "it is larger than what is left of `modules.keep` (18 B of 1 MiB): `sandpost module gc` and `rm` make room, "
            "or raise it"
        )
        bench.remove("npm:a@1.0.0")
        bench.add("npm:b@1.0.0")
        bench.until("npm:b@1.0.0", "available")


def test_scripts_are_run_where_they_are_asked_for(bench: Bench) -> None:
    bench.add("npm:a@1.0.0")
    bench.until("npm:a@1.0.0", "available")
    bench.add("npm:b@1.0.0", scripts=True)
    assert bench.until("npm:b@1.0.0", "available")["scripts"] is True
    assert [call.order["scripts"] for call in bench.proxy.calls] == [False, True]


def test_one_is_installed_after_the_other(bench: Bench) -> None:
    at_once, most, lock = 0, 0, threading.Lock()

    def slowly(order: Order) -> Said:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.1)
        with lock:
            at_once -= 1
        return good(order)

    bench.proxy.answer = slowly
    specs = [f"npm:m{number}@1.0.0" for number in range(4)]
    bench.add(*specs)
    for spec in specs:
        bench.until(spec, "available")
    assert most == 1
    # In the order in which they were asked for.
    assert [call.order["name"] for call in bench.proxy.calls] == ["m0", "m1", "m2", "m3"]


def test_a_listener_that_speaks_tls_is_called_whatever_its_certificates_name(tmp_path: Path) -> None:
    _, both = authority(tmp_path)
    with Bench(certificate=both) as bench:
        bench.add("npm:a@1.0.0")
        bench.until("npm:a@1.0.0", "available")


# --- removing -------------------------------------------------------------------------------------------------------


def test_a_removed_module_is_gone_and_can_be_had_again(bench: Bench) -> None:
    bench.add("npm:a@1.0.0")
    bench.until("npm:a@1.0.0", "available")
    assert bench.remove("npm:a@1.0.0") == 204
    assert not (bench.ready / "npm/a").exists()
    answer = bench.made.call("DELETE", "/api/modules?spec=npm:a@1.0.0")
    assert (answer.status_code, answer.json()["reason"]) == (404, "not_found")
    bench.add("npm:a@1.0.0")
    bench.until("npm:a@1.0.0", "available")


def test_one_that_is_being_installed_is_broken_off(bench: Bench) -> None:
    bench.proxy.answer = lambda order: Said(archive(order), after=3)
    bench.add("npm:slow@1.0.0")
    wait_for(lambda: bool(bench.proxy.calls))
    began = time.monotonic()
    assert bench.remove("npm:slow@1.0.0") == 204
    assert time.monotonic() - began < 2
    time.sleep(3.2)
    assert bench.specs() == []
    assert not (bench.ready / "npm/slow").exists()


def test_what_is_broken_off_at_any_moment_leaves_nothing(bench: Bench) -> None:
    bench.proxy.answer = lambda order: Said(archive(order, 900_000))
    for moment in range(40):
        bench.add("npm:x@1.0.0")
        time.sleep(moment * 0.002)
        assert bench.remove("npm:x@1.0.0") == 204
        assert not (bench.ready / "npm/x").exists()


def test_what_is_removed_before_it_has_begun_does_not_come_back_and_holds_up_nobody(bench: Bench) -> None:
    specs = ["npm:x@1.0.0", "npm:y@1.0.0", "npm:z@1.0.0"]
    for moment in range(80):
        bench.add(*specs)
        time.sleep(moment * 0.0003)
        for spec in specs:
            assert bench.remove(spec) == 204
        assert bench.specs() == []
    time.sleep(0.3)
    assert bench.specs() == []
    bench.add("npm:last@1.0.0")
    bench.until("npm:last@1.0.0", "available", within=4)


@pytest.mark.parametrize("step", ["begin", "folder", "file", "write", "keep"])
def test_what_is_broken_off_while_a_thread_works_on_it_leaves_nothing_half_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    real, reached = getattr(Staged, step), threading.Event()

    def slow(staged: Staged, *args: Any, **options: Any) -> Any:
        result = real(staged, *args, **options)
        reached.set()
        time.sleep(0.2)
        return result

    monkeypatch.setattr(Staged, step, slow)
    proxy = ScriptedProxy(good)
    host = host_in(str(tmp_path), listen_port=proxy.port, modules=SETTINGS)
    shelf = Shelf(str(tmp_path / "ready"))

    async def work() -> None:
        with ThreadPoolExecutor(1) as thread:
            installing = Installation(host, shelf, thread).run(ModuleRecord(spec="npm:x@1.0.0"), "key", 1 << 20)
            task = asyncio.create_task(installing)
            await asyncio.to_thread(reached.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    try:
        asyncio.run(work())
    finally:
        proxy.close()
    left = [path.name for path in tmp_path.rglob("*") if path.name.startswith(".new-")]
    assert left == []
    # The last step, once it was begun, is done.
    assert list(shelf.versions()) == ([parse_spec("npm:x@1.0.0")] if step == "keep" else [])


def test_a_slow_disk_takes_nothing_from_the_builders_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Staged.keep

    def slow(staged: Staged, facts: Facts) -> bool:
        time.sleep(2.0)
        return real(staged, facts)

    monkeypatch.setattr(Staged, "keep", slow)
    monkeypatch.setattr(install, "_MARGIN", 0.0)
    proxy = ScriptedProxy(good)
    settings = msgspec.structs.replace(SETTINGS, timeout=1.5)
    host = host_in(str(tmp_path), listen_port=proxy.port, modules=settings)
    shelf = Shelf(str(tmp_path / "ready"))

    async def work() -> Facts:
        with ThreadPoolExecutor(1) as thread:
            return await Installation(host, shelf, thread).run(ModuleRecord(spec="npm:x@1.0.0"), "key", 1 << 20)

    try:
        assert asyncio.run(work()).files == 2
    finally:
        proxy.close()
    assert list(shelf.versions()) == [parse_spec("npm:x@1.0.0")]


def test_a_builders_key_that_was_revoked_is_followed_by_another(bench: Bench) -> None:
    bench.proxy.answer = lambda order: Said(archive(order), after=0.5)
    bench.add("npm:a@1.0.0", "npm:b@1.0.0")
    wait_for(lambda: len(bench.proxy.calls) == 1)
    first = bench.proxy.calls[0].key
    assert first is not None
    assert bench.made.call("DELETE", f"/api/keys/{first.id}").status_code == 204
    bench.until("npm:b@1.0.0", "available")
    second = bench.proxy.calls[1].key
    assert second is not None
    assert (second.tenant, second.id != first.id) == (BUILDER, True)


def test_a_collection_removes_what_failed_and_older_versions_as_it_is_told(bench: Bench) -> None:
    bench.proxy.answer = lambda order: good(order) if order["name"] != "bad" else Said(b'{"reason": "no"}', 422)
    bench.add("npm:a@1.0.0", "npm:a@2.0.0", "npm:a@3.0.0-rc.1", "npm:bad@1.0.0")
    for spec in ("npm:a@1.0.0", "npm:a@2.0.0", "npm:a@3.0.0-rc.1"):
        bench.until(spec, "available")
    bench.until("npm:bad@1.0.0", "failed")

    def collect(body: Any) -> list[str]:
        answer = bench.made.call("POST", "/api/modules/gc", body)
        assert answer.status_code == 200, answer.text
        return [one["spec"] for one in answer.json()["modules"]]

    assert collect({}) == ["npm:bad@1.0.0"]
    assert collect({"older_than": "1h"}) == []
    assert collect({"keep": 1}) == ["npm:a@1.0.0", "npm:a@3.0.0-rc.1"]
    assert bench.specs() == ["npm:a@2.0.0"]
    assert sorted(os.listdir(bench.ready / "npm/a")) == ["2.0.0"]
    assert bench.made.call("POST", "/api/modules/gc", {"older_than": "soon"}).status_code == 400


def test_what_a_collection_removes() -> None:
    def made(spec: str, done_at: float) -> ModuleRecord:
        return ModuleRecord(spec=spec, state="available", done_at=done_at)

    records = [made("npm:a@1.9.0", 10), made("npm:a@1.10.0", 20), made("pypi:a==1.9", 30), made("npm:q@1.0.0", 0)]
    records.append(ModuleRecord(spec="npm:w@1.0.0", state="queued"))

    def removed(**options: Any) -> list[str]:
        return [one.spec for one in collectable(records, now=100.0, **{"keep": None, "older_than": None, **options})]

    assert removed() == []
    assert removed(keep=1) == ["npm:a@1.9.0"]
    assert removed(older_than=80.0) == ["npm:a@1.9.0"]
    assert removed(keep=1, older_than=95.0) == []
    assert removed(keep=0) == ["npm:a@1.9.0", "npm:a@1.10.0", "pypi:a==1.9", "npm:q@1.0.0"]


# --- starts ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def own_bench() -> Iterator[Bench]:
    with Bench() as made:
        yield made


def test_a_kill_during_an_installation_costs_time_alone() -> None:
    with own_bench() as bench:
        bench.add("npm:whole@1.0.0")
        bench.until("npm:whole@1.0.0", "available")
        bench.proxy.answer = lambda order: Said(archive(order, 900_000), after=0.3)
        bench.proxy.calls.clear()
        bench.add("npm:x@1.0.0")
        for moment in (0.05, 0.3, 0.32, 0.34):
            wait_for(lambda: bool(bench.proxy.calls))
            time.sleep(moment)
            bench.made.stop(signal.SIGKILL)
            bench.proxy.calls.clear()
            bench.made.start()
            assert bench.state("npm:whole@1.0.0")["state"] == "available"
            if bench.state("npm:x@1.0.0")["state"] == "available":
                break
        # Tries that fail on a busy machine are made again after 5 and 10 s.
        bench.until("npm:x@1.0.0", "available", within=60)
        assert not list(bench.ready.rglob(".new-*"))
        # The former one's key is gone too.
        wait_for(lambda: bench.made.call("GET", f"/api/tenants/{BUILDER}").status_code == 404)


def test_a_start_makes_table_and_folders_agree() -> None:
    with own_bench() as bench:
        bench.add("npm:lost@1.0.0", "npm:here@1.0.0")
        bench.until("npm:lost@1.0.0", "available")
        bench.until("npm:here@1.0.0", "available")
        bench.made.stop()
        shutil.rmtree(bench.ready / "npm/lost")
        half = bench.ready / "npm/here/.new-0123"
        half.mkdir()
        (half / "a").write_text("half")
        strange = bench.ready / "npm/strange/1.0.0"
        strange.mkdir(parents=True)
        for path in (half, half / "a", strange, strange.parent):
            os.chown(path, bench.made.host.users.api, bench.made.host.users.gid)
        (Path(bench.made.host.store_path)).unlink()
        for name in ("-wal", "-shm"):
            Path(bench.made.host.store_path + name).unlink(missing_ok=True)
        bench.made.start()
        # A store that was lost: what is there is taken up, what nobody knows anything of is not.
        wait_for(lambda: bench.specs() == ["npm:here@1.0.0"])
        assert bench.state("npm:here@1.0.0")["integrity"] == {"here@1.0.0": "sha512-x"}
        wait_for(lambda: not half.exists() and not strange.exists())


def test_a_row_whose_folder_is_gone_is_installed_again() -> None:
    with own_bench() as bench:
        bench.add("npm:lost@1.0.0")
        bench.until("npm:lost@1.0.0", "available")
        bench.made.stop()
        shutil.rmtree(bench.ready / "npm/lost")
        bench.made.start()
        # The row says `available` until the start has looked.
        wait_for((bench.ready / "npm/lost/1.0.0/node_modules/lost/package.json").exists)
        bench.until("npm:lost@1.0.0", "available")


def test_a_stop_breaks_off_and_the_next_start_goes_on() -> None:
    with own_bench() as bench:
        bench.proxy.answer = lambda order: Said(archive(order), after=5)
        bench.add("npm:slow@1.0.0")
        wait_for(lambda: bool(bench.proxy.calls))
        began = time.monotonic()
        assert bench.made.stop() == 0
        assert time.monotonic() - began < 4
        assert not list(bench.ready.rglob(".new-*"))
        bench.proxy.answer = good
        bench.made.start()
        bench.until("npm:slow@1.0.0", "available")


def test_of_two_generations_one_works_and_the_other_waits_for_it() -> None:
    with own_bench() as bench:
        bench.proxy.answer = lambda order: Said(archive(order), after=1.5)
        bench.add("npm:a@1.0.0")
        wait_for(lambda: bool(bench.proxy.calls))
        former = bench.made.api
        assert former is not None
        try:
            bench.made.start()
            wait_for(lambda: bench.made.log().count("api ready") == 2)
            # The successor takes requests, and changes nothing that the former one works on.
            bench.add("npm:b@1.0.0")
            answer = bench.made.call("DELETE", "/api/modules?spec=npm:a@1.0.0")
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert len(bench.proxy.calls) == 1
            bench.until("npm:a@1.0.0", "available")
            bench.proxy.answer = good
            former.send_signal(signal.SIGTERM)
            assert former.wait(20) == 0
            bench.until("npm:b@1.0.0", "available")
            wait_for(lambda: bench.remove("npm:a@1.0.0") == 204)
        finally:
            former.kill()
            former.wait(20)


# --- pure -----------------------------------------------------------------------------------------------------------


def test_the_wait_doubles_to_a_bound_and_begins_anew_when_the_registry_answered() -> None:
    found, spec, other = Waits(), Spec("npm", "a", "1.0.0"), Spec("npm", "b", "1.0.0")
    taken = [found.again(spec, 100.0, registry=True) for _ in range(10)]
    assert taken == [(wait, wait) for wait in (5, 10, 20, 40, 80, 160, 320, 600, 600, 600)]
    assert found.due(other) == 700.0
    assert found.due(Spec("pypi", "a", "1")) == 0.0
    # The registry answered for another one: this one failed itself, and waits as long as before.
    found.forget(other)
    assert (found.due(spec), found.due(other)) == (700.0, 0.0)
    assert found.again(spec, 700.0, registry=True) == (600, 5)
    found.forget(spec)
    assert found.again(spec, 0.0, registry=False) == (5, 0)
    assert (found.due(spec), found.due(other)) == (5.0, 0.0)


@given(st.lists(st.sampled_from(["good", "bad"]), min_size=1, max_size=30))
def test_packages_that_cannot_be_fetched_keep_no_other_from_its_try(kinds: list[str]) -> None:
    found, now = Waits(), 0.0
    tried: list[Spec] = []
    queued = [Spec("npm", f"a{number:02}", "1.0.0") for number in range(len(kinds))]
    while any(kinds[int(spec.name[1:])] == "good" for spec in queued):
        due = [spec for spec in queued if found.due(spec) <= now]
        if not due:
            now = min(found.due(spec) for spec in queued)
            continue
        spec = min(due, key=lambda one: (found.tries(one), one))
        # Each once, in their order.
        assert not tried or spec > tried[-1]
        tried.append(spec)
        if kinds[int(spec.name[1:])] == "good":
            queued.remove(spec)
            found.forget(spec)
        else:
            found.again(spec, now, registry=True)


def test_how_long_something_was_tried_in_vain_counts_from_its_first_failure() -> None:
    found, spec = Waits(), Spec("npm", "a", "1.0.0")
    assert found.waited(spec, 1000.0) == 0
    found.again(spec, 1000.0, registry=True)
    found.again(spec, 1010.0, registry=False)
    found.again(spec, 1020.0, registry=False)
    assert found.waited(spec, 1100.0) == 100
    found.forget(spec)
    assert found.waited(spec, 1100.0) == 0


@pytest.mark.parametrize("parallel", [1, 3])
def test_each_installation_has_the_settings_whole(parallel: int) -> None:
    record = builder.tenant_of(msgspec.structs.replace(SETTINGS, parallel=parallel, memory=512 << 20), 0.0)
    limits = record.tenant(Limits()).limits
    check_together(limits, record.isolation, record.limits)
    assert limits.memory // limits.per_request_at_once == 512 << 20
    assert limits.pids // limits.per_request_at_once == 256
    assert limits.tmp < 512 << 20
    assert [one.name for one in parse_egress(record.egress).domains] == [
        "files.example.com", "npm.example.com", "pypi.example.com",
    ]  # fmt: skip


def test_a_builder_without_a_registry_reaches_nothing() -> None:
    assert builder.tenant_of(Modules(), 0.0).egress == "none"


def test_the_order_says_what_to_install_and_nothing_can_be_added_to_it() -> None:
    target = builder.target_of(parse_spec("npm:@s/x@1.0.0"), SETTINGS, scripts=True)
    path, _, query = target.partition("?")
    assert path == f"/{BUILDER}"
    assert query.startswith("order=")
    assert not set("&#+ ") & set(query)
