"""A lab with real registry servers, and a whole installation that installs modules from them."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support import registries
from support.lab import OTHER_PUBLIC, PUBLIC, Lab, lab
from support.platform import Platform, platform
from support.registries import NPM_PORT, PYPI_PORT, Npm, Pypi
from support.zone import answer_names

DNS_PORT = 5354
ZONE = {"npm.example.com.": PUBLIC, "pypi.example.com.": PUBLIC, "far.example.com.": PUBLIC}


class World:
    """The lab, its registries and the installation."""

    def __init__(self, laboratory: Lab, folder: Path) -> None:
        self.lab = laboratory
        self.npm = Npm(laboratory.internet, PUBLIC, folder / "npm")
        self.pypi = Pypi(laboratory.internet, PUBLIC, folder / "pypi")
        self.running: Platform | None = None

    @property
    def platform(self) -> Platform:
        assert self.running is not None
        return self.running

    def add(self, *arguments: str) -> dict[str, dict[str, Any]]:
        done = self.platform.command("module", "add", "--json", *arguments, timeout=100)
        assert done.returncode in {0, 5}, done.stderr
        return {one["spec"]: one for one in json.loads(done.stdout)}

    def failed(self, *arguments: str) -> str:
        [one] = self.add(*arguments).values()
        assert one["state"] == "failed", one
        assert not self.place(one["spec"]).exists()
        reason: str = one["reason"]
        return reason

    def there(self, *arguments: str) -> Path:
        [one] = self.add(*arguments).values()
        assert one["state"] == "available", one
        return self.place(one["spec"])

    def place(self, spec: str) -> Path:
        registry, _, rest = spec.partition(":")
        name, _, version = rest.rpartition("@") if registry == "npm" else rest.partition("==")
        return Path(self.platform.host.modules_ready, registry, name, version)


@contextlib.contextmanager
def world(folder: Path, **settings: str) -> Iterator[World]:
    """A running world, whose registries have the real packages."""
    with lab() as laboratory:
        sock = laboratory.internet.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.bind((OTHER_PUBLIC, DNS_PORT))
        threading.Thread(target=answer_names, args=(sock, ZONE.get), daemon=True).start()
        made = World(laboratory, folder)
        with contextlib.closing(sock), registries.running(made.npm), registries.running(made.pypi):
            made.npm.publish_real()
            made.pypi.publish_real()
            with platform(
                laboratory.host,
                pool_size="2",
                egress_resolvers=f"{OTHER_PUBLIC}:{DNS_PORT}",
                modules_npm=f"http://npm.example.com:{NPM_PORT}/",
                modules_pypi=f"http://pypi.example.com:{PYPI_PORT}/simple/",
                **settings,
            ) as running:
                made.running = running
                yield made
