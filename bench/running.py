"""The servers that are measured: the platform as a user starts it, and a bare Node process beside it."""

import asyncio
import contextlib
import functools
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from bench import machine
from sandpost.config import DEFAULTS
from sandpost.image.build import ensure
from sandpost.model import inside
from sandpost.model.host import Host, load

ANSWER = '"Hello, world!"'
PROGRAM = b'return function (cb) { cb(null, "Hello, world!") }'
START_DEADLINE = 120.0
STOP_DEADLINE = 180.0
_BARE = Path(__file__).with_name("bare.js")


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def wait_until(condition: Callable[[], bool], what: str, seconds: float) -> None:
    """Wait until `condition()`; after `seconds` raise `TimeoutError` that names `what`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.02)


async def until(condition: Callable[[], bool], what: str, seconds: float) -> None:
    """Do what `wait_until` does, in an event loop."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def beside(*work: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    """Do `work` while the block runs, and wait for its end. What fails is raised, and breaks the rest off."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def listens(port: int) -> bool:
    """Return whether somebody takes connections at 127.0.0.1."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class ControllerStatus(msgspec.Struct, frozen=True):
    """What the benchmark reads of `/api/status`."""

    pool: int
    pool_target: int
    starting: int
    assigned: int
    draining: int
    waiting: int
    starts: int
    ends: dict[str, int]

    @property
    def fatal_ends(self) -> int:
        """Ends that a tenant's code caused."""
        return sum(self.ends.get(word, 0) for word in ("memory", "blocked", "exit", "crash", "cpu"))


class Platform:
    """`sandpost serve` with a state folder, port and key of its own; a context manager.

    `settings` are names of the environment without `SANDPOST_`, in lower case. `prepare` is called with the state
    folder before the start.
    """

    def __init__(self, prepare: Callable[[Path], None] | None = None, /, **settings: str) -> None:
        self.port = free_port()
        self.key = "bench-" + secrets.token_hex(16)
        self._prepare = prepare
        self._settings = settings
        self._state_dir = Path(tempfile.mkdtemp(prefix="sandpost-bench-"))
        self._state_dir.chmod(0o711)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SANDPOST_")}
        environment |= {f"SANDPOST_{name.upper()}": value for name, value in self._settings.items()}
        environment |= {
            "SANDPOST_LISTEN": f"127.0.0.1:{self.port}",
            "SANDPOST_STATE_DIR": str(self._state_dir),
            "SANDPOST_ADMIN_KEY": self.key,
        }
        command = [str(Path(sys.executable).with_name("sandpost")), "serve"]
        try:
            if self._prepare is not None:
                self._prepare(self._state_dir)
            self._process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
            )
            wait_until(self._healthy, "the platform's start", START_DEADLINE)
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        process = self._process
        try:
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(STOP_DEADLINE)
            if kind is not None:
                self._log.seek(0)
                sys.stderr.write(self._log.read().decode(errors="replace")[-8000:])
        finally:
            self._log.close()
            shutil.rmtree(self._state_dir, ignore_errors=True)

    def _healthy(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise RuntimeError(f"`sandpost serve` ended with {self._process.returncode}; its output follows")
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self._request("GET", "/health", None)[0] == 200
        return False

    def _request(self, method: str, target: str, body: Any) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, target, data, {"Authorization": f"Bearer {self.key}"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def api(self, method: str, target: str, body: Any = None) -> Any:
        """Call a management route; `RuntimeError` unless it succeeds."""
        status, data = self._request(method, target, body)
        if status >= 300:
            raise RuntimeError(f"{method} {target}: {status} {data[:300]!r}")
        return json.loads(data) if data else None

    def status(self) -> ControllerStatus:
        """Return how the controller is; waits a moment for an api that does not hear it yet."""
        found: list[Any] = []

        def told() -> bool:
            found[:] = [self.api("GET", "/api/status")["controller"]]
            return found[0] is not None

        wait_until(told, "the controller's status", 10)
        return msgspec.convert(found[0], ControllerStatus)

    def sandboxes(self) -> list[dict[str, Any]]:
        """Return all sandboxes as the api shows them."""
        found: list[dict[str, Any]] = self.api("GET", "/api/sandboxes")["sandboxes"]
        return found

    def wait_pool(self, seconds: float = 60.0) -> None:
        """Wait until the pool is full and nothing is being started."""

        def full() -> bool:
            status = self.status()
            return status.pool >= status.pool_target and not status.starting

        wait_until(full, "a full pool", seconds)

    @property
    def host(self) -> Host:
        """The host file of this installation."""
        for path in Path("/run/sandpost").glob("?/host.json"):
            with contextlib.suppress(OSError):
                host = load(str(path))
                if host.state_dir == str(self._state_dir):
                    return host
        raise RuntimeError("the installation has no host file under /run/sandpost")

    def parts(self) -> dict[int, str]:
        """Return pid and part of every process of the platform, its sandboxes not among them."""
        if self._process is None:
            raise RuntimeError("not started")
        host_file = self.host.path("host.json")
        found = {self._process.pid: "supervisor"}
        for pid, command in machine.commands().items():
            _, ours, rest = command.partition("sandpost ")
            if ours and host_file in rest:
                found.setdefault(pid, rest.split()[0])
        return found

    def pids(self, *parts: str) -> list[int]:
        """Return the processes of these parts; `RuntimeError` if one has none."""
        found = self.parts()
        if missing := set(parts) - set(found.values()):
            raise RuntimeError(f"not running: {', '.join(sorted(missing))}")
        return [pid for pid, part in found.items() if part in parts]

    def pss(self) -> dict[str, int]:
        """Return the bytes (PSS) of each part's processes together."""
        sizes: dict[str, int] = {}
        for pid, part in self.parts().items():
            sizes[part] = sizes.get(part, 0) + machine.pss(pid)
        return sizes


@functools.cache
def image_root(*, coreclr: bool = False) -> str:
    """Return the root of this release's image, with CoreCLR or without, which is built first if it is not there."""
    image_dir = DEFAULTS["image_dir"]
    return os.path.join(image_dir, ensure(image_dir, print, coreclr=coreclr), "rootfs")


def node_binary() -> str:
    """Return the path of the image's Node."""
    return os.path.join(image_root(), inside.NODE[1:])


class _Bare:
    """One process that answers as the measured program does; a context manager."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """Return what is run."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        """The process's id."""
        if self._process is None:
            raise RuntimeError("not started")
        return self._process.pid

    def __enter__(self) -> Self:
        environment = {**os.environ, "ANSWER": ANSWER}
        self._process = subprocess.Popen(
            self.command(), env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 10
        while True:
            if listens(self.port):
                return self
            if time.monotonic() > deadline:
                self.__exit__(None, None, None)
                raise TimeoutError(f"{type(self).__name__} does not listen")
            time.sleep(0.001)

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)


class BareNode(_Bare):
    """One Node process."""

    def command(self) -> list[str]:
        """Return what is run."""
        return [node_binary(), str(_BARE), str(self.port), ANSWER]


class BareUvicorn(_Bare):
    """One uvicorn process with httptools and uvloop, without a log."""

    def command(self) -> list[str]:
        """Return what is run."""
        options = ("--http", "httptools", "--loop", "uvloop", "--log-level", "error", "--no-access-log")
        return [sys.executable, "-m", "uvicorn", "bench.bare_asgi:app", "--port", str(self.port), *options]
