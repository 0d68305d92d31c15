"""How a sandbox finds names: its resolv.conf(5)."""

import contextlib
import os

from sandpost.kernel import files
from sandpost.model.host import Host


def render(host: Host) -> str:
    """Return the file. Two tries of 2 s: egress answers within 5 s, if only with a reason. Pure."""
    return f"nameserver {host.platform_address}\noptions timeout:2 attempts:2\n"


def write(host: Host) -> None:
    """Put the file where sandboxes' mounts find it; those that run keep what they have."""
    files.replace(host.resolv_conf, render(host).encode(), 0o644)


def remove(host: Host) -> None:
    """Remove the file, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(host.resolv_conf)
