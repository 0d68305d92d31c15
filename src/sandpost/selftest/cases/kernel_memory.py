"""Memory that the kernel holds for a program: pipes, sockets' buffers, watches of files and descriptors, timers, keys.

Weaker: it is no process's, so that no limit counts it, and the host runs out while every tenant is within his.
Must: each is charged to the tenant or bounded by a limit of its own: the sandbox serves on or ends as `memory`, and the
host's kernel holds no more than that.
"""

import base64
import platform
import threading
from collections.abc import Callable
from typing import Self

from sandpost.selftest.case import Attacker, Case, Untried, expect, shown
from sandpost.selftest.machine_code import BASE, MACHINE, Call, program

_NOBLOCK = 0o4000
_FIRST = 3
_PIPES = 480
"""Two descriptors each, within the limit of a process."""
_PIECE = 65536
_ADDRESS = b"\0" * 16
_EVERYWHERE = 0xFFF
PIPES = [
    call
    for n in range(_PIPES)
    for call in (Call(293, (_ADDRESS, _NOBLOCK)), Call(1, (_FIRST + 1 + 2 * n, BASE, _PIECE)))
]
UNIX = [
    call
    for n in range(_PIPES)
    for call in (Call(53, (1, 1 | _NOBLOCK, 0, _ADDRESS)), Call(1, (_FIRST + 1 + 2 * n, BASE, _PIECE)))
]
WATCHES = [
    Call(294, (0,)), *(Call(254, (_FIRST, b"/proc/%d" % n, _EVERYWHERE)) for n in range(200)),
    *(Call(291, (0,)) for _ in range(400)), *(Call(290, (0, 0)) for _ in range(300)), *(Call(283, (1, 0)) for _ in range(200)),
]  # fmt: skip
TIMERS = [Call(222, (1, 0, _ADDRESS)) for _ in range(4000)]
KEYS = [Call(248, (b"user", b"k%d" % n, BASE, 8192, -3)) for n in range(200)]
KINDS = {"pipes": PIPES, "unix sockets": UNIX, "watches": WATCHES, "timers": TIMERS, "keys": KEYS}
SPAWN = """return function (cb) {
  const fs = require('fs');
  const path = `/tmp/hold-${Date.now()}`;
  fs.writeFileSync(path, Buffer.from('%s', 'base64'), { mode: 0o700 });
  for (let n = 0; n < 8; n++) require('child_process').spawn(path, { stdio: 'ignore', detached: true }).on('error', () => {}).unref();
  setTimeout(() => cb(null, 'held'), 1500);
}"""
SOCKETS = """return function (cb) {
  const net = require('net');
  const held = globalThis.held = [], piece = Buffer.alloc(65536);
  const server = net.createServer({ pauseOnConnect: true }, (socket) => { socket.on('error', () => {}); held.push(socket) });
  server.on('error', () => {});
  server.listen(8001, '127.0.0.1', () => {
    for (let n = 0; n < 400; n++) {
      const socket = net.connect(8001, '127.0.0.1');
      held.push(socket);
      socket.on('error', () => {});
      const more = () => { while (socket.writableLength === 0 && !socket.destroyed) socket.write(piece) };
      socket.on('connect', more); socket.on('drain', more);
    }
  });
  setTimeout(() => cb(null, 'held'), 3000);
}"""
_PAUSE = 34
PROGRAMS = {
    **{kind: SPAWN % base64.b64encode(program([*calls, Call(_PAUSE)])).decode() for kind, calls in KINDS.items()},
    "sockets": SOCKETS,
}
_ENDS = frozenset({"memory", "deadline"})
_SLACK = 64 << 20
"""Bytes by which the kernel of a host that does other things as well may grow meanwhile."""


def attack(me: Attacker) -> str:
    if platform.machine() != MACHINE:
        raise Untried(f"its program is for {MACHINE}")
    host = me.host()
    before = host.kernel_memory()
    seen, most = [], 0
    # On version 1 of control groups buffers of sockets have a count and a limit of their own, as much again.
    # What one leaves the next finds: together they are no more than the tenant's.
    for kind, text in PROGRAMS.items():
        with _Peak(host.kernel_memory) as peak:
            answer = me.call(text)
        expect(answer.status == 200 or answer.reason in _ENDS, f"{kind}: {answer.status} {shown(answer.body)}")
        grown = peak.most - before
        expect(
            grown <= 2 * me.memory + _SLACK,
            f"{kind}: the kernel holds {grown >> 20} MiB more, of {me.memory >> 20} MiB",
        )
        seen.append(kind if answer.status == 200 else f"{kind} {answer.reason}")
        most = max(most, grown)
    return f"{most >> 20} MiB more in the kernel: {', '.join(seen)}"


class _Peak:
    """The most that `look` returns while it is entered, ten times a second."""

    def __init__(self, look: Callable[[], int]) -> None:
        self._look = look
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.most = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            self.most = max(self.most, self._look())


CASE = Case(
    part="resources",
    title="Memory of the kernel",
    attack=attack,
    limits={"pids": 256, "deadline": "10s", "blocked_after": "8s"},
    quick=False,
)
