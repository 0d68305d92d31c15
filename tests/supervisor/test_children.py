"""Children of a really running supervisor: who they are, and what happens when one dies."""

import os
import signal
import time
from pathlib import Path

import pytest

from supervisor.stand import Stand, alive
from support.waiting import until


def test_every_part_runs_as_its_own_user_with_no_way_back(stand: Stand) -> None:
    stand.start()
    users = stand.host.users
    wanted = {
        "controller": 0,
        "proxy": users.proxy,
        "api": users.api,
        "collector": users.collector,
        "egress": users.egress,
    }
    for (part, _), pid in stand.children().items():
        status = Path(f"/proc/{pid}/status").read_text()
        uid = wanted[part]
        assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n" in status
        if uid:
            gid = users.gid
            assert f"Gid:\t{gid}\t{gid}\t{gid}\t{gid}\n" in status
            assert "Groups:\t \n" in status
            assert "NoNewPrivs:\t1\n" in status
            assert "CapEff:\t0000000000000000\n" in status
            assert "CapPrm:\t0000000000000000\n" in status
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert {line.split(b"=")[0] for line in environment.split(b"\0") if line} <= {b"PATH", b"LANG", b"HOME", b"TZ"}
        assert os.getsid(pid) == pid


def test_no_descriptor_is_inherited_but_the_listening_socket(stand: Stand) -> None:
    leaks = [os.open("/dev/zero", os.O_RDONLY) for _ in range(20)]
    try:
        # The supervisor gets them; its children must not.
        stand.start(pass_fds=leaks)
        for (part, _), pid in stand.children().items():
            targets = {int(name): os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
            assert "/dev/zero" not in targets.values(), part
            assert targets[0] == "/dev/null"
            if part == "proxy":
                assert targets[3].startswith("socket:")
            if part == "egress":
                assert [targets[fd].startswith("socket:") for fd in (3, 4, 5)] == [True] * 3
    finally:
        for fd in leaks:
            os.close(fd)


@pytest.mark.parametrize("part", ["controller", "proxy", "api", "collector", "egress"])
def test_a_killed_part_returns_at_once_and_alone(stand: Stand, part: str) -> None:
    stand.start()
    before = stand.children()
    os.kill(before[part, 0], signal.SIGKILL)
    until(lambda: stand.children().get((part, 0), before[part, 0]) != before[part, 0], f"{part} starts again", 1)
    after = stand.children()
    del before[part, 0], after[part, 0]
    assert after == before


def test_a_part_that_dies_again_and_again_is_started_later_each_time(stand: Stand) -> None:
    stand.start()
    gaps = []
    for _ in range(4):
        pid = stand.children()["api", 0]
        os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        until(lambda pid=pid: stand.children().get(("api", 0), pid) != pid, "api starts again")  # type: ignore[misc]
        gaps.append(time.monotonic() - began)
    assert gaps[0] < 0.1
    assert gaps[1] > 0.1
    assert gaps[3] > 0.4


def test_a_dead_workers_queue_is_served_by_another_until_it_is_back(stand: Stand) -> None:
    stand.start()
    Path(stand.host.path("slow")).touch()
    victim = stand.children()["proxy", 0]
    os.kill(victim, signal.SIGKILL)
    until(lambda: not alive(victim), "the worker is dead")
    began = time.monotonic()
    answered = []
    slowest = 0.0
    while time.monotonic() - began < 0.5:
        once = time.monotonic()
        answered.append(stand.call())
        slowest = max(slowest, time.monotonic() - once)
    # The successor sleeps for 0.5 s and has yet to import: the other one answered for both sockets.
    assert {index for index, _ in answered} == {1}
    assert len(answered) > 20
    assert slowest < 0.3
    os.unlink(stand.host.path("slow"))
    until(lambda: any(stand.call()[0] == 0 for _ in range(5)), "the new worker accepts on its own socket")
    assert "worker covers for another" in stand.output()


def test_orphans_are_reaped_and_told_to_the_controller(stand: Stand) -> None:
    stand.start()
    # A child of the controller's child, whose parent ends: as a sandbox's init.
    Path(stand.host.path("orphan")).write_text("sleep 0.2; exit 7")
    os.kill(stand.children()["controller", 0], signal.SIGUSR1)
    until(lambda: "Exited(pid=" in stand.heard(), "the controller hears of it")
    assert f"status={7 << 8}" in stand.heard()


def test_an_orphan_that_ends_while_there_is_no_controller_is_told_to_the_next(stand: Stand) -> None:
    stand.start()
    Path(stand.host.path("orphan")).write_text("echo begun >> $(dirname $0)/heard; sleep 0.3; exit 9")
    controller = stand.children()["controller", 0]
    os.kill(controller, signal.SIGUSR1)
    until(lambda: "begun" in stand.heard(), "it runs")
    Path(stand.host.path("slow")).touch()
    os.kill(controller, signal.SIGKILL)
    until(lambda: f"status={9 << 8}" in stand.heard(), "the next controller hears of it")
    assert stand.children()["controller", 0] != controller
