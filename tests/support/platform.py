"""The whole platform, really started as a user starts it, on a port and a state folder of its own."""

import contextlib
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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from sandpost.model.host import Host, load
from support.http import Answer, request
from support.lab import Place
from support.machine import traces
from support.secrecy import keys_in, places_of

Result = TypeVar("Result")
START_DEADLINE = 120.0
SANDPOST = str(Path(sys.executable).with_name("sandpost"))
FEW_SLOTS = {"network_block": "10.211.0.0/22", "uids_base": "1950000000"}
"""Settings of an installation with room for 31 sandboxes, so that addresses and ids soon come again.

None of them are those of an installation that runs beside it.
"""


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Platform:
    """`sandpost serve` as a child of the test. `settings` are environment names without SANDPOST_.

    `place`: where in a lab (`support.lab`) it runs and is called; without one, on this machine's own network.
    """

    def __init__(self, place: Place | None = None, *, program: str = SANDPOST, **settings: str) -> None:
        self.within = START_DEADLINE
        """Seconds that a start may take."""
        self.program = program
        self.place = place
        self.state_dir = Path(tempfile.mkdtemp(prefix="sandpost-test-"))
        self.state_dir.chmod(0o711)
        self.port = free_port()
        self.key = "test-" + secrets.token_hex(16)
        self.keys: set[str] = set()
        """Keys that the platform made, as far as the test came to see them here."""
        self.settings = settings
        self.process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed in __exit__)

    # --- life ---------------------------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        """The environment of `sandpost` commands that concern this installation."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SANDPOST_")}
        return {
            **clean,
            "SANDPOST_LISTEN": f"127.0.0.1:{self.port}",
            "SANDPOST_STATE_DIR": str(self.state_dir),
            "SANDPOST_ADMIN_KEY": self.key,
            **{f"SANDPOST_{name.upper()}": value for name, value in self.settings.items()},
        }

    def start(self) -> Self:
        """Start and wait until it answers."""
        command, environment = [self.program, "serve"], self.environment()
        self.process = self.there(
            lambda: subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
            )
        )
        self.wait_ready()
        return self

    def wait_ready(self) -> None:
        """Wait until `/health` says that all is well."""
        deadline = time.monotonic() + self.within
        while time.monotonic() < deadline:
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"serve ended with {self.process.returncode}:\n{self.output()}")
            with contextlib.suppress(OSError):
                if self.there(lambda: request(self.port, "GET", "/health", timeout=5)).status == 200:
                    return
            time.sleep(0.02)
        raise AssertionError(f"serve was not ready within {self.within} s:\n{self.output()}")

    def stop(self, timeout: float = 60) -> int:
        """Stop by SIGTERM; return the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout)
        self.process = None
        return status

    def output(self) -> str:
        """Everything that the platform's processes have printed."""
        # Read where it stands: they write at the place that this file has.
        fd = self._log.fileno()
        return os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace")

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            shown = []
            if self.process is not None:
                if self.process.poll() is not None:
                    # The supervisor was killed by the test: the next start adopts what is left, and stops it.
                    self.start()
                shown = self.shown_keys()
                self.stop()
            if kind is not None:
                print(self.output()[-20000:])
                return
            shown += self.shown_keys()
            assert not shown, f"keys were written: {shown}"
        finally:
            self._log.close()
            shutil.rmtree(self.state_dir, ignore_errors=True)

    # --- looking ------------------------------------------------------------------------------------------

    def shown_keys(self) -> list[str]:
        """Say where one of its keys stands: in records, host file, state or run folder, or what it printed."""
        keys = {self.key, *self.keys}
        folders = [self.state_dir]
        with contextlib.suppress(AssertionError):
            folders.append(Path(self.host.run_dir))
        said = self.output()
        return [*places_of(keys, *folders), *(f"output has the key {key[:12]}.." for key in keys if key in said)]

    @property
    def host(self) -> Host:
        """The host file of the running installation."""
        for path in Path("/run/sandpost").glob("?/host.json"):
            # Others' may be of another release.
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                host = load(str(path))
                if host.state_dir == str(self.state_dir):
                    return host
        raise AssertionError("the installation has no host file under /run/sandpost")

    def pids(self, part: str) -> list[int]:
        """Host pids of one part's processes (`supervisor`, `controller`, `proxy`, `api`, `collector`, `egress`)."""
        if part == "supervisor":
            assert self.process is not None
            return [self.process.pid]
        found = []
        wanted = f"sandpost {part} ".encode()
        host_file = self.host.path("host.json").encode()
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
                if wanted in command and host_file in command:
                    found.append(int(pid))
        return sorted(found)

    def records(self) -> list[dict[str, Any]]:
        """The controller's records of sandboxes."""
        found = []
        for path in Path(self.host.path("records")).glob("*.json"):
            with contextlib.suppress(OSError):
                found.append(json.loads(path.read_bytes()))
        return found

    # --- using --------------------------------------------------------------------------------------------

    def call(
        self,
        tenant: str,
        program: str | bytes,
        query: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 40,
    ) -> Answer:
        """POST a program for a tenant."""
        target = f"/{tenant}?key={self.key}" + (f"&{query}" if query else "")
        return self.there(lambda: request(self.port, "POST", target, program, headers, timeout))

    def api(self, method: str, path: str, body: Any = None) -> Answer:
        """Call a management route with the operator's key."""
        data = None if body is None else json.dumps(body)
        headers = {"Authorization": f"Bearer {self.key}"}
        answer = self.there(lambda: request(self.port, method, path, data, headers))
        self.keys |= keys_in(answer.body)
        return answer

    def command(
        self, *arguments: str, timeout: float = 60, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `sandpost ..` against this installation, with `environment` besides its own."""
        command, whole = [self.program, *arguments], {**self.environment(), **(environment or {})}
        done = self.there(
            lambda: subprocess.run(command, env=whole, capture_output=True, text=True, timeout=timeout, check=False)
        )
        self.keys |= keys_in(done.stdout)
        return done

    def there(self, work: Callable[[], Result]) -> Result:
        """Call `work` in the network that it runs in."""
        return work() if self.place is None else self.place.run(work)

    def set_tenant(self, name: str, **settings: Any) -> None:
        """Set a tenant up, and wait until it holds everywhere (promised within a second)."""
        answer = self.api("PUT", f"/api/tenants/{name}", settings)
        assert answer.status in {200, 201}, answer.body
        time.sleep(1)


@contextlib.contextmanager
def platform(place: Place | None = None, *, program: str = SANDPOST, **settings: str) -> Iterator[Platform]:
    """A running platform that is stopped at the end, and of which nothing must then be left."""
    with Platform(place, program=program, **settings) as running:
        host = running.host
        yield running
    assert not (left := running.there(lambda: traces(host))), f"left behind: {left}"
