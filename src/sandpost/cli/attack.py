"""Puts `sandpost selftest` together: the door, the look at the host, the tenants' share of it."""

import contextlib
import json
import os
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sandpost.bus.local_now import read_now
from sandpost.cli.options import Options
from sandpost.cli.place import installation, local_url, management
from sandpost.client import Client
from sandpost.client.client import trust
from sandpost.model.bounds import BOUNDS
from sandpost.model.errors import ConfigError
from sandpost.model.host import Host
from sandpost.model.limits import EngineName
from sandpost.model.units import format_size
from sandpost.selftest.attacker import Door, Log
from sandpost.selftest.case import Untried
from sandpost.selftest.catalogue import Named, catalogue
from sandpost.selftest.host import Look
from sandpost.selftest.runner import Runner, Verdict

_SHARE = 0.1
"""Of the host's memory and cores, for the attacker and the neighbour together."""
_TAIL = 20_000
"""Records of a tenant's log that are looked at."""
_MOST_MEMORY = 128 << 20


def chosen(*, quick: bool, names: Sequence[str]) -> list[Named]:
    """Return the cases that are meant; `ConfigError` for a name that none has."""
    known = catalogue()
    if strange := sorted(set(names) - {one.name for one in known}):
        raise ConfigError(f"there is no case `{strange[0]}`: `sandpost selftest --list` shows them")
    return [one for one in known if (not names or one.name in names) and (one.case.quick or not quick)]


def run(
    options: Options, cases: Sequence[Named], engine: EngineName | None, progress: Callable[[str], None]
) -> Iterator[Verdict]:
    """Try the cases on the installation that `options` mean, in sandboxes of `engine` (None: as the host says)."""
    url, host = options.address(), None
    if not url:
        host = installation(options)
        url = local_url(host)
    with management(options) as client, _key(options, client) as key:
        door = Door(url=url, key=key, context=_context(url, host, options))
        limits = share(client.status().controller, os.cpu_count() or 1)
        with Runner(door, client, cases, look=_look(host), log=_log(host), limits=limits, engine=engine) as runner:
            for number, one in enumerate(cases, 1):
                progress(f"{number} of {len(cases)}: {one.case.title}")
                yield runner.try_case(one)


def share(controller: Any, cores: int) -> Mapping[str, Any]:
    """Return limits by which two tenants stay within their share of the host; `ConfigError` where that is too little.

    `controller`: what the api says of it, None if it is away. On one core a tenant gets the least that a limit may be.
    """
    least = int(BOUNDS["memory"].least)
    memory = int(controller.memory_limit * _SHARE / 2) if controller is not None else least
    if memory < least:
        raise ConfigError(
            f"a tenth of this host's memory for sandboxes ({format_size(controller.memory_limit)}) is too little for "
            f"the two tenants that a selftest has: each needs {format_size(least)}"
        )
    return {"memory": min(_MOST_MEMORY, memory), "cpu": round(cores * _SHARE / 2, 2)}


@contextlib.contextmanager
def _key(options: Options, client: Client) -> Iterator[str]:
    """Give the key of `options`, or an operator's key made for the time being: root on the host needs none."""
    if (known := options.key()) is not None:
        yield known
        return
    made = client.make_key(None, "selftest")
    try:
        yield made.key
    finally:
        client.revoke_key(made.id)


def _context(url: str, host: Host | None, options: Options) -> ssl.SSLContext | None:
    own = host.tls_cert if host is not None and host.tls_cert and os.access(host.tls_cert, os.R_OK) else ""
    found = trust(url, own, options.cacert)
    return found if isinstance(found, ssl.SSLContext) else None


def _look(host: Host | None) -> Look | None:
    try:
        return Look(host) if host is not None else None
    except Untried:
        return None


def _log(host: Host | None) -> Log:
    """Read a tenant's log from its files, as root on the host."""

    def read(tenant: str) -> list[dict[str, Any]] | None:
        if host is None or os.geteuid() != 0:
            return None
        return [json.loads(record.line) for record in read_now(host.logs_dir, tenant, tail=_TAIL)]

    return read
