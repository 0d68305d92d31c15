"""Durable records: tenants, keys, usage. One writer (the api), readers in every other process."""

import os

from sandpost.model.host import Host
from sandpost.model.limits import EngineName
from sandpost.store.contract import Reader, Writer
from sandpost.store.errors import (
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreForeign,
    StoreFull,
    StoreReadOnly,
)
from sandpost.store.first import ensure_operator_key
from sandpost.store.reader import SqliteReader
from sandpost.store.records import TenantRecord
from sandpost.store.sqlite import SqliteWriter

__all__ = [
    "Reader",
    "StoreBusy",
    "StoreCorrupt",
    "StoreError",
    "StoreForeign",
    "StoreFull",
    "StoreReadOnly",
    "TenantRecord",
    "Writer",
    "engines_in_use",
    "first_key",
    "open_reader",
    "open_writer",
]


def open_reader(host: Host) -> Reader:
    """Open the host's store for reading; never fails (see `Reader.loaded`)."""
    return SqliteReader(host.store_path, host.defaults)


def open_writer(host: Host) -> Writer:
    """Open the host's store for writing, made or brought to this release's tables if need be.

    As root, what is made belongs to the api's user and the common group.
    """
    owner = (host.users.api, host.users.gid) if os.geteuid() == 0 else None
    return SqliteWriter(host.store_path, owner=owner)


def engines_in_use(host: Host) -> dict[EngineName, str]:
    """Return the engines that registered tenants are set to, each with one of those tenants."""
    writer = open_writer(host)
    try:
        return writer.engines()
    finally:
        writer.close()


def first_key(host: Host, admin_key: str | None) -> str | None:
    """Make sure that the operator has a key; see `ensure_operator_key`. The text of a new one is returned once."""
    writer = open_writer(host)
    try:
        return ensure_operator_key(writer, admin_key)
    finally:
        writer.close()
