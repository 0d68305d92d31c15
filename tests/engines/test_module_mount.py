"""The store of modules inside a sandbox: seen at once, and only seen."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from engines.test_system_calls import flushes
from support.engine_bed import Bed, Sandbox

LOOK = "const fs = require('fs'); const code = (work) => { try { return work(); } catch (e) { return e.code; } };"


def put(bed: Bed, name: str, text: str, version: str = "1.0.0") -> Path:
    """Lay a version of a module of npm down as the platform does: whole, by one rename."""
    made = Path(bed.host.state_dir, "making")
    package = made / "node_modules" / name
    package.mkdir(parents=True)
    (package / "index.js").write_text(text)
    target = Path(bed.host.modules_ready, "npm", name, version)
    target.parent.mkdir(parents=True, exist_ok=True)
    made.rename(target)
    return target


def listed(box: Sandbox, path: str) -> object:
    return box.call(f"{LOOK} return code(() => fs.readdirSync({path!r}));")


def test_a_version_that_comes_is_seen_at_once_and_one_that_goes_too(bed: Bed) -> None:
    async def body() -> None:
        box = await bed.make()
        assert listed(box, "/modules") == ["npm", "pypi"]
        assert listed(box, "/modules/npm") == [".keep"]
        target = put(bed, "comes", "exports.said = 'one'")
        try:
            assert listed(box, "/modules/npm") == [".keep", "comes"]
            assert listed(box, "/modules/npm/comes") == ["1.0.0"]
            path = "/modules/npm/comes/1.0.0/node_modules/comes/index.js"
            assert box.call(f"return require('fs').readFileSync({path!r}, 'utf8')") == "exports.said = 'one'"
            put(bed, "comes", "exports.said = 'two'", "1.0.1")
            assert sorted(box.call("return require('fs').readdirSync('/modules/npm/comes')")) == ["1.0.0", "1.0.1"]
            shutil.rmtree(target)
            assert listed(box, "/modules/npm/comes") == ["1.0.1"]
        finally:
            shutil.rmtree(target.parent)

    asyncio.run(body())


def test_a_version_that_went_can_come_again(bed: Bed) -> None:
    async def body() -> None:
        box = await bed.make()
        for _ in range(2):
            target = put(bed, "again", "exports.said = 'one'")
            path = "/modules/npm/again/1.0.0/node_modules/again/index.js"
            assert listed(box, "/modules/npm/again") == ["1.0.0"]
            assert box.call(f"return require('fs').readFileSync({path!r}, 'utf8')") == "exports.said = 'one'"
            shutil.rmtree(target)
            assert listed(box, "/modules/npm/again") == []
        # With the last module of npm its folder stays.
        target.parent.rmdir()
        with pytest.raises(OSError, match="not empty"):
            target.parent.parent.rmdir()

    asyncio.run(body())


def test_nothing_can_be_written_there(bed: Bed) -> None:
    async def body() -> None:
        target = put(bed, "kept", "exports.said = 'kept'")
        target.joinpath("loose").write_text("")
        target.joinpath("loose").chmod(0o666)
        try:
            box = await bed.make()
            top = "/modules/npm/kept/1.0.0"
            seen = box.call(
                f"""{LOOK} const top = {top!r};
                return [
                  code(() => fs.writeFileSync('/modules/x', '')), code(() => fs.writeFileSync('/modules/npm/x', '')),
                  code(() => fs.mkdirSync(top + '/x')), code(() => fs.writeFileSync(top + '/loose', 'x')),
                  code(() => fs.chmodSync(top + '/loose', 0o777)), code(() => fs.unlinkSync(top + '/loose')),
                  code(() => fs.renameSync(top, '/modules/npm/kept/2.0.0')), code(() => fs.utimesSync(top + '/loose', 1, 1)),
                  code(() => fs.linkSync(top + '/loose', '/tmp/loose')), code(() => fs.symlinkSync('/tmp', top + '/x')),
                ];"""
            )
            assert set(seen) <= {"EROFS", "EXDEV", "EPERM", "EACCES"}, seen
            assert target.joinpath("loose").read_text() == ""
        finally:
            shutil.rmtree(target.parent)

    asyncio.run(body())


def test_a_link_in_it_leads_to_no_file_of_the_hosts(bed: Bed) -> None:
    async def body() -> None:
        secret = Path(bed.host.state_dir, "secret")
        secret.write_text("the host's own")
        secret.chmod(0o644)
        target = put(bed, "leads", "")
        os.symlink(secret, target / "out")
        os.symlink("../" * 12 + str(secret)[1:], target / "up")
        os.symlink("/proc/1/root" + str(secret), target / "through")
        os.symlink("/etc/hostname", target / "name")
        try:
            box = await bed.make()
            seen = box.call(
                f"{LOOK} return ['out', 'up', 'through', 'name'].map("
                "(n) => code(() => fs.readFileSync('/modules/npm/leads/1.0.0/' + n, 'utf8')));"
            )
            assert all(code in {"ENOENT", "EACCES", "EPERM"} for code in seen[:3]), seen
            assert seen[3] == "sandbox\n"
        finally:
            shutil.rmtree(target.parent)
            secret.unlink()

    asyncio.run(body())


def test_a_program_that_waits_for_the_disk_of_a_module_makes_no_disk_flush(bed: Bed) -> None:
    async def body() -> None:
        target = put(bed, "flushed", "exports.said = 1")
        try:
            box = await bed.make()
            path = "/modules/npm/flushed/1.0.0/node_modules/flushed/index.js"
            before = flushes()
            assert await asyncio.to_thread(
                box.call,
                f"const fs = require('fs'), fd = fs.openSync({path!r}, 'r');"
                " for (let n = 0; n < 100; n++) { fs.fsyncSync(fd); fs.fdatasyncSync(fd); } return 1",
            ) == 1  # fmt: skip
            # Others on the machine flush too, though not two hundred times.
            assert flushes() - before < 100
        finally:
            shutil.rmtree(target.parent)

    asyncio.run(body())
