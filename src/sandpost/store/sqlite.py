"""The writer of the SQLite store: WAL, one transaction a method, on the disk when the method returns."""

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator

import msgspec

from sandpost.auth.keys import Key
from sandpost.model.errors import Conflict
from sandpost.model.limits import EngineName
from sandpost.model.messages import UsageItem
from sandpost.model.modules import ModuleRecord
from sandpost.store.errors import StoreForeign, StoreReadOnly, from_sqlite
from sandpost.store.records import TenantRecord
from sandpost.store.schema import APPLICATION_ID, MIGRATIONS, VERSION

BUSY_TIMEOUT = 5.0
"""Seconds to wait for another writer: the old and the new api meet for a moment during a restart."""
USAGE_HOURS = 24 * 92
"""Hours of usage that are kept."""
BATCH_SECONDS = 86400
"""For so long a batch of usage is known again."""
TOMBSTONES = 10_000
"""Removals that a reader may lag behind before it reads everything anew."""

_TENANTS = "SELECT name, state, isolation, limits, created_at, egress, engine FROM tenants"
_KEYS = "SELECT id, digest, tenant, label, created_at FROM keys"
_MODULES = "SELECT spec, state, reason, scripts, asked_at, done_at, size, files, digest, integrity FROM modules"
_WAL_BYTES = 4 << 20


class SqliteWriter:
    """See `sandpost.store.contract.Writer`. `owner` is the uid and gid of a file that is made here (root only)."""

    def __init__(self, path: str, *, owner: tuple[int, int] | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        with self._typed():
            _prepare(path, owner)
            self._db = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
            try:
                self._open()
            except BaseException:
                self._db.close()
                raise

    def put_tenant(self, record: TenantRecord) -> None:
        """Register a tenant or replace what is known of it; `created_at` stays that of the first time."""
        limits = msgspec.json.encode(record.limits).decode()
        with self._transaction() as db:
            db.execute(
                "INSERT INTO tenants (name, state, isolation, limits, created_at, egress, engine, rev)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET"
                " state = excluded.state, isolation = excluded.isolation, limits = excluded.limits,"
                " egress = excluded.egress, engine = excluded.engine, rev = excluded.rev",
                (
                    record.name,
                    record.state,
                    record.isolation,
                    limits,
                    record.created_at,
                    record.egress,
                    record.engine,
                    _next_rev(db),
                ),
            )

    def remove_tenant(self, name: str) -> bool:
        """Remove the tenant with its keys and usage; False if it is not registered."""
        with self._transaction() as db:
            if db.execute("SELECT 1 FROM tenants WHERE name = ?", (name,)).fetchone() is None:
                return False
            rev = _next_rev(db)
            db.execute(
                "INSERT OR REPLACE INTO tombstones SELECT 'key', id, ? FROM keys WHERE tenant = ?",
                (rev, name),
            )
            db.execute("INSERT OR REPLACE INTO tombstones VALUES ('tenant', ?, ?)", (name, rev))
            # The tenant's keys go with its row.
            db.execute("DELETE FROM tenants WHERE name = ?", (name,))
            db.execute("DELETE FROM usage WHERE tenant = ?", (name,))
            db.execute("DELETE FROM usage_ends WHERE tenant = ?", (name,))
            _forget_old_tombstones(db)
        return True

    def tenants(self) -> list[TenantRecord]:
        """List the registered tenants by name."""
        with self._reading() as db:
            rows = db.execute(_TENANTS + " ORDER BY name").fetchall()
        return [_record(row) for row in rows]

    def tenant(self, name: str) -> TenantRecord | None:
        """Return one registered tenant."""
        with self._reading() as db:
            row = db.execute(_TENANTS + " WHERE name = ?", (name,)).fetchone()
        return None if row is None else _record(row)

    def engines(self) -> dict[EngineName, str]:
        """Return the engines that tenants are set to, each with one of those tenants."""
        with self._reading() as db:
            rows = db.execute("SELECT engine, min(name) FROM tenants WHERE engine IS NOT NULL GROUP BY engine")
            return msgspec.convert(dict(rows.fetchall()), dict[EngineName, str])

    def engines_alone(self) -> set[EngineName | None]:
        """Return the engines of tenants whose calls each have a sandbox (`per_request`); None: the host's."""
        with self._reading() as db:
            rows = db.execute("SELECT DISTINCT engine FROM tenants WHERE isolation = 'per_request'")
            return msgspec.convert({engine for (engine,) in rows.fetchall()}, set[EngineName | None])

    def add_key(self, key: Key) -> None:
        """Keep a key; `Conflict` if its id or digest exists."""
        with self._transaction() as db:
            clash = db.execute("SELECT id FROM keys WHERE id = ? OR digest = ?", (key.id, key.digest)).fetchone()
            if clash is not None:
                raise Conflict(f"key `{clash[0]}` is there already: revoke it first, or make a key with another id")
            if key.tenant is not None and (
                db.execute("SELECT 1 FROM tenants WHERE name = ?", (key.tenant,)).fetchone() is None
            ):
                raise Conflict(f"tenant `{key.tenant}` is not registered: `sandpost tenant set {key.tenant}` does that")
            db.execute(
                "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?)",
                (key.id, key.digest, key.tenant, key.label, key.created_at, _next_rev(db)),
            )

    def revoke_key(self, key_id: str) -> bool:
        """Forget a key; False if there is none."""
        with self._transaction() as db:
            if db.execute("DELETE FROM keys WHERE id = ?", (key_id,)).rowcount == 0:
                return False
            db.execute("INSERT OR REPLACE INTO tombstones VALUES ('key', ?, ?)", (key_id, _next_rev(db)))
            _forget_old_tombstones(db)
        return True

    def keys(self, tenant: str | None = None) -> list[Key]:
        """List all keys, the operator's among them, or one tenant's; oldest first."""
        with self._reading() as db:
            rows = db.execute(_KEYS + " WHERE ?1 IS NULL OR tenant = ?1 ORDER BY created_at, id", (tenant,)).fetchall()
        return [_key(row) for row in rows]

    def key(self, digest: bytes) -> Key | None:
        """Return the live key with this digest."""
        with self._reading() as db:
            row = db.execute(_KEYS + " WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else _key(row)

    def revision(self) -> int:
        """Return a number that has grown if tenants or keys were changed since, by whomever."""
        with self._reading() as db:
            revision: int = db.execute("SELECT rev FROM state").fetchone()[0]
        return revision

    def add_usage(self, batch: str, items: list[UsageItem]) -> None:
        """Add a batch of usage; a batch seen within the last day changes nothing."""
        now = time.time()
        with self._transaction() as db:
            taken = db.execute("INSERT OR IGNORE INTO usage_batches VALUES (?, ?)", (batch, now)).rowcount
            if not taken:
                return
            db.executemany(
                "INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, hour) DO UPDATE SET"
                " calls = calls + excluded.calls, cpu_seconds = cpu_seconds + excluded.cpu_seconds,"
                " memory_seconds = memory_seconds + excluded.memory_seconds,"
                " bytes_in = bytes_in + excluded.bytes_in, bytes_out = bytes_out + excluded.bytes_out",
                [(i.tenant, i.hour, i.calls, i.cpu_seconds, i.memory_seconds, i.bytes_in, i.bytes_out) for i in items],
            )
            db.executemany(
                "INSERT INTO usage_ends VALUES (?, ?, ?, ?) ON CONFLICT (tenant, hour, word) DO UPDATE SET"
                " ends = ends + excluded.ends",
                [(item.tenant, item.hour, word, ends) for item in items for word, ends in item.ends.items()],
            )
            oldest = int(now // 3600) - USAGE_HOURS
            db.execute("DELETE FROM usage WHERE hour < ?", (oldest,))
            db.execute("DELETE FROM usage_ends WHERE hour < ?", (oldest,))
            db.execute("DELETE FROM usage_batches WHERE taken_at < ?", (now - BATCH_SECONDS,))

    def usage(self, tenant: str, since_hour: int) -> list[UsageItem]:
        """List a tenant's usage by hour from `since_hour` (hours since the epoch)."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT tenant, hour, calls, cpu_seconds, memory_seconds, bytes_in, bytes_out FROM usage"
                " WHERE tenant = ? AND hour >= ? ORDER BY hour",
                (tenant, since_hour),
            ).fetchall()
            ends: dict[int, dict[str, int]] = {}
            for hour, word, count in db.execute(
                "SELECT hour, word, ends FROM usage_ends WHERE tenant = ? AND hour >= ? ORDER BY hour, word",
                (tenant, since_hour),
            ):
                ends.setdefault(hour, {})[word] = count
        fields = ("tenant", "hour", "calls", "cpu_seconds", "memory_seconds", "bytes_in", "bytes_out")
        return [UsageItem(**dict(zip(fields, row, strict=True)), ends=ends.get(row[1], {})) for row in rows]

    def put_modules(self, records: list[ModuleRecord]) -> None:
        """Keep modules, each in the place of what was known of its spec; all or none."""
        rows = [
            (
                *(one.spec, one.state, one.reason, one.scripts, one.asked_at, one.done_at),
                *(one.size, one.files, one.digest, msgspec.json.encode(one.integrity).decode()),
            )
            for one in records
        ]
        with self._transaction() as db:
            db.executemany("INSERT OR REPLACE INTO modules VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def remove_modules(self, specs: list[str]) -> None:
        """Forget modules; all or none."""
        with self._transaction() as db:
            db.executemany("DELETE FROM modules WHERE spec = ?", [(spec,) for spec in specs])

    def modules(self) -> list[ModuleRecord]:
        """List the modules that are known, by their specs."""
        with self._reading() as db:
            rows = db.execute(_MODULES + " ORDER BY spec").fetchall()
        return [_module(row) for row in rows]

    def close(self) -> None:
        """Let go of the store."""
        self._db.close()

    def _open(self) -> None:
        db = self._db
        version: int = db.execute("PRAGMA user_version").fetchone()[0]
        ours = db.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
        empty = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
        if not ours and not empty:
            raise StoreForeign(f"{self._path} is not a store of Sandpost: choose another state folder")
        if version > VERSION:
            raise StoreForeign(
                f"{self._path} was written by a newer Sandpost (version {version}, this one knows {VERSION}): "
                "install that release again, or choose another state folder"
            )
        db.execute("PRAGMA journal_mode = WAL")
        # FULL: a commit is on the disk before anybody hears of it, also if the power fails.
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        # The api has no folder for temporary files.
        db.execute("PRAGMA temp_store = MEMORY")
        db.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
        if version < VERSION or not ours:
            self._migrate()

    def _migrate(self) -> None:
        with self._transaction() as db:
            # Another process may have been faster; the version counts that holds under the write lock.
            version = db.execute("PRAGMA user_version").fetchone()[0]
            for statements in MIGRATIONS[version:]:
                for statement in statements:
                    db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {VERSION}")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._typed(), self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                # After some errors (full disk) SQLite has rolled back by itself.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._typed(), self._lock:
            self._db.execute("BEGIN")
            try:
                yield self._db
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    @contextlib.contextmanager
    def _typed(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise from_sqlite(error, self._path) from error


def _prepare(path: str, owner: tuple[int, int] | None) -> None:
    """Make folder and file with their owner and mode; SQLite gives its own files beside it the same."""
    folder = os.path.dirname(path)
    try:
        if not os.path.isdir(folder):
            os.mkdir(folder)
            # The common group reads; others do not even see the names.
            os.chmod(folder, 0o750)  # noqa: S103
            if owner is not None:
                os.chown(folder, *owner)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    except OSError as error:
        raise StoreReadOnly(
            f"{path} cannot be made or written ({error.strerror}): check that the state folder exists, is writable "
            "and belongs to this installation"
        ) from error
    # Closing it here drops no lock of SQLite's: this process has no connection to the file yet.
    try:
        if os.fstat(fd).st_size == 0:
            os.fchmod(fd, 0o640)
            if owner is not None:
                os.fchown(fd, *owner)
    finally:
        os.close(fd)


def _next_rev(db: sqlite3.Connection) -> int:
    rev: int = db.execute("UPDATE state SET rev = rev + 1 RETURNING rev").fetchone()[0]
    return rev


def _forget_old_tombstones(db: sqlite3.Connection) -> None:
    oldest = db.execute("SELECT rev - ? FROM state", (TOMBSTONES,)).fetchone()[0]
    db.execute("UPDATE state SET floor = max(floor, ?)", (oldest,))
    db.execute("DELETE FROM tombstones WHERE rev <= ?", (oldest,))


def _record(row: tuple[str, str, str, str, float, str, str | None]) -> TenantRecord:
    name, state, isolation, limits, created_at, egress, engine = row
    return msgspec.convert(
        {
            "name": name,
            "state": state,
            "isolation": isolation,
            "limits": msgspec.json.decode(limits),
            "created_at": created_at,
            "egress": egress,
            "engine": engine,
        },
        TenantRecord,
    )


def _key(row: tuple[str, bytes, str | None, str, float]) -> Key:
    key_id, digest, tenant, label, created_at = row
    return Key(id=key_id, digest=digest, tenant=tenant, label=label, created_at=created_at)


def _module(row: tuple[str, str, str, int, float, float | None, int, int, str, str]) -> ModuleRecord:
    spec, state, reason, scripts, asked_at, done_at, size, files, digest, integrity = row
    return msgspec.convert(
        {
            "spec": spec,
            "state": state,
            "reason": reason,
            "scripts": bool(scripts),
            "asked_at": asked_at,
            "done_at": done_at,
            "size": size,
            "files": files,
            "digest": digest,
            "integrity": msgspec.json.decode(integrity),
        },
        ModuleRecord,
    )
