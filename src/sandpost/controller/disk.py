"""What the controller keeps in the run folder: a record a sandbox, the roster of proxies, usage not yet told.

Another release's records are read
as far as they can be: what is not understood ends, but its slot stays taken until every proxy has let go.
"""

import contextlib
import os
from collections.abc import Iterable
from typing import Any

import msgspec

from sandpost.controller.ledger import Snapshot
from sandpost.controller.record import VERSION, ProxyKey, Record
from sandpost.kernel import files
from sandpost.logs.setup import get_logger
from sandpost.model.host import Host
from sandpost.model.limits import Limits
from sandpost.model.names import is_sandbox_id
from sandpost.model.wire import VERSION as WIRE

log = get_logger()


class _Roster(msgspec.Struct, frozen=True):
    proxies: list[ProxyKey]


class _Remains(msgspec.Struct, frozen=True):
    """The least that a record of whatever version says."""

    sandbox_id: str
    group_id: str
    slot: int
    version: int = 0
    wire: int = 0
    tenant: str | None = None


class Disk:
    """The controller's files below a run folder."""

    def __init__(self, host: Host) -> None:
        self._records = host.path("records")
        self._roster = host.path("proxies.json")
        self._usage = host.path("usage.json")
        self._encode = msgspec.json.Encoder().encode

    def open(self) -> None:
        """Make the folder; remove what a killed controller was writing."""
        os.makedirs(self._records, mode=0o700, exist_ok=True)
        for name in os.listdir(self._records):
            if not name.endswith(".json"):
                os.unlink(os.path.join(self._records, name))

    def write(self, record: Record) -> None:
        """Replace a sandbox's record."""
        self._replace(self._path(record.sandbox_id), record)

    def erase(self, sandbox_id: str) -> None:
        """Remove a sandbox's record."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(sandbox_id))

    def write_roster(self, proxies: Iterable[ProxyKey]) -> None:
        """Replace the roster."""
        self._replace(self._roster, _Roster(sorted(proxies)))

    def roster(self) -> list[ProxyKey]:
        """Return the proxies that an earlier controller knew."""
        found = self._read(self._roster, _Roster)
        return found.proxies if found is not None else []

    def write_usage(self, snapshot: Snapshot) -> None:
        """Replace what is kept of usage."""
        self._replace(self._usage, snapshot)

    def usage(self) -> Snapshot:
        """Return what an earlier controller kept."""
        return self._read(self._usage, Snapshot) or Snapshot()

    def load(self) -> list[Record]:
        """Return every record; of one that is not understood, one that says `gone`."""
        records = []
        for name in sorted(os.listdir(self._records)):
            sandbox_id = name.removesuffix(".json")
            if not name.endswith(".json") or not is_sandbox_id(sandbox_id):
                continue
            record = self._load(os.path.join(self._records, name))
            if record is not None and record.sandbox_id == sandbox_id:
                records.append(record)
            else:
                log.error("a record is damaged and was removed", sandbox_id=sandbox_id)
                self.erase(sandbox_id)
        return records

    def _load(self, path: str) -> Record | None:
        with open(path, "rb") as file:
            text = file.read()
        try:
            remains = msgspec.json.decode(text, type=_Remains)
        except msgspec.DecodeError:
            return None
        with contextlib.suppress(msgspec.DecodeError):
            if remains.version <= VERSION and remains.wire <= WIRE:
                return msgspec.json.decode(text, type=Record)
        log.warning(
            "a sandbox of a newer release ends",
            sandbox_id=remains.sandbox_id,
            version=remains.version,
            wire=remains.wire,
        )
        record = ended(remains.sandbox_id, remains.group_id, remains.slot, remains.tenant)
        # From now on it is ours to remove, whatever becomes of this process.
        self.write(record)
        return record

    def _path(self, sandbox_id: str) -> str:
        return os.path.join(self._records, f"{sandbox_id}.json")

    def _read(self, path: str, kind: Any) -> Any:
        try:
            with open(path, "rb") as file:
                return msgspec.json.decode(file.read(), type=kind)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError:
            log.exception("a file of an earlier controller is not understood and left out", path=path)
            return None

    def _replace(self, path: str, value: msgspec.Struct) -> None:
        files.replace(path, self._encode(value), 0o600)


def ended(sandbox_id: str, group_id: str, slot: int, tenant: str | None) -> Record:
    """Return the record of a sandbox of which nothing is to be kept."""
    return Record(
        sandbox_id=sandbox_id, group_id=group_id, slot=slot, phase="gone", runtime="", image="", limits=Limits(),
        started_at=0.0, tenant=tenant, word="platform", message="platform: not taken over by the new controller",
    )  # fmt: skip
