"""The folder of modules on the host, before the first sandbox shows it."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sandpost.model.errors import HostUnfit
from sandpost.model.host import Host
from sandpost.walls import modules
from support.installation import host_in


@pytest.fixture
def host(tmp_path: Path) -> Host:
    found = host_in(str(tmp_path))
    os.mkdir(found.state_dir)
    return found


def test_it_is_the_apis_and_open_to_read(host: Host) -> None:
    for _ in range(2):
        modules.ensure(host)
        for path in ("", "npm", "pypi"):
            found = Path(host.modules_ready, path).stat()
            assert (found.st_mode & 0o777, found.st_uid) == (0o755, host.users.api)


@pytest.mark.parametrize("path", ["modules", "modules/ready", "modules/ready/npm"])
def test_a_link_in_its_place_is_not_followed(host: Host, tmp_path: Path, path: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    place = Path(host.state_dir, path)
    place.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(elsewhere, place)
    with pytest.raises(HostUnfit, match="is no folder"):
        modules.ensure(host)
    assert (elsewhere.stat().st_mode & 0o777, elsewhere.stat().st_uid, list(elsewhere.iterdir())) == (0o700, 0, [])


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/passwd", path)])
def test_what_stands_where_a_file_of_ours_should_holds_up_nobody(host: Host, make: Callable[[Path], None]) -> None:
    modules.ensure(host)
    keep = Path(host.modules_ready, "npm/.keep")
    keep.unlink()
    make(keep)
    with pytest.raises(HostUnfit, match=r"npm/\.keep is no file"):
        modules.ensure(host)


def test_the_api_can_put_nothing_else_in_its_place(host: Host) -> None:
    """Root mounts it into every sandbox: a link of a taken-over api's would show the host's files there."""
    modules.ensure(host)
    os.chmod(host.state_dir, 0o755)
    for above in Path(host.state_dir).parents:
        if above.stat().st_uid == 0 and str(above).startswith("/tmp/"):
            os.chmod(above, 0o755)

    def attempt() -> str:
        os.setresuid(host.users.api, host.users.api, host.users.api)
        # What is its work goes on.
        os.mkdir(f"{host.modules_ready}/npm/own")
        os.close(os.open(host.modules_lock, os.O_RDWR))
        done = []
        ways: dict[str, Callable[[], object]] = {
            "renamed": lambda: os.rename(host.modules_ready, f"{host.modules_dir}/aside"),
            "made a link": lambda: os.symlink("/etc", f"{host.modules_dir}/link"),
            "removed the lock": lambda: os.unlink(host.modules_lock),
        }
        for what, how in ways.items():
            with contextlib.suppress(PermissionError):
                how()
                done.append(what)
        return ", ".join(done) or "nothing"

    assert in_child(attempt) == "nothing"


def in_child(work: Callable[[], str]) -> str:
    """What `work` returns in a process of its own."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = work()
        except BaseException as error:
            said = repr(error)
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        said = file.read().decode()
    os.waitpid(pid, 0)
    return said
