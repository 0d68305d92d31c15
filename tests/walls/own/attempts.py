"""What a part that was taken over would try. Each attempt raises `OSError` when it is refused.

Run as a process it is such a part: `python attempts.py PART HOST_FILE PLACE WALLS`: it imports what the part imports,
puts up the walls that are named, and prints for each attempt the errno, 0 if it went through.
"""

import contextlib
import ctypes
import errno
import fcntl
import importlib
import json
import mmap
import os
import platform
import resource
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_NUMBERS = {
    "x86_64": {
        "ptrace": 101, "process_vm_readv": 310, "unshare": 272, "io_uring_setup": 425, "userfaultfd": 323,
        "add_key": 248, "memfd_create": 319, "pidfd_getfd": 438, "inotify_init1": 294, "clone3": 435,
    },
    "aarch64": {
        "ptrace": 117, "process_vm_readv": 270, "unshare": 97, "io_uring_setup": 425, "userfaultfd": 282,
        "add_key": 217, "memfd_create": 279, "pidfd_getfd": 438, "inotify_init1": 26, "clone3": 435,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where things are. `host` has the folders of the installation, all of them open to everybody here."""

    host: Any
    outside: str
    """A folder of somebody else's, readable for everybody, with `file`, `socket`, and `listening` ports."""
    port: int
    """A TCP port of 127.0.0.1 where somebody listens."""
    sibling: int
    """A process of the same user with the same walls."""


def call(name: str, *arguments: Any, through: tuple[int, ...] = ()) -> int:
    """Make a system call. What fails with an errno in `through` got past every wall."""
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result: int = _libc.syscall(_NUMBERS[platform.machine()][name], *words)
    if result < 0 and ctypes.get_errno() not in through:
        raise OSError(ctypes.get_errno(), name)
    return result


def connect(family: int, address: Any) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.connect(address)


def bind(family: int, address: Any) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.bind(address)


def protected(flags: int) -> None:
    """Make memory that is written and run."""
    mmap.mmap(-1, 4096, prot=flags).close()


def become_code() -> None:
    page = mmap.mmap(-1, 4096)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    if _libc.mprotect(ctypes.c_void_p(address), 4096, 4) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")


def fork() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def thread() -> None:
    """What a part needs itself."""
    done = threading.Event()
    try:
        started = threading.Thread(target=done.set)
        started.start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, str(error)) from error
    started.join()


def lines(path: str) -> None:
    with open(path, "rb") as file:
        file.read()


def change(path: str) -> None:
    with open(path, "r+b") as file:
        file.write(b"x")


def make(folder: str) -> None:
    fresh = os.path.join(folder, "fresh")
    with open(fresh, "wb") as file:
        file.write(b"x")
    os.rename(fresh, f"{fresh}.new")
    os.unlink(f"{fresh}.new")


def splice() -> None:
    """Move bytes between descriptors past this process."""
    ends = (*os.pipe(), *os.pipe())
    os.write(ends[1], b"x")
    try:
        os.splice(ends[0], ends[3], 1)
    finally:
        for fd in ends:
            os.close(fd)


def unmade(path: str, how: Callable[[str], object]) -> None:
    how(path)
    os.unlink(path)


def attempts(p: Place) -> dict[str, Callable[[], object]]:
    """All of them, by name."""
    host = p.host
    own = host.metrics_dir
    return {
        # --- files ---------------------------------------------------------------------------------------
        "read a file of the machine": lambda: lines("/etc/passwd"),
        "read a file of somebody": lambda: lines(f"{p.outside}/file"),
        "look at what runs": lambda: os.listdir("/proc"),
        "write into the run folder": lambda: make(host.run_dir),
        "read the program": lambda: lines(sys.modules["sandpost.walls.own.needs"].__file__ or ""),
        "read the store": lambda: lines(host.store_path),
        "change the store": lambda: change(host.store_path),
        "make files beside the store": lambda: make(os.path.dirname(host.store_path)),
        "read kept programs": lambda: lines(os.path.join(host.code_dir, "file")),
        "keep a program": lambda: make(host.code_dir),
        "keep a module": lambda: make(host.modules_ready),
        "read tenants' logs": lambda: lines(os.path.join(host.logs_dir, "file")),
        "write tenants' logs": lambda: make(host.logs_dir),
        "leave figures": lambda: make(own),
        "make a link": lambda: unmade(f"{own}/link", lambda path: os.symlink("/etc/shadow", path)),
        "make a hard link": lambda: unmade(f"{own}/hard", lambda path: os.link(f"{own}/file", path)),
        "make a FIFO": lambda: unmade(f"{own}/fifo", os.mkfifo),
        # --- programs and memory -------------------------------------------------------------------------
        "become a second process": fork,
        "start a thread": thread,
        "move bytes in the kernel": splice,
        "make memory that is written and run": lambda: protected(mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
        "make memory code": become_code,
        "make a file in memory": lambda: os.close(call("memfd_create", b"x", 0)),
        # --- siblings ------------------------------------------------------------------------------------
        "trace a sibling": lambda: call("ptrace", 0x4206, p.sibling, 0, 0),
        "read a sibling's memory": lambda: read_memory(p.sibling),
        "open a sibling's memory": lambda: os.close(os.open(f"/proc/{p.sibling}/mem", os.O_RDONLY)),
        "read a sibling's environment": lambda: lines(f"/proc/{p.sibling}/environ"),
        "take a sibling's descriptor": lambda: os.close(call("pidfd_getfd", os.pidfd_open(p.sibling), 2, 0)),
        "signal a sibling": lambda: os.kill(p.sibling, signal.SIGWINCH),
        "signal a sibling by a descriptor": lambda: own_descriptor(p.sibling),
        "limit a sibling": lambda: resource.prlimit(p.sibling, resource.RLIMIT_STACK, (1 << 20, 1 << 23)),
        "signal itself": lambda: signal.raise_signal(signal.SIGWINCH),
        # --- the kernel ----------------------------------------------------------------------------------
        "set up io_uring": lambda: call("io_uring_setup", 1, ctypes.create_string_buffer(120), through=(errno.ENOMEM,)),
        "keep a key in the kernel": lambda: call("add_key", b"user", b"x", b"x", 1, -3),
        "handle page faults": lambda: os.close(call("userfaultfd", 1)),
        "watch files": lambda: os.close(call("inotify_init1", 0)),
        "hang on to clone3": lambda: call("clone3", None, 0, through=(errno.EINVAL,)),
        # --- sockets -------------------------------------------------------------------------------------
        "speak to the controller": lambda: connect(socket.AF_UNIX, host.controller_socket),
        "speak to a socket of somebody": lambda: connect(socket.AF_UNIX, f"{p.outside}/socket"),
        "speak to an abstract socket": lambda: connect(socket.AF_UNIX, f"\0sandpost-test-{p.port}"),
        "connect to a sandbox": lambda: refused(8000),
        "connect to the listener": lambda: refused(host.listen_port),
        "connect to another port": lambda: connect(socket.AF_INET, ("127.0.0.1", p.port)),
        "bind a port": lambda: bind(socket.AF_INET, ("127.0.0.1", 0)),
        "bind the port of figures": lambda: bind(socket.AF_INET, ("127.0.0.1", int(host.metrics_listen.split(":")[1]))),
        "send datagrams": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close(),
        "make a netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close(),
        "make a socket for hosts of machines": lambda: socket.socket(40, socket.SOCK_STREAM).close(),
        # Last: in one, nothing of a sibling's can be reached any more.
        "own a user namespace": own_namespace,
    }


def read_memory(pid: int) -> None:
    here = ctypes.create_string_buffer(8)
    ours = struct.pack("=2Q", ctypes.addressof(here), 8)
    # Nothing is at address 8: that the kernel looked is what counts.
    call("process_vm_readv", pid, ours, 1, struct.pack("=2Q", 8, 8), 1, 0, through=(errno.EFAULT,))


def own_namespace() -> None:
    # The kernel asks for one thread, and the one that was started may take a moment to be gone.
    time.sleep(0.05)
    call("unshare", 0x10000000)


def own_descriptor(pid: int) -> None:
    with socket.socketpair()[0] as sock:
        fcntl.fcntl(sock, fcntl.F_SETOWN, pid)


def refused(port: int) -> None:
    with contextlib.suppress(ConnectionRefusedError):
        connect(socket.AF_INET, ("127.0.0.1", port))


def put_up(part: Any, host: Any, walls: set[str]) -> None:
    """Confine this process as production does, but for the walls that are not in `walls`."""
    from sandpost.walls.own import confine as module

    def none(*_: Any, **__: Any) -> int:
        return 0

    replaced: Any = module
    if "dumpable" not in walls:
        replaced.kernel_calls.forbid_looking_inside = none
    if "landlock" not in walls:
        replaced.landlock.restrict = none
    if "seccomp" not in walls:
        replaced.seccomp.install = none
    module.confine(part, host)


def main() -> None:
    from sandpost.model.host import load

    part, host_file, place, walls = sys.argv[1:]
    importlib.import_module(f"sandpost.{part}.main")
    host = load(host_file)
    put_up(part, host, set(walls.split(",")))
    print("up", flush=True)
    if not place:
        time.sleep(600)
    results = {}
    for name, attempt in attempts(Place(host=host, **json.loads(place))).items():
        try:
            attempt()
        except OSError as error:
            results[name] = error.errno or -1
        else:
            results[name] = 0
    print(json.dumps(results), flush=True)
    # Last, as it would end us: an older kernel looks whether it may only when all else is in order.
    try:
        os.execv("/usr/bin/printf", ["printf", "0"])
    except OSError as error:
        print(error.errno)


if __name__ == "__main__":
    main()
