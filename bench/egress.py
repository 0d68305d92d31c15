"""What egress costs: the gate beside direct connections, the resolver's kept answers beside an echo.

    python -m bench.egress [--json]

Real processes in the tests' lab: three network namespaces without a way out. As root. Direct: the same client and
server over the same interfaces, forwarded by the kernel. Echo: a loop of Python that sends datagrams back, at the
resolver's address. Each takes turns with its reference; medians are shown.
"""

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bench.result import median, percentile

# The lab is the tests' own.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.egress_lab import ONE, PLATFORM, SERVER, Lab, lab, zone

_ROUNDS = 5
_SECONDS = 2.0
_CONNECTS = 300
_QUESTIONS = 6000
_AT_ONCE = 16
PACE = 2000
"""Questions a second, evenly, at which the time of an answer is taken."""
_NAME = "www.example.com"
_ECHO_PORT = 5353

_SERVE = f"""
import socket, sys, threading
def serve(sock):
    with sock:
        buffer = bytearray(1 << 20)
        if not sock.recv_into(buffer):
            return
        sock.sendall(b"s")
        while sock.recv_into(buffer):
            pass
        sock.sendall(b"e")
listener = socket.create_server(("{SERVER}", 443), backlog=64)
print("ready", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
_CLIENT = f"""
import socket, sys, time
hello = bytes.fromhex(sys.argv[1])
def begin():
    sock = socket.create_connection(("{SERVER}", 443), source_address=("{ONE}", 0))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(hello)
    assert sock.recv(1) == b"s"
    return sock
if sys.argv[2] == "connect":
    for _ in range({_CONNECTS}):
        began = time.perf_counter()
        sock = begin()
        print(time.perf_counter() - began)
        sock.close()
else:
    sock, block, sent = begin(), bytes(1 << 20), 0
    began = time.perf_counter()
    while time.perf_counter() - began < {_SECONDS}:
        sent += sock.send(block)
    sock.shutdown(socket.SHUT_WR)
    assert sock.recv(1) == b"e"
    print(sent / (time.perf_counter() - began))
"""
_ECHO = f"""
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("{PLATFORM}", {_ECHO_PORT}))
print("ready", flush=True)
while True:
    sock.sendto(*sock.recvfrom(2048))
"""
_ASK = f"""
import socket, sys, time
wire, port, many, window, pace = bytes.fromhex(sys.argv[1]), *map(int, sys.argv[2:])
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("{ONE}", 0))
sock.connect(("{PLATFORM}", port))
times, begun = [], {{}}
began = time.perf_counter()
sent = 0
while len(times) < many:
    now = time.perf_counter()
    while sent < many and len(begun) < window and (not pace or now - began >= sent / pace):
        begun[sent] = now
        sock.send(sent.to_bytes(2, "big") + wire[2:])
        sent += 1
    due = max(began + sent / pace - now, 1e-6) if pace and sent < many else 5
    sock.settimeout(due)
    try:
        reply = sock.recv(2048)
    except TimeoutError:
        assert pace and sent < many
        continue
    times.append(time.perf_counter() - begun.pop(int.from_bytes(reply[:2], "big")))
took = time.perf_counter() - began
print(len(times) / took, *times)
"""


async def _run(namespace: str, code: str, *arguments: str) -> list[float]:
    process = await asyncio.create_subprocess_exec(
        "ip", "netns", "exec", namespace, sys.executable, "-c", code, *arguments, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"ended with {process.returncode}")
    return [float(word) for word in out.split()]


def _nft(made: Lab, script: str) -> None:
    command = ["ip", "netns", "exec", made.names.host, "nft", "-f", "-"]
    subprocess.run(command, input=script, text=True, check=True)


@contextlib.contextmanager
def _server(namespace: str, code: str) -> Iterator[None]:
    process = subprocess.Popen(["ip", "netns", "exec", namespace, sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.communicate()


async def measure(rounds: int = _ROUNDS, questions: int = _QUESTIONS) -> dict[str, float]:
    """Return all figures: bytes a second, seconds, answers a second."""
    import dns.message

    from egress.hellos import hello
    from support.egress_lab import REDIRECT

    def prepare(made: Lab) -> None:
        made.host = msgspec.structs.replace(made.host, egress_rate=1e9)

    first = hello(_NAME).hex()
    bytes_a_second: dict[str, list[float]] = {"gate": [], "direct": []}
    connects: dict[str, list[float]] = {"gate": [], "direct": []}
    rates: dict[str, list[float]] = {"resolver": [], "echo": []}
    times: dict[str, list[float]] = {"resolver": [], "echo": []}
    async with lab(prepare) as made:
        made.way(ONE, f"allow:{_NAME}")
        made.resolver(zone(f"{_NAME} 3600 A {SERVER}"))
        await made.ask(_NAME)
        subprocess.run(["ip", "netns", "exec", made.names.host, "sysctl", "-qw", "net.ipv4.ip_forward=1"], check=True)
        with _server(made.names.outside, _SERVE):
            for _ in range(rounds):
                for way in ("gate", "direct"):
                    if way == "direct":
                        _nft(made, "delete table ip gate")
                    connects[way] += await _run(made.names.inside, _CLIENT, first, "connect")
                    bytes_a_second[way] += await _run(made.names.inside, _CLIENT, first, "bytes")
                    if way == "direct":
                        _nft(made, REDIRECT)
        wire = dns.message.make_query(_NAME, "A", use_edns=0).to_wire().hex()
        with _server(made.names.host, _ECHO):
            for _ in range(rounds):
                for server, port in (("resolver", "53"), ("echo", str(_ECHO_PORT))):
                    many = str(questions)
                    rate, *_ = await _run(made.names.inside, _ASK, wire, port, many, str(_AT_ONCE), "0")
                    _, *paced = await _run(made.names.inside, _ASK, wire, port, many, "1000", str(PACE))
                    rates[server].append(rate)
                    times[server] += paced
    return {
        "gate_bytes": median(bytes_a_second["gate"]),
        "direct_bytes": median(bytes_a_second["direct"]),
        "gate_connect": median(connects["gate"]),
        "direct_connect": median(connects["direct"]),
        "gate_connect_p99": percentile(connects["gate"], 0.99),
        "answers": median(rates["resolver"]),
        "echoes": median(rates["echo"]),
        "answer": median(times["resolver"]),
        "answer_p99": percentile(times["resolver"], 0.99),
        "echo": median(times["echo"]),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What egress costs.")
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    began = time.monotonic()
    found = asyncio.run(measure())
    if as_json:
        print(json.dumps(found, indent=2))
        return
    gate, direct = found["gate_bytes"] / 1e9, found["direct_bytes"] / 1e9
    added = (found["gate_connect"] - found["direct_connect"]) * 1e3
    print(f"through the gate   {gate:8.2f} GB/s; direct {direct:.2f}, ratio {gate / direct:.2f}")
    print(f"connect to answer  {found['gate_connect'] * 1e3:8.2f} ms; direct {found['direct_connect'] * 1e3:.2f}, "
          f"added {added:.2f}, p99 {found['gate_connect_p99'] * 1e3:.2f}")  # fmt: skip
    share = found["answers"] / found["echoes"]
    print(f"kept answers       {found['answers']:8.0f} a second at most, {share:.2f} of an echo; at {PACE} a second "
          f"p50 {found['answer'] * 1e3:.2f} ms (echo {found['echo'] * 1e3:.2f}), "
          f"p99 {found['answer_p99'] * 1e3:.2f}")  # fmt: skip
    print(f"took {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
