"""The gate as a sandbox sees it: connections that the firewall turns to a real egress process, servers outside."""

import asyncio
import contextlib
import json
import os
import socket
import ssl
import struct
import time
from pathlib import Path

import pytest

from egress.hellos import hello
from sandpost.egress.gate import MOST_EACH
from sandpost.model import messages as m
from sandpost.model.host import GATE_PORT
from support.egress_lab import ONE, OTHER, PLATFORM, SERVER, TWO, Lab, in_lab, sock_in, texts, zone

WORLD = zone(
    "www.example.com 300 A 203.0.113.5",
    "alias.example.com 300 CNAME www.example.com.",
    "other.example.com 300 A 203.0.113.6",
    "host.example.com 300 A 203.0.113.1",
)
GET = b"GET /x HTTP/1.1\r\nHost: www.example.com\r\n\r\n"


class Server:
    """Listens outside; keeps what it reads, and answers by `script(connection)`."""

    def __init__(
        self, lab: Lab, port: int = 80, address: str = SERVER, answer: bytes = b"HTTP/1.1 200 OK\r\n\r\nyes"
    ) -> None:
        self.sock = sock_in(lab.names.outside, socket.SOCK_STREAM, address, port)
        self.answer = answer
        self.got: list[bytearray] = []
        self.ended = 0
        self._tasks = {asyncio.create_task(self._accept())}

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(self.sock)
            sock.setblocking(False)
            self._tasks.add(asyncio.create_task(self._serve(sock)))

    async def _serve(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        got = bytearray()
        self.got.append(got)
        with sock:
            answered = False
            try:
                while data := await loop.sock_recv(sock, 1 << 16):
                    got += data
                    if not answered:
                        answered = True
                        await loop.sock_sendall(sock, self.answer)
            except OSError:
                pass
            self.ended += 1

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.sock.close()


async def read_all(sock: socket.socket, within: float = 5) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    async with asyncio.timeout(within):
        while more := await loop.sock_recv(sock, 1 << 16):
            data += more
    return data


async def exchange(lab: Lab, first: bytes, address: str = SERVER, port: int = 80, source: str = ONE) -> bytes:
    """Send from a sandbox and read to the end, which the sandbox's own half-close brings about."""
    loop = asyncio.get_running_loop()
    with await lab.connect(address, port, source) as sock:
        await loop.sock_sendall(sock, first)
        # Where it was reset by then, reading says so.
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
        return await read_all(sock)


def refusal(answer: bytes) -> str:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 403 "), answer
    said = json.loads(body)
    assert (said["code"], said["reason"], said["fault"]) == (403, "egress_refused", "code")
    message: str = said["message"]
    return message


def test_what_is_allowed_and_was_looked_up_passes_by_http_and_tls() -> None:
    async def body(lab: Lab) -> None:
        lab.way(ONE, "allow:www.example.com")
        lab.resolver(WORLD)
        plain, secure = Server(lab), Server(lab, 443, answer=b"\x16\x03\x03 server's")
        assert texts(await lab.ask("www.example.com")) == ["203.0.113.5"]
        assert (await exchange(lab, GET)).endswith(b"yes")
        assert bytes(plain.got[0]) == b"GET /x HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n"
        first = hello("www.example.com")
        assert await exchange(lab, first + b"more", port=443) == b"\x16\x03\x03 server's"
        assert bytes(secure.got[0]) == first + b"more"
        await lab.until(lambda: lab.figure("sandpost_gate_connections_total") == 2)
        assert lab.figure("sandpost_gate_bytes_out_total") == len(plain.got[0]) + len(secure.got[0])
        assert lab.figure("sandpost_gate_connections") == 0
        await plain.close()
        await secure.close()

    in_lab(body)


def test_what_is_not_allowed_is_told_what_is_missing() -> None:
    async def body(lab: Lab) -> None:
        lab.way(ONE, "allow:www.example.com")
        lab.resolver(WORLD)
        plain, secure = Server(lab), Server(lab, 443)
        await lab.ask("www.example.com")
        other = GET.replace(b"www.", b"other.")
        assert "add `other.example.com:80`" in refusal(await exchange(lab, other, OTHER))
        # An allowed name at an address that it does not have, and one at a port that is not meant.
        assert "does not lead to 203.0.113.6" in refusal(await exchange(lab, GET, OTHER))
        assert "add `www.example.com:8080`" in refusal(await exchange(lab, GET, port=8080))
        # Alerts: access_denied, unrecognized_name.
        assert await exchange(lab, hello("other.example.com"), port=443) == bytes((21, 3, 1, 0, 2, 2, 112))
        assert await exchange(lab, hello("www.example.com", ech=True), port=443) == bytes((21, 3, 1, 0, 2, 2, 49))
        assert await exchange(lab, hello(None), port=443) == bytes((21, 3, 1, 0, 2, 2, 112))
        assert await exchange(lab, hello("www.example.com"), OTHER, 443) == bytes((21, 3, 1, 0, 2, 2, 49))
        with pytest.raises(ConnectionResetError):
            await exchange(lab, b"\x00\x00\x00\x08\x04\xd2\x16\x2f", port=443)
        assert plain.got == secure.got == []
        kinds = ["host_refused", "address_not_of_name", "hidden_name", "no_name", "unknown_protocol"]
        await lab.until(lambda: all(lab.said(kind) for kind in kinds))
        assert "add `other.example.com:443` to this tenant's egress" in " ".join(lab.said("host_refused"))
        await lab.until(lambda: lab.figure("sandpost_gate_refused_total", reason="host_refused") == 3)
        await plain.close()
        await secure.close()

    in_lab(body)


def test_only_one_request_passes_on_a_connection() -> None:
    async def body(lab: Lab) -> None:
        lab.way(ONE, "allow:www.example.com")
        lab.resolver(WORLD)
        plain = Server(lab)
        await lab.ask("www.example.com")
        smuggled = b"GET /secret HTTP/1.1\r\nHost: other.example.com\r\n\r\n"
        await exchange(lab, GET + smuggled)
        post = b"POST / HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: 5\r\nUpgrade: h2c\r\n\r\n12345"
        await exchange(lab, post + smuggled)
        chunks = b"POST / HTTP/1.1\r\nHost: www.example.com\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        await exchange(lab, chunks + smuggled)
        loop = asyncio.get_running_loop()
        with await lab.connect(SERVER, 80) as sock:
            await loop.sock_sendall(sock, GET)
            await lab.until(lambda: len(plain.got) == 4)
            await asyncio.sleep(0.1)
            await loop.sock_sendall(sock, smuggled)
            sock.shutdown(socket.SHUT_WR)
            await read_all(sock)
        await lab.until(lambda: plain.ended == 4)
        assert all(b"secret" not in got and b"Connection: close" in got and b"h2c" not in got for got in plain.got)
        assert plain.got[1].endswith(b"12345")
        assert plain.got[2].endswith(b"3\r\nabc\r\n0\r\n\r\n")
        for bad in (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"CONNECT www.example.com:80 HTTP/1.1\r\nHost: www.example.com\r\n\r\n",
                    GET.replace(b"\r\n\r\n", b"\r\nHost: other.example.com\r\n\r\n"),
                    GET.replace(b"GET /x", b"GET http://other.example.com/"),
                    GET.replace(b"\r\n\r\n", b"\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
                    GET.replace(b"example.com", b"example.com:81")):  # fmt: skip
            refusal(await exchange(lab, bad))
        assert len(plain.got) == 4
        await plain.close()

    in_lab(body)


def test_no_address_of_the_host_or_a_private_network_is_reached_whatever_the_list_says() -> None:
    async def body(lab: Lab) -> None:
        lab.way(ONE, "allow:www.example.com,host.example.com,203.0.113.0/24")
        lab.resolver(WORLD)
        private = Server(lab, 80, "10.0.0.5")
        of_host = sock_in(lab.names.host, socket.SOCK_STREAM, "203.0.113.1", 80)
        await lab.ask("host.example.com")
        for address in ("10.0.0.5", "203.0.113.1", "169.254.169.254"):
            with pytest.raises(ConnectionResetError):
                await exchange(lab, GET.replace(b"www.", b"host."), address)
        # Straight to the gate's own address.
        with pytest.raises(ConnectionResetError):
            await exchange(lab, GET, PLATFORM, GATE_PORT)
        assert private.got == []
        with pytest.raises(BlockingIOError):
            of_host.accept()
        await lab.until(lambda: len(lab.said("address_refused")) >= 3)
        of_host.close()
        await private.close()

    in_lab(body)


def test_an_address_of_the_list_needs_no_name_and_other_policies_have_no_gate() -> None:
    async def body(lab: Lab) -> None:
        lab.way(ONE, "allow:203.0.113.5:5432")
        lab.way(TWO, "public", "other")
        database = Server(lab, 5432, answer=b"N")
        assert await exchange(lab, b"\x00\x00\x00\x08\x04\xd2\x16\x2f", port=5432) == b"N"
        with pytest.raises(ConnectionResetError):
            await exchange(lab, b"\x00\x00\x00\x08\x04\xd2\x16\x2f", port=5432, source=TWO)
        await lab.until(lambda: lab.said("no_allow_list"))
        await database.close()

    in_lab(body)


def test_a_look_up_that_was_forgotten_is_made_again() -> None:
    async def body(lab: Lab) -> None:
        lab.way(ONE, "allow:www.example.com")
        outside = lab.resolver(WORLD)
        plain = Server(lab)
        await lab.ask("www.example.com")
        lab.kill()
        await lab.start()
        # The program kept the address over a restart of egress.
        assert (await exchange(lab, GET)).endswith(b"yes")
        assert len(outside.asked) == 2
        await plain.close()

    in_lab(body)


def test_bytes_go_both_ways_with_back_pressure_and_half_close() -> None:
    async def body(lab: Lab) -> None:
        lab.way(ONE, "allow:www.example.com")
        lab.resolver(WORLD)
        await lab.ask("www.example.com")
        loop = asyncio.get_running_loop()
        server = sock_in(lab.names.outside, socket.SOCK_STREAM, SERVER, 443)
        # More than the buffers of four sockets grow to.
        sent = os.urandom(1 << 20) * 28
        with await lab.connect(SERVER, 443) as sock:
            writing = asyncio.create_task(loop.sock_sendall(sock, hello("www.example.com") + sent))
            accepted, _ = await loop.sock_accept(server)
            accepted.setblocking(False)
            await asyncio.sleep(0.5)
            # The server does not read, so the program cannot write, and egress keeps little.
            assert not writing.done()
            assert lab.process is not None
            status = Path(f"/proc/{lab.process.pid}/status").read_text()
            assert int(status.partition("VmRSS:")[2].split()[0]) < 80_000
            reading = asyncio.create_task(read_all(accepted, 20))
            await writing
            sock.shutdown(socket.SHUT_WR)
            assert (await reading) == hello("www.example.com") + sent
            await loop.sock_sendall(accepted, b"late answer")
            accepted.close()
            assert await read_all(sock) == b"late answer"
        server.close()

    in_lab(body)


def test_real_tls_passes_from_end_to_end() -> None:
    async def body(lab: Lab) -> None:
        lab.way(ONE, "allow:www.example.com")
        lab.resolver(WORLD)
        await lab.ask("www.example.com")
        made = await asyncio.create_subprocess_exec(
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-keyout", str(lab.folder / "key"), "-out", str(lab.folder / "cert"), "-subj", "/CN=www.example.com",
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        await made.wait()
        served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        served.load_cert_chain(lab.folder / "cert", lab.folder / "key")

        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readline())
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(
            greet, sock=sock_in(lab.names.outside, socket.SOCK_STREAM, SERVER, 443), ssl=served
        )
        trusting = ssl.create_default_context()
        trusting.check_hostname = False
        trusting.verify_mode = ssl.CERT_NONE
        sock = await lab.connect(SERVER, 443)
        reader, writer = await asyncio.open_connection(sock=sock, ssl=trusting, server_hostname="www.example.com")
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"
        writer.close()
        sock = await lab.connect(SERVER, 443)
        with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized"):
            await asyncio.open_connection(sock=sock, ssl=trusting, server_hostname="other.example.com")
        server.close()
        await server.wait_closed()

    in_lab(body)


def test_a_server_that_is_not_there_is_a_reset_and_a_silent_client_is_given_up() -> None:
    async def body(lab: Lab) -> None:
        lab.way(ONE, "allow:www.example.com")
        lab.resolver(WORLD)
        await lab.ask("www.example.com")
        with pytest.raises(ConnectionResetError):
            await exchange(lab, GET)
        # One that breaks off in the midst of its answer does not seem to have ended it.
        loop = asyncio.get_running_loop()
        server = sock_in(lab.names.outside, socket.SOCK_STREAM, SERVER, 443)
        with await lab.connect(SERVER, 443) as sock:
            await loop.sock_sendall(sock, hello("www.example.com"))
            accepted, _ = await loop.sock_accept(server)
            accepted.send(b"half an ans")
            assert await loop.sock_recv(sock, 100) == b"half an ans"
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            accepted.close()
            with pytest.raises(ConnectionResetError):
                await read_all(sock)
        server.close()
        silent = await lab.connect(SERVER, 80)
        began = time.monotonic()
        with pytest.raises(ConnectionResetError):
            await read_all(silent, 30)
        assert 8 < time.monotonic() - began < 20
        silent.close()

    in_lab(body)


def test_a_policy_that_changes_ends_what_it_does_not_allow_any_more() -> None:
    async def body(lab: Lab) -> None:
        lab.way(ONE, "allow:www.example.com,other.example.com")
        lab.resolver(WORLD)
        servers = [Server(lab, 443), Server(lab, 443, OTHER)]
        loop = asyncio.get_running_loop()
        socks = []
        for name, address in (("www.example.com", SERVER), ("other.example.com", OTHER)):
            await lab.ask(name)
            sock = await lab.connect(address, 443)
            await loop.sock_sendall(sock, hello(name))
            assert await loop.sock_recv(sock, 100)
            socks.append(sock)
        lab.way(ONE, "allow:other.example.com")
        assert await read_all(socks[0]) == b""
        await loop.sock_sendall(socks[1], b"still here")
        await lab.until(lambda: servers[1].got[0].endswith(b"still here"))
        for sock in socks:
            sock.close()
        for server in servers:
            await server.close()

    in_lab(body)


def test_a_policy_that_changes_ends_what_waits_for_its_server_too() -> None:
    async def body(lab: Lab) -> None:
        lab.way(ONE, "allow:www.example.com")
        lab.resolver(WORLD)
        await lab.ask("www.example.com")
        loop = asyncio.get_running_loop()
        # One that accepts nobody: beyond the first two it does not even answer.
        server = sock_in(lab.names.outside, socket.SOCK_STREAM, SERVER, 443)
        server.listen(0)
        socks = [await lab.connect(SERVER, 443) for _ in range(4)]
        for sock in socks:
            await loop.sock_sendall(sock, hello("www.example.com"))
        await asyncio.sleep(0.5)
        assert lab.figure("sandpost_gate_connections_total") < 4
        lab.way(ONE, "allow:other.example.com")
        for sock in socks:
            with contextlib.suppress(ConnectionResetError):
                assert await read_all(sock) == b""
            sock.close()
        server.close()

    in_lab(body)


def test_the_end_of_a_sandbox_ends_its_connections_before_it_is_acknowledged() -> None:
    async def body(lab: Lab) -> None:
        way = lab.way(ONE, "allow:www.example.com")
        lab.resolver(WORLD)
        server = Server(lab, 443)
        await lab.ask("www.example.com")
        loop = asyncio.get_running_loop()
        sock = await lab.connect(SERVER, 443)
        await loop.sock_sendall(sock, hello("www.example.com"))
        assert await loop.sock_recv(sock, 100)
        lab.gone(way, 3)
        await lab.until(lambda: lab.acks == [3])
        await lab.until(lambda: server.ended == 1)
        sock.close()
        await server.close()

    in_lab(body)


def test_retired_it_takes_nothing_new_and_lets_connections_end() -> None:
    async def body(lab: Lab) -> None:
        lab.way(ONE, "allow:www.example.com")
        lab.resolver(WORLD)
        server = Server(lab, 443)
        await lab.ask("www.example.com")
        loop = asyncio.get_running_loop()
        sock = await lab.connect(SERVER, 443)
        await loop.sock_sendall(sock, hello("www.example.com"))
        assert await loop.sock_recv(sock, 100)
        for channel in lab.supervisor.channels:
            channel.send(m.Retire(timeout=20))
        # Nothing tells when it was heard; what comes together with it may be answered still.
        await asyncio.sleep(0.5)
        asking = asyncio.create_task(lab.ask("www.example.com"))
        await asyncio.sleep(0.3)
        assert not asking.done()
        await loop.sock_sendall(sock, b"goes on")
        await lab.until(lambda: server.got[0].endswith(b"goes on"))
        sock.close()
        assert lab.process is not None
        assert await asyncio.to_thread(lab.process.wait, 5) == 0
        # What was asked meanwhile waited in the socket for the successor.
        await lab.start()
        assert texts(await asking) == ["203.0.113.5"]
        await server.close()

    in_lab(body)


def test_connections_of_a_tenant_are_bounded_and_others_pass() -> None:
    async def body(lab: Lab) -> None:
        lab.way(ONE, "allow:www.example.com")
        lab.way(TWO, "allow:www.example.com", "other")
        lab.resolver(WORLD)
        plain = Server(lab)
        silent = [await lab.connect(SERVER, 80) for _ in range(MOST_EACH)]
        await lab.until(lambda: lab.figure("sandpost_gate_connections") == MOST_EACH, 5)
        with pytest.raises(ConnectionResetError):
            await exchange(lab, GET)
        assert (await exchange(lab, GET, source=TWO)).endswith(b"yes")
        await lab.until(lambda: lab.said("too_many_connections"))
        for sock in silent:
            sock.close()
        await lab.until(lambda: lab.figure("sandpost_gate_connections") == 0, 5)
        assert (await exchange(lab, GET)).endswith(b"yes")
        await plain.close()

    in_lab(body)


def test_beyond_the_connections_of_all_the_tenant_that_has_most_gives_up_its_oldest() -> None:
    def few(lab: Lab) -> None:
        lab.before = "from sandpost.egress import gate; gate.MOST = 4; "

    async def body(lab: Lab) -> None:
        lab.way(ONE, "allow:www.example.com")
        lab.way(TWO, "allow:www.example.com", "other")
        lab.resolver(WORLD)
        plain = Server(lab)
        loop = asyncio.get_running_loop()
        silent = []
        for _ in range(4):
            silent.append(await lab.connect(SERVER, 80))
            await lab.until(lambda: lab.figure("sandpost_gate_connections") == len(silent), 5)
        assert (await exchange(lab, GET, source=TWO)).endswith(b"yes")
        assert await asyncio.wait_for(loop.sock_recv(silent[0], 10), 2) == b""
        await lab.until(lambda: lab.said("too_many_connections"))
        assert "all tenants together have 4 connections" in lab.said("too_many_connections")[0]
        await lab.until(lambda: lab.figure("sandpost_gate_connections") == 3, 5)
        for sock in silent:
            sock.close()
        await plain.close()

    in_lab(body, few)
