"""Loads, lists and removes the table with the program `nft`."""

import contextlib
import json
import os
import subprocess
from typing import Any

import msgspec

from sandpost.kernel import files, pids
from sandpost.model.errors import HostUnfit
from sandpost.model.host import Host
from sandpost.network.firewall import readback
from sandpost.network.firewall.readback import Shape
from sandpost.network.firewall.render import render

_DEADLINE = 30.0
"""Seconds for a run of `nft`: the first one of a machine loads some fifteen modules of the kernel."""


class Installed(msgspec.Struct, frozen=True):
    """`<run_dir>/firewall.json`: the script that was loaded, and the shape that the kernel made of it."""

    script: str
    shape: Shape


def install(host: Host) -> None:
    """Put the table in place, or replace it, in one transaction; nobody is in its sets then. Raises `HostUnfit`."""
    script = render(host)
    _nft(["-f", "-"], script)
    made = Installed(script, readback.shape(listed(host) or {"nftables": []}))
    files.replace(_path(host), msgspec.json.encode(made), 0o600)


def ensure(host: Host) -> None:
    """Put the table in place unless it stands as this release renders it: then who runs keeps his way."""
    made = installed(host)
    if made is None or made.script != render(host) or altered(host, listed(host)):
        install(host)


def installed(host: Host) -> Installed | None:
    """Return what was put in place last."""
    try:
        with open(_path(host), "rb") as file:
            return msgspec.json.decode(file.read(), type=Installed)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def altered(host: Host, listing: dict[str, Any] | None) -> list[str]:
    """Say in what a table as listed is not as it was put in place; nothing: it is."""
    made = installed(host)
    if listing is None or made is None:
        return [f"table inet {host.nft_table} is missing"]
    return readback.differences(made.shape, readback.shape(listing))


def listed(host: Host) -> dict[str, Any] | None:
    """Return what `nft -j` says of the table; None if it is not there. Takes some 50 ms with 1,000 sandboxes."""
    try:
        listing: dict[str, Any] = json.loads(_nft(["-j", "list", "table", "inet", host.nft_table], ""))
    except HostUnfit as error:
        if "No such file" in error.message:
            return None
        raise
    return listing


def remove(host: Host) -> None:
    """Remove the table if it is there."""
    table = f"inet {host.nft_table}"
    _nft(["-f", "-"], f"table {table} {{}}\ndelete table {table}\n")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_path(host))


def _path(host: Host) -> str:
    return host.path("firewall.json")


def _nft(arguments: list[str], script: str) -> str:
    try:
        done = subprocess.run(
            ["nft", *arguments], input=script, capture_output=True, text=True, timeout=_DEADLINE, check=False
        )
    except FileNotFoundError:
        raise HostUnfit("`nft` is missing: run `apt-get install nftables`") from None
    except BlockingIOError:
        raise HostUnfit(f"`nft` cannot be run: {pids.refused()}") from None
    except subprocess.TimeoutExpired:
        raise HostUnfit(f"`nft` did not answer within {_DEADLINE:.0f} s: look for what holds the firewall") from None
    if done.returncode != 0:
        said = " ".join(done.stderr.split())
        raise HostUnfit(
            f"`nft {' '.join(arguments)}` failed: {said}: `sandpost doctor` says what this kernel's firewall lacks"
        )
    return done.stdout
