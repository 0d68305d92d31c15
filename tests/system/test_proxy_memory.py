"""What a proxy worker holds at most, whoever sends what: docs/operation.md says it, these attacks try to pass it."""

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from support.memory import own
from support.platform import Platform, platform

MiB = 1 << 20
REST = 40 * MiB
"""A worker that has served, with its interpreter and libraries (PSS)."""
CONNECTIONS = 1000
HEAD = 32 * 1024
PER_CONNECTION = 2 * 1024
PROGRAMS = 8 * MiB
HELLO = 'return function (cb) { cb(null, "Hello, world!") }'


@pytest.fixture(scope="module")
def running() -> Iterator[Platform]:
    with platform(
        pool_size="2", workers="1", http_max_connections=str(CONNECTIONS), http_max_programs=f"{PROGRAMS}B",
        http_head_timeout="60s", http_body_timeout="60s",
    ) as started:  # fmt: skip
        started.call("neighbour", HELLO)
        yield started


def memory(running: Platform) -> int:
    """The worker's own memory, bytes."""
    [pid] = running.pids("proxy")
    return own(pid)


@contextlib.contextmanager
def connections(running: Platform, count: int, data: bytes) -> Iterator[list[socket.socket]]:
    """Open connections that each send `data` and then nothing more."""
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", running.port), timeout=10))
            with contextlib.suppress(ConnectionError):
                sock.sendall(data)
            made.append(sock)
        time.sleep(1)
        yield made


def test_heads_that_never_end_cost_their_bytes_and_little_more(running: Platform) -> None:
    head = b"POST / HTTP/1.1\r\nx: " + b"a" * (HEAD - 1000)
    with connections(running, CONNECTIONS - 10, head):
        assert memory(running) <= REST + CONNECTIONS * (HEAD + PER_CONNECTION)
        assert running.call("neighbour", HELLO).body == b'"Hello, world!"'
        with connections(running, 50, head) as beyond:
            refused = 0
            for sock in beyond:
                sock.settimeout(0.2)
                with contextlib.suppress(TimeoutError, ConnectionError):
                    refused += sock.recv(4096).startswith(b"HTTP/1.1 503 ")
            assert refused >= 40
    time.sleep(1)
    assert running.call("neighbour", HELLO).status == 200


@pytest.mark.long
def test_programs_that_never_end_are_held_to_their_bound(running: Platform) -> None:
    before = memory(running)
    size = 900_000
    for tenant in range(8):
        head = f"POST /flood-{tenant}?key={running.key} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()
        with connections(running, 40, head + b" " * (size - 1)):
            # What the allocator keeps of what was given up is not given back at once.
            assert memory(running) <= before + 3 * PROGRAMS
            assert running.call("neighbour", HELLO).body == b'"Hello, world!"'
