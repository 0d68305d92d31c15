"""The real ufw, firewalld and Docker, run in a place of a lab: a Debian of their own, of which nothing is kept.

Their files are a copy on write of what `scripts/build-firewalls` made, their mounts and processes in namespaces that
end with them, their network is the lab's.
"""

import contextlib
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from sandpost.config.machine import cgroup_roots
from support.lab import Place

ROOT = Path(__file__).parents[2]
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_FIRST = """
set -e
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
cd "$2/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /sys/fs/cgroup sys/fs/cgroup
mount -t tmpfs -o mode=755 dev dev
for node in null,3 zero,5 full,7 random,8 urandom,9; do
    mknod -m 666 "dev/${node%,*}" c 1 "${node#*,}"
done
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=755 run run
mkdir run/lock run/dbus
pivot_root . mnt
umount -l /mnt
echo ready
exec cat
"""
"""The first process: it ends when nobody has its input open any more, and all others with it."""


@cache
def debian() -> str:
    """Return where the Debian with the firewalls lies, made now if it is not there; without it the test fails."""
    done = subprocess.run([ROOT / "scripts" / "build-firewalls"], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.fail(f"`scripts/build-firewalls` did not make a Debian with firewalls: {done.stderr[-2000:]}")
    return done.stdout.strip()


class Machine:
    """That Debian at work in a place. `command` and `start` run its programs."""

    def __init__(self, place: Place, folder: Path, first: int) -> None:
        self.place = place
        self.folder = folder
        self.group = f"sandpost-test-{secrets.token_hex(4)}"
        self._enter = ["nsenter", f"--target={first}", "--mount", "--pid", "--root", "--wd"]

    def run(self, *command: str, check: bool = True, patience: float = 60) -> str:
        """Run a program of it; return what it printed."""
        done = self.place.run(
            lambda: subprocess.run(
                [*self._enter, "env", "-i", f"PATH={_PATH}", "LANG=C.UTF-8", *command],
                capture_output=True, text=True, timeout=patience, check=False, stdin=subprocess.DEVNULL,
            )
        )  # fmt: skip
        assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def type(self, command: str) -> str:
        """Run a line as its operator types it."""
        return self.run("sh", "-c", command)

    def start(self, name: str, *command: str) -> "subprocess.Popen[bytes]":
        """Start a program that stays; what it prints goes to `log(name)`."""
        with (self.folder / f"{name}.log").open("wb") as log:
            return self.place.start(
                [*self._enter, "env", "-i", f"PATH={_PATH}", "LANG=C.UTF-8", *command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def log(self, name: str) -> str:
        """What a program that stays has printed."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def shim(self, program: str, folder: Path) -> None:
        """Make one of its programs a command in `folder` for whoever is not in it."""
        path = folder / program
        path.write_text(f'#!/bin/sh\nexec {shlex.join(self._enter)} {program} "$@"\n')
        path.chmod(0o755)

    def container(self, name: str, port: str) -> None:
        """Start a container that serves a page, published at a port of the host; Docker runs."""
        self.type(
            "mkdir -p /box/bin /box/www && cp /bin/busybox /box/bin/ && ln -sf busybox /box/bin/sh && "
            "ln -sf busybox /box/bin/nc && echo hello from a container >/box/www/index.html && "
            "tar -C /box -c . | docker import - box"
        )
        self.run("docker", "run", "-d", "--name", name, "-p", f"{port}:80", "box",
                 "/bin/busybox", "httpd", "-f", "-p", "80", "-h", "/www")  # fmt: skip


@contextlib.contextmanager
def firewalld(their: Machine) -> Iterator[None]:
    """Firewalld at work, on a bus of its own, as Debian sets it up."""
    with _running(their, "dbus-daemon", "--system", "--nofork", "--nopidfile"):
        _until(lambda: "org.freedesktop.DBus" in their.run("dbus-send", "--system", "--print-reply",
               "--dest=org.freedesktop.DBus", "/", "org.freedesktop.DBus.ListNames", check=False))  # fmt: skip
        with _running(their, "firewalld", "--nofork", "--nopid"):
            _until(lambda: their.run("firewall-cmd", "--state", check=False).strip() == "running")
            yield


@contextlib.contextmanager
def docker(their: Machine) -> Iterator[None]:
    """Docker at work, as Debian sets it up but for where it keeps layers and groups."""
    groups = ["--exec-opt", "native.cgroupdriver=cgroupfs", f"--cgroup-parent=/{their.group}"]
    with _running(their, "dockerd", "--storage-driver=vfs", *groups):
        _until(lambda: "Server:" in their.run("docker", "version", check=False))
        yield
        their.type("docker ps -q | xargs -r docker rm -f")


@contextlib.contextmanager
def _running(their: Machine, *command: str) -> Iterator[None]:
    process = their.start(command[0], *command)
    try:
        yield
        assert process.poll() is None, their.log(command[0])
    except BaseException:
        print(their.log(command[0])[-5000:])
        raise
    finally:
        # The program, not `nsenter`, which waits for it: nobody else can, and its namespaces end when all are waited for.
        for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            os.kill(int(pid), signal.SIGTERM)
        process.wait(60)


def _until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@contextlib.contextmanager
def machine(place: Place) -> Iterator[Machine]:
    """Their Debian in a place; all of its processes and mounts end with it."""
    folder = Path(tempfile.mkdtemp(prefix="sandpost-firewalls-"))
    for name in ("upper", "work", "root"):
        (folder / name).mkdir()
    command = ["unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "sh", "-c", _FIRST]
    holder = place.start(
        [*command, "sh", debian(), str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"ready\n"
        (first,) = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()
        made = Machine(place, folder, int(first))
        try:
            yield made
        finally:
            holder.stdin.close()
            holder.wait(30)
            for root in cgroup_roots():
                for group, _, _ in os.walk(os.path.join(root, made.group), topdown=False):
                    os.rmdir(group)
    finally:
        holder.kill()
        holder.wait(10)
        holder.stdout.close()
        shutil.rmtree(folder)
