"""The builder: a tenant of the platform's own, and the program that installs a package in its sandboxes. Pure.

It is walled as every tenant is: each installation has a sandbox that nobody had before, and reaches the registry alone.
"""

from importlib import resources
from urllib.parse import quote

import msgspec

from sandpost.config.kinds import entry_of, split_url
from sandpost.model.errors import InvalidValue
from sandpost.model.host import Modules
from sandpost.model.limits import Limits, MiB
from sandpost.model.modules import Registry
from sandpost.model.names import BUILDER
from sandpost.model.specs import Spec
from sandpost.model.units import format_duration, format_size
from sandpost.store import TenantRecord

PROGRAM = (resources.files("sandpost.modules") / "build.js").read_bytes()
_CODE = 1 * MiB
_MOST_SAID = 500
_BUSY = frozenset({403, 429, 502, 503})
"""Statuses of the platform that may be another one in a moment. 403: the key was revoked, or is news to the proxy."""
_HINTS = {
    "memory": "it takes more than `modules.memory` ({memory}) to install: raise that if you trust it",
    "deadline": "it was not installed within `modules.timeout` ({timeout}): raise that if you trust it",
}


class Failed(Exception):  # noqa: N818 - it says what is wrong
    """It cannot be installed, now or later; the message says why and what could be done."""


class Away(Exception):  # noqa: N818 - it says what is wrong
    """It cannot be installed now. `registry`: others of the same registry would meet the same."""

    def __init__(self, message: str, *, registry: bool) -> None:
        super().__init__(message)
        self.registry = registry


class _Said(msgspec.Struct):
    """What the program says when it has no archive."""

    reason: str
    away: bool = False


def url_of(modules: Modules, registry: Registry) -> str:
    """Return where modules of `registry` come from; `InvalidValue` that says how to set it if nowhere."""
    url = modules.npm if registry == "npm" else modules.pypi
    if not url:
        what = "the registry of npm" if registry == "npm" else "the simple index of PyPI"
        raise InvalidValue(
            f"`modules.{registry}` is not set, so its modules come from nowhere: set it to the URL of {what}, "
            "or of your own mirror, in the settings file, and send SIGHUP to `sandpost serve` (docs/modules.md)"
        )
    return url


def tenant_of(modules: Modules, created_at: float) -> TenantRecord:
    """Return the builder as it is to be now."""
    entries = sorted({*(entry_of(url) for url in (modules.npm, modules.pypi) if url), *modules.hosts})
    each = modules.parallel
    limits = {
        # All of them together: each sandbox of a `per_request` tenant has its share.
        "memory": modules.memory * each,
        "memory_guaranteed": 0,
        "cpu": 1.0 * each,
        "pids": 256 * each,
        "per_request_at_once": each,
        # A tmpfs, which is counted as memory: full before that is, so that npm says what happened.
        "tmp": modules.memory * 3 // 4,
        "tmp_inodes": 4 * modules.files,
        "files": 4096,
        "code": _CODE,
        "stored_code": max(Limits().stored_code, _CODE),
        "deadline": modules.timeout,
        "blocked_after": min(modules.timeout, Limits().blocked_after),
        # Without TLS the gate lets one request a connection pass.
        "connection_rate": 1000,
    }
    return TenantRecord(
        name=BUILDER,
        isolation="per_request",
        limits=limits,
        created_at=created_at,
        egress=f"allow:{','.join(entries)}" if entries else "none",
    )


def target_of(spec: Spec, modules: Modules, *, scripts: bool) -> str:
    """Return path and query of the call that installs `spec`."""
    urls = [url_of(modules, spec.registry)]
    hosts = [split_url(url)[0] for url in urls] + [host.rpartition(":")[0] for host in modules.hosts]
    order = {
        "registry": spec.registry,
        "name": spec.name,
        "version": spec.version,
        "url": urls[0],
        "hosts": hosts,
        "scripts": scripts,
    }
    return f"/{BUILDER}?order={quote(msgspec.json.encode(order), safe='')}"


def refusal(status: int, body: bytes, modules: Modules, *, own: bool) -> Failed | Away:
    """Return what an answer that is no archive means."""
    try:
        said = msgspec.json.decode(body, type=_Said)
    except msgspec.MsgspecError:
        said = _Said("")
    if own and status in {422, 424} and said.reason:
        text = said.reason[:_MOST_SAID]
        return Away(text, registry=True) if said.away else Failed(text)
    if not own and status in _BUSY:
        return Away(f"no sandbox to install it in could be had ({_message(body) or status})", registry=False)
    hint = _HINTS.get(said.reason, "").format(
        memory=format_size(modules.memory), timeout=format_duration(modules.timeout)
    )
    return Failed(hint or f"the builder failed: {_message(body) or f'status {status}'}")


def _message(body: bytes) -> str:
    try:
        found = msgspec.json.decode(body)
    except msgspec.MsgspecError:
        return ""
    return str(found.get("message", ""))[:_MOST_SAID] if isinstance(found, dict) else ""
