"""A reader of the SQLite store: everything in memory, refreshed by what changed.

The file belongs to the api's user; readers have the common group's right to read it. SQLite opens a WAL file
without the right to write its `-shm` if `-shm` and `-wal` are there (https://www.sqlite.org/wal.html#readonly),
as they are while any process has it open or after a kill. When the last one closed it in order they are gone:
then the file alone is the whole truth, and is read as immutable, checked afterwards to have stayed so.
"""

import contextlib
import os
import sqlite3
from urllib.parse import quote

import msgspec

from sandpost.auth.keys import Key
from sandpost.model.limits import Limits, Tenant
from sandpost.store.errors import StoreError, StoreForeign, from_sqlite
from sandpost.store.records import TenantRecord
from sandpost.store.schema import APPLICATION_ID

_BUSY_TIMEOUT = 0.05
_NO_WAL = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
"""What SQLite says to a reader that would have to make the `-wal` and may not."""
_DECODE_LIMITS = msgspec.json.Decoder(dict[str, float | int]).decode
_Mark = tuple[int, int, int, int]


class SqliteReader:
    """See `sandpost.store.contract.Reader`. One thread."""

    def __init__(self, path: str, defaults: Limits) -> None:
        self._path = path
        self._defaults = defaults
        self._db: sqlite3.Connection | None = None
        self._problem = ""
        # What the view is of: file, its data version, the store's generation and rev.
        self._inode: tuple[int, int] | None = None
        self._data_version: int | None = None
        self._generation = ""
        self._rev = 0
        self._immutable_mark: _Mark | None = None
        # The view.
        self._records: dict[str, TenantRecord] = {}
        self._tenants: dict[str, Tenant] = {}
        self._keys: dict[bytes, Key] = {}
        self._digests: dict[str, bytes] = {}
        self._removed: list[str] = []
        self.refresh()

    @property
    def loaded(self) -> bool:
        """Whether the store has been read once."""
        return self._generation != ""

    @property
    def problem(self) -> str:
        """Why the last refresh could not read, and what to do; empty if it could."""
        return self._problem

    def refresh(self) -> bool:
        """Take up what changed since the last call; say whether anything did."""
        try:
            changed = self._refresh()
        except (sqlite3.Error, OSError, StoreError, msgspec.MsgspecError) as error:
            self._disconnect()
            self._problem = self._explain(error)
            return False
        self._problem = ""
        return changed

    def take_removed(self) -> list[str]:
        """Return the tenants that were removed since the last call, as far as this view saw it happen."""
        taken, self._removed = self._removed, []
        return taken

    def rebase(self, defaults: Limits) -> None:
        """Take up new defaults of limits."""
        self._defaults = defaults
        self._tenants = {name: record.tenant(defaults) for name, record in self._records.items()}

    def tenant(self, name: str) -> Tenant | None:
        """Return the registered tenant, with its limits complete."""
        return self._tenants.get(name)

    def key(self, digest: bytes) -> Key | None:
        """Return the live key with this digest."""
        return self._keys.get(digest)

    def close(self) -> None:
        """Let go of the store."""
        self._disconnect()

    def _explain(self, error: Exception) -> str:
        if isinstance(error, StoreError):
            return error.message
        if isinstance(error, sqlite3.Error):
            return from_sqlite(error, self._path).message
        if isinstance(error, msgspec.MsgspecError):
            return f"{self._path} holds what this release cannot read ({error}): start the one that wrote it"
        if isinstance(error, FileNotFoundError):
            return f"{self._path} is not there yet: if it stays so, `sandpost status` says which part is missing"
        return f"{self._path} cannot be read ({error}): give it to the user that owns the rest of its folder"

    def _refresh(self) -> bool:
        stat = os.stat(self._path)
        if self._db is not None and self._inode != (stat.st_dev, stat.st_ino):
            # Another file was put in its place.
            self._disconnect()
        if self._db is None:
            mark = _mark(stat)
            if mark == self._immutable_mark and not self._has_wal():
                return False
            try:
                self._connect("mode=ro")
            except sqlite3.OperationalError as error:
                self._disconnect()
                if error.sqlite_errorcode & 0xFF not in _NO_WAL or self._has_wal():
                    raise
                return self._refresh_immutable(mark)
            self._immutable_mark = None
            self._inode = (stat.st_dev, stat.st_ino)
        assert self._db is not None
        version = self._db.execute("PRAGMA data_version").fetchone()[0]
        if version == self._data_version:
            return False
        changed = self._read(self._db)
        self._data_version = version
        return changed

    def _refresh_immutable(self, mark: _Mark) -> bool:
        """Read the file that nobody writes. If somebody began meanwhile, the next refresh reads it as usual."""
        saved = (self._generation, self._rev, self._records, self._tenants, self._keys, self._digests)
        # `_read` changes the maps in place where it can: work on copies.
        self._records, self._tenants = dict(self._records), dict(self._tenants)
        self._keys, self._digests = dict(self._keys), dict(self._digests)
        try:
            self._connect("mode=ro&immutable=1")
            assert self._db is not None
            changed = self._read(self._db)
            steady = _mark(os.stat(self._path)) == mark and not self._has_wal()
        except BaseException:
            (self._generation, self._rev, self._records, self._tenants, self._keys, self._digests) = saved
            raise
        finally:
            self._disconnect()
        if not steady:
            (self._generation, self._rev, self._records, self._tenants, self._keys, self._digests) = saved
            return False
        self._immutable_mark = mark
        return changed

    def _has_wal(self) -> bool:
        return os.path.exists(self._path + "-wal")

    def _connect(self, options: str) -> None:
        uri = f"file:{quote(os.path.abspath(self._path))}?{options}"
        self._db = sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT, isolation_level=None)
        self._data_version = None
        # The file is opened by the first question, and only then fails.
        if self._db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            if self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
                raise StoreForeign(f"{self._path} is still empty: `sandpost api` makes it when it starts")
            raise StoreForeign(f"{self._path} is not a store of Sandpost: choose another state folder")

    def _disconnect(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
        self._db = None
        self._data_version = None

    def _read(self, db: sqlite3.Connection) -> bool:
        db.execute("BEGIN")
        try:
            generation, rev, floor = db.execute("SELECT generation, rev, floor FROM state").fetchone()
            known = generation == self._generation and floor <= self._rev <= rev
            if known and rev == self._rev:
                return False
            since = self._rev if known else 0
            removed = db.execute("SELECT kind, name FROM tombstones WHERE rev > ?", (since,)).fetchall()
            # A store that the api of this release has not opened yet knows no policies and no engines.
            version = db.execute("PRAGMA user_version").fetchone()[0]
            egress, engine = "egress" if version > 1 else "'public'", "engine" if version > 2 else "NULL"
            tenants = db.execute(
                f"SELECT name, state, isolation, limits, {egress}, {engine} FROM tenants WHERE rev > ?",  # noqa: S608 - fixed words
                (since,),
            ).fetchall()
            keys = db.execute(
                "SELECT id, digest, tenant, label, created_at FROM keys WHERE rev > ?", (since,)
            ).fetchall()
        finally:
            db.execute("ROLLBACK")
        if not known:
            self._records, self._tenants, self._keys, self._digests = {}, {}, {}, {}
        # Removals first: what was removed and made again has a row.
        for kind, name in removed:
            self._remove(kind, name)
            if known and kind == "tenant":
                self._removed.append(name)
        for row in tenants:
            self._put_tenant(*row)
        for key_id, digest, tenant, label, created_at in keys:
            self._remove("key", key_id)
            self._keys[digest] = Key(id=key_id, digest=digest, tenant=tenant, label=label, created_at=created_at)
            self._digests[key_id] = digest
        self._generation, self._rev = generation, rev
        return True

    def _remove(self, kind: str, name: str) -> None:
        if kind == "tenant":
            self._records.pop(name, None)
            self._tenants.pop(name, None)
        else:
            digest = self._digests.pop(name, None)
            if digest is not None:
                self._keys.pop(digest, None)

    def _put_tenant(self, name: str, state: str, isolation: str, limits: str, egress: str, engine: str | None) -> None:
        fields = {"name": name, "state": state, "isolation": isolation, "limits": _DECODE_LIMITS(limits)}
        record = msgspec.convert({**fields, "egress": egress, "engine": engine}, TenantRecord)
        self._records[name] = record
        self._tenants[name] = record.tenant(self._defaults)


def _mark(stat: os.stat_result) -> _Mark:
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
