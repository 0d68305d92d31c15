"""A host file with folders of its own, the real `sandpost api` on it, and a scripted controller beside it.

Instance 12 names nothing on the machine here: no sandbox, interface or group is made.
"""

import asyncio
import contextlib
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec

from sandpost.ipc.channel import Channel, Listener
from sandpost.model.host import Host, Users
from sandpost.model.limits import Limits
from sandpost.model.messages import (
    AskStatus,
    Done,
    Engines,
    Hello,
    ListSandboxes,
    Sandboxes,
    SandboxInfo,
    Status,
    TenantChanged,
    TenantRemoved,
    ToController,
    Usage,
    UsageItem,
    UsageTaken,
)

API = [sys.executable, "-c", "import sys; from sandpost.api.main import main; sys.exit(main(sys.argv[1:]))"]
USERS = Users(proxy=720_001, api=720_002, collector=720_003, egress=720_005, gid=720_004)
KEY = "installation-test-key"


def host_in(root: str, **changes: Any) -> Host:
    """Return a host whose state and run folders are below `root`."""
    host = Host(
        instance=12,
        state_dir=os.path.join(root, "state"),
        run_dir=os.path.join(root, "run", "c"),
        image_dir=os.path.join(root, "image"),
        image="none",
        listen_host="127.0.0.1",
        listen_port=1,
        workers=1,
        users=USERS,
        sandbox_network="198.19.128.0/20",
        sandbox_uids=1_900_000_000,
        runtime_command="runc",
        cgroups=1,
        pool_size=1,
        parallel_starts=1,
        queue=1,
        memory_reserve=0.1,
        drain_timeout=2.0,
        head_timeout=5.0,
        body_timeout=1.0,
        keep_alive=5.0,
        max_head=32768,
        max_connections=100,
        max_programs=1 << 27,
        defaults=Limits(),
    )
    return msgspec.structs.replace(host, **changes)


class ScriptedController:
    """A controller in a thread of its own: answers as told, remembers what it was told."""

    def __init__(self, host: Host) -> None:
        self.sandboxes: list[SandboxInfo] = []
        self.silent = False
        self.proxies = host.workers
        self.told: list[TenantChanged | TenantRemoved] = []
        self.engines: list[list[str]] = []
        self.hellos: list[Hello] = []
        self.taken: queue.Queue[str] = queue.Queue()
        self._loop = asyncio.new_event_loop()
        self._listener: Listener[ToController] | None = None
        self._path = host.controller_socket
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,))
        self._thread.start()
        assert started.wait(10)

    def send(self, message: msgspec.Struct) -> None:
        """Send to every client."""

        def work() -> None:
            assert self._listener is not None
            for channel in self._listener.channels:
                channel.send(message)

        self._loop.call_soon_threadsafe(work)

    def wait_connected(self) -> None:
        """Wait for a client's hello."""
        wait_for(lambda: bool(self.hellos))

    def close(self) -> None:
        """End, as if killed: every connection is lost."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)

        async def listen() -> None:
            self._listener = Listener(
                self._path, ToController, self._on_message, lambda _channel: None, admit=lambda _peer: True
            )
            started.set()

        self._loop.run_until_complete(listen())
        self._loop.run_forever()
        assert self._listener is not None

        async def end() -> None:
            assert self._listener is not None
            self._listener.close()

        self._loop.run_until_complete(end())
        self._loop.close()

    def _on_message(self, channel: Channel[ToController], message: ToController, _fds: list[int]) -> None:
        if isinstance(message, Hello):
            self.hellos.append(message)
        if isinstance(message, Engines):
            self.engines.append(list(message.engines))
        if isinstance(message, TenantChanged | TenantRemoved):
            self.told.append(message)
        if isinstance(message, UsageTaken):
            self.taken.put(message.batch)
        if self.silent:
            return
        if isinstance(message, TenantChanged | TenantRemoved):
            channel.send(Done(seq=message.seq))
        if isinstance(message, AskStatus):
            channel.send(
                Status(
                    seq=message.seq,
                    pool=3,
                    pool_target=4,
                    starting=1,
                    assigned=2,
                    draining=0,
                    waiting=0,
                    memory_used=100 << 20,
                    memory_limit=1 << 30,
                    starts=9,
                    ends={"idle": 2, "memory": 1},
                    proxies=self.proxies,
                    uptime=61.0,
                )
            )
        if isinstance(message, ListSandboxes):
            items = [one for one in self.sandboxes if message.tenant in (None, one.tenant)]
            # In parts, as a real one sends many.
            for item in items:
                channel.send(Sandboxes(seq=message.seq, items=[item], last=False))
            channel.send(Sandboxes(seq=message.seq, items=[], last=True))


class Installation:
    """The api on folders of its own. `start` and `kill` as often as wanted."""

    def __init__(self, **changes: Any) -> None:
        assert os.geteuid() == 0, "run these tests as root: the api gives root up for its own user"
        self.root = tempfile.mkdtemp(prefix="sandpost-test-api-", dir="/tmp")
        os.chmod(self.root, 0o711)
        self.host = host_in(self.root, **changes)
        for folder in (self.host.state_dir, self.host.run_dir, self.host.metrics_dir):
            os.makedirs(folder, mode=0o755)
            os.chmod(folder, 0o711)
        os.chmod(self.host.metrics_dir, 0o755)
        os.makedirs(self.host.logs_dir)
        os.chown(self.host.logs_dir, self.host.users.collector, self.host.users.gid)
        os.chmod(self.host.logs_dir, 0o750)
        self.host_file = self.host.path("host.json")
        self.write_host(self.host)
        Path(self.host.path("claim")).write_text(self.host.state_dir)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `close`)
        self.api: subprocess.Popen[bytes] | None = None
        self.controllers: list[ScriptedController] = []

    def write_host(self, host: Host) -> None:
        """Replace the host file."""
        self.host = host
        Path(self.host_file).write_bytes(msgspec.json.encode(host))

    def start(self) -> None:
        """Start the api and wait until it answers."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SANDPOST_")}
        self.api = subprocess.Popen([*API, "--host", self.host_file], env=environment, stderr=self._log)

        def answers() -> bool:
            assert self.api is not None
            assert self.api.poll() is None, self.log()
            # httpcore leaves the socket of a failed connect to the collector: it is asked only when it answers.
            with socket.socket(socket.AF_UNIX) as sock:
                return sock.connect_ex(self.host.api_socket) == 0

        wait_for(answers)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the api by a signal; return its exit status."""
        assert self.api is not None
        self.api.send_signal(number)
        return self.api.wait(20)

    def controller(self) -> ScriptedController:
        """Start a scripted controller; it ends with the installation."""
        made = ScriptedController(self.host)
        self.controllers.append(made)
        return made

    def log(self) -> str:
        """What the api has logged."""
        self._log.seek(0)
        return self._log.read().decode()

    def call(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """Make one request on the api's socket, as root of this machine unless `key` is given."""
        content = body if isinstance(body, bytes) or body is None else msgspec.json.encode(body)
        sent = dict(headers or {})
        if key is not None:
            sent["authorization"] = f"Bearer {key}".strip()
        with httpx.Client(transport=httpx.HTTPTransport(uds=self.host.api_socket, verify=False), timeout=10) as client:
            return client.request(method, "http://api" + path, content=content, headers=sent)

    def close(self) -> None:
        """End everything and remove it."""
        try:
            for controller in self.controllers:
                if controller._thread.is_alive():
                    controller.close()
            if self.api is not None and self.api.poll() is None:
                self.stop(signal.SIGKILL)
        finally:
            self._log.close()
            shutil.rmtree(self.root)


@contextlib.contextmanager
def installation(**changes: Any) -> Iterator[Installation]:
    """An installation whose api runs."""
    made = Installation(**changes)
    try:
        made.start()
        yield made
    finally:
        made.close()


def wait_for(true: Callable[[], bool], timeout: float = 15.0) -> None:
    """Wait until `true()`."""
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def usage(batch: str, **fields: Any) -> Usage:
    """Return a batch of one item."""
    return Usage(batch=batch, items=[UsageItem(**fields)])
