"""Archives of modules as they come, good, broken and lying: what is refused leaves nothing, what is kept is what came."""

import contextlib
import hashlib
import json
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpost.model.modules import FACTS, Facts
from sandpost.model.specs import Spec
from sandpost.modules.judge import BadModule, Judge
from sandpost.modules.shelf import Shelf
from sandpost.modules.tar import BadTar, Entry, Reader
from sandpost.modules.unpack import Unpacker
from support.archives import member, tar

SPEC = Spec("npm", "x", "1.0.0")
GOOD = {"node_modules": None, "node_modules/x": None, "node_modules/x/package.json": b"{}"}
HASHES = {"x@1.0.0": "sha512-abc"}


def archive(*members: tuple[tarfile.TarInfo, bytes], hashes: object = HASHES) -> bytes:
    said = member(".integrity.json", json.dumps(hashes).encode())
    return tar([said, *(member(name, content) for name, content in GOOD.items()), *members])


def unpack(
    ready: Path, data: bytes, *, size: int = 1 << 20, files: int = 100, room: int = 1 << 29, piece: int = 65536
) -> Facts:
    """Do as an installation does."""
    staged = Shelf(str(ready)).stage(SPEC)
    staged.begin()
    try:
        unpacker = Unpacker(SPEC, staged, Judge(size, files, room, 1 << 30), scripts=False)
        for start in range(0, len(data), piece):
            unpacker.feed(data[start : start + piece])
        facts = unpacker.finish()
        assert staged.keep(facts)
    except BaseException:
        staged.drop()
        raise
    return facts


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("piece", [1, 511, 512, 65536])
def test_what_came_is_there_and_measured(tmp_path: Path, piece: int) -> None:
    long = "node_modules/x/" + "deep/" * 30 + "file.js"
    folders = ["node_modules/x/" + "deep/" * count for count in range(1, 31)]
    data = archive(
        *(member(path.rstrip("/"), None) for path in folders),
        member(long, b"long"),
        member("node_modules/x/run.sh", b"#!/bin/sh", mode=0o6755),
        member("node_modules/x/sch\u00f6n.txt", "\u00fc".encode() * 700),
    )
    facts = unpack(tmp_path, data, piece=piece)
    place = tmp_path / SPEC.folder
    assert (place / long).read_bytes() == b"long"
    assert (place / "node_modules/x/sch\u00f6n.txt").read_text() == "\u00fc" * 700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [place, *place.rglob("*")]}
    # Neither set-uid nor anybody's right to write.
    assert modes["run.sh"] == 0o755
    assert modes["package.json"] == 0o644
    assert modes["x"] == modes["1.0.0"] == 0o755
    assert (facts.size, facts.files, facts.integrity) == (2 + 4 + 9 + 1400, 4, HASHES)
    assert Shelf(str(tmp_path)).facts(SPEC) == facts


def test_the_digest_says_names_modes_and_contents(tmp_path: Path) -> None:
    kinds = [
        archive(),
        archive(member("node_modules/x/a", b"1")),
        archive(member("node_modules/x/a", b"2")),
        archive(member("node_modules/x/b", b"1")),
        archive(member("node_modules/x/a", b"1", mode=0o755)),
        archive(hashes={}),
    ]
    digests = [unpack(tmp_path / str(number), data).digest for number, data in enumerate(kinds)]
    assert len(set(digests)) == len(kinds) - 1
    assert digests[0] == digests[-1]
    assert all(len(digest) == hashlib.sha256().digest_size * 2 for digest in digests)


LYING: dict[str, tuple[Callable[[], bytes], str]] = {
    "absolute": (lambda: archive(member("/etc/cron.d/x")), "absolute path"),
    "leaves": (lambda: archive(member("../../escape")), "leaves"),
    "leaves later": (lambda: archive(member("node_modules/x/../../../escape")), "leaves"),
    "dot": (lambda: archive(member("node_modules/./x/a")), "leaves, or that is written oddly"),
    "empty part": (lambda: archive(member("node_modules//x/a")), "written oddly"),
    "link out": (lambda: archive(member("node_modules/x/l", kind=tarfile.SYMTYPE, link="/etc/passwd")), "symbolic link"),
    "link within": (lambda: archive(member("node_modules/x/l", kind=tarfile.SYMTYPE, link="package.json")), "link"),
    "link as folder": (
        lambda: archive(
            member("node_modules/x/l", kind=tarfile.SYMTYPE, link="/tmp"), member("node_modules/x/l/a", b"1")
        ),
        "symbolic link",
    ),
    "hard link": (lambda: archive(member("node_modules/x/h", kind=tarfile.LNKTYPE, link="/etc/shadow")), "hard link"),
    "device": (lambda: archive(member("node_modules/x/d", kind=tarfile.CHRTYPE)), "a device"),
    "block device": (lambda: archive(member("node_modules/x/d", kind=tarfile.BLKTYPE)), "a device"),
    "FIFO": (lambda: archive(member("node_modules/x/f", kind=tarfile.FIFOTYPE)), "a FIFO"),
    "sparse": (lambda: archive(member("node_modules/x/s", kind=b"S")), "a sparse file"),
    "another kind": (lambda: archive(member("node_modules/x/s", kind=b"V")), "neither file nor folder"),
    "twice": (lambda: archive(member("node_modules/x/package.json", b"[]")), "twice"),
    "folder twice": (lambda: archive(member("node_modules/x", None)), "twice"),
    "file as folder": (lambda: archive(member("node_modules/x/package.json/a", b"1")), "does not hold"),
    "folder as file": (lambda: archive(member("node_modules/x", b"1")), "twice"),
    "no folder": (lambda: archive(member("node_modules/y/a", b"1")), "does not hold"),
    "long part": (lambda: archive(member("node_modules/x/" + "a" * 256)), "too long"),
    "long path": (lambda: archive(member("node_modules/" + "aaaaaaa/" * 140)), "too long"),
    "deep": (lambda: archive(member("node_modules/x/" + "a/" * 70)), "too deep"),
    "control": (lambda: archive(member("node_modules/x/a\nb")), "control character"),
    "escape": (lambda: archive(member("node_modules/x/\x1b[2J")), "control character"),
    "ours": (lambda: archive(member(FACTS, b"{}")), "the platform's own"),
    "folder with contents": (
        lambda: archive(member("node_modules/x/f", b"boo", kind=tarfile.DIRTYPE)), "folder with contents"
    ),
    "root with contents": (
        lambda: archive(member("node_modules/x/f"), member("./", b"boo" * 1000, kind=tarfile.DIRTYPE)),
        "folder with contents",
    ),
    "root as file": (lambda: archive(member("./", b"boo", kind=tarfile.REGTYPE)), "root should be"),
    "large": (lambda: archive(member("node_modules/x/l", bytes(1 << 20))), "larger than `modules.size` (1 MiB)"),
    "many": (
        lambda: archive(*(member(f"node_modules/x/{number}") for number in range(100))), "more files than `modules.files`"
    ),
    "cut": (lambda: archive()[:-20480 + 300], "ends in the middle"),
    "cut at a block": (lambda: archive()[:1024], "ends in the middle"),
    "more behind": (lambda: archive() + archive(), "goes on behind its end"),
    "zeros without end": (lambda: archive() + bytes(1 << 20), "goes on behind its end"),
    "nothing": (lambda: b"", "ends in the middle"),
    "end alone": (lambda: bytes(1024), "is empty"),
    "no tar": (lambda: b"<html>" * 400, "no tar"),
    "pax": (
        lambda: tar([member(".integrity.json", b"{}"), member("node_modules/" + "y" * 200)], tarfile.PAX_FORMAT),
        "no tar of GNU's form",
    ),
    "no hashes": (lambda: tar([member(name, content) for name, content in GOOD.items()]), "does not begin with"),
    "hashes that are none": (lambda: archive(hashes=[1]), "not JSON of names"),
    "hashes without end": (lambda: archive(hashes={str(number): "" for number in range(20_001)}), "too long"),
    "hashes twice": (lambda: archive(member(".integrity.json/a", b"{}")), "does not hold"),
    "another package": (
        lambda: tar([member(".integrity.json", b"{}"), member("node_modules", None)]),
        "does not hold `node_modules/x/package.json`",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LYING)
def test_a_lying_archive_is_refused_and_nothing_is_left_of_it(tmp_path: Path, name: str) -> None:
    make, told = LYING[name]
    ready = tmp_path / "ready"
    ready.mkdir()
    with pytest.raises(BadModule) as caught:
        unpack(ready, make(), size=1 << 20, files=100)
    assert told in str(caught.value)
    assert str(caught.value).isprintable()
    # Neither there nor beside it.
    assert everything(tmp_path) == ["ready", "ready/npm"]


def test_one_that_is_larger_than_the_room_that_is_left_says_what_makes_room(tmp_path: Path) -> None:
    data = archive(member("node_modules/x/l", bytes(600 << 10)))
    with pytest.raises(BadModule) as refused:
        unpack(tmp_path, data, room=512 << 10)
    assert "larger than what is left of `modules.keep` (512 KiB of 1 GiB): `sandpost module gc` and `rm` make" in str(
        refused.value
    )
    # Room would not help one that is too large by itself.
    with pytest.raises(BadModule, match=r"larger than `modules\.size`"):
        unpack(tmp_path, data, size=256 << 10, room=512 << 10)


def test_a_wrong_sum_and_a_number_that_is_none_are_refused(tmp_path: Path) -> None:
    for at, byte in ((0, b"X"), (124, b"\x80"), (100, b"9"), (150, b"7")):
        data = bytearray(archive())
        data[at : at + 1] = byte
        with pytest.raises(BadModule, match=r"wrong sum|number that is none"):
            unpack(tmp_path, bytes(data))


def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    data = archive(member("node_modules/x/PLACE", b""))
    at = data.index(b"node_modules/x/PLACE")
    head = bytearray(data[at : at + 512])
    head[15:20] = b"\xff\xfe\xfd\xfc\xfb"
    head[148:156] = b"%06o\0 " % (sum(head) - sum(head[148:156]) + 8 * 32)
    with pytest.raises(BadModule, match="not UTF-8"):
        unpack(tmp_path, data[:at] + bytes(head) + data[at + 512 :])


@given(st.binary(max_size=4096), st.integers(1, 700))
def test_whatever_comes_is_read_or_refused(noise: bytes, piece: int) -> None:
    whole = archive(member("node_modules/x/a", b"1" * 600))
    for data in (noise, whole[: len(noise)] + noise, whole[:700] + noise + whole[700:]):
        reader = Reader()
        with contextlib.suppress(BadTar):
            for start in range(0, len(data), piece):
                list(reader.feed(data[start : start + piece]))
            reader.finish()


@given(st.dictionaries(st.from_regex(r"[a-z]{1,120}", fullmatch=True), st.binary(max_size=2000)), st.integers(1, 5000))
def test_what_python_writes_is_read_the_same_in_any_pieces(files: dict[str, bytes], piece: int) -> None:
    data = tar(member(name, content) for name, content in files.items())
    found: dict[str, bytes] = {}
    reader, name = Reader(), ""
    for start in range(0, len(data), piece):
        for event in reader.feed(data[start : start + piece]):
            if isinstance(event, Entry):
                name = event.name.decode()
                found[name] = b""
            else:
                found[name] += event
    reader.finish()
    assert found == files


def test_what_gnu_tar_writes_with_our_options_is_read(tmp_path: Path) -> None:
    place = tmp_path / "made" / "node_modules" / "x" / ("d" * 120)
    place.mkdir(parents=True)
    (place / ("f" * 130)).write_bytes(b"content")
    (place.parent / "package.json").write_text("{}")
    os.link(place.parent / "package.json", place.parent / "again.json")
    (tmp_path / ".integrity.json").write_text("{}")
    options = ["--format=gnu", "--hard-dereference", "--sort=name", "--numeric-owner", "--owner=0", "--group=0"]
    command = ["tar", *options, "-cf", "-", "-C", str(tmp_path), ".integrity.json"]
    command += ["-C", str(tmp_path / "made"), "node_modules"]
    data = subprocess.run(command, capture_output=True, check=True, timeout=20).stdout
    facts = unpack(tmp_path / "ready", data)
    assert (facts.files, facts.size) == (3, 7 + 2 + 2)
