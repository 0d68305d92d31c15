"""The SQLite file in bad times: killed writers, full and read-only disks, damaged and foreign files."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from sandpost.auth.keys import Key, key_digest
from sandpost.model.limits import Limits
from sandpost.store import StoreBusy, StoreCorrupt, StoreForeign, StoreReadOnly, TenantRecord
from sandpost.store import sqlite as sqlite_store
from sandpost.store.reader import SqliteReader
from sandpost.store.schema import VERSION
from sandpost.store.sqlite import SqliteWriter

WRITE_FOR_EVER = """
import itertools, sys
from sandpost.auth.keys import Key, key_digest
from sandpost.store import TenantRecord
from sandpost.store.sqlite import SqliteWriter
writer = SqliteWriter(sys.argv[1])
for n in itertools.count(int(sys.argv[2])):
    name = f"t{n}"
    writer.put_tenant(TenantRecord(name=name, limits={"pids": n}))
    writer.add_key(Key(id=name, digest=key_digest(name.encode()), tenant=name, created_at=1.0))
    if n % 3 == 0:
        writer.remove_tenant(name)
    print(n, flush=True)
"""


def test_kill_9_in_the_midst_of_writes_loses_nothing_that_was_acknowledged(store_path: str) -> None:
    done = -1
    for _ in range(8):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITE_FOR_EVER, store_path, str(done + 1)], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        try:
            for _ in range(random.randint(3, 25)):
                done = int(child.stdout.readline())
        finally:
            child.send_signal(signal.SIGKILL)
            rest = child.stdout.read().split()
            child.stdout.close()
            child.wait()
        done = int(rest[-1]) if rest else done
        writer = SqliteWriter(store_path)
        try:
            records = {record.name: record for record in writer.tenants()}
            keys = {key.id: key for key in writer.keys(None)}
        finally:
            writer.close()
        for n in range(done + 1):
            assert (f"t{n}" in records) == (n % 3 != 0), f"after the kill at {done}"
            assert (f"t{n}" in keys) == (n % 3 != 0), f"after the kill at {done}"
        # At most the one that was being written may be there unacknowledged.
        assert set(records) - {f"t{n}" for n in range(done + 1)} <= {f"t{done + 1}"}
    assert done > 20


def test_files_belong_to_the_api_and_are_the_groups_to_read(store_path: str) -> None:
    assert os.geteuid() == 0, "run these tests as root: they make files for several users"
    before = os.umask(0o077)
    try:
        writer = SqliteWriter(store_path, owner=(700_001, 700_000))
    finally:
        os.umask(before)
    try:
        writer.put_tenant(TenantRecord(name="acme"))
        folder = os.stat(os.path.dirname(store_path))
        assert (folder.st_uid, folder.st_gid, folder.st_mode & 0o7777) == (700_001, 700_000, 0o750)
        for suffix in ("", "-wal", "-shm"):
            stat = os.stat(store_path + suffix)
            assert (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777) == (700_001, 700_000, 0o640), suffix
    finally:
        writer.close()


FILL = """
import os, sys
from sandpost.store import StoreFull, TenantRecord
from sandpost.store.sqlite import SqliteWriter
folder, filler = sys.argv[1] + "/store", sys.argv[1] + "/filler"
writer = SqliteWriter(folder + "/sandpost.db")
with open(filler, "wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
written = []
try:
    for n in range(10_000):
        writer.put_tenant(TenantRecord(name=f"t{n}", limits={"pids": n}))
        written.append(f"t{n}")
    raise SystemExit("the disk never became full")
except StoreFull as error:
    assert "make room" in error.message, error.message
    assert error.retryable and error.status == 503
assert sorted(record.name for record in writer.tenants()) == sorted(written)
os.unlink(filler)
writer.put_tenant(TenantRecord(name="after"))
writer.close()
again = SqliteWriter(folder + "/sandpost.db")
assert sorted(record.name for record in again.tenants()) == sorted([*written, "after"])
again.close()
"""


def test_a_full_disk_is_told_and_the_next_write_after_making_room_works(tmp_path: Path) -> None:
    script = f'mount -t tmpfs -o size=512k tmpfs "{tmp_path}" && exec "{sys.executable}" -c "$0" "{tmp_path}"'
    # The mount lives in a namespace of its own and goes with its process.
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, FILL], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


READ_ONLY = """
import sys
from sandpost.store import StoreReadOnly
from sandpost.store.sqlite import SqliteWriter
try:
    SqliteWriter(sys.argv[1])
except StoreReadOnly as error:
    assert "writable" in error.message, error.message
else:
    raise SystemExit("opened for writing")
"""


def test_a_read_only_file_system_is_told(store_path: str) -> None:
    SqliteWriter(store_path).close()
    folder = os.path.dirname(store_path)
    script = f'mount --bind -o ro "{folder}" "{folder}" && exec "{sys.executable}" -c "$0" "{store_path}"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, READ_ONLY], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_missing_state_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreReadOnly, match="state folder exists"):
        SqliteWriter(str(tmp_path / "nowhere" / "store" / "sandpost.db"))


def test_a_damaged_file_is_told_and_left_as_it_is(store_path: str) -> None:
    writer = SqliteWriter(store_path)
    for n in range(200):
        writer.put_tenant(TenantRecord(name=f"t{n}"))
    writer.close()
    whole = Path(store_path).read_bytes()
    damaged = whole[:4096] + random.Random(1).randbytes(len(whole) - 4096)
    Path(store_path).write_bytes(damaged)
    with pytest.raises(StoreCorrupt, match=r"\.recover"):
        SqliteWriter(store_path).tenants()
    assert Path(store_path).read_bytes() == damaged
    Path(store_path).write_bytes(b"not a database at all" * 300)
    with pytest.raises(StoreCorrupt, match="backup"):
        SqliteWriter(store_path)
    assert Path(store_path).read_bytes() == b"not a database at all" * 300


def test_somebody_elses_database_is_left_alone(store_path: str) -> None:
    os.mkdir(os.path.dirname(store_path))
    db = sqlite3.connect(store_path)
    db.execute("CREATE TABLE diary (day TEXT)")
    db.commit()
    db.close()
    before = Path(store_path).read_bytes()
    with pytest.raises(StoreForeign, match="another state folder"):
        SqliteWriter(store_path)
    assert Path(store_path).read_bytes() == before


def test_a_newer_releases_store_is_refused_by_the_writer_and_read_by_readers(store_path: str) -> None:
    writer = SqliteWriter(store_path)
    writer.put_tenant(TenantRecord(name="acme"))
    writer.close()
    db = sqlite3.connect(store_path)
    db.execute(f"PRAGMA user_version = {VERSION + 1}")
    db.execute("ALTER TABLE tenants ADD COLUMN mood TEXT")
    db.commit()
    db.close()
    with pytest.raises(StoreForeign, match="newer Sandpost"):
        SqliteWriter(store_path)
    # A proxy of this release meets the next release's api for a moment during a restart.
    reader = SqliteReader(store_path, Limits())
    assert reader.tenant("acme") is not None
    reader.close()


def test_a_store_held_by_another_writer_is_told(store_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_store, "BUSY_TIMEOUT", 0.1)
    writer = SqliteWriter(store_path)
    other = sqlite3.connect(store_path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(StoreBusy, match="held by another process"):
            writer.put_tenant(TenantRecord(name="acme"))
        assert writer.tenants() == [], "reading goes on meanwhile"
        other.execute("ROLLBACK")
        writer.put_tenant(TenantRecord(name="acme"))
    finally:
        other.close()
        writer.close()


def test_no_key_text_is_in_the_file(store_path: str) -> None:
    writer = SqliteWriter(store_path)
    writer.add_key(Key(id="k", digest=key_digest(b"sp_k_verysecretverysecret"), tenant=None, created_at=1.0))
    writer.close()
    assert b"verysecret" not in Path(store_path).read_bytes()
