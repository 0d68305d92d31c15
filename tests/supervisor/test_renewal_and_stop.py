"""Parts are renewed without a lost connection; a stop leaves nothing; strangers have no say."""

import os
import signal
import socket
import threading
import time
from pathlib import Path

import msgspec
import pytest

from sandpost.model import messages as m
from supervisor.stand import Calls, Stand, alive, ask
from support.waiting import until


def test_a_renewal_loses_no_connection(stand: Stand) -> None:
    stand.start()
    before = stand.children()
    with Calls(stand) as calls:
        answer = ask(stand, m.Restart())
    assert isinstance(answer, m.Restarted)
    assert answer.error == ""
    assert calls.failures == []
    after = stand.children()
    assert set(after) == set(before)
    assert not set(after.values()) & set(before.values())
    assert set(answer.pids.values()) == set(after.values())
    # Both generations answered.
    assert set(before.values()) & set(calls.answers)
    assert set(after.values()) & set(calls.answers)


def test_a_second_renewal_at_the_same_time_is_refused(stand: Stand) -> None:
    stand.start()
    Path(stand.host.path("slow")).touch()
    first: list[m.Restarted | m.Stopped | None] = []
    asking = threading.Thread(target=lambda: first.append(ask(stand, m.Restart())))
    asking.start()
    until(lambda: len(stand.pids()) > 6, "a successor runs")
    answer = ask(stand, m.Restart())
    assert isinstance(answer, m.Restarted)
    assert "under way" in answer.error
    os.unlink(stand.host.path("slow"))
    asking.join(30)
    assert isinstance(first[0], m.Restarted)
    assert first[0].error == ""


def test_a_successor_that_does_not_come_up_leaves_the_old_one_in_its_place(stand: Stand) -> None:
    stand.start()
    before = stand.children()
    Path(stand.host.path("broken")).touch()
    answer = ask(stand, m.Restart())
    assert isinstance(answer, m.Restarted)
    assert "did not get ready" in answer.error
    os.unlink(stand.host.path("broken"))
    assert stand.children() == before
    assert stand.call()[1] in before.values()


def test_a_stop_ends_everything_and_last_who_reads_what_sandboxes_say(stand: Stand) -> None:
    stand.start()
    pids = stand.pids()
    assert stand.stop() == 0
    assert not any(alive(pid) for pid in pids)
    assert stand.heard().splitlines()[-2:] == ["purge", "collector Retire(timeout=10.0)"]
    assert not os.path.exists(stand.host.supervisor_socket)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", stand.port), timeout=2)


def test_a_stop_during_a_renewal_ends_both_generations(stand: Stand) -> None:
    stand.start()
    Path(stand.host.path("slow")).touch()
    asking = threading.Thread(target=ask, args=(stand, m.Restart()))
    asking.start()
    until(lambda: len(stand.pids()) > 6, "a successor runs")
    pids = stand.pids()
    assert stand.stop() == 0
    asking.join(20)
    assert not any(alive(pid) for pid in pids)


def test_a_stop_by_message_is_answered_when_all_has_ended(stand: Stand) -> None:
    stand.start()
    pids = stand.pids()
    assert ask(stand, m.Stop()) == m.Stopped()
    assert not any(alive(pid) for pid in pids)
    assert stand.wait() == 0


def test_a_stop_that_leaves_something_says_what(stand: Stand) -> None:
    stand.start()
    Path(stand.host.path("mounted")).touch()
    assert ask(stand, m.Stop()) == m.Stopped(error="it is still mounted")
    assert stand.wait() == 1


def test_a_renewal_that_a_stop_breaks_off_is_not_answered_as_done(stand: Stand) -> None:
    stand.start()
    Path(stand.host.path("slow")).touch()
    heard: list[object] = []
    asking = threading.Thread(target=lambda: heard.append(ask(stand, m.Restart())))
    asking.start()
    until(lambda: len(stand.pids()) > 6, "a successor runs")
    assert stand.stop() == 0
    asking.join(20)
    assert heard == [m.Stopped()]


def test_workers_that_do_not_drain_are_killed_at_once_on_the_second_signal(stand: Stand) -> None:
    stand.start()
    for (part, _), pid in stand.children().items():
        if part == "proxy":
            os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    os.kill(stand.pid, signal.SIGINT)
    time.sleep(0.3)
    assert stand.pids()
    os.kill(stand.pid, signal.SIGINT)
    assert stand.wait() == 0
    # drain_timeout is 2 s here, and 5 s of grace.
    assert time.monotonic() - began < 5
    assert "purge at once" in stand.heard().splitlines()


def test_strangers_are_sent_away(stand: Stand) -> None:
    stand.start()
    # Root, but no child of the supervisor's: it may be the command line and nothing else.
    for message in (m.Hello(part="controller", pid=os.getpid()), m.Stop()):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(5)
            sock.connect(stand.host.supervisor_socket)
            sock.send(msgspec.msgpack.encode(message))
            assert sock.recv(100) == b""
    # Nobody, and an unprivileged part that says it is the command line.
    for uid in (65534, stand.host.users.proxy):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.setresuid(uid, uid, uid)
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
                    sock.settimeout(5)
                    sock.connect(stand.host.supervisor_socket)
                    sock.send(msgspec.msgpack.encode(m.Hello(part="cli", pid=os.getpid())))
                    sock.send(msgspec.msgpack.encode(m.Stop()))
                    status = 0 if sock.recv(100) == b"" else 2
            except (BrokenPipeError, ConnectionResetError):
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
    assert stand.process is not None
    assert stand.process.poll() is None
    assert len(stand.children()) == 6


def test_what_nobody_uses_is_removed_once_all_is_adopted_and_that_ends_with_all(stand: Stand) -> None:
    def tidying() -> list[int]:
        """Pids of the supervisor's children that are no parts."""
        children = Path(f"/proc/{stand.pid}/task/{stand.pid}/children").read_text().split()
        return [int(pid) for pid in children if int(pid) not in stand.pids()]

    stand.start()
    assert tidying() == []
    stand.kill()
    stand.start(words=["tidies"])
    until(lambda: "tidies" in stand.heard(), "it is run")
    [first] = tidying()
    os.kill(first, signal.SIGKILL)
    until(lambda: not alive(first), "it has ended")
    assert stand.stop() == 0
    assert f"Exited(pid={first}" not in stand.heard()
    stand.start(words=["tidies"])
    until(lambda: stand.heard().count("tidies") == 2, "it is run again")
    [second] = tidying()
    assert stand.stop() == 0
    assert not alive(second)
