"""Looks at the host as root: whatever carries the installation's names must belong to a sandbox that lives."""

import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import msgspec

from sandpost.model.host import IDS_PER_SANDBOX, Host
from sandpost.selftest.case import Untried

_ID = re.compile("[0-9a-f]{12}")
_SETTLE = 10.0
"""Seconds within which an ended sandbox is removed, with room for a host that is busy."""


class _Known(msgspec.Struct):
    """What is needed of a controller's record of a sandbox."""

    sandbox_id: str
    group_id: str
    slot: int
    pid: int


class Look:
    """See the module. `Untried` if this is not root, or not the host."""

    def __init__(self, host: Host) -> None:
        if os.geteuid() != 0:
            raise Untried("only root sees what is left on the host")
        self._host = host

    @contextmanager
    def listener(self) -> Iterator[int]:
        """Listen on all of the host's addresses, at the port given."""
        with socket.socket() as sock:
            sock.bind(("", 0))
            sock.listen()
            port: int = sock.getsockname()[1]
            yield port

    def addresses(self) -> list[str]:
        """Return the host's own IPv4 addresses, loopback's left out."""
        lines = Path("/proc/net/fib_trie").read_text("ascii").splitlines()
        found = {above.split()[1] for above, line in pairwise(lines) if line.split()[-2:] == ["host", "LOCAL"]}
        return sorted(one for one in found if not one.startswith("127."))

    def file(self, path: str) -> bytes:
        """Return a file of the host's, empty if there is none."""
        try:
            return Path(path).read_bytes()
        except OSError:
            return b""

    def mentions(self, text: str) -> list[str]:
        """Return the streams of the log bus in which `text` stands."""
        top = Path(self._host.logs_dir)
        files = [path for path in top.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]
        return sorted({path.relative_to(top).parts[0] for path in files})

    def users(self, sandbox_id: str) -> tuple[set[int], list[str]]:
        """Return the host users that a sandbox's processes run as, and which other sandboxes run as one of them."""
        known = self._known()
        space = os.readlink(f"/proc/{known[sandbox_id].pid}/ns/pid")
        mine = set()
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError):
                if os.readlink(f"/proc/{pid}/ns/pid") == space:
                    mine.add(os.stat(f"/proc/{pid}").st_uid)
        others = []
        for name, one in known.items():
            with suppress(OSError):
                if name != sandbox_id and os.stat(f"/proc/{one.pid}").st_uid in mine:
                    others.append(name)
        return mine, others

    def kernel_memory(self) -> int:
        """Return the bytes that the host's kernel has in use for objects of its own and for sockets' buffers."""
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text("ascii").splitlines())
        sockets = Path("/proc/net/sockstat").read_text("ascii")
        pages = re.findall(r"^(?:TCP|UDP): .* mem ([0-9]+)$", sockets, re.MULTILINE)
        return int(fields["SUnreclaim"].split()[0]) * 1024 + sum(map(int, pages)) * os.sysconf("SC_PAGE_SIZE")

    def strangers(self, namespaces: Mapping[str, str], sandbox_id: str) -> list[str]:
        """Return the processes, but those of this sandbox, that are in one of these namespaces (kind to `kind:[n]`)."""
        mine = self._known()[sandbox_id].slot
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError):
                if self._slot_of(os.stat(f"/proc/{pid}").st_uid) != mine:
                    shared = [
                        kind for kind, name in namespaces.items() if os.readlink(f"/proc/{pid}/ns/{kind}") == name
                    ]
                    found += [f"{kind} of process {pid}" for kind in shared]
        return found

    def strays(self) -> list[str]:
        """Return what belongs to no sandbox any more; what is on its way out is waited for."""
        patience = time.monotonic() + _SETTLE
        found = self._look()
        while found and time.monotonic() < patience:
            time.sleep(0.1)
            found = self._look()
        return found

    def _look(self) -> list[str]:
        # Records are read last: what stands now had its record before, or has one yet.
        seen = [
            *self._groups(), *self._interfaces(), *self._owners(), *self._folders(), *self._states(), *self._mounts(),
            *self._elements(), *self._files(),
        ]  # fmt: skip
        known = self._known()
        names = {
            *known, *(f"t-{one.group_id}" for one in known.values()), *(f"s-{name}" for name in known),
            *(f"{self._host.interface_prefix}{one.slot:x}" for one in known.values()),
            *(f"slot {one.slot}" for one in known.values()),
        }  # fmt: skip
        return [f"{kind} {name}" for kind, name in seen if name not in names]

    def _known(self) -> dict[str, _Known]:
        found = {}
        for path in Path(self._host.path("records")).glob("*.json"):
            try:
                known = msgspec.json.decode(path.read_bytes(), type=_Known)
            except FileNotFoundError:
                continue
            found[known.sandbox_id] = known
        return found

    def _groups(self) -> Iterator[tuple[str, str]]:
        inside = f"/{self._host.cgroup_parent}"
        for top, folders, _ in os.walk("/sys/fs/cgroup"):
            if f"{top}/".endswith(f"{inside}/") or f"{inside}/t-" in top:
                yield from (("group", name) for name in folders if name.startswith(("t-", "s-")))

    def _interfaces(self) -> Iterator[tuple[str, str]]:
        for name in os.listdir("/sys/class/net"):
            if name.startswith(self._host.interface_prefix):
                yield "interface", name

    def _owners(self) -> Iterator[tuple[str, str]]:
        """Processes that run as a sandbox's user."""
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                uid = os.stat(f"/proc/{pid}").st_uid
                state = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()[0]
            except OSError:
                continue
            slot = self._slot_of(uid)
            if state != "Z" and slot is not None:
                yield f"process {pid} of", f"slot {slot}"

    def _folders(self) -> Iterator[tuple[str, str]]:
        for kind in ("bundles", "fifos", "runc"):
            try:
                names = os.listdir(self._host.path(kind))
            except FileNotFoundError:
                continue
            yield from ((kind, name) for name in names)

    def _states(self) -> Iterator[tuple[str, str]]:
        """What runsc keeps of its sandboxes, each file with the id in its name."""
        with suppress(FileNotFoundError):
            for name in os.listdir(self._host.path("runsc")):
                found = _ID.search(name)
                yield "state of runsc", found[0] if found else name

    def _mounts(self) -> Iterator[tuple[str, str]]:
        """Sandboxes' mounts are in their own namespaces: below the run folder there is none."""
        for line in Path("/proc/mounts").read_text("utf-8", "surrogateescape").splitlines():
            place = line.split(" ")[1]
            if place.startswith(f"{self._host.run_dir}/"):
                yield "mount", place

    def _elements(self) -> Iterator[tuple[str, str]]:
        """Elements of the firewall's sets that name a sandbox's interface."""
        command = ["nft", "list", "table", "inet", self._host.nft_table.split()[-1]]
        listed = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout
        for name in set(re.findall(rf'"({re.escape(self._host.interface_prefix)}[0-9a-f]+)"', listed)):
            yield "firewall entry", name

    def _files(self) -> Iterator[tuple[str, str]]:
        """What a sandbox's user owns in the folders where everybody may write."""
        for folder in ("/tmp", "/var/tmp", "/dev/shm", "/run"):  # noqa: S108 - looked at alone
            with suppress(FileNotFoundError), os.scandir(folder) as entries:
                for entry in entries:
                    with suppress(OSError):
                        slot = self._slot_of(entry.stat(follow_symlinks=False).st_uid)
                        if slot is not None:
                            yield f"file {entry.path} of", f"slot {slot}"

    def _slot_of(self, uid: int) -> int | None:
        slot = (uid - self._host.sandbox_uids) // IDS_PER_SANDBOX
        return slot if 0 <= slot < self._host.slots else None
