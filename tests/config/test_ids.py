"""Whose user ids lie in the block of the installations: found, and where there is room instead."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpost.config import ids, load, machine
from sandpost.config.ids import Ids
from support.platform import SANDPOST

NUMBERS = st.integers(0, 300_000)
SOME = st.lists(st.builds(Ids, NUMBERS, st.integers(1, 100_000)), max_size=6)


def numbers(some: list[Ids]) -> set[int]:
    return {one for each in some for one in range(each.first, each.end)}


def test_subordinate_ids_of_others_are_read_and_ours_are_ours() -> None:
    text = "alice:100000:65536\n# a word\nsandpost:1879048192:1048576\n\n1000:165536:65536\nbad:x:1\nempty:9:0\n:1:1\n"
    found = list(ids.subordinate(text, "/etc/subuid"))
    assert [(one.first, one.count) for one in found] == [(100000, 65536), (165536, 65536)]
    assert f"{found[0]} {found[0].whose}" == "100000 to 165535 stand in /etc/subuid for `alice`"


def test_a_container_has_the_ids_of_its_map() -> None:
    assert ids.mapped("         0     100000      65536\n     70000          1          2\n") == [
        Ids(0, 65536),
        Ids(70000, 2),
    ]


@given(SOME, SOME)
def test_what_both_have_is_what_each_has(some: list[Ids], others: list[Ids]) -> None:
    assert numbers(ids.both(some, others)) == numbers(some) & numbers(others)


@given(st.integers(0, 300_000), st.integers(1, 100_000), SOME)
def test_a_block_is_judged_as_its_ids_are(first: int, count: int, some: list[Ids]) -> None:
    block = Ids(first, count)
    assert ids.lacks(block, some) == bool(numbers([block]) - numbers(some))
    found = ids.overlap(block, some)
    assert (found is not None) == bool(numbers([block]) & numbers(some))


@given(st.sampled_from([8192, 65536, 1 << 20]), SOME, st.booleans())
def test_the_room_that_is_named_is_room(count: int, taken: list[Ids], everywhere: bool) -> None:
    there = [Ids(0, 1 << 32)] if everywhere else [Ids(0, 65536), Ids(150_000, 200_000)]
    first = ids.free(count, taken, there)
    if first is None:
        assert not everywhere
    else:
        block = Ids(first, count)
        assert ids.LEAST <= first <= ids.LAST
        assert block.end <= ids.END
        assert not ids.lacks(block, there)
        assert ids.overlap(block, taken) is None


def test_a_machine_is_read() -> None:
    seen = machine.read(load({"SANDPOST_UIDS_BASE": "70000", "SANDPOST_NETWORK_BLOCK": "10.1.0.0/22"}))
    assert seen.user_ids == Ids(70000, 16 * 512)
    assert any(one.first == 65534 and "is the user `nobody`" in one.whose for one in seen.user_ids_taken)
    assert not ids.lacks(Ids(0, 65536), seen.user_ids_there)


@contextmanager
def a_start(tmp_path: Path, before: str) -> Iterator["subprocess.Popen[str]"]:
    """`serve` behind a line of a shell of its own, in which mounts are its own."""
    tmp_path.chmod(0o711)
    state = tmp_path / "state"
    command = ["unshare", "--mount", "--propagation=private", "sh", "-ec", f'{before}; exec "$0" serve', SANDPOST]
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "SANDPOST_STATE_DIR": str(state),
        "SANDPOST_LISTEN": "127.0.0.1:1",
    }
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as made:
        yield made
    assert not state.exists(), "it stopped before it made anything"


@pytest.mark.parametrize(
    ("file", "line", "told"),
    [
        ("subuid", "alice:1880000000:65536", "1880000000 to 1880065535 stand in /etc/subuid for `alice`"),
        ("subgid", "alice:1879000000:65536", "1879000000 to 1879065535 stand in /etc/subgid for `alice`"),
        ("passwd", "svc:x:1879048200:100::/:/bin/false", "1879048200 is the user `svc`"),
        ("group", "team:x:1880096767:", "1880096767 is the group `team`"),
    ],
)
def test_a_start_stops_where_somebody_has_ids_of_the_block(tmp_path: Path, file: str, line: str, told: str) -> None:
    own = f"mount -t tmpfs etc /mnt; cp -a /etc/. /mnt; mount --move /mnt /etc; echo '{line}' >>/etc/{file}"
    with a_start(tmp_path, own) as made:
        out, _ = made.communicate(timeout=60)
    assert made.returncode != 0
    assert f"of which {told}: set uids.base to " in out


def test_a_container_without_the_ids_is_told_which_it_has(tmp_path: Path) -> None:
    command = ["unshare", "--user", "sh", "-c", 'read mapped; exec "$0" doctor', SANDPOST]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"SANDPOST_STATE_DIR": str(tmp_path), "COLUMNS": "1000"},
    ) as made:
        while Path(f"/proc/{made.pid}/ns/user").readlink() == Path("/proc/self/ns/user").readlink():
            pass
        for kind in ("uid", "gid"):
            Path(f"/proc/{made.pid}/{kind}_map").write_text("0 0 65536\n")
        out, _ = made.communicate("go\n", timeout=60)
    assert "and in this container there are 0 to 65535 alone: choose a smaller network.block" in out
