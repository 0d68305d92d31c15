"""A really started runtime, spoken to over loopback byte by byte."""

import base64
import functools
import hashlib
import json
import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h11
import pytest

from sandpost.image.bundle import bundle
from support import memory

SOURCE = Path(__file__).parents[2] / "src" / "sandpost" / "runtimes" / "node"
DEADLINE = 10.0
JAVASCRIPT = "application/javascript"
TYPESCRIPT = "application/typescript"
CSHARP = "text/x-csharp"
FRAME = struct.Struct(">BBBBHBB")
UPGRADE = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-key": base64.b64encode(b"0123456789abcdef").decode(),
    "sec-websocket-version": "13",
}


@dataclass(frozen=True)
class Answer:
    """One parsed answer. Header names are lower-case; `will_close`: no further request may follow."""

    status: int
    headers: dict[str, str]
    body: bytes
    informational: tuple[int, ...] = ()
    will_close: bool = False

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def failure(self, status: int, reason: str, source: str = "webtask") -> dict[str, object]:
        """Check what all failures have in common and return the body."""
        assert self.status == status, self
        assert self.headers["content-type"] == "application/json"
        assert self.headers["x-sandpost-wire"] == "1"
        assert self.headers["x-sandpost-error"] == reason
        assert self.headers["x-sandpost-source"] == source
        body: dict[str, object] = self.json
        assert body["code"] == status
        assert body["reason"] == reason
        return body


@dataclass(frozen=True)
class Record:
    """One log record put together from its frames."""

    level: int
    req_id: str
    text: str
    notice: bool = False


@dataclass
class Connection:
    """A connection on which requests are sent as given and answers are parsed strictly."""

    sock: socket.socket
    http: h11.Connection = field(default_factory=lambda: h11.Connection(h11.CLIENT, 1 << 20))

    def send(
        self, method: str, target: str, headers: dict[str, str] | None = None, body: bytes = b"", *, end: bool = True
    ) -> None:
        lines = {"host": "runtime", **(headers or {})}
        if body and "transfer-encoding" not in lines:
            lines.setdefault("content-length", str(len(body)))
        request = h11.Request(method=method, target=target, headers=list(lines.items()))
        data = self.http.send(request) or b""
        if body:
            data += self.http.send(h11.Data(data=body)) or b""
        if end:
            data += self.http.send(h11.EndOfMessage()) or b""
        self.sock.sendall(data)

    def event(self) -> Any:
        while True:
            event = self.http.next_event()
            if event is not h11.NEED_DATA:
                return event
            self.http.receive_data(self.sock.recv(65536))

    def answer(self) -> Answer:
        informational: list[int] = []
        event = self.event()
        while isinstance(event, h11.InformationalResponse):
            informational.append(event.status_code)
            event = self.event()
        assert isinstance(event, h11.Response), event
        body = bytearray()
        while True:
            part = self.event()
            if isinstance(part, h11.Data):
                body += part.data
            else:
                assert isinstance(part, h11.EndOfMessage), part
                break
        will_close = self.http.their_state is h11.MUST_CLOSE
        if self.http.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
            self.http.start_next_cycle()
        headers: dict[str, str] = {}
        for name, value in event.headers:
            key = name.decode()
            headers[key] = f"{headers[key]}, {value.decode()}" if key in headers else value.decode()
        return Answer(event.status_code, headers, bytes(body), tuple(informational), will_close)

    def read_until(self, end: bytes) -> bytes:
        """Return what comes up to `end`, with it, as it is, and nothing behind it."""
        data = b""
        while not data.endswith(end):
            chunk = self.sock.recv(1)
            assert chunk, data
            data += chunk
        return data

    def assert_one_answer(self) -> None:
        """After its answer the connection carries the next exchange and nothing else."""
        self.send("GET", "/", {"x-sandpost-op": "probe"})
        assert self.answer().status == 204

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()


def rests(number: Callable[[], int]) -> int:
    """Return a number that grows once it does no more."""
    before = -1
    while (now := number()) != before:
        before = now
        time.sleep(0.3)
    return now


def code_hash(code: str | bytes) -> str:
    return hashlib.sha256(code.encode() if isinstance(code, str) else code).hexdigest()


@functools.cache
def _shipped() -> str:
    """Return the runtime as it goes into the image."""
    return bundle({path.name: path.read_text() for path in SOURCE.glob("*.js")}, "main.js")[0]


@dataclass(frozen=True)
class Kind:
    """One of the runtimes: how it is started, with files of its own in a folder, and what it runs."""

    command: Callable[[Path], list[str]]
    content_type: str


def node_kind(node: str) -> Kind:
    """Return the runtime of JavaScript."""

    def command(folder: Path) -> list[str]:
        main = folder / "main.js"
        main.write_text(_shipped())
        return [node, *json.loads((SOURCE / "flags.json").read_text())["flags"], str(main)]

    return Kind(command, "application/javascript")


_IN_ROOT = """
set -e
image=$1 folder=$2
shift 2
mount -t overlay -o "lowerdir=$image,upperdir=$folder/upper,workdir=$folder/work" overlay "$folder/root"
for name in /proc /dev "$folder"; do
    mkdir -p "$folder/root$name"
    mount --bind "$name" "$folder/root$name"
done
exec chroot --userspec=1000:1000 "$folder/root" "$@"
"""


def image_kind(rootfs: str) -> Kind:
    """Return the runtime of JavaScript with the root of an image around it, as a sandbox's user, without its walls."""

    def command(folder: Path) -> list[str]:
        place = folder / "upper" / "opt" / "sandpost" / "node"
        place.mkdir(parents=True, exist_ok=True)
        for name in ("work", "root"):
            (folder / name).mkdir(exist_ok=True)
        (place / "main.js").write_text(_shipped())
        for path in (folder, folder / "upper"):
            path.chmod(0o777)
        flags = json.loads((SOURCE / "flags.json").read_text())["flags"]
        own = ["unshare", "--mount", "--propagation=private", "/bin/sh", "-c", _IN_ROOT, "sh", rootfs, str(folder)]
        return [*own, "/usr/local/bin/node", *flags, "/opt/sandpost/node/main.js"]

    return Kind(command, JAVASCRIPT)


PYTHON_SOURCE = SOURCE.parent / "python"


def python_kind(python: str, shipped: Path) -> Kind:
    """Return the runtime of Python; `shipped` becomes a folder that holds it compiled, as the image does."""
    shutil.copytree(PYTHON_SOURCE, shipped, ignore=shutil.ignore_patterns("__pycache__"))
    compiler = [python, "-I", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", str(shipped)]
    subprocess.run(compiler, check=True)
    flags = json.loads((shipped / "flags.json").read_text())["flags"]
    return Kind(lambda _: [python, *flags, str(shipped / "main.py")], "text/x-python")


class Runtime:
    """A running runtime process with a FIFO for its frames."""

    def __init__(self, kind: Kind, folder: Path, env: dict[str, str] | None = None, *, frames: bool = True) -> None:
        self._kind = kind
        command = kind.command(folder)
        port_file = folder / "port"
        port_file.unlink(missing_ok=True)
        self._fifo = -1
        writer = -1
        if frames:
            path = folder / "log"
            path.unlink(missing_ok=True)
            os.mkfifo(path)
            self._fifo = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        self._pending = b""
        self.output = folder / "output"
        with self.output.open("wb") as output:
            script = 'exec "$@" 3>&-'
            if frames:
                script = 'if [ "$LOG" = 3 ]; then exec "$@"; else exec "$@" 3>&$LOG {LOG}>&-; fi'
            self.process = subprocess.Popen(
                ["/bin/bash", "-c", script, "bash", *command],
                env={
                    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                    "SANDPOST_PORT": "0",
                    "SANDPOST_PORT_FILE": str(port_file),
                    "LOG": str(writer),
                    **(env or {}),
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[writer] if frames else [],
            )
        if frames:
            os.close(writer)
        deadline = time.monotonic() + DEADLINE
        while not (port_file.exists() and port_file.read_text()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                pytest.fail(f"the runtime did not start: {self.output.read_text()}")
            time.sleep(0.002)
        self.port = int(port_file.read_text())
        self._loaded: set[str] = set()

    def connect(self) -> Connection:
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE)
        return Connection(sock)

    def exchange(self, raw: bytes) -> bytes:
        """Send bytes as they are and return everything up to the end of the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE) as sock:
            sock.sendall(raw)
            sock.shutdown(socket.SHUT_WR)
            received = b""
            while chunk := sock.recv(65536):
                received += chunk
            return received

    def request(self, method: str, target: str, headers: dict[str, str], body: bytes = b"") -> Answer:
        with self.connect() as connection:
            connection.send(method, target, headers, body)
            return connection.answer()

    def probe(self) -> Answer:
        return self.request("GET", "/", {"x-sandpost-op": "probe"})

    def load(self, code: str | bytes, **headers: str) -> Answer:
        source = code.encode() if isinstance(code, str) else code
        lines = {
            "x-sandpost-op": "load",
            "x-sandpost-code": code_hash(source),
            "x-sandpost-req": "load-1",
            "content-type": self._kind.content_type,
            **headers,
        }
        return self.request("PUT", "/", lines, source)

    def begin(
        self,
        code: str,
        method: str = "GET",
        target: str = "/acme",
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        *,
        kind: str | None = None,
        req_id: str = "req-1",
        end: bool = True,
    ) -> Connection:
        """Load the program, send a call and leave its answer on the connection. `kind`: its content type."""
        own = self._kind.content_type
        kind = kind or own
        key = code_hash(code if kind == own else f"{kind}\0{code}")
        if key not in self._loaded:
            answer = self.load(code, **{"content-type": kind, "x-sandpost-code": key})
            assert answer.status == 204, answer
            self._loaded.add(key)
        connection = self.connect()
        lines = {"x-sandpost-op": "call", "x-sandpost-code": key, "x-sandpost-req": req_id, **(headers or {})}
        connection.send(method, target, lines, body, end=end)
        return connection

    def call(
        self,
        code: str,
        method: str = "GET",
        target: str = "/acme",
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        *,
        kind: str | None = None,
        req_id: str = "req-1",
    ) -> Answer:
        with self.begin(code, method, target, headers, body, kind=kind, req_id=req_id) as connection:
            return connection.answer()

    def is_loaded(self, code: str) -> bool:
        """Ask by a call: for programs that answer at once."""
        head = {"x-sandpost-op": "call", "x-sandpost-code": code_hash(code)}
        return self.request("GET", "/a", head).status != 404

    def upgrade(self, code: str, extra: bytes = b"", target: str = "/acme", **headers: str) -> Connection:
        """Send an upgrade request as raw bytes, with `extra` right behind it."""
        assert self.load(code).status == 204
        connection = self.connect()
        # An answer before it on the same connection must not be taken for the upgrade's.
        connection.assert_one_answer()
        lines = {
            "host": "r",
            "x-sandpost-op": "call",
            "x-sandpost-code": code_hash(code),
            "x-sandpost-req": "ws",
            **UPGRADE,
            **headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        connection.sock.sendall(f"GET {target} HTTP/1.1\r\n{head}\r\n".encode() + extra)
        return connection

    def read_frames(self) -> bytes:
        """Return what is in the FIFO now."""
        data = b""
        while True:
            try:
                chunk = os.read(self._fifo, 65536)
            except BlockingIOError:
                return data
            if not chunk:
                return data
            data += chunk

    def records(self, want: Callable[[list[Record]], bool] = bool) -> list[Record]:
        """Return the records written so far, once they satisfy `want`."""
        found: list[Record] = []
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            self._pending += self.read_frames()
            more, self._pending = parse_frames(self._pending)
            found += more
            if want(found):
                return found
            time.sleep(0.005)
        pytest.fail(f"the log records never came; there are {found}")

    def only_error(self, req_id: str = "req-1") -> Record:
        """Return the one record of a failure."""
        (record,) = [record for record in self.records() if record.level == 50]
        assert record.req_id == req_id
        return record

    def memory(self) -> int:
        """Anonymous memory of the process, bytes."""
        return memory.own(self.process.pid, "Anonymous")

    def close_log(self) -> None:
        """Close the read end: the runtime's next write finds no reader."""
        os.close(self._fifo)
        self._fifo = -1

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE)
        if self._fifo >= 0:
            os.close(self._fifo)
            self._fifo = -1


def parse_frames(data: bytes) -> tuple[list[Record], bytes]:
    """Split whole records off `data`, checking every rule of the layout; return them and the rest."""
    records: list[Record] = []
    at = done = 0
    text = b""
    while at + FRAME.size <= len(data):
        magic, version, level, flags, text_length, req_length, zero = FRAME.unpack_from(data, at)
        assert (magic, version, zero) == (0xF5, 1, 0), data[at : at + 16]
        length = FRAME.size + req_length + text_length
        assert length <= 4096
        if at + length > len(data):
            break
        req_id = data[at + FRAME.size : at + FRAME.size + req_length].decode("ascii")
        text += data[at + FRAME.size + req_length : at + length]
        at += length
        if not flags & 1:
            records.append(Record(level, req_id, text.decode(errors="replace"), bool(flags & 2)))
            text = b""
            done = at
    return records, data[done:]


StartRuntime = Callable[..., Runtime]
