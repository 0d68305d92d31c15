"""Pages of the image, which all sandboxes share and which somebody must be charged for, read and pushed out by a tenant.

Weaker: who touches a page first pays for all, and when he is out of memory his own group's pages go, which are Node's
under everybody: a neighbour waits for the disk at each turn.
Must: what every sandbox needs is charged to no tenant, whoever comes first after the machine's start; what else he reads
is his own; a neighbour who is called all the while notices nothing.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandpost.config import DEFAULTS
from sandpost.image import build
from sandpost.selftest.neighbour import Neighbour
from sandpost.selftest.runner import harmed
from support.platform import Platform, platform

pytestmark = pytest.mark.long

HELLO = 'return function (cb) { cb(null, "Hello, world!") }'
READ_ALL = """return function (cb) {
  const fs = require('fs'), piece = Buffer.alloc(1 << 20);
  let bytes = 0;
  const walk = (folder) => {
    for (const one of fs.readdirSync(folder, { withFileTypes: true })) {
      const path = folder + one.name;
      if (one.isDirectory() && !['/proc', '/dev', '/tmp'].includes(path)) walk(path + '/');
      if (!one.isFile()) continue;
      const file = fs.openSync(path);
      let got;
      while ((got = fs.readSync(file, piece)) > 0) bytes += got;
      fs.closeSync(file);
    }
  };
  walk('/');
  cb(null, bytes);
}"""
SQUEEZE = """return function (cb) {
  const fs = require('fs'), file = fs.openSync('/usr/local/bin/node'), piece = Buffer.alloc(1 << 20);
  const all = Array.from({ length: 80 }, () => Buffer.alloc(1 << 20, 1)), end = Date.now() + 3000;
  const more = () => {
    let at = 0, got;
    while ((got = fs.readSync(file, piece, 0, piece.length, at)) > 0) at += got;
    Date.now() < end ? setImmediate(more) : cb(null, all.length);
  };
  more();
}"""
LITTLE = 2 << 20
"""Bytes of shared pages that a sandbox may be charged for: a few of a file that is not on the list."""


@pytest.fixture
def cold() -> Iterator[Path]:
    """A folder with this release's image of which nothing is in memory, as after the machine's start."""
    images = Path(DEFAULTS["image_dir"])
    digest = build.ensure(str(images), lambda _: None)
    # On a disk: what is in memory alone is charged to whoever put it there.
    top = Path(tempfile.mkdtemp(prefix="sandpost-cold-", dir="/var/tmp"))
    try:
        top.chmod(0o755)
        for name in (".base", digest):
            shutil.copytree(images / name, top / name, symlinks=True)
        os.sync()
        for folder, _, names in os.walk(top):
            for name in names:
                _forget(os.path.join(folder, name))
        yield top
    finally:
        shutil.rmtree(top)


def _forget(path: str) -> None:
    if not os.path.isfile(path) or os.path.islink(path):
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def charged(running: Platform) -> dict[str, int]:
    """Return the bytes of files' pages that each sandbox's tenant is charged for, by the tenant (`pool`: none yet)."""
    groups = {f"t-{record['group_id']}": record["tenant"] or "pool" for record in running.records()}
    found = dict.fromkeys(groups.values(), 0)
    for top, _, files in os.walk("/sys/fs/cgroup"):
        tenant = groups.get(os.path.basename(top))
        if tenant is None or "memory.stat" not in files:
            continue
        lines = Path(top, "memory.stat").read_text().splitlines()
        stat = {name: int(value) for name, value in map(str.split, lines)}
        # cgroup v1, v2; what lies in a tmpfs is in both sums, and is his own.
        pages = stat.get("total_cache", stat.get("file", 0)) - stat.get("total_shmem", stat.get("shmem", 0))
        found[tenant] = max(found[tenant], pages)
    return found


def test_pages_that_all_share_are_charged_to_nobody_and_cannot_be_pushed_out(cold: Path) -> None:
    with platform(image_dir=str(cold), pool_size="2") as running:

        def call_neighbour() -> str:
            answer = running.call("neighbour", HELLO)
            return "" if answer.status == 200 else f"{answer.status} {answer.body!r}"

        assert call_neighbour() == ""
        first = charged(running)
        assert {"neighbour", "pool"} <= set(first)
        assert max(first.values()) < LITTLE, first
        with Neighbour(call_neighbour) as neighbour:
            began = time.monotonic()
            time.sleep(2)
            quiet = neighbour.since(began)
            began = time.monotonic()
            assert running.call("reader", READ_ALL).json > 100 << 20
            his = charged(running)
            assert running.call("squeezer", HELLO).status == 200
            assert running.call("squeezer", SQUEEZE).json == 80
            seen = neighbour.since(began)
        print(f"charged {his}; neighbour p99 {seen.p99 * 1000:.1f} ms ({quiet.p99 * 1000:.1f} ms quiet)")
        assert his["reader"] > LITTLE, "what nobody had read is his"
        assert his["neighbour"] < LITTLE
        assert harmed(seen) == ""
