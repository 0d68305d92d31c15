"""`sandpost controller --host FILE --purge`: removes every sandbox of an installation and all that they shared."""

import asyncio
import contextlib
import os
import shutil

from sandpost.controller import farewell
from sandpost.controller.disk import Disk
from sandpost.controller.processes import Watch
from sandpost.engines.contract import Engine, Found
from sandpost.logs.setup import get_logger
from sandpost.model.errors import SandpostError
from sandpost.model.host import Host
from sandpost.network import forwarding, namespaces

log = get_logger()

DEADLINE = 90.0
_AT_ONCE = 8
_TRIES = 5
_PAUSE = 0.5


async def purge(host: Host, engine: Engine, *, at_once: bool = False) -> list[str]:
    """Remove all; return what could not be, each with the reason. Needs no records; may be run again.

    What has a record and a farewell due gets it, all at the same time, unless it has to be `at_once`.
    """
    await engine.open()
    if not at_once:
        await _farewells(host, engine)
    places = asyncio.Semaphore(_AT_ONCE)
    left: list[str] = []

    async def remove(found: Found) -> None:
        async with places:
            for _ in range(_TRIES):
                try:
                    await engine.remove(found.sandbox_id, found.group_id, found.slot or 0)
                except (SandpostError, OSError) as error:
                    reason = str(error)
                    await asyncio.sleep(_PAUSE)
                else:
                    return
            left.append(f"sandbox {found.sandbox_id}: {reason}")

    try:
        async with asyncio.timeout(DEADLINE):
            await asyncio.gather(*(remove(found) for found in engine.find()))
    except TimeoutError:
        left += [f"sandbox {found.sandbox_id}: still there after {DEADLINE:g} s" for found in engine.find()]
    for name in ("records", "fifos"):
        shutil.rmtree(host.path(name), ignore_errors=True)
    for name in ("proxies.json", "usage.json", "controller.sock"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(host.path(name))
    try:
        await engine.close(purge=not left)
        forwarding.close_uplinks(host)
    except (SandpostError, OSError) as error:
        left.append(f"what sandboxes share: {error}")
    return left + _names_left(host)


async def _farewells(host: Host, engine: Engine) -> None:
    try:
        records = {record.sandbox_id: record for record in Disk(host).load()}
    except FileNotFoundError:
        return
    taken = []
    for found in engine.find():
        record = records.get(found.sandbox_id)
        if found.pid is None or record is None or record.phase == "gone":
            continue
        if patience := farewell.due(record, "drained"):
            with contextlib.suppress(OSError):
                taken.append(farewell.take(Watch(found.pid, lambda: None), patience))
    await asyncio.gather(*taken)


def _names_left(host: Host) -> list[str]:
    """List what still carries the installation's name where the kernel shows it."""
    interfaces = [name for name in namespaces.interfaces() if name.startswith(host.interface_prefix)]
    bundles = []
    with contextlib.suppress(FileNotFoundError):
        bundles = os.listdir(host.path("bundles"))
    return [f"interface {name}" for name in interfaces] + [f"bundle {name}" for name in bundles]
