"""The shelf: a version appears whole by one rename and goes by one, also where its process dies at any of its steps."""

import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modules.test_module_archives import SPEC, archive, everything, unpack
from sandpost.api.modules.recovery import available, recovered
from sandpost.model.modules import FACTS, Facts, ModuleRecord
from sandpost.model.specs import Spec
from sandpost.modules.judge import Judge
from sandpost.modules.shelf import Shelf
from sandpost.modules.unpack import Unpacker
from sandpost.store.sqlite import SqliteWriter
from support.archives import member

DATA = archive(member("node_modules/x/lib", None), member("node_modules/x/lib/a.js", b"a" * 3000))
WHOLE = {
    "node_modules", "node_modules/x", "node_modules/x/package.json", "node_modules/x/lib", "node_modules/x/lib/a.js", FACTS
}  # fmt: skip
STEPS = ("mkdir", "open", "write", "fsync", "chmod", "rename", "rmdir", "unlink")
"""Calls that change something; a process is killed right before one of them."""


def names(folder: Path) -> set[str]:
    return set(everything(folder))


def test_a_version_cannot_be_seen_before_it_is_whole(tmp_path: Path) -> None:
    shelf = Shelf(str(tmp_path))
    staged = shelf.stage(SPEC)
    staged.begin()
    unpacker = Unpacker(SPEC, staged, Judge(1 << 20, 100, 1 << 20, 1 << 20), scripts=False)
    unpacker.feed(DATA)
    assert list(shelf.versions()) == []
    assert shelf.facts(SPEC) is None
    [aside] = (tmp_path / "npm/x").iterdir()
    assert aside.name.startswith(".new-")
    # Nobody but its owner enters it.
    assert stat.S_IMODE(aside.stat().st_mode) == 0o700
    assert staged.keep(unpacker.finish())
    assert list(shelf.versions()) == [SPEC]
    assert names(tmp_path / SPEC.folder) == WHOLE
    assert [path.name for path in (tmp_path / "npm/x").iterdir()] == ["1.0.0"]


def test_what_is_removed_is_gone_and_open_files_of_it_go_on(tmp_path: Path) -> None:
    shelf = Shelf(str(tmp_path))
    scoped = Spec("npm", "@scope/x", "2.0.0")
    unpack(tmp_path, DATA)
    staged = shelf.stage(scoped)
    staged.begin()
    assert staged.keep(facts_of(scoped))
    assert set(shelf.versions()) == {SPEC, scoped}
    with open(tmp_path / SPEC.folder / "node_modules/x/lib/a.js", "rb") as file:
        assert shelf.remove(SPEC)
        assert file.read() == b"a" * 3000
    assert not shelf.remove(SPEC)
    assert shelf.remove(scoped)
    # The registries' own folders stay: some sandboxes look no further up.
    assert everything(tmp_path) == ["npm"]
    shelf.sweep()
    assert everything(tmp_path) == ["npm"]
    shelf.make()
    shelf.make()
    assert everything(tmp_path) == ["npm", "pypi"]


def test_the_first_of_two_stays(tmp_path: Path) -> None:
    first = unpack(tmp_path, DATA)
    shelf = Shelf(str(tmp_path))
    second = shelf.stage(SPEC)
    second.begin()
    second.file("other", runs=False)
    assert not second.keep(facts_of(SPEC))
    assert shelf.facts(SPEC) == first
    assert names(tmp_path / SPEC.folder) == WHOLE


def test_folders_that_are_no_version_are_passed_by(tmp_path: Path) -> None:
    for name in (
        "npm/x/latest",
        "npm/x/1.0",
        "npm/.new-1/1.0.0",
        "npm/@a/1.0.0",
        "pypi/X/1.0",
        "pypi/x/1.0.dev",
        "gem/x/1.0.0",
    ):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "npm/y").mkdir()
    (tmp_path / "npm/y/1.0.0").write_text("a file")
    (tmp_path / "npm/z").symlink_to("/etc")
    assert list(Shelf(str(tmp_path)).versions()) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", msgspec.json.encode({"spec": "npm:y@1.0.0"}), b"\xff" * 10])
def test_facts_that_are_none_or_anothers_are_none(tmp_path: Path, content: bytes) -> None:
    unpack(tmp_path, DATA)
    (tmp_path / SPEC.folder / FACTS).write_bytes(content)
    assert Shelf(str(tmp_path)).facts(SPEC) is None


def facts_of(spec: Spec) -> Facts:
    return Facts(spec=str(spec), size=1, files=1, digest="d", integrity={}, scripts=False, done_at=5.0)


# --- killed -------------------------------------------------------------------------------------------------------


def install(ready: Path, store: Path) -> None:
    """What the api does from the first byte of an archive to the row, and a removal behind it."""
    writer = SqliteWriter(str(store))
    facts = unpack(ready, DATA)
    record = ModuleRecord(spec=str(SPEC), asked_at=1.0)
    writer.put_modules([available(record, facts)])
    writer.close()


def remove(ready: Path, store: Path) -> None:
    writer = SqliteWriter(str(store))
    writer.remove_modules([str(SPEC)])
    Shelf(str(ready)).remove(SPEC)
    writer.close()


def start(ready: Path, store: Path) -> list[ModuleRecord]:
    """What a start does; return what the table says then."""
    shelf, writer = Shelf(str(ready)), SqliteWriter(str(store))
    shelf.sweep()
    there = {str(spec): facts for spec in shelf.versions() if (facts := shelf.facts(spec)) is not None}
    writer.put_modules(recovered(writer.modules(), there, 9.0))
    assert recovered(writer.modules(), there, 9.0) == []
    found = writer.modules()
    writer.close()
    return found


def killed_at(step: int, work: Callable[[Path, Path], None], ready: Path, store: Path) -> bool:
    """Do `work` in a process that is killed right before its `step`-th change; whether it was."""
    pid = os.fork()
    if pid == 0:
        left = step

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **options: Any) -> Any:
                nonlocal left
                if real is not os_open or args[1] & os.O_CREAT:
                    left -= 1
                    if left == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **options)

            return call

        os_open = os.open
        for name in STEPS:
            setattr(os, name, counted(getattr(os, name)))
        try:
            work(ready, store)
        except BaseException:
            os._exit(2)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in {0, -signal.SIGKILL}, status
    return status != 0


def test_an_installation_killed_at_any_step_is_whole_or_asked_for_still(tmp_path: Path) -> None:
    seen = set()
    for step in range(1, 1000):
        ready, store = tmp_path / str(step) / "ready", tmp_path / str(step) / "store.db"
        ready.mkdir(parents=True)
        writer = SqliteWriter(str(store))
        writer.put_modules([ModuleRecord(spec=str(SPEC), asked_at=1.0)])
        writer.close()
        was_killed = killed_at(step, install, ready, store)
        [record] = start(ready, store)
        seen.add(record.state)
        if record.state == "available":
            assert names(ready) == {"npm", "npm/x", SPEC.folder, *(f"{SPEC.folder}/{name}" for name in WHOLE)}
            assert record.digest == unpack(tmp_path / "again" / str(step), DATA).digest
            assert record.integrity == {"x@1.0.0": "sha512-abc"}
        else:
            assert record.state == "queued"
            assert not any(path.is_file() for path in ready.rglob("*"))
            assert list(Shelf(str(ready)).versions()) == []
            # And what is asked for still can be had.
            install(ready, store)
            assert [one.state for one in start(ready, store)] == ["available"]
        if not was_killed:
            break
    assert seen == {"queued", "available"}
    # mkdirs, files, writes, flushes, one rename ..: it was killed at each of them.
    assert step > 20


def test_a_removal_killed_at_any_step_took_all_or_nothing(tmp_path: Path) -> None:
    for step in range(1, 1000):
        ready, store = tmp_path / str(step) / "ready", tmp_path / str(step) / "store.db"
        ready.mkdir(parents=True)
        install(ready, store)
        was_killed = killed_at(step, remove, ready, store)
        found = start(ready, store)
        if found:
            assert [one.state for one in found] == ["available"]
            assert names(ready / SPEC.folder) == WHOLE
        else:
            assert not any(path.is_file() for path in ready.rglob("*"))
        if not was_killed:
            break
    assert step > 5


def test_a_row_without_its_folder_is_asked_for_again_and_a_folder_without_its_row_is_taken_up(tmp_path: Path) -> None:
    gone = ModuleRecord(
        spec="npm:gone@1.0.0", state="available", asked_at=1.0, done_at=2.0, size=5, files=1, digest="d"
    )
    failed = ModuleRecord(spec="npm:y@1.0.0", state="failed", reason="no", asked_at=1.0)
    there = {str(SPEC): facts_of(SPEC), "npm:y@1.0.0": facts_of(Spec("npm", "y", "1.0.0"))}
    changed = recovered([gone, failed], there, 500.0)
    # As if it was asked for now: it has not been waited for since then.
    assert [one.asked_at for one in changed if one.state == "queued"] == [500.0]
    states = {one.spec: (one.state, one.reason, one.size) for one in changed}
    assert states == {
        "npm:gone@1.0.0": ("queued", "its folder was gone", 0),
        str(SPEC): ("available", "", 1),
        "npm:y@1.0.0": ("available", "", 1),
    }
