"""Modules installed by a whole installation from real registry servers, in sandboxes behind the real walls."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.running import node_binary

from sandpost.model.names import BUILDER
from support import module_world, registries
from support.lab import PUBLIC
from support.logs import until_said
from support.module_world import World
from support.registries import npm_archive, npm_package, wheel
from support.waiting import until

CONNECTS = (
    "node -e \"const s=require('net').connect({port:80,host:'PLACE',timeout:3000});"
    "const say=(w)=>{require('fs').appendFileSync('seen.txt',w+' ');s.destroy()};"
    "s.on('connect',()=>s.write('who\\n')).on('data',(d)=>say(String(d).slice(0,12).replace(' ','_'))).on('error',(e)=>say(e.code))"
    ".on('end',()=>say('ended')).on('timeout',()=>say('silent'))\""
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("registries")
    with module_world.world(folder, modules_size="32MiB", modules_memory="256MiB") as made:
        yield made


def test_a_package_of_npm_with_what_it_depends_on_is_as_it_was_published(world: World) -> None:
    place = world.there("npm:debug@4.4.1")
    assert sorted(os.listdir(place / "node_modules")) == ["debug", "ms"]
    for name, version in (("debug", "4.4.1"), ("ms", "2.1.3")):
        archive = (registries.real_packages() / f"{name}-{version}.tgz").read_bytes()
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            wanted = {one.name.removeprefix("package/"): one for one in tar.getmembers() if one.isfile()}
            for path, one in wanted.items():
                file = tar.extractfile(one)
                assert file is not None
                assert (place / "node_modules" / name / path).read_bytes() == file.read()
        kept = [one for one in (place / "node_modules" / name).rglob("*") if one.is_file()]
        assert len(kept) == len(wanted)
    program = f"console.log(require({str(place / 'node_modules/debug')!r}).humanize(60000))"
    assert subprocess.run([node_binary(), "-e", program], capture_output=True, check=True, text=True).stdout == "1m\n"
    shown = json.loads(world.platform.command("module", "show", "npm:debug@4.4.1", "--json").stdout)
    assert sorted(shown["integrity"]) == ["debug@4.4.1", "ms@2.1.3"]
    assert all(one.startswith("sha512-") for one in shown["integrity"].values())


def test_a_package_of_pypi_is_importable_with_what_it_depends_on(world: World) -> None:
    place = world.there("pypi:httpx==0.28.1")
    code = f"import sys; sys.path.insert(0, {str(place)!r}); import httpx; print(httpx.__version__, httpx.__file__)"
    done = subprocess.run([sys.executable, "-I", "-B", "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout == f"0.28.1 {place}/httpx/__init__.py\n"
    # Compiled where nobody can write later, whatever the date of the source.
    assert list(place.glob("httpx/__pycache__/*.pyc"))
    assert not (place / "bin").exists()
    [shown] = [json.loads(world.platform.command("module", "show", "pypi:httpx==0.28.1", "--json").stdout)]
    assert all(one.startswith("sha256:") and len(one) == 71 for one in shown["integrity"].values())
    assert len(shown["integrity"]) == 7


def test_what_a_registry_does_not_have_is_told(world: World) -> None:
    assert "the registry has no such version" in world.failed("npm:lodash@9.9.9")
    assert "the registry has no such version" in world.failed("npm:nothing-of-this-name@1.0.0")
    assert "the index has no such version" in world.failed("pypi:nothing-of-this-name==1.0")


@pytest.mark.long
def test_lodash_is_there(world: World) -> None:
    place = world.there("npm:lodash@4.17.21")
    code = f"console.log(require({str(place / 'node_modules/lodash')!r}).chunk([1,2,3],2).length)"
    assert subprocess.run([node_binary(), "-e", code], capture_output=True, check=True, text=True).stdout == "2\n"


@pytest.mark.long
def test_a_package_that_depends_on_itself_is_installed_once(world: World) -> None:
    # Its command would be a link, which no module has.
    looped = {"dependencies": {"selfish": "^1.0.0"}, "bin": {"selfish": "index.js"}}
    world.npm.publish("selfish", "1.0.0", *npm_package("selfish", "1.0.0", **looped))
    assert os.listdir(world.there("npm:selfish@1.0.0") / "node_modules") == ["selfish"]
    world.pypi.publish(*wheel("selfpy", "1.0", {"selfpy.py": "x = 1\n"}, ["selfpy>=1"]))
    assert (world.there("pypi:selfpy==1.0") / "selfpy.py").exists()


@pytest.mark.long
def test_install_scripts_run_where_they_are_allowed_and_reach_the_registry_alone(world: World) -> None:
    scripts = {"install": f"{CONNECTS.replace('PLACE', PUBLIC)}; {CONNECTS.replace('PLACE', '10.0.0.5')}"}
    world.npm.publish("curious", "1.0.0", *npm_package("curious", "1.0.0", scripts=scripts))
    world.npm.publish("above", "1.0.0", *npm_package("above", "1.0.0", dependencies={"curious": "1.0.0"}))
    assert not (world.there("npm:curious@1.0.0") / "node_modules/curious/seen.txt").exists()
    # The flag is for the package itself, not for those that it depends on.
    assert not (world.there("npm:above@1.0.0", "--scripts") / "node_modules/curious/seen.txt").exists()
    assert world.platform.command("module", "rm", "npm:curious@1.0.0").returncode == 0
    seen = (world.there("npm:curious@1.0.0", "--scripts") / "node_modules/curious/seen.txt").read_text().split()
    # Each was refused, by the gate in its own words or by the firewall; whom a lab's server answers gets JSON.
    assert len(seen) >= 2
    assert all(word.startswith(("HTTP/1.1_403", "E", "ended")) for word in seen), seen


@pytest.mark.long
def test_what_a_script_leaves_besides_files_is_refused(world: World) -> None:
    for name, made, told in (("links", "ln -s /etc/passwd x", "symbolic link"), ("fifos", "mkfifo x", "a FIFO")):
        world.npm.publish(name, "1.0.0", *npm_package(name, "1.0.0", scripts={"install": made}))
        assert told in world.failed(f"npm:{name}@1.0.0", "--scripts")


@pytest.mark.long
def test_an_archive_with_links_and_paths_out_brings_nothing_out(world: World) -> None:
    manifest = '{"name":"lying","version":"1.0.0"}'
    archive = npm_archive(
        {"package.json": manifest, "../../../../../etc/escaped": "x", "/tmp/absolute": "x"}, {"out": "/etc/passwd"}
    )
    world.npm.publish("lying", "1.0.0", archive, json.loads(manifest))
    [one] = world.add("npm:lying@1.0.0").values()
    if one["state"] == "available":
        place = world.place("npm:lying@1.0.0")
        assert not [path for path in place.rglob("*") if path.is_symlink()]
        assert all(path.resolve().is_relative_to(place) for path in place.rglob("*"))
    assert not Path("/etc/escaped").exists()
    assert not Path("/tmp/absolute").exists()


@pytest.mark.long
def test_a_build_that_fails_says_what_it_said(world: World) -> None:
    broken = npm_package("broken", "1.0.0", scripts={"install": "echo no compiler here; exit 3"})
    world.npm.publish("broken", "1.0.0", *broken)
    assert "cannot be installed" in world.failed("npm:broken@1.0.0", "--scripts")
    until_said(world.platform.host.logs_dir, BUILDER, "no compiler here", 15)


@pytest.mark.long
def test_a_package_without_a_wheel_is_built_where_that_is_allowed(world: World) -> None:
    setuptools = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(world.pypi.wheels)]
    subprocess.run([*setuptools, "setuptools==84.2.1"], check=True, timeout=100)
    good = "from setuptools import setup\nsetup(name='sourced', version='1.0', py_modules=['sourced'])\n"
    for name, setup in (("sourced", good), ("badsource", "raise SystemExit('no compiler here')\n")):
        world.pypi.publish(f"{name}-1.0.tar.gz", source(name, setup))
    assert "`--scripts` lets it be built" in world.failed("pypi:sourced==1.0")
    assert (world.there("pypi:sourced==1.0", "--scripts") / "sourced.py").read_text() == "y = 2\n"
    assert "no compiler here" in world.failed("pypi:badsource==1.0", "--scripts")


def source(name: str, setup: str) -> bytes:
    made = io.BytesIO()
    files = {
        "setup.py": setup,
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{name}.py": "y = 2\n",
    }
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for path, text in files.items():
            info = tarfile.TarInfo(f"{name}-1.0/{path}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return made.getvalue()


@pytest.mark.long
def test_what_is_too_large_ends_its_installation_and_nothing_else(world: World) -> None:
    # 3 GiB in a builder of 256 MiB; then what fits there, and not on the shelf.
    world.npm.publish("huge", "1.0.0", registries.zeros("huge", 3 << 30))
    reason = world.failed("npm:huge@1.0.0")
    assert "`modules.memory`" in reason
    world.npm.publish("large", "1.0.0", registries.zeros("large", 40 << 20))
    assert "larger than `modules.size` (32 MiB)" in world.failed("npm:large@1.0.0")
    assert world.platform.call("acme", "return (cb) => cb(null, 1)").json == 1


@pytest.mark.long
@pytest.mark.parametrize("place", ["far.example.com", "203.0.113.9"])
def test_a_package_that_fetches_from_elsewhere_names_the_place(world: World, place: str) -> None:
    name = f"elsewhere-{place}"
    manifest = npm_package(name, "1.0.0", dependencies={"far": f"http://{place}/far.tgz"})
    world.npm.publish(name, "1.0.0", *manifest)
    reason = f"it fetches from {place}, which is not the registry: add that to `modules.hosts` if you trust it"
    assert world.failed(f"npm:{name}@1.0.0") == reason


@pytest.mark.long
def test_a_registry_that_is_away_is_waited_for(world: World) -> None:
    world.npm.stop()
    done = world.platform.command("module", "add", "npm:ms@2.1.3", "--no-wait", "--json")
    assert json.loads(done.stdout)[0]["state"] == "queued"

    def reason() -> str:
        return str(json.loads(world.platform.command("module", "show", "npm:ms@2.1.3", "--json").stdout)["reason"])

    try:
        until(lambda: "next try in" in reason(), "it says when it tries again", 60)
        assert "the registry does not answer" in reason()
        # The gate takes a connection before it has one itself.
        assert "ECONNRESET" in reason()
    finally:
        world.npm.start()
    assert world.there("npm:ms@2.1.3").exists()


@pytest.mark.long
@pytest.mark.parametrize("part", ["api", "controller", "egress", "proxy"])
def test_a_killed_part_costs_an_installation_time_alone(world: World, part: str) -> None:
    running = world.platform
    name = f"survivor-{part}"
    world.npm.publish(name, "1.0.0", *npm_package(name, "1.0.0", dependencies={"lodash": "4.17.21"}))
    assert running.command("module", "add", f"npm:{name}@1.0.0", "--no-wait").returncode == 0
    time.sleep(0.7)
    for pid in running.pids(part):
        os.kill(pid, signal.SIGKILL)
    until(lambda: running.command("module", "ls").returncode == 0, "the api is back", 30)
    place = world.there(f"npm:{name}@1.0.0")
    assert sorted(os.listdir(place / "node_modules")) == ["lodash", name]
    assert not list(Path(running.host.modules_ready).rglob(".new-*"))
