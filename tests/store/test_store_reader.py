"""Readers in other processes and of other users, while the writer lives, is killed, or has ended in order."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandpost.auth.keys import Key, key_digest
from sandpost.model.limits import Limits
from sandpost.store import TenantRecord
from sandpost.store import sqlite as sqlite_store
from sandpost.store.reader import SqliteReader
from sandpost.store.sqlite import SqliteWriter

API = (700_001, 700_000)
READER_UID, STRANGER_UID, GID = 700_002, 700_009, 700_000
RunAs = Callable[[int, int, Callable[[], Any]], Any]


def pids_of(path: str) -> tuple[bool, int | None, str]:
    reader = SqliteReader(path, Limits())
    tenant = reader.tenant("acme")
    reader.close()
    return reader.loaded, None if tenant is None else tenant.limits.pids, reader.problem


def put(path: str, pids: int) -> None:
    writer = SqliteWriter(path)
    writer.put_tenant(TenantRecord(name="acme", limits={"pids": pids}))
    writer.close()


def put_and_die(path: str, pids: int) -> None:
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setgid(API[1])
        os.setuid(API[0])
        SqliteWriter(path).put_tenant(TenantRecord(name="acme", limits={"pids": pids}))
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_another_user_of_the_group_reads_and_a_stranger_does_not(store_path: str, as_user: RunAs) -> None:
    writer = SqliteWriter(store_path, owner=API)
    writer.put_tenant(TenantRecord(name="acme", limits={"pids": 5}))
    try:
        assert as_user(READER_UID, GID, lambda: pids_of(store_path)) == [True, 5, ""]
        loaded, pids, problem = as_user(STRANGER_UID, STRANGER_UID, lambda: pids_of(store_path))
        assert (loaded, pids) == (False, None)
        assert "cannot be read" in problem
    finally:
        writer.close()


def test_a_reader_can_change_nothing(store_path: str, as_user: RunAs) -> None:
    SqliteWriter(store_path, owner=API).close()

    def attempt() -> list[str]:
        refused = []
        for flags in (os.O_RDWR, os.O_WRONLY | os.O_APPEND):
            try:
                os.close(os.open(store_path, flags))
            except PermissionError:
                refused.append("file")
        try:
            os.unlink(store_path)
        except PermissionError:
            refused.append("folder")
        return refused

    assert as_user(READER_UID, GID, attempt) == ["file", "file", "folder"]


def test_the_store_is_read_while_the_api_is_dead(store_path: str, as_user: RunAs) -> None:
    SqliteWriter(store_path, owner=API).close()
    put_and_die(store_path, 6)
    assert as_user(READER_UID, GID, lambda: pids_of(store_path)) == [True, 6, ""]


def test_the_store_is_read_after_the_api_ended_in_order(store_path: str, as_user: RunAs) -> None:
    SqliteWriter(store_path, owner=API).close()
    as_user(*API, lambda: put(store_path, 7))
    assert not os.path.exists(store_path + "-wal")
    assert as_user(READER_UID, GID, lambda: pids_of(store_path)) == [True, 7, ""]
    assert not os.path.exists(store_path + "-wal")


def test_a_reader_that_stays_sees_writers_come_die_and_go(store_path: str, as_user: RunAs) -> None:
    SqliteWriter(store_path, owner=API).close()
    as_user(*API, lambda: put(store_path, 1))
    go, told = os.pipe(), os.pipe()

    def follow() -> list[int]:
        reader = SqliteReader(store_path, Limits())
        seen = []
        for _ in range(6):
            tenant = reader.tenant("acme")
            seen.append(tenant.limits.pids if tenant else -1)
            os.write(told[1], b".")
            os.read(go[0], 1)
            reader.refresh()
        return seen

    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(as_user(READER_UID, GID, follow)))
    thread.start()
    for pids, way in ((2, "die"), (3, "die"), (4, "end"), (5, "end"), (6, "die"), (7, "end")):
        os.read(told[0], 1)
        if way == "die":
            put_and_die(store_path, pids)
        else:
            as_user(*API, lambda pids=pids: put(store_path, pids))  # type: ignore[misc]
        os.write(go[1], b".")
    thread.join(30)
    for fd in (*go, *told):
        os.close(fd)
    assert result == [[1, 2, 3, 4, 5, 6]]


def test_a_store_that_is_not_there_yet_is_taken_up_when_it_is(store_path: str) -> None:
    reader = SqliteReader(store_path, Limits())
    assert reader.tenant("acme") is None
    assert "`sandpost status` says which part is missing" in reader.problem
    put(store_path, 3)
    assert reader.refresh()
    assert (reader.loaded, reader.problem) == (True, "")
    assert not reader.refresh()
    reader.close()


def test_a_store_that_cannot_be_read_leaves_the_view_as_it_was(store_path: str) -> None:
    put(store_path, 3)
    reader = SqliteReader(store_path, Limits())
    whole = Path(store_path).read_bytes()
    os.rename(store_path, store_path + ".away")
    assert not reader.refresh()
    assert reader.problem != ""
    Path(store_path).write_bytes(b"rubbish" * 1000)
    assert not reader.refresh()
    assert "damaged" in reader.problem
    tenant = reader.tenant("acme")
    assert tenant is not None
    assert tenant.limits.pids == 3
    os.unlink(store_path)
    Path(store_path).write_bytes(whole)
    reader.refresh()
    assert reader.problem == ""
    reader.close()


def test_a_backup_put_in_place_is_read_anew(store_path: str) -> None:
    put(store_path, 3)
    shutil.copyfile(store_path, store_path + ".backup")
    writer = SqliteWriter(store_path)
    writer.put_tenant(TenantRecord(name="later"))
    writer.put_tenant(TenantRecord(name="acme", limits={"pids": 4}))
    writer.close()
    reader = SqliteReader(store_path, Limits())
    assert reader.tenant("later") is not None
    os.rename(store_path + ".backup", store_path)
    for leftover in ("-wal", "-shm"):
        if os.path.exists(store_path + leftover):
            os.unlink(store_path + leftover)
    assert reader.refresh()
    assert reader.tenant("later") is None
    tenant = reader.tenant("acme")
    assert tenant is not None
    assert tenant.limits.pids == 3
    reader.close()


def test_another_store_put_in_place_is_not_taken_for_a_later_state(store_path: str) -> None:
    put(store_path, 3)
    reader = SqliteReader(store_path, Limits())
    os.rename(store_path, store_path + ".old")
    writer = SqliteWriter(store_path)
    # Its count of changes goes beyond the one that the reader knows.
    for n in range(5):
        writer.put_tenant(TenantRecord(name=f"t{n}"))
    assert reader.refresh()
    assert reader.tenant("acme") is None
    assert [n for n in range(5) if reader.tenant(f"t{n}")] == [0, 1, 2, 3, 4]
    writer.close()
    reader.close()


def test_a_reader_that_lags_behind_forgotten_removals_reads_everything(
    store_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_store, "TOMBSTONES", 5)
    writer = SqliteWriter(store_path)
    for n in range(20):
        writer.put_tenant(TenantRecord(name=f"t{n}"))
    reader = SqliteReader(store_path, Limits())
    for n in range(19):
        writer.remove_tenant(f"t{n}")
    assert reader.refresh()
    assert [n for n in range(20) if reader.tenant(f"t{n}")] == [19]
    reader.close()
    writer.close()


def test_ten_thousand_tenants_do_not_cost_each_refresh(store_path: str) -> None:
    writer = SqliteWriter(store_path)
    # One transaction: what is measured is the reader.
    with writer._transaction() as db:
        db.executemany(
            "INSERT INTO tenants (name, state, isolation, limits, created_at, rev)"
            " VALUES (?, 'active', 'per_tenant', ?, 1.0, 2)",
            ((f"t{n}", f'{{"pids":{n}}}') for n in range(10_000)),
        )
        db.executemany(
            "INSERT INTO keys VALUES (?, ?, ?, '', 1.0, 2)",
            ((f"k{n}", key_digest(b"%d" % n), f"t{n}") for n in range(10_000)),
        )
        db.execute("UPDATE state SET rev = 2")
    began = time.perf_counter()
    reader = SqliteReader(store_path, Limits())
    whole = time.perf_counter() - began
    assert reader.key(key_digest(b"9999")) is not None

    def median(change: Callable[[int], object]) -> float:
        times = []
        for n in range(51):
            change(n)
            started = time.perf_counter()
            reader.refresh()
            times.append(time.perf_counter() - started)
        return sorted(times)[25]

    quiet = median(lambda n: None)
    usage = median(lambda n: writer.add_usage(f"b{n}", []))
    one = median(lambda n: writer.put_tenant(TenantRecord(name="t7", limits={"pids": n})))
    print(f"all {whole * 1e3:.0f} ms, quiet {quiet * 1e6:.0f} us, usage {usage * 1e6:.0f} us, one {one * 1e6:.0f} us")
    tenant = reader.tenant("t7")
    assert tenant is not None
    assert tenant.limits.pids == 50
    # Generous bounds for a busy machine; what matters is the distance from reading everything.
    assert quiet < whole / 100
    assert usage < whole / 50
    assert one < whole / 20
    reader.close()
    writer.close()


def test_a_removed_and_a_new_tenant_in_one_refresh(store_path: str) -> None:
    writer = SqliteWriter(store_path)
    writer.put_tenant(TenantRecord(name="a"))
    writer.add_key(Key(id="k", digest=key_digest(b"k"), tenant="a", created_at=1.0))
    reader = SqliteReader(store_path, Limits())
    writer.remove_tenant("a")
    writer.put_tenant(TenantRecord(name="a", state="suspended"))
    writer.put_tenant(TenantRecord(name="b"))
    writer.remove_tenant("b")
    assert reader.refresh()
    tenant = reader.tenant("a")
    assert tenant is not None
    assert tenant.state == "suspended"
    assert reader.tenant("b") is None
    assert reader.key(key_digest(b"k")) is None
    reader.close()
    writer.close()
