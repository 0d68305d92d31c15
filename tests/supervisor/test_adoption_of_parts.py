"""The supervisor is killed; the next one finds everything where it was."""

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import msgspec
import pytest

from sandpost.kernel.processes import start_time
from sandpost.model import messages as m
from sandpost.supervisor import family
from sandpost.supervisor.family import Known
from supervisor.stand import STAND_IN, Calls, Stand, alive, ask
from support.waiting import until


def test_a_killed_supervisor_ends_nobody_and_the_next_adopts_everybody(stand: Stand) -> None:
    stand.start()
    before = stand.children()
    with Calls(stand) as calls:
        stand.kill()
        time.sleep(0.3)
        assert all(alive(pid) for pid in before.values())
        stand.start()
        assert stand.children() == before
    assert calls.failures == []
    assert len(calls.answers) > 100


def test_the_next_supervisor_has_the_same_listening_sockets(stand: Stand) -> None:
    def inode(pid: int) -> str:
        return os.readlink(f"/proc/{pid}/fd/3")

    stand.start()
    before = stand.children()
    sockets = {index: inode(before["proxy", index]) for index in range(2)}
    stand.kill()
    stand.start()
    victim = before["proxy", 1]
    os.kill(victim, signal.SIGKILL)
    until(lambda: stand.children().get(("proxy", 1), victim) != victim, "proxy 1 returns")
    # One that is not a part yet has the supervisor's.
    until(lambda: inode(stand.children()["proxy", 1]) == sockets[1], "it has its socket")
    until(lambda: any(stand.call()[0] == 1 for _ in range(5)), "proxy 1 answers")


def test_a_reload_that_was_asked_for_before_reaches_adopted_parts(stand: Stand) -> None:
    stand.start()
    stand.kill()
    stand.start(words=["reload"])
    until(lambda: "controller Reload()" in stand.heard(), "the controller hears of it")
    until(lambda: "settings taken up" in stand.output(), "the supervisor has read them again")


def test_adopted_parts_hear_that_settings_may_have_changed(stand: Stand) -> None:
    stand.start()
    stand.kill()
    assert "Reload()" not in stand.heard()
    stand.start()
    until(lambda: "controller Reload()" in stand.heard(), "the controller hears of it")


def test_an_adopted_part_that_dies_is_seen_and_replaced(stand: Stand) -> None:
    stand.start()
    before = stand.children()
    stand.kill()
    stand.start()
    for part in ("controller", "collector", "api"):
        os.kill(before[part, 0], signal.SIGKILL)
    until(
        lambda: all(
            stand.children().get((part, 0), 0) not in {0, before[part, 0]}
            for part in ("controller", "collector", "api")
        ),
        "adopted parts return",
    )


def test_no_part_outlives_a_supervisor_that_was_killed_before_it_noted_it(stand: Stand) -> None:
    stand.start()
    before = stand.children()
    Path(stand.host.path("dies")).touch()
    os.kill(before["api", 0], signal.SIGKILL)
    assert stand.wait() == -signal.SIGKILL
    os.unlink(stand.host.path("dies"))
    try:
        until(lambda: not running(stand, "api"), "the part that nobody knows has ended")
        stand.start()
        assert running(stand, "api") == [stand.children()["api", 0]]
        assert len(stand.pids()) == 6
        del before["api", 0]
        assert before.items() < stand.children().items()
    finally:
        for pid in {*running(stand, "api")} - {*stand.pids()}:
            os.kill(pid, signal.SIGKILL)


def test_a_supervisor_that_is_killed_while_it_adopts_leaves_all_to_the_next(tmp_path: Path) -> None:
    async def adopt_one(path: str, known: Known) -> None:
        adopting = family.Family(path, on_end=lambda _child, _status: None, on_foreign=lambda _pid, _status: None)
        assert adopting.adopt(known) is not None
        adopting.close()

    path = tmp_path / "children.json"
    with contextlib.ExitStack() as stack:
        known = []
        for index in range(2):
            pid = stack.enter_context(subprocess.Popen(["sleep", "60"])).pid
            stack.callback(os.kill, pid, signal.SIGKILL)
            known.append(Known(part="proxy", index=index, pid=pid, start_time=start_time(pid), release="1"))
        path.write_bytes(msgspec.json.encode(known))
        asyncio.run(adopt_one(str(path), known[0]))
        assert family.living(str(path)) == known


def test_what_died_together_with_the_supervisor_is_started_again(stand: Stand) -> None:
    stand.start()
    before = stand.children()
    stand.kill()
    dead = [("proxy", 0), ("collector", 0)]
    for role in dead:
        os.kill(before[role], signal.SIGKILL)
    until(lambda: not any(alive(before[role]) for role in dead), "they are dead")
    stand.start()
    after = stand.children()
    assert {role for role in before if before[role] != after[role]} == set(dead)
    until(lambda: {stand.call()[0] for _ in range(20)} == {0, 1}, "both workers answer")


def test_parts_of_another_release_are_renewed_after_adoption(stand: Stand) -> None:
    stand.start(release="1")
    before = stand.children()
    stand.kill()
    stand.start(release="2")
    until(lambda: not set(stand.pids()) & set(before.values()), "all are renewed")
    until(lambda: set(stand.children()) == set(before), "all are there")


def test_fifos_are_held_handed_on_and_reopened(stand: Stand) -> None:
    sandbox = "0123456789ab"
    Path(stand.host.path("records", sandbox)).touch()
    stand.start()

    def readers(pid: int) -> int:
        found = 0
        for name in os.listdir(f"/proc/{pid}/fd"):
            # Descriptors come and go while we look.
            with contextlib.suppress(FileNotFoundError):
                found += f"fifos/{sandbox}/" in os.readlink(f"/proc/{pid}/fd/{name}")
        return found

    until(lambda: readers(stand.children()["collector", 0]) == 3, "the collector has them")
    assert readers(stand.pid) == 3
    until(lambda: f"Held(sandbox_id='{sandbox}')" in stand.heard(), "the controller is told")
    # A collector that starts gets them again.
    first = stand.children()["collector", 0]
    os.kill(first, signal.SIGKILL)
    until(lambda: stand.children().get(("collector", 0), first) != first, "the collector returns")
    until(lambda: readers(stand.children()["collector", 0]) == 3, "the new collector has them")
    # So does one that starts under another supervisor, which has to open them itself.
    stand.kill()
    second = stand.children()["collector", 0]
    os.kill(second, signal.SIGKILL)
    until(lambda: not alive(second), "the collector is dead")
    stand.start()
    assert readers(stand.pid) == 3
    until(lambda: readers(stand.children()["collector", 0]) == 3, "the next collector has them")
    os.unlink(stand.host.path("records", sandbox))


def test_workers_that_were_draining_when_a_stop_was_cut_short_are_followed_by_others(stand: Stand) -> None:
    stand.start()
    before = stand.children()
    Path(stand.host.path("drains")).touch()
    os.kill(stand.pid, signal.SIGTERM)

    def refused() -> bool:
        try:
            stand.call()
        except OSError:
            return True
        return False

    until(refused, "nobody accepts any more")
    stand.kill()
    assert all(alive(before["proxy", index]) for index in range(2))
    stand.start()
    until(lambda: {stand.call()[0] for _ in range(20)} == {0, 1}, "both workers answer")
    os.unlink(stand.host.path("drains"))
    until(lambda: not any(alive(before["proxy", index]) for index in range(2)), "those before end")


@pytest.mark.long
def test_a_silent_part_is_replaced_at_adoption(stand: Stand) -> None:
    stand.start()
    silent = stand.children()["api", 0]
    stand.kill()
    os.kill(silent, signal.SIGSTOP)
    starting = threading.Thread(target=stand.start)
    starting.start()
    starting.join(20)
    assert stand.children()["api", 0] != silent
    assert not alive(silent)


def test_a_renewal_that_was_cut_short_leaves_one_of_each(stand: Stand) -> None:
    stand.start()
    before = stand.children()
    # A successor waits for half a second, so that the kill finds it beside the one that it is to succeed.
    Path(stand.host.path("slow")).touch()
    asking = threading.Thread(target=ask_in_vain, args=(stand,))
    asking.start()
    until(lambda: len(stand.pids()) > 6, "a successor runs")
    stand.kill()
    asking.join(20)
    stand.start()
    until(lambda: len(stand.pids()) == 6, "one of each is left")
    assert set(stand.children()) == set(before)
    with Calls(stand) as calls:
        time.sleep(0.2)
    assert calls.failures == []


def running(stand: Stand, part: str) -> list[int]:
    """Return the pids of all processes of a part, known or not."""
    command = b"\0".join(word.encode() for word in (STAND_IN, part, "--host", stand.path))
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if command in Path(f"/proc/{name}/cmdline").read_bytes() and alive(int(name)):
                found.append(int(name))
    return found


def ask_in_vain(stand: Stand) -> None:
    with contextlib.suppress(TimeoutError):
        ask(stand, m.Restart(), 5)
