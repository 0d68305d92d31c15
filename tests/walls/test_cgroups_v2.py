"""Version 2 on a tree of files that behaves as the kernel's as far as names and places go."""

import asyncio
import os
from functools import partial
from pathlib import Path

import pytest

from sandpost.model.errors import EngineError, HostUnfit
from sandpost.model.limits import Limits
from sandpost.walls.cgroups import files, v2
from sandpost.walls.cgroups.mounts import Mounts
from support.engine_bed import make_host

MiB = 1 << 20
FILES = {
    "cgroup.procs": "", "cgroup.kill": "", "cgroup.subtree_control": "", "cgroup.controllers": "cpu io memory pids",
    "memory.max": "max", "memory.swap.max": "max", "memory.current": "4096", "memory.peak": "8192", "memory.oom.group": "0",
    "memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0",
    "memory.events.local": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0",
    "cpu.max": "max 100000", "cpu.weight": "", "cpu.stat": "usage_usec 1500000\nuser_usec 1\nsystem_usec 1", "pids.max": "max", "pids.current": "3", "pids.events": "max 0",
}  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    mkdir, rmdir = os.mkdir, os.rmdir

    def make(path: str, mode: int = 0o777) -> None:
        mkdir(path, mode)
        if str(path).startswith(str(tmp_path)):
            for name, text in FILES.items():
                Path(path, name).write_text(text)

    def remove(path: str) -> None:
        entries = list(Path(path).iterdir()) if str(path).startswith(str(tmp_path)) else []
        if not any(entry.is_dir() for entry in entries):
            for entry in entries:
                entry.unlink()
        rmdir(path)

    monkeypatch.setattr(os, "mkdir", make)
    monkeypatch.setattr(os, "rmdir", remove)
    base = tmp_path / "cgroup"
    os.mkdir(base)
    return base


@pytest.fixture
def groups(tree: Path) -> v2.GroupsV2:
    made = v2.GroupsV2(make_host("/nonexistent", cgroups=2), Mounts({}, (), str(tree)))
    made.open()
    return made


def test_open_enables_controllers_down_to_the_parent(groups: v2.GroupsV2, tree: Path) -> None:
    for place in (tree, tree / "sandpost-f"):
        assert (place / "cgroup.subtree_control").read_text() == "+memory +cpu +pids"
    groups.open()


def test_open_removes_tenant_groups_that_never_got_a_sandbox(groups: v2.GroupsV2, tree: Path) -> None:
    os.mkdir(tree / "sandpost-f" / "t-half")
    groups.create("whole", "one", Limits())
    groups.open()
    assert not (tree / "sandpost-f" / "t-half").exists()
    assert groups.find() == [("whole", "one")]


def test_limits_stand_on_the_tenant_and_the_whole_sandbox_dies_at_once(groups: v2.GroupsV2, tree: Path) -> None:
    groups.create("a", "b", Limits(memory=64 * MiB, cpu=0.5, pids=10))
    tenant = tree / "sandpost-f" / "t-a"
    assert (tenant / "memory.max").read_text().startswith(str(64 * MiB))
    assert (tenant / "memory.swap.max").read_text().startswith("0")
    assert (tenant / "cpu.max").read_text().startswith("50000 100000")
    assert (tenant / "cpu.weight").read_text() == "50"
    assert (tenant / "pids.max").read_text().startswith("10")
    assert (tenant / "s-b" / "memory.oom.group").read_text() == "1"
    assert (tenant / "s-b" / "memory.max").read_text() == "max"
    assert groups.path("a", "b") == "/sandpost-f/t-a/s-b"


def test_usage_is_read_and_whose_memory_was_wanting(groups: v2.GroupsV2, tree: Path) -> None:
    groups.create("a", "b", Limits())
    used = groups.usage("a", "b")
    assert used is not None
    assert (used.memory, used.peak_memory, used.cpu_seconds, used.pids, used.oom_kills) == (4096, 8192, 1.5, 3, 0)
    tenant = tree / "sandpost-f" / "t-a"
    (tenant / "s-b" / "memory.events").write_text("oom 0\noom_kill 2\n")
    used = groups.usage("a", "b")
    assert used is not None
    assert (used.oom_kills, used.parent_full) == (2, True)
    (tenant / "memory.events.local").write_text("oom 1\noom_kill 0\n")
    used = groups.usage("a", "b")
    assert used is not None
    assert (used.oom_kills, used.parent_full) == (2, False)
    assert groups.usage("a", "nobody") is None


def test_a_kernel_without_memory_peak_or_swap_will_do(groups: v2.GroupsV2, tree: Path) -> None:
    groups.create("a", "b", Limits())
    (tree / "sandpost-f/t-a/s-b/memory.peak").unlink()
    (tree / "sandpost-f/t-a/memory.swap.max").unlink()
    groups.set_limits("a", Limits())
    used = groups.usage("a", "b")
    assert used is not None
    assert used.peak_memory == used.memory


def test_kill_writes_once_and_waits_for_the_last_process(
    groups: v2.GroupsV2, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups.create("a", "b", Limits())
    sandbox = tree / "sandpost-f/t-a/s-b"
    groups.kill("a", "b")
    assert (sandbox / "cgroup.kill").read_text() == "1"
    (sandbox / "cgroup.procs").write_text("12\n13\n")
    assert groups.processes("a", "b") == [12, 13]
    monkeypatch.setattr(files, "KILL_DEADLINE", 0.05)
    with pytest.raises(EngineError, match=r"\[12, 13\] survive"):
        groups.kill("a", "b")
    groups.kill("a", "nobody")


def test_a_kernel_without_a_kill_of_groups_has_each_process_killed(
    groups: v2.GroupsV2, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups.create("a", "b", Limits())
    sandbox = tree / "sandpost-f/t-a/s-b"
    (sandbox / "cgroup.kill").unlink()
    (sandbox / "cgroup.procs").write_text("12\n13\n")
    killed = []

    def kill(pid: int, member: str) -> None:
        killed.append((pid, member))
        (sandbox / "cgroup.procs").write_text("")

    monkeypatch.setattr(files, "_kill", kill)
    groups.kill("a", "b")
    assert killed == [(12, "/sandpost-f/t-a/s-b"), (13, "/sandpost-f/t-a/s-b")]
    groups.kill("a", "nobody")


def test_the_tenants_group_goes_with_its_last_sandbox(groups: v2.GroupsV2, tree: Path) -> None:
    groups.create("a", "b", Limits())
    groups.create("a", "c", Limits())
    groups.remove("a", "b")
    assert groups.find() == [("a", "c")]
    groups.remove("a", "c")
    groups.remove("a", "c")
    assert groups.find() == []
    assert not (tree / "sandpost-f/t-a").exists()
    groups.close(purge=True)
    assert not (tree / "sandpost-f").exists()


def test_a_kill_for_memory_is_told_once(groups: v2.GroupsV2, tree: Path) -> None:
    groups.create("a", "b", Limits())
    events = tree / "sandpost-f/t-a/s-b/memory.events"

    async def body() -> list[int]:
        told: list[int] = []
        undo = groups.watch("a", "b", lambda: told.append(1))
        events.write_text("oom 1\noom_kill 0\n")
        await asyncio.sleep(0.05)
        assert told == []
        for kills in (1, 2):
            events.write_text(f"oom 1\noom_kill {kills}\n")
            await asyncio.sleep(0.05)
        undo()
        undo()
        return told

    assert asyncio.run(body()) == [1]


def test_more_sandboxes_are_watched_than_a_user_may_have_inotify_instances(groups: v2.GroupsV2, tree: Path) -> None:
    # Debian's limit is 128, for all of root's processes together.
    count = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text()) + 10
    for number in range(count):
        groups.create("a", str(number), Limits())

    async def body() -> list[int]:
        told: list[int] = []
        undos = [groups.watch("a", str(number), partial(told.append, number)) for number in range(count)]
        undos[3]()
        for number in (3, 5, count - 1):
            (tree / f"sandpost-f/t-a/s-{number}/memory.events").write_text("oom 1\noom_kill 1\n")
        await asyncio.sleep(0.05)
        for undo in undos:
            undo()
        return told

    before = len(os.listdir("/proc/self/fd"))
    assert sorted(asyncio.run(body())) == [5, count - 1]
    # Another loop begins anew.
    assert sorted(asyncio.run(body())) == [5, count - 1]
    groups.close(purge=False)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_sandbox_may_be_watched_twice(groups: v2.GroupsV2, tree: Path) -> None:
    groups.create("a", "b", Limits())

    async def body() -> list[int]:
        told: list[int] = []
        first = groups.watch("a", "b", lambda: told.append(1))
        groups.watch("a", "b", lambda: told.append(2))
        await asyncio.sleep(0.01)
        first()
        (tree / "sandpost-f/t-a/s-b/memory.events").write_text("oom 1\noom_kill 1\n")
        await asyncio.sleep(0.05)
        return told

    assert asyncio.run(body()) == [2]
    groups.close(purge=False)


def test_the_parents_threshold_is_told_at_each_crossing(groups: v2.GroupsV2, tree: Path) -> None:
    current = tree / "sandpost-f" / "memory.current"

    async def body() -> list[int]:
        told: list[int] = []
        undo = groups.watch_parent(1000, lambda: told.append(1))
        for value in (500, 1500, 1600, 500, 1500):
            current.write_text(str(value))
            await asyncio.sleep(0.25)
        undo()
        return told

    assert asyncio.run(body()) == [1, 1]


def test_a_tree_without_the_controllers_says_what_to_do(tree: Path) -> None:
    (tree / "cgroup.controllers").write_text("cpu io")
    with pytest.raises(HostUnfit, match="memory, pids"):
        v2.GroupsV2(make_host("/nonexistent", cgroups=2), Mounts({}, (), str(tree))).open()
    (tree / "cgroup.controllers").unlink()
    with pytest.raises(HostUnfit, match="`sandpost doctor` says"):
        v2.GroupsV2(make_host("/nonexistent", cgroups=2), Mounts({}, (), str(tree))).open()


def test_processes_in_the_way_are_told(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(path: str, _value: object) -> None:
        raise OSError(16, "Device or resource busy", path)

    monkeypatch.setattr(files, "write", busy)
    with pytest.raises(HostUnfit, match="from a group below"):
        v2.GroupsV2(make_host("/nonexistent", cgroups=2), Mounts({}, (), str(tree))).open()
