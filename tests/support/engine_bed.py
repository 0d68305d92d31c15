"""A bed for engine tests: an installation of its own on a claimed place, sandboxes with the real runtime, and what
a host shows of them."""

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandpost.config import claims, machine
from sandpost.engines.contract import Engine, SandboxSpec, Started
from sandpost.engines.oci import OciEngine
from sandpost.image.build import ensure
from sandpost.model.host import SANDBOX_PORT, Host, Users
from sandpost.model.limits import Limits
from sandpost.model.names import new_sandbox_id
from sandpost.supervisor import layout
from sandpost.walls.cgroups import mounts
from support.gvisor import RUNSC
from support.machine import EMULATED

IMAGES = "/var/lib/sandpost/image"
RUN_ROOT = "/run/sandpost"
MiB = 1 << 20

RUNTIMES = tuple(dict.fromkeys(filter(None, (machine.oci_runtime(), shutil.which("runc")))))
"""The OCI runtimes of this machine: first the one that an installation takes, then another, if there is one."""

ENGINES: dict[str, Callable[[Host], Engine]] = {"oci": OciEngine}


@contextlib.contextmanager
def claimed_host(**changes: Any) -> Iterator[Host]:
    """An installation on a place that no other, and no other run of the tests, has meanwhile."""
    state_dir = tempfile.mkdtemp(prefix="sandpost-test-")
    instance = claims.claim(RUN_ROOT, state_dir, None, _in_use, layout.make_run_dir)
    try:
        yield make_host(claims.folder(RUN_ROOT, instance), instance=instance, state_dir=state_dir, **changes)
    finally:
        claims.release(RUN_ROOT, instance, state_dir, layout.remove_run_dir)
        shutil.rmtree(state_dir)


def make_host(run_dir: str, *, instance: int = 15, **changes: Any) -> Host:
    """Describe an installation; the image is built if it is not there."""
    values: dict[str, Any] = {
        "instance": instance,
        "state_dir": run_dir,
        "run_dir": run_dir,
        "image_dir": IMAGES,
        "image": ensure(IMAGES, print),
        "listen_host": "127.0.0.1",
        "listen_port": 0,
        "workers": 1,
        "users": Users(proxy=65001, api=65002, collector=65003, egress=65005, gid=65001),
        "sandbox_network": f"198.{18 + instance // 8}.{instance % 8 * 32}.0/19",
        "sandbox_uids": 1_900_000_000 + instance * 65536,
        "runtime_command": machine.oci_runtime(),
        "runsc_command": RUNSC,
        "cgroups": 2 if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else 1,
        "pool_size": 0,
        "parallel_starts": 3,
        "queue": 1,
        "memory_reserve": 0.1,
        "drain_timeout": 1.0,
        "head_timeout": 1.0,
        "body_timeout": 1.0,
        "keep_alive": 1.0,
        "max_head": 1024,
        "max_connections": 1,
        "max_programs": 1 << 27,
        "defaults": Limits(),
    }
    return Host(**{**values, **changes})


@dataclass
class Sandbox:
    """A sandbox under test, with the ends of its FIFOs that we read."""

    host: Host
    spec: SandboxSpec
    started: Started
    frames: int

    def uid(self) -> int:
        """Return the host uid that its processes must have."""
        return self.host.slot_uid(self.spec.slot) + 1

    def address(self) -> str:
        """Return its address."""
        return str(self.host.slot_addresses(self.spec.slot)[1])

    def processes(self) -> list[int]:
        """List the host pids of its processes, by uid."""
        return processes_of(range(self.uid() - 1, self.uid() + 7))

    def call(self, body: str, *, sent: bytes = b"", patience: float = 10.0) -> Any:
        """Run JavaScript inside, the body of an async function with `require`, and return its JSON value.

        What is `sent` as the call's body is a Buffer of that name inside.
        """
        program = (
            "module.exports = (context, req, res) => (async () => { const chunks = []; for await (const chunk of req)"
            f" chunks.push(chunk); const sent = Buffer.concat(chunks); {body} }})()"
            ".then((v) => res.end(JSON.stringify(v) ?? '{}'), (e) => { res.statusCode = 400; res.end(String(e?.stack)) })"
            if sent
            else f"module.exports = (cb) => (async () => {{ {body} }})().then((v) => cb(null, v), cb);"
        ).encode()
        code = {"x-sandpost-code": hashlib.sha256(program).hexdigest(), "x-sandpost-req": "r1"}
        connection = self.connect(patience)
        with contextlib.closing(connection):
            connection.request("PUT", "/", program, {"x-sandpost-op": "load", **code})
            answer = connection.getresponse()
            assert answer.status == 204, answer.read()
            answer.read()
            method = "POST" if sent else "GET"
            connection.request(method, "/", sent or None, {"x-sandpost-op": "call", **code})
            answer = connection.getresponse()
            said = answer.read()
            assert answer.status == 200, said
            return json.loads(said)

    def connect(self, patience: float = 10.0) -> http.client.HTTPConnection:
        """Connect as soon as the runtime listens."""
        end = time.monotonic() + (60 if EMULATED else 10)
        while True:
            connection = http.client.HTTPConnection(self.address(), SANDBOX_PORT, timeout=patience)
            try:
                connection.connect()
            except ConnectionRefusedError:
                assert time.monotonic() < end, "the runtime does not listen"
                time.sleep(0.005)
            else:
                return connection

    def has_ended(self, patience: float = 5.0) -> bool:
        """Wait until no process of it runs."""
        return until(lambda: not self.processes(), patience)


class Bed:
    """An opened engine, and sandboxes that are removed with it."""

    def __init__(self, host: Host, engine: Engine, folder: Path) -> None:
        self.host = host
        self.engine = engine
        self._folder = folder
        self._slot = 0
        self._fds: list[int] = []

    def spec(
        self, *, slot: int | None = None, group_id: str | None = None, limits: Limits | None = None
    ) -> SandboxSpec:
        """Return a spec of a new sandbox on a slot of its own, and FIFOs that nobody else has."""
        name = new_sandbox_id()
        self._slot += 1
        ends = [self._fifo(name, kind) for kind in ("out", "err", "log")]
        return SandboxSpec(
            sandbox_id=name,
            group_id=group_id or name,
            slot=self._slot if slot is None else slot,
            runtime="node",
            engine=self.host.engine,
            limits=limits or Limits(),
            stdout=ends[0],
            stderr=ends[1],
            frames=ends[2],
        )

    async def make(self, **wanted: Any) -> Sandbox:
        """Start a sandbox."""
        spec = self.spec(**wanted)
        started = await self.engine.start(spec)
        return Sandbox(self.host, spec, started, spec.frames)

    async def end(self, sandbox: Sandbox) -> None:
        """Remove a sandbox."""
        await self.engine.remove(sandbox.spec.sandbox_id, sandbox.spec.group_id, sandbox.spec.slot)

    async def clear(self) -> None:
        """Remove whatever a test left."""
        for found in self.engine.find():
            await self.engine.remove(found.sandbox_id, found.group_id, found.slot or 0)
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def _fifo(self, name: str, kind: str) -> int:
        path = self._folder / f"{name}-{kind}"
        os.mkfifo(path, 0o600)
        # Both ways, so that it opens without a reader and never breaks.
        self._fds.append(os.open(path, os.O_RDWR | os.O_NONBLOCK))
        return self._fds[-1]


def traces(host: Host) -> dict[str, list[str]]:
    """List everything that carries the installation's names or ids: other installations may come and go meanwhile."""
    uids = range(host.sandbox_uids, host.sandbox_uids + 8 * host.slots)
    points = mounts.read()
    roots = [*points.hierarchies, *([points.unified] if points.unified else [])]
    groups = [str(path) for root in roots for path in Path(root, host.cgroup_parent).rglob("*") if path.is_dir()]
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        mounted = [line for line in file if host.run_dir in line or host.rootfs in line]
    return {
        "processes": [str(pid) for pid in processes_of(uids)],
        "groups": sorted(groups),
        "interfaces": sorted(name for _, name in socket.if_nameindex() if name.startswith(host.interface_prefix)),
        "mounts": mounted,
        "namespaces held": [held for held in _descriptors() if held.startswith("net:")],
        "files": sorted(str(path) for path in Path(host.run_dir).rglob("*") if path.name != "claim"),
    }


def processes_of(uids: range) -> list[int]:
    """List running processes of these users; zombies that await their reaper do not count."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/status", encoding="utf-8") as file:
                status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
                if int(status["Uid"].split()[0]) in uids and not status["State"].startswith(("Z", "X")):
                    found.append(int(name))
    return found


def until(condition: Callable[[], bool], patience: float = 5.0) -> bool:
    """Wait until `condition` holds; say whether it came to."""
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def _in_use(instance: int) -> bool:
    """Whether the machine has control groups of an installation that did not claim its place."""
    points = mounts.read()
    roots = [*points.hierarchies, *([points.unified] if points.unified else [])]
    return any(os.path.exists(f"{root}/sandpost-{instance:x}") for root in roots)


def _descriptors() -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return found
