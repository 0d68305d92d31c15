"""Streams as users read them: real `curl` at the public listener, a real proxy worker and a real api behind it."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from support.feed import Feed
from support.installation import Installation, wait_for

PROXY = """
import os, sys
from sandpost.proxy.main import main
uid, gid = int(sys.argv[1]), int(sys.argv[2])
os.setgroups([])
os.setresgid(gid, gid, gid)
os.setresuid(uid, uid, uid)
sys.exit(main(sys.argv[3:]))
"""


class Public:
    """The listener, a feed of the bus, and an operator's key."""

    def __init__(self, installed: Installation, feed: Feed) -> None:
        self.installed = installed
        self.feed = feed
        self.url = f"http://127.0.0.1:{installed.host.listen_port}"
        self.key = installed.call("POST", "/api/keys", {}).json()["key"]

    def curl(self, path: str, *arguments: str, key: str = "") -> "subprocess.Popen[bytes]":
        mark = "&" if "?" in path else "?"
        url = f"{self.url}{path}{mark}key={key or self.key}"
        return subprocess.Popen(["curl", "-sSN", *arguments, url], stdout=subprocess.PIPE)


@contextlib.contextmanager
def reading(process: "subprocess.Popen[bytes]") -> Iterator[Any]:
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def public() -> Iterator[Public]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    installed = Installation(listen_port=port, max_connections=5000)
    with contextlib.ExitStack() as stack:
        stack.callback(installed.close)
        users = installed.host.users
        for folder in (installed.host.path("tables"), installed.host.code_dir):
            os.makedirs(folder)
            os.chown(folder, users.proxy, users.gid)
        feed = stack.enter_context(Feed(installed.host))
        installed.start()
        command = [sys.executable, "-c", PROXY, str(users.proxy), str(users.gid), "--host", installed.host_file]
        proxy = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        stack.callback(proxy.wait)
        stack.callback(proxy.terminate)

        def listens() -> bool:
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", port)) == 0

        wait_for(listens)
        yield Public(installed, feed)


def test_curl_sees_each_record_as_it_comes(public: Public) -> None:
    with reading(public.curl("/logs/tenant/acme?offset=0")) as lines:
        for number in range(20):
            public.feed.numbers("acme", number)
            assert json.loads(lines.readline())["n"] == number
    public.feed.numbers(".system", 3)
    with reading(public.curl("/logs/system?tail=1")) as lines:
        assert json.loads(lines.readline())["n"] == 3


def test_events_and_gzip_pass_the_proxy_as_they_come(public: Public) -> None:
    with (
        reading(public.curl("/logs/tenant/forms?offset=0", "-H", "accept: text/event-stream")) as events,
        reading(public.curl("/api/logs/tenant/forms?offset=0", "--compressed")) as packed,
    ):
        for number in range(5):
            public.feed.numbers("forms", number)
            assert events.readline() == b"id: %d\n" % number
            assert json.loads(events.readline().removeprefix(b"data: "))["n"] == number
            assert events.readline() == b"\n"
            assert json.loads(packed.readline())["n"] == number


def test_another_tenants_key_is_refused_at_the_listener(public: Public) -> None:
    for tenant in ("mine", "other"):
        public.installed.call("PUT", f"/api/tenants/{tenant}", {})
    made = public.installed.call("POST", "/api/tenants/mine/keys", {}).json()
    for path, expected in (
        ("/logs/tenant/other", b"403"),
        ("/logs/system", b"403"),
        ("/logs/tenant/mine?max=0", b"400"),
    ):
        with reading(public.curl(path, "-o", "/dev/null", "-w", "%{http_code}", key=made["key"])) as status:
            assert status.read() == expected
    with reading(public.curl("/logs/tenant/mine?offset=0", key=made["key"])) as lines:
        public.feed.numbers("mine", 1)
        assert json.loads(lines.readline())["n"] == 1
        public.installed.call("DELETE", f"/api/keys/{made['id']}")
        assert json.loads(lines.readline())["end"] == "revoked"
        assert lines.read() == b""


def test_a_reader_that_rests_makes_nobody_hold_what_it_does_not_take(public: Public) -> None:
    pad = "x" * 1000
    with socket.create_connection(("127.0.0.1", public.installed.host.listen_port)) as slow:
        slow.sendall(f"GET /logs/tenant/rest?max=20000&key={public.key} HTTP/1.0\r\n\r\n".encode())
        slow.settimeout(20)
        assert slow.recv(12) == b"HTTP/1.1 200"
        for begin in range(0, 20_000, 250):
            public.feed.numbers("rest", *range(begin, begin + 250), pad=pad)
        assert public.installed.api is not None
        with open(f"/proc/{public.installed.api.pid}/status", encoding="ascii") as file:
            (peak,) = (int(line.split()[1]) for line in file if line.startswith("VmHWM"))
        assert peak < 150 << 10
        with slow.makefile("rb") as answer:
            while answer.readline() != b"\r\n":
                pass
            assert [json.loads(line)["n"] for line in answer] == list(range(20_000))


def test_a_thousand_readers_at_the_listener(public: Public) -> None:
    found: list[int] = []
    socks = []
    try:
        for _ in range(1000):
            sock = socket.create_connection(("127.0.0.1", public.installed.host.listen_port))
            sock.settimeout(30)
            socks.append(sock)
            sock.sendall(f"GET /logs/tenant/crowd?max=1&key={public.key} HTTP/1.0\r\n\r\n".encode())
        heads = [sock.recv(12) for sock in socks]
        assert set(heads) == {b"HTTP/1.1 200"}
        write = threading.Thread(target=public.feed.numbers, args=("crowd", 7))
        write.start()
        for sock in socks:
            with sock.makefile("rb") as answer:
                found.append(json.loads(answer.read().rpartition(b"\r\n\r\n")[2])["n"])
        write.join()
    finally:
        for sock in socks:
            sock.close()
    assert found == [7] * 1000
