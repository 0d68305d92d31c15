"""What a program can learn of the host, of other sandboxes and of how it is held, from inside a real one."""

import asyncio
from typing import Any

import pytest

from sandpost.model.inside import DEVICES
from sandpost.model.limits import Limits
from sandpost.walls import procfs
from support.engine_bed import Bed, MiB


@pytest.mark.engine("runc")
def test_proc_tells_of_the_machine_what_programs_need_and_no_more(bed: Bed) -> None:
    async def body() -> None:
        box = await bed.make()
        seen = box.call(
            """const fs = require('fs'); const told = {};
            for (const name of fs.readdirSync('/proc').filter((n) => !/^[0-9]+$/.test(n))) {
              const path = '/proc/' + name, kind = fs.lstatSync(path);
              if (kind.isSymbolicLink()) told[name] = 'link';
              else try { told[name] = kind.isDirectory() ? fs.readdirSync(path).join() : fs.readFileSync(path, 'latin1'); }
              catch (error) { told[name] = error.code; }
            }
            for (const path of ['sys/kernel/random/boot_id', 'sys/kernel/core_pattern'])
              told[path] = fs.readFileSync('/proc/' + path, 'latin1');
            told['sys/fs'] = fs.readdirSync('/proc/sys/fs').join();
            return told;"""
        )
        assert sorted(name for name, text in seen.items() if text) == sorted(set(procfs.KEPT) & set(seen))
        assert {name for name, text in seen.items() if text == "link"} == {"mounts", "net", "self", "thread-self"}

    asyncio.run(body())


@pytest.mark.engine("runc")
def test_mounts_name_no_tenant_no_other_sandbox_and_nothing_of_the_host_but_image_and_modules(bed: Bed) -> None:
    async def body() -> None:
        box, other = await asyncio.gather(bed.make(), bed.make())
        text = box.call(
            "const fs = require('fs'); return ['mountinfo', 'mounts', 'mountstats']"
            ".map((n) => fs.readFileSync('/proc/self/' + n, 'utf8')).join('')"
        )
        mounts = [line.split(" ") for line in text.splitlines() if line[0].isdigit()]
        roots = {fields[4]: fields[3] for fields in mounts}
        assert roots.pop("/").endswith(f"/{bed.host.image}/rootfs")
        assert roots.pop("/dev").endswith(f"/{bed.host.image}/rootfs/dev")
        assert roots.pop("/tmp") == roots.pop("/proc") == "/"
        assert {roots.pop(f"/dev/{name}") for name in DEVICES} == {f"/{name}" for name in DEVICES}
        # Below the root of its file system: the run folder's own, or all of `/run` where that is in memory already.
        assert bed.host.resolv_conf.endswith(roots.pop("/etc/resolv.conf"))
        store = roots.pop("/modules")
        assert bed.host.modules_ready.endswith(store)
        text = text.replace(f" {store} /modules ", "")
        assert set(roots) <= {*procfs.MASKED, *procfs.READ_ONLY}
        for one in (box, other):
            assert one.spec.sandbox_id not in text
        assert bed.host.run_dir not in text
        assert bed.host.state_dir not in text
        assert str(other.uid()) not in text
        assert str(other.uid() - 1) not in text

    asyncio.run(body())


@pytest.mark.engine("runc")
def test_groups_namespaces_and_arguments_tell_nothing(bed: Bed) -> None:
    async def body() -> None:
        box, other = await asyncio.gather(bed.make(), bed.make())
        look = """const fs = require('fs'); const text = (p) => fs.readFileSync(p, 'latin1');
            return {cgroup: text('/proc/self/cgroup'), cpuset: text('/proc/self/cpuset'), first: text('/proc/1/cgroup'),
              words: text('/proc/1/cmdline') + text('/proc/1/environ') + text('/proc/self/cmdline') + text('/proc/self/environ'),
              unix: text('/proc/net/unix').trim().split('\\n').length, ids: text('/proc/self/uid_map'),
              namespaces: Object.fromEntries(fs.readdirSync('/proc/self/ns').map((n) => [n, fs.readlinkSync('/proc/self/ns/' + n)]))};"""
        seen, others = box.call(look), other.call(look)
        for groups in (seen["cgroup"], seen["first"]):
            assert {line.split(":")[2] for line in groups.split()} == {"/"}
        assert seen["cpuset"] == "/\n"
        assert box.spec.sandbox_id not in seen["words"]
        assert bed.host.run_dir not in seen["words"]
        assert seen["unix"] == 1
        assert [line.split()[::2] for line in seen["ids"].splitlines()] == [["0", "1"], ["1000", "1"]]
        shared = {name for name, number in seen["namespaces"].items() if others["namespaces"][name] == number}
        assert shared <= {"time", "time_for_children"}

    asyncio.run(body())


@pytest.mark.engine("runc")
def test_descriptors_lead_to_nothing_and_cannot_be_opened_again(bed: Bed) -> None:
    async def body() -> None:
        box = await bed.make()
        seen = box.call(
            """const fs = require('fs'); const tried = {};
            const code = (work) => { try { return work() ?? 'done'; } catch (error) { return error.code; } };
            for (const number of ['1', '2', '3']) {
              const link = '/proc/1/fd/' + number;
              tried[number] = [code(() => fs.openSync(link, 'r')), code(() => fs.openSync(link, 'w')),
                code(() => fs.readdirSync(link)), code(() => fs.readdirSync(link + '/..')),
                code(() => fs.openSync(fs.readlinkSync(link), 'r'))];
            }
            return {tried, zero: fs.readlinkSync('/proc/1/fd/0'), all: fs.readdirSync('/proc/1/fd'),
              folders: fs.readdirSync('/proc/self/fd').filter((n) => code(() => fs.readdirSync('/proc/self/fd/' + n)) === 'done')};"""
        )
        assert seen["zero"] == "/dev/null"
        assert seen["all"] == ["0", "1", "2", "3"]
        assert seen["folders"] == []
        assert seen["tried"] == {number: ["EACCES", "EACCES", "ENOTDIR", "ENOTDIR", "ENOENT"] for number in "123"}

    asyncio.run(body())


def test_limits_of_every_process_are_those_of_the_tenant(bed: Bed) -> None:
    def limits(text: str) -> dict[str, tuple[str, str]]:
        rows = [(line[:26].strip(), *line[26:].split()[:2]) for line in text.splitlines()[1:]]
        return {name: (soft, hard) for name, soft, hard in rows}

    async def body() -> None:
        box = await bed.make(limits=Limits(files=777, tmp=8 * MiB))
        both: list[str] = box.call(
            "const fs = require('fs'); const shown = require('child_process').execSync('cat /proc/self/limits');"
            " return [fs.readFileSync('/proc/1/limits', 'latin1'), fs.readFileSync('/proc/self/limits', 'latin1'), String(shown)]"
        )
        size = str(8 * MiB + 65536)
        for text in both:
            assert (
                limits(text).items()
                >= {
                    # What the group holds on runc, the sentry counts itself.
                    "Max processes": ("4096", "4096") if bed.host.engine == "runc" else ("64", "64"),
                    "Max open files": ("777", "777"),
                    "Max file size": (size, size),
                    "Max core file size": ("0", "0"),
                    "Max locked memory": ("65536", "65536"),
                    "Max msgqueue size": ("0", "0"),
                    "Max pending signals": ("1024", "1024"),
                    "Max nice priority": ("0", "0"),
                    "Max realtime priority": ("0", "0"),
                }.items()
            ), text

    asyncio.run(body())


def test_a_file_longer_than_tmp_cannot_be_and_a_full_tmp_says_so(bed: Bed) -> None:
    async def body() -> None:
        box = await bed.make(limits=Limits(tmp=8 * MiB))
        seen: dict[str, Any] = box.call(
            """const fs = require('fs'); const code = (work) => { try { return work() ?? 'done'; } catch (error) { return error.code; } };
            const hole = fs.openSync('/tmp/hole', 'w'), full = fs.openSync('/tmp/full', 'w'), chunk = Buffer.alloc(1 << 20);
            const said = {long: code(() => fs.ftruncateSync(hole, 1 << 24)), short: code(() => fs.ftruncateSync(hole, 1 << 23))};
            said.write = code(() => { for (let i = 0; i < 64; i++) { let done = 0; while (done < chunk.length) done += fs.writeSync(full, chunk, done); } });
            return said;"""
        )
        assert seen == {"long": "EFBIG", "short": "done", "write": "ENOSPC"}

    asyncio.run(body())


WATCH = r"""
import ctypes, fcntl, os, signal, struct, time
libc, seen = ctypes.CDLL(None, use_errno=True), []
signal.signal(signal.SIGIO, lambda *_: seen.append('a folder was read'))
folder = os.open('/etc', os.O_RDONLY)
events = libc.inotify_init1(os.O_NONBLOCK)
for path in (b'/etc/passwd', b'/etc', b'/modules'):
    # All there is, else all that is left of it.
    if libc.inotify_add_watch(events, path, 0xfff) < 0: libc.inotify_add_watch(events, path, 0xfff & ~0x31)
try: fcntl.fcntl(folder, fcntl.F_NOTIFY, fcntl.DN_ACCESS | fcntl.DN_MULTISHOT)
except OSError: pass
open('/tmp/ready', 'w').close()
while not os.path.exists('/tmp/enough'): time.sleep(0.01)
try: seen.append(os.read(events, 4096).hex())
except BlockingIOError: pass
open('/tmp/new', 'w').write(repr(seen))
os.rename('/tmp/new', '/tmp/seen')
"""


def test_what_others_open_and_read_is_not_seen(bed: Bed) -> None:
    async def body() -> None:
        box, other = await asyncio.gather(bed.make(), bed.make())
        wait = (
            "const fs = require('fs'); while (!fs.existsSync('/tmp/%s')) await new Promise((r) => setTimeout(r, 10));"
        )
        box.call(
            "require('child_process').spawn('python3', ['-c', sent], {stdio: 'ignore'}); return 1", sent=WATCH.encode()
        )
        box.call(wait % "ready" + "return 1")
        other.call(
            "const fs = require('fs'); fs.readFileSync('/etc/passwd'); return fs.readdirSync('/etc').concat("
            "fs.readdirSync('/modules'))"
        )
        box.call("require('fs').writeFileSync('/tmp/enough', ''); return 1")
        assert box.call(wait % "seen" + "return fs.readFileSync('/tmp/seen', 'utf8')") == "[]"

    asyncio.run(body())


@pytest.mark.engine("runc")
def test_what_of_the_image_is_in_memory_is_not_told(bed: Bed) -> None:
    async def body() -> None:
        box = await bed.make()
        told = box.call(
            "const {status, stderr} = require('child_process').spawnSync('python3', ['-c', 'import os; "
            'os.preadv(os.open("/etc/passwd", 0), [bytearray(1)], 0, os.RWF_NOWAIT)\']);'
            "return [status, String(stderr)]"
        )
        assert told[0] == 1
        assert "Operation not permitted" in told[1]

    asyncio.run(body())
