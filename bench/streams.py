"""What streams of records over HTTP cost api and proxy, and how long a record is on its way through both.

    python -m bench.streams [--json] [--streams 1000] [--tenants 100] [--lines 2000] [--seconds 10] [--events] [--gzip]

The api and one proxy worker run by hand below a temporary folder; records are written to the local bus from here, so
that the collector's part is not in the figures (`bench.bus` has it). Readers are spread evenly over the tenants.
"""

import argparse
import asyncio
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from bench import machine
from bench.machine import MiB
from bench.running import free_port, wait_until
from sandpost.auth.keys import Key, key_digest
from sandpost.bus.contract import Batch
from sandpost.bus.local import LocalWriter
from sandpost.model.host import Host, Users
from sandpost.store import open_writer

# The folders are the tests' own.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from support.installation import host_in

_TURN = 0.01
_SETTLE = 3.0
_SIZE = 200
_READ = """
import asyncio, json, sys, time, zlib
import uvloop
port, key, count, tenants, seconds, events, packed = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
taken, waiting, at_work = [], [0], [False]
class Reader(asyncio.Protocol):
    def __init__(self, number):
        self.number, self.head, self.held = number, False, b""
        self.unpack = zlib.decompressobj(31) if packed else None
    def connection_made(self, transport):
        accept = "accept: text/event-stream\\r\\n" if events else ""
        accept += "accept-encoding: gzip\\r\\n" if packed else ""
        target = f"/logs/tenant/t{self.number % tenants}?key={key}"
        transport.write(f"GET {target} HTTP/1.1\\r\\nhost: a\\r\\n{accept}\\r\\n".encode())
    def data_received(self, data):
        now = time.monotonic_ns()
        if not self.head:
            assert data.startswith(b"HTTP/1.1 200"), data
            self.head, waiting[0] = True, waiting[0] + 1
        if self.unpack is not None:
            return
        *lines, self.held = (self.held + data).split(b"\\n")
        if at_work[0]:
            taken.extend(now - int(line[at + 5 : at + 25]) for line in lines if (at := line.find(b'"at":')) >= 0)
async def main():
    loop = asyncio.get_running_loop()
    for number in range(count):
        await loop.create_connection(lambda: Reader(number), "127.0.0.1", int(port))
    while waiting[0] < count:
        await asyncio.sleep(0.05)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    at_work[0] = True
    await asyncio.sleep(seconds)
    taken.sort()
    at = lambda share: taken[int(len(taken) * share)] / 1e6 if taken else 0
    print(json.dumps({"records": len(taken), "p50": at(0.5), "p99": at(0.99), "most": taken[-1] / 1e6 if taken else 0}))
uvloop.run(main())
"""


def _host(root: str) -> Host:
    return host_in(
        root,
        instance=13,
        run_dir=os.path.join(root, "run"),
        listen_port=free_port(),
        users=Users(proxy=0, api=0, collector=0, egress=0, gid=0),
        sandbox_network="198.19.160.0/20",
        pool_size=0,
        drain_timeout=1.0,
        body_timeout=30.0,
        max_connections=10_000,
    )


async def _write(folder: str, tenants: int, rate: float, told: asyncio.Event) -> None:
    """Write records at `rate` a second, each tenant's turn after the other's, until told."""
    writer = LocalWriter(folder)
    await writer.open()
    ends = [0] * tenants
    turn = 0
    due = time.perf_counter()
    while not told.is_set():
        batches = []
        for _ in range(round(rate * _TURN)):
            number = turn % tenants
            turn += 1
            ends[number] += 1
            line = (b'{"at":%020d,"msg":"' % time.monotonic_ns()).ljust(_SIZE - 3, b"x") + b'"}\n'
            batches.append(
                Batch(stream=f"t{number}", source=f"s{number}", end=ends[number], lines=line, count=1, time=time.time())
            )
        writer.append(batches)
        due += _TURN
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
    await writer.close()


async def _measure(root: str, options: argparse.Namespace) -> dict[str, float]:
    host = _host(root)
    for folder in (host.state_dir, host.run_dir, host.metrics_dir, host.path("tables"), host.code_dir, host.logs_dir):
        os.makedirs(folder)
    os.makedirs(host.path("api"))
    os.makedirs(os.path.dirname(host.store_path))
    path = host.path("host.json")
    Path(path).write_bytes(msgspec.json.encode(host))
    key = secrets.token_hex(16)
    store = open_writer(host)
    store.add_key(Key(id="bench", digest=key_digest(key.encode()), tenant=None, label="", created_at=time.time()))
    store.close()
    parts: list[subprocess.Popen[bytes]] = []
    reader = None
    try:
        for name in ("api", "proxy"):
            command = [sys.executable, "-m", "sandpost", name, "--host", path]
            parts.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        wait_until(lambda: os.path.exists(host.api_socket), "the api", 20)
        await asyncio.sleep(1)
        arguments = (
            host.listen_port, key, options.streams, options.tenants, options.seconds, int(options.events),
            int(options.gzip),
        )  # fmt: skip
        reader = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _READ,
            *map(str, arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert reader.stdin is not None
        assert reader.stdout is not None
        async with asyncio.timeout(60):
            assert await reader.stdout.readline() == b"ready\n"
        told = asyncio.Event()
        writing = asyncio.create_task(_write(host.logs_dir, options.tenants, options.lines, told))
        await asyncio.sleep(_SETTLE)
        before = [machine.cpu(part.pid) for part in parts]
        reader.stdin.write(b"\n")
        seen = json.loads(await reader.stdout.readline())
        spent = [(machine.cpu(part.pid) - cpu) / options.seconds for part, cpu in zip(parts, before, strict=True)]
        memory = [machine.pss(part.pid) / MiB for part in parts]
        told.set()
        await writing
    finally:
        if reader is not None and reader.returncode is None:
            reader.kill()
            await reader.wait()
        for part in parts:
            part.terminate()
            part.wait()
    return {
        "streams": options.streams,
        "records a second out": seen["records"] / options.seconds,
        "ms p50": seen["p50"],
        "ms p99": seen["p99"],
        "ms at most": seen["most"],
        "cores api": spent[0],
        "cores proxy": spent[1],
        "MB api": memory[0],
        "MB proxy": memory[1],
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.streams", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--tenants", type=int, default=100)
    parser.add_argument("--lines", type=float, default=2000)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--events", action="store_true")
    parser.add_argument("--gzip", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sandpost-bench-streams-") as root:
        figures = asyncio.run(_measure(root, options))
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:<22}{value:>10,.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
