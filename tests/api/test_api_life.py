"""The api as a process: usage that survives kills, restart without a gap, bad stores, broken HTTP, signals."""

import asyncio
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import msgspec
import pytest

from sandpost.ipc.channel import Channel, Listener
from sandpost.model.limits import Limits
from sandpost.model.messages import FromSupervisor, Hello, Ready, Reload, Retire, ToSupervisor
from support.installation import API, USERS, Installation, installation, usage, wait_for

HOUR = int(time.time() // 3600)


def exchange(path: str, data: bytes, timeout: float = 10) -> bytes:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(timeout)
        sock.connect(path)
        sock.sendall(data)
        parts = []
        while part := sock.recv(65536):
            parts.append(part)
    return b"".join(parts)


def test_a_batch_of_usage_counts_once_over_kills_of_the_api() -> None:
    with installation() as made:
        controller = made.controller()
        controller.wait_connected()
        acknowledged: set[str] = set()
        for turn in range(4):
            # As a real controller does: what was not acknowledged is told again at each connection.
            for n in range((turn + 1) * 5):
                if f"b{n}" not in acknowledged:
                    controller.send(usage(f"b{n}", tenant="acme", hour=HOUR, calls=1, cpu_seconds=0.5))
            if turn < 3:
                time.sleep(0.02 * turn)
                made.stop(signal.SIGKILL)
                hellos = len(controller.hellos)
                made.start()
                wait_for(lambda hellos=hellos: len(controller.hellos) > hellos)  # type: ignore[misc]
            else:
                wait_for(lambda: drained(controller.taken, acknowledged) >= 20)
            drained(controller.taken, acknowledged)
        total = made.call("GET", "/api/tenants/acme/usage?since=2h").json()["total"]
        assert (total["calls"], total["cpu_seconds"]) == (20, 10.0)


def test_who_asks_right_after_the_controller_came_is_told_of_it() -> None:
    with installation() as made:
        # By now the api looks for it once a second.
        time.sleep(2)
        made.controller()
        assert made.call("GET", "/api/status").json()["controller"]["pool"] == 3
        assert made.call("GET", "/api/sandboxes").status_code == 200


def drained(taken: "object", into: set[str]) -> int:
    import queue

    assert isinstance(taken, queue.Queue)
    while True:
        try:
            into.add(taken.get_nowait())
        except queue.Empty:
            return len(into)


@pytest.mark.parametrize("since", ["24h", "7d", "2020-01-01", "2020-01-01T12:00:00Z", "0", str(HOUR * 3600)])
def test_usage_begins_where_it_is_asked_to(api: Installation, since: str) -> None:
    assert api.call("GET", f"/api/tenants/nobody/usage?since={since}").status_code == 200


@pytest.mark.parametrize("since", ["yesterday", "", "-5", "24", "1e9"])
def test_a_since_that_is_no_time_is_told(api: Installation, since: str) -> None:
    answer = api.call("GET", f"/api/tenants/nobody/usage?since={since}")
    if since == "24":
        assert answer.status_code == 200, "epoch seconds"
        return
    assert answer.status_code == 400
    assert "2026-05-01" in answer.json()["message"]


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nA\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_broken_http_gets_the_one_shape_of_errors(api: Installation, data: bytes) -> None:
    head, _, body = exchange(api.host.api_socket, data).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert b"content-type: application/json" in head
    problem = msgspec.json.decode(body)
    assert (problem["code"], problem["reason"]) == (400, "malformed_request")
    assert problem["req_id"].encode() in head


def test_a_body_that_does_not_come_is_given_up(api: Installation) -> None:
    began = time.monotonic()
    data = b"PUT /api/tenants/slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 10\r\n\r\n{"
    answer = exchange(api.host.api_socket, data)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"request_timeout" in answer
    assert 0.9 < time.monotonic() - began < 5


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_over_a_mebibyte_is_refused(api: Installation, framing: str) -> None:
    head = b"PUT /api/tenants/big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    if framing == "length":
        data = head + b"Content-Length: 1048577\r\n\r\n"
    else:
        data = (
            head + b"Transfer-Encoding: chunked\r\n\r\n" + b"100000\r\n" + b" " * (1 << 20) + b"\r\n1\r\n \r\n0\r\n\r\n"
        )
    answer = exchange(api.host.api_socket, data)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"Request body size exceeds 1048576" in answer


def test_the_proxys_id_of_a_call_is_in_the_answer(api: Installation) -> None:
    given = api.call("GET", "/api/nowhere", headers={"x-sandpost-req": "abc-123"})
    assert given.headers["x-sandpost-req"] == given.json()["req_id"] == "abc-123"
    odd = api.call("GET", "/api/nowhere", headers={"x-sandpost-req": "a b<script>"})
    assert odd.json()["req_id"] != "a b<script>"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
def test_a_wrong_method_is_told_with_the_right_ones(api: Installation, method: str) -> None:
    answer = api.call(method, "/api/status")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert answer.json()["reason"] == "method_not_allowed"


def test_it_runs_as_its_own_user_and_its_socket_is_the_groups(api: Installation) -> None:
    assert api.api is not None
    status = Path(f"/proc/{api.api.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert set(fields["Uid"].split()) == {str(USERS.api)}
    assert set(fields["Gid"].split()) == {str(USERS.gid)}
    assert fields["Groups"].split() == []
    assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
    stat = os.stat(api.host.api_socket)
    assert (stat.st_gid, stat.st_mode & 0o777) == (USERS.gid, 0o660)


def test_a_successor_takes_over_without_a_refused_connection() -> None:
    with installation() as made:
        failures: list[str] = []
        count = 0
        done = threading.Event()

        def ask() -> None:
            nonlocal count
            while not done.is_set():
                try:
                    status = made.call("GET", "/api/keys").status_code
                except Exception as error:
                    failures.append(repr(error))
                else:
                    count += 1
                    if status != 200:
                        failures.append(str(status))

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            for _ in range(2):
                old = made.api
                inode = os.stat(made.host.api_socket).st_ino
                successor = subprocess.Popen([*API, "--host", made.host_file], stderr=subprocess.DEVNULL)
                wait_for(lambda inode=inode: os.stat(made.host.api_socket).st_ino != inode)  # type: ignore[misc]
                assert old is not None
                old.send_signal(signal.SIGTERM)
                made.api = successor
                assert old.wait(20) == 0
                time.sleep(0.2)
        finally:
            done.set()
            thread.join(20)
        assert failures == []
        assert count > 10
        assert os.path.exists(made.host.api_socket)


def test_it_ends_in_order_and_removes_its_socket() -> None:
    with installation() as made:
        made.call("PUT", "/api/tenants/acme", {})
        assert made.stop() == 0
        assert not os.path.exists(made.host.api_socket)
        assert not os.path.exists(made.host.store_path + "-wal"), "the store was closed"
        made.start()
        assert made.call("GET", "/api/tenants/acme").status_code == 200


def test_a_damaged_store_is_told_and_taken_up_when_it_is_mended() -> None:
    made = Installation()
    try:
        made.start()
        made.call("PUT", "/api/tenants/acme", {})
        made.stop()
        whole = Path(made.host.store_path).read_bytes()
        Path(made.host.store_path).write_bytes(b"rubbish" * 1000)
        made.api = subprocess.Popen([*API, "--host", made.host_file], stderr=made._log)
        wait_for(lambda: "store cannot be opened" in made.log())
        assert ".recover" in made.log()
        assert made.api.poll() is None
        assert Path(made.host.store_path).read_bytes() == b"rubbish" * 1000
        Path(made.host.store_path).write_bytes(whole)
        wait_for(lambda: os.path.exists(made.host.api_socket))
        wait_for(lambda: made.call("GET", "/api/tenants/acme").status_code == 200)
    finally:
        made.close()


def test_the_supervisor_is_told_when_it_serves_and_may_reload_and_retire_it() -> None:
    made = Installation()
    try:
        said: list[str] = []

        async def supervise() -> None:
            ready = asyncio.Event()
            channels: list[Channel[ToSupervisor]] = []

            def on_message(channel: Channel[ToSupervisor], message: ToSupervisor, _fds: list[int]) -> None:
                said.append(type(message).__name__)
                if isinstance(message, Hello):
                    assert (message.part, message.pid) == ("api", made.api.pid if made.api else 0)
                    channels.append(channel)
                if isinstance(message, Ready):
                    ready.set()

            def send(message: FromSupervisor) -> None:
                channels[-1].send(message)

            listener: Listener[ToSupervisor] = Listener(
                made.host.supervisor_socket, ToSupervisor, on_message, lambda _channel: None, admit=lambda _peer: True
            )
            try:
                await asyncio.to_thread(made.start)
                await asyncio.wait_for(ready.wait(), 10)
                assert said == ["Hello", "Ready"]
                # Another supervisor is told again.
                ready.clear()
                channels[-1].close()
                await asyncio.wait_for(ready.wait(), 10)

                await asyncio.to_thread(made.call, "PUT", "/api/tenants/acme", {})
                made.write_host(msgspec.structs.replace(made.host, defaults=Limits(pids=77)))
                send(Reload())
                for _ in range(100):
                    seen = await asyncio.to_thread(made.call, "GET", "/api/tenants/acme")
                    if seen.json()["limits"]["pids"] == 77:
                        break
                    await asyncio.sleep(0.02)
                assert seen.json()["limits"]["pids"] == 77
                send(Retire(timeout=2.0))
                assert made.api is not None
                assert await asyncio.to_thread(made.api.wait, 20) == 0
            finally:
                listener.close()

        asyncio.run(supervise())
    finally:
        made.close()


def test_a_missing_host_file_is_told() -> None:
    done = subprocess.run(
        [*API, "--host", "/nowhere/host.json"], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 1
    assert "/nowhere/host.json" in done.stderr
    assert "Traceback" not in done.stderr
