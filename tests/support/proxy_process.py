"""A proxy worker as a process of its own, and a certificate for one."""

import contextlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from support.proxy import Rig


@contextlib.asynccontextmanager
async def process(rig: Rig, sock: socket.socket, index: int = 0) -> AsyncIterator[subprocess.Popen[bytes]]:
    """A worker as the supervisor starts it: a process with its listening socket as descriptor 3."""
    path = rig.host.path("host.json")
    Path(path).write_bytes(msgspec.json.encode(rig.host))
    # It is root here and its sandboxes are on other ports: the walls around a part of its own user would be in its way.
    # They have tests of their own (tests/walls/own).
    code = (
        f"import os, sys; os.dup2({sock.fileno()}, 3); from sandpost.proxy import main; "
        "main.confine = lambda part, host: None; "
        f"sys.exit(main.main(['--host', {path!r}, '--index', '{index}']))"
    )
    child = subprocess.Popen([sys.executable, "-c", code], pass_fds=[sock.fileno()])
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()


def certificate(folder: Path, name: str) -> tuple[str, str]:
    """Make a self-signed certificate."""
    cert, key = str(folder / f"{name}.pem"), str(folder / f"{name}.key")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "1",
         "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key
