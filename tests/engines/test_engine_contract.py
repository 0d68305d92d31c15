"""What every engine does, seen on the host and from inside real sandboxes."""

import asyncio
import contextlib
import errno
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from sandpost.engines.contract import Consumption
from sandpost.image import use
from sandpost.model.engines import outside
from sandpost.model.errors import EngineError, MemoryInUse
from sandpost.model.host import SANDBOX_PORT
from sandpost.model.limits import Limits
from sandpost.walls.pressure import Pressure
from support.engine_bed import ENGINES, Bed, MiB, Sandbox, processes_of, until
from support.machine import EMULATED

CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")


# --- what stands around a sandbox --------------------------------------------------------------------------


def test_a_sandbox_has_namespaces_users_and_nothing_more_of_its_own(bed: Bed) -> None:
    async def body() -> None:
        one, two = await asyncio.gather(bed.make(), bed.make())
        # The sentry stands in the host's cgroup namespace; programs see the one that it makes up.
        for kind in NAMESPACES if is_runc(bed) else set(NAMESPACES) - {"cgroup"}:
            links = {os.readlink(f"/proc/{pid}/ns/{kind}") for pid in ("self", one.started.pid, two.started.pid)}
            assert len(links) == 3, kind
        one.call("return 1")
        # runsc's own processes are user 0 of the sandbox's user namespace, which has only the two ids.
        user = one.uid() if is_runc(bed) else one.uid() - 1
        assert {status(pid)["Uid"] for pid in one.processes()} == {"\t".join([str(user)] * 4)}
        assert {status(pid)["Gid"] for pid in one.processes()} == {"\t".join([str(user)] * 4)}
        assert set(one.processes()).isdisjoint(two.processes())
        for pid in one.processes():
            seen = status(pid)
            assert seen["NoNewPrivs"] == "1"
            if is_runc(bed):
                assert {int(seen[name], 16) for name in CAPABILITIES} == {0}
            else:
                assert seen["Seccomp"] == "2"
                assert os.readlink(f"/proc/{pid}/ns/user") != os.readlink("/proc/self/ns/user")
        if is_runc(bed):
            assert os.listdir(f"/proc/{one.started.pid}/fd") == ["0", "1", "2", "3"]
            assert os.readlink(f"/proc/{one.started.pid}/fd/0") == "/dev/null"
        inside = one.call(
            """const status = require('fs').readFileSync('/proc/self/status', 'utf8');
            return Object.fromEntries(status.split('\\n').map((line) => line.split(':\\t')));"""
        )
        assert {int(inside[name], 16) for name in CAPABILITIES} == {0}
        assert inside["NoNewPrivs"] == "1"
        assert inside["Uid"].split() == inside["Gid"].split() == ["1000"] * 4

    asyncio.run(body())


def test_the_runtime_says_on_its_pipe_that_it_listens_and_programs_have_none_of_it(bed: Bed) -> None:
    async def body() -> None:
        told, tells = os.pipe()
        try:
            spec = replace(bed.spec(), ready=tells)
            box = Sandbox(bed.host, spec, await bed.engine.start(spec), spec.frames)
            assert os.read(told, 10) == b"1"
            # Not tried twice.
            socket.create_connection((box.address(), SANDBOX_PORT), timeout=5).close()
            held = "return require('fs').readdirSync('/proc/self/fd').map((n) => { try {"
            held += " return require('fs').readlinkSync('/proc/self/fd/' + n) } catch { return '' } })"
            assert os.readlink(f"/proc/self/fd/{tells}") not in box.call(held)
        finally:
            os.close(told)
            os.close(tells)

    asyncio.run(body())


def test_start_names_the_first_process_for_ever(bed: Bed) -> None:
    async def body() -> None:
        box = await bed.make()
        assert status(box.started.pid)["NSpid"].split()[-1] == "1"
        with open(f"/proc/{box.started.pid}/stat", encoding="ascii") as file:
            assert int(file.read().rpartition(")")[2].split()[19]) == box.started.start_time

    asyncio.run(body())


def test_a_program_sees_nothing_of_the_host(bed: Bed) -> None:
    async def body() -> None:
        box = await bed.make()
        seen = box.call(
            """const fs = require('fs'), os = require('os');
            const text = (path) => { try { return fs.readFileSync(path, 'utf8') } catch (e) { return e.code } };
            return {dev: fs.readdirSync('/dev').sort(), sys: fs.readdirSync('/sys'), uid: process.getuid(),
              interfaces: Object.keys(os.networkInterfaces()).sort(), keys: text('/proc/keys'),
              processes: fs.readdirSync('/proc').filter((n) => /^[0-9]+$/.test(n)).length,
              hostname: os.hostname(), cgroup: fs.readFileSync('/proc/self/cgroup', 'utf8'),
              modules: text('/proc/kallsyms'), kernel: os.release(), cwd: process.cwd(), env: Object.keys(process.env).sort()};"""
        )
        devices = {"fd", "full", "null", "random", "stderr", "stdin", "stdout", "urandom", "zero"}
        # gVisor makes up a /sys without the host's devices, and a /dev/pts.
        assert set(seen["dev"]) == devices | (set() if is_runc(bed) else {"pts"})
        assert seen["sys"] == [] or not is_runc(bed)
        assert seen["uid"] == 1000
        assert seen["interfaces"] == ["eth0", "lo"]
        assert seen["keys"] == seen["modules"] == ("" if is_runc(bed) else "ENOENT")
        assert (seen["kernel"] == os.uname().release) == is_runc(bed)
        assert seen["processes"] == 2
        assert seen["hostname"] == "sandbox"
        assert all(line.endswith(":/") for line in seen["cgroup"].split())
        assert seen["cwd"] == "/tmp"
        assert box.spec.sandbox_id not in str(seen)
        assert set(seen["env"]) <= {"HOME", "LANG", "MALLOC_ARENA_MAX", "NODE_ENV", "PATH", "PWD", "SANDPOST_PROGRAMS"}

    asyncio.run(body())


def test_the_root_is_read_only_and_devices_work(bed: Bed) -> None:
    async def body() -> None:
        box = await bed.make()
        seen = box.call(
            """const fs = require('fs'); const code = (work) => { try { return work() ?? 'done'; } catch (e) { return e.code; } };
            return {root: code(() => fs.writeFileSync('/x', '')), dev: code(() => fs.writeFileSync('/dev/x', '')),
              etc: code(() => fs.appendFileSync('/etc/passwd', 'x')), sysctl: code(() => fs.writeFileSync('/proc/sys/kernel/domainname', 'x')),
              runtime: code(() => fs.appendFileSync('/opt/sandpost/node/main.js', 'x')),
              zero: code(() => { const f = fs.openSync('/dev/zero'), b = Buffer.alloc(4, 1); fs.readSync(f, b); return b.toString('hex'); }),
              full: code(() => fs.writeFileSync('/dev/full', 'x')), none: code(() => fs.writeFileSync('/dev/null', 'x')),
              tmp: code(() => fs.writeFileSync('/tmp/x', 'x'))};"""
        )
        refused = {"EROFS", "EACCES"}
        assert {seen[name] for name in ("root", "dev", "etc", "sysctl", "runtime")} <= refused
        assert seen["zero"] == "00000000"
        assert seen["full"] == "ENOSPC"
        assert seen["none"] == seen["tmp"] == "done"

    asyncio.run(body())


def test_the_image_that_it_runs_on_is_seen_to_be_in_use(bed: Bed) -> None:
    async def body() -> None:
        await bed.make()
        # By this alone an image is spared that no controller holds any more.
        assert bed.host.image in use.running(bed.host.image_dir)

    asyncio.run(body())


def test_a_sandbox_goes_first_when_the_host_runs_out_of_memory(bed: Bed) -> None:
    own = Path("/proc/self/oom_score_adj")
    former = own.read_text()
    # As the controller's, where that may be lowered.
    with contextlib.suppress(PermissionError):
        own.write_text("-900")

    async def body() -> None:
        box = await bed.make()
        said = box.call(
            "try { require('fs').writeFileSync('/proc/self/oom_score_adj', '-1'); return 'lowered' }"
            " catch (e) { return e.code }"
        )
        scores = [int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in box.processes()]
        assert min(scores) > 0
        if is_runc(bed):
            # Inside gVisor it is a number that means nothing outside.
            assert said == "EACCES"
            assert len(scores) == 2

    try:
        asyncio.run(body())
    finally:
        own.write_text(former)


def test_descriptor_3_reaches_the_reader_of_frames(bed: Bed) -> None:
    async def body() -> None:
        box = await bed.make()
        box.call("console.log('said inside')")
        assert until(lambda: b"said inside" in read_all(box, box.frames))

    asyncio.run(body())


# --- limits ---------------------------------------------------------------------------------------------------


def test_tmp_is_full_at_its_bytes_and_its_inodes(bed: Bed) -> None:
    async def body() -> None:
        box = await bed.make(limits=Limits(tmp=8 * MiB, tmp_inodes=100))
        seen = box.call(
            """const fs = require('fs'); const chunk = Buffer.alloc(1 << 20); let bytes = 0, files = 0; const r = {};
            try { for (; bytes < 64; bytes++) fs.appendFileSync('/tmp/big', chunk); } catch (e) { r.bytes = e.code; }
            fs.unlinkSync('/tmp/big');
            try { for (; files < 1000; files++) fs.writeFileSync('/tmp/f' + files, ''); } catch (e) { r.inodes = e.code; }
            return {...r, mib: bytes, files};"""
        )
        assert seen["bytes"] == "ENOSPC"
        assert 7 <= seen["mib"] <= 8
        assert seen["inodes"] == "ENOSPC"
        assert 90 <= seen["files"] < 100

    asyncio.run(body())


def test_a_full_tmp_is_seen_from_outside_while_it_is_full(bed: Bed) -> None:
    async def body() -> None:
        box, other = [await bed.make(limits=Limits(tmp=8 * MiB, tmp_inodes=100)) for _ in range(2)]
        other.call("return 1")

        def met() -> tuple[bool, bool]:
            found = [
                bed.engine.pressure(one.spec.sandbox_id, one.spec.group_id, one.started.pid, one.spec.limits)
                for one in (box, other)
            ]
            seen, calm = found
            assert seen is not None
            assert calm == Pressure(refused=0, tmp_full=False, inodes_full=False, files_full=False)
            return seen.tmp_full, seen.inodes_full

        box.call(
            "try { for (;;) require('fs').appendFileSync('/tmp/big', Buffer.alloc(1 << 20, 1)) } catch { return 1 }"
        )
        assert met() == (True, False)
        box.call("require('fs').unlinkSync('/tmp/big'); return 1")
        assert met() == (False, False)
        box.call("let n = 0; try { for (;;) require('fs').writeFileSync('/tmp/f' + n++, '') } catch { return 1 }")
        assert met() == (False, True)

    asyncio.run(body())


def test_out_of_memory_is_told_counted_and_the_tenants(bed: Bed) -> None:
    async def body() -> None:
        box, other = await asyncio.gather(bed.make(limits=Limits(memory=64 * MiB)), bed.make())
        told: list[str] = []
        bed.engine.watch_memory(box.spec.sandbox_id, box.spec.group_id, lambda: told.append("box"))
        bed.engine.watch_memory(other.spec.sandbox_id, other.spec.group_id, lambda: told.append("other"))
        await asyncio.to_thread(fill, box, 200)
        assert await eventually(lambda: told == ["box"])
        await bed.engine.kill(box.spec.sandbox_id, box.spec.group_id)
        used = consumption(bed, box)
        assert used.oom_kills >= 1
        assert not used.parent_full
        # Version 2 lets what is being killed go beyond the limit for its last pages.
        limit = outside(box.spec.limits, bed.host.engine).memory
        assert limit - 4 * MiB < used.peak_memory <= limit + 1 * MiB
        assert box.has_ended()
        assert other.call("return 1") == 1
        assert consumption(bed, other).oom_kills == 0

    asyncio.run(body())


def test_a_full_parent_is_told_apart(bed: Bed) -> None:
    async def body() -> None:
        box, other = await asyncio.gather(bed.make(limits=Limits(memory=512 * MiB)), bed.make())
        for each in (box, other):
            each.call("return 1")
        used, _ = bed.engine.memory()
        full: list[int] = []
        undo = bed.engine.watch_parent(used + 20 * MiB, lambda: full.append(1))
        told: list[str] = []
        bed.engine.watch_memory(box.spec.sandbox_id, box.spec.group_id, lambda: told.append("box"))
        bed.engine.limit_parent(used + 40 * MiB)
        try:
            assert bed.engine.memory()[1] <= used + 40 * MiB
            # Far more than the room: what is used holds pages of files too, and those the kernel takes back first.
            await asyncio.to_thread(fill, box, 400)
            assert await eventually(lambda: told == ["box"] and bool(full))
            assert consumption(bed, box).parent_full
        finally:
            undo()
            bed.engine.limit_parent(64 << 30)
        assert other.call("return 1") == 1

    asyncio.run(body())


def test_buffers_of_sockets_count_for_the_tenant_and_for_all(bed: Bed) -> None:
    async def body() -> None:
        box = await bed.make(limits=Limits(memory=128 * MiB))
        unread = """const net = require('net'), piece = Buffer.alloc(1 << 20);
            const server = net.createServer({pauseOnConnect: true}, (socket) => (globalThis.held ??= []).push(socket));
            await new Promise((done) => server.listen(8001, '127.0.0.1', done));
            for (let n = 0; n < 20; n++) {
              const socket = net.connect(8001, '127.0.0.1');
              socket.on('connect', () => socket.write(piece));
              (globalThis.held ??= []).push(socket);
            }
            await new Promise((done) => setTimeout(done, 500));"""
        box.call(unread)
        # gVisor's kernel has buffers of its own, which are the sentry's memory.
        if is_runc(bed):
            used, most = sockets_of_all(bed)
            assert used >= 4 * MiB
            sparing = int(Path("/proc/sys/net/ipv4/tcp_mem").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            assert most <= 0.6 * sparing or bed.host.cgroups == 2

    asyncio.run(body())


def sockets_of_all(bed: Bed) -> tuple[int, int]:
    """Return the bytes of sockets' buffers that are charged to all sandboxes together, and how many may be."""
    if bed.host.cgroups == 2:
        group = Path("/sys/fs/cgroup", bed.host.cgroup_parent)
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return int(stat["sock"]), bed.engine.memory()[1]
    group = Path("/sys/fs/cgroup/memory", bed.host.cgroup_parent)
    used, most = (int((group / f"memory.kmem.tcp.{name}_in_bytes").read_text()) for name in ("usage", "limit"))
    return used, most


def test_a_kill_before_the_watch_is_told_too(bed: Bed) -> None:
    async def body() -> None:
        box = await bed.make(limits=Limits(memory=64 * MiB))
        await asyncio.to_thread(fill, box, 200)
        assert until(lambda: consumption(bed, box).oom_kills > 0)
        told: list[int] = []
        undo = bed.engine.watch_memory(box.spec.sandbox_id, box.spec.group_id, lambda: told.append(1))
        assert await eventually(lambda: told == [1])
        undo()
        assert not consumption(bed, box).parent_full

    asyncio.run(body())


def test_processes_end_at_the_limit_of_pids(bed: Bed) -> None:
    async def body() -> None:
        box = await bed.make(limits=Limits(pids=24))
        seen = box.call(
            """const {spawn} = require('child_process'); let made = 0, code = null;
            for (let i = 0; i < 60 && !code; i++) {
              const child = spawn('sleep', ['30'], {stdio: 'ignore'});
              if (child.pid) made++; else code = await new Promise((f) => child.once('error', (e) => f(e.code)));
            }
            return {made, code};"""
        )
        assert seen["code"] == "EAGAIN"
        assert 5 < seen["made"] < 24
        assert consumption(bed, box).pids <= outside(box.spec.limits, bed.host.engine).pids

    asyncio.run(body())


def test_cpu_is_held_to_its_quota_and_counted(bed: Bed) -> None:
    async def body() -> None:
        box = await bed.make(limits=Limits(cpu=0.25))
        box.call("return 1")
        before, began = consumption(bed, box).cpu_seconds, time.monotonic()
        box.call("const end = Date.now() + 2000; while (Date.now() < end); return 1")
        used, took = consumption(bed, box).cpu_seconds - before, time.monotonic() - began
        # What is seen of it is late by a period of both processors at most, and by more where they are emulated.
        assert 0.1 < used < 0.25 * took + (0.6 if EMULATED else 0.2)

    asyncio.run(body())


def test_limits_change_under_a_running_sandbox(bed: Bed) -> None:
    async def body() -> None:
        box = await bed.make(limits=Limits(memory=64 * MiB))
        bed.engine.set_limits(box.spec.group_id, Limits(memory=256 * MiB, pids=200, cpu=2), bed.host.engine)
        await asyncio.to_thread(fill, box, 120)
        assert box.call("return 1") == 1
        assert consumption(bed, box).memory > 120 * MiB
        bed.engine.set_limits(box.spec.group_id, Limits(memory=200 * MiB), bed.host.engine)
        assert consumption(bed, box).oom_kills == 0

    asyncio.run(body())


def test_a_limit_of_memory_below_what_is_in_use_holds_up_no_other(bed: Bed) -> None:
    async def body() -> None:
        box = await bed.make(limits=Limits(memory=256 * MiB))
        await asyncio.to_thread(fill, box, 120)
        now = Limits(memory=64 * MiB, cpu=0.25, pids=100)
        if bed.host.cgroups == 1:
            with pytest.raises(MemoryInUse, match="more memory than its new limit"):
                bed.engine.set_limits(box.spec.group_id, now, bed.host.engine)
            assert consumption(bed, box).oom_kills == 0
        else:
            bed.engine.set_limits(box.spec.group_id, now, bed.host.engine)
            assert until(lambda: consumption(bed, box).oom_kills > 0)
        group = Path(bed.host.cgroup_parent, f"t-{box.spec.group_id}")
        root = Path("/sys/fs/cgroup")
        pids = root / ("pids" if bed.host.cgroups == 1 else "") / group / "pids.max"
        cpu = root / "cpu" / group / "cpu.cfs_quota_us" if bed.host.cgroups == 1 else root / group / "cpu.max"
        assert pids.read_text() == f"{outside(now, bed.host.engine).pids}\n"
        assert cpu.read_text().split()[0] == "25000"

    asyncio.run(body())


# --- network ----------------------------------------------------------------------------------------------------


def test_a_sandbox_reaches_nothing_and_the_host_reaches_it(bed: Bed) -> None:
    async def body() -> None:
        one, two = await asyncio.gather(bed.make(), bed.make())
        assert one.call("return 'in'") == two.call("return 'in'") == "in"
        own = str(bed.host.slot_addresses(one.spec.slot)[0])
        with socket.create_server(("0.0.0.0", 0)) as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.bind(("0.0.0.0", 0))
            udp.setblocking(False)
            port, udp_port = server.getsockname()[1], udp.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                pass
            others = [
                f"{own}:{port}",
                f"127.0.0.1:{port}",
                f"{two.address()}:8000",
                f"{host_address()}:{port}",
                "192.0.2.77:80",
            ]
            seen = one.call(
                f"""const net = require('net'); const reach = (t) => new Promise((f) => {{
                  const [host, port] = t.split(':'); const s = net.connect({{host, port: +port, timeout: 700}});
                  s.on('connect', () => {{ f('reached'); s.destroy(); }}); s.on('error', (e) => f(e.code));
                  s.on('timeout', () => {{ f('silence'); s.destroy(); }}); }});
                const udp = require('dgram').createSocket('udp4');
                await new Promise((f) => udp.send('x', {udp_port}, '{own}', f));
                const six = await reach6();
                async function reach6() {{ return new Promise((f) => {{ const s = net.connect({{host: 'fe80::1', port: 80, timeout: 700}});
                  s.on('connect', () => f('reached')); s.on('error', (e) => f(e.code)); s.on('timeout', () => f('silence')); }}); }}
                return [...await Promise.all({others!r}.map(reach)), six];"""
            )
            assert "reached" not in seen
            assert set(seen[:5]) == {"ECONNREFUSED"}, "told at once, not left to time out"
            with pytest.raises(BlockingIOError):
                udp.recv(10)

    asyncio.run(body())


def test_only_the_proxies_user_and_root_reach_a_sandbox(bed: Bed) -> None:
    async def body() -> None:
        box = await bed.make()
        box.call("return 1")
        assert reached_by(bed.host.users.proxy, box)
        assert reached_by(0, box)
        assert not reached_by(bed.host.users.collector, box)

    asyncio.run(body())


def test_interfaces_have_no_ipv6_and_the_host_as_their_only_way(bed: Bed) -> None:
    async def body() -> None:
        box = await bed.make()
        with open(f"/proc/{box.started.pid}/net/if_inet6", encoding="ascii") as file:
            assert file.read() == ""
        seen = box.call(
            """const all = Object.values(require('os').networkInterfaces()).flat();
            const routes = require('fs').readFileSync('/proc/net/route', 'utf8').trim().split('\\n').slice(1);
            return {families: [...new Set(all.map((one) => one.family))], routes: routes.map((one) => one.split(/\\s+/).slice(1, 3))};"""
        )
        assert seen["families"] == ["IPv4"]
        gateway = bed.host.slot_addresses(box.spec.slot)[0].packed[::-1].hex().upper()
        assert min(map(tuple, seen["routes"])) == ("00000000", gateway)
        assert len(seen["routes"]) == 2
        with open("/proc/net/if_inet6", encoding="ascii") as file:
            assert bed.host.interface_prefix not in file.read()

    asyncio.run(body())


# --- ends -------------------------------------------------------------------------------------------------------


def test_removal_leaves_nothing_and_may_be_repeated(bed: Bed) -> None:
    async def body() -> None:
        box = await bed.make()
        box.call("require('child_process').spawn('sleep', ['60'], {detached: true, stdio: 'ignore'})")
        await bed.end(box)
        # What is left is compared by the fixture with what was there before.
        await bed.end(box)
        assert consumption_or_none(bed, box) is None
        assert bed.engine.find() == []
        await bed.engine.kill(box.spec.sandbox_id, box.spec.group_id)

    asyncio.run(body())


def test_a_second_removal_does_not_touch_the_slots_new_owner(bed: Bed) -> None:
    async def body() -> None:
        box = await bed.make()
        slot = box.spec.slot
        await bed.end(box)
        heir = await bed.make(slot=slot)
        began = time.monotonic()
        await bed.end(box)
        assert time.monotonic() - began < 1
        assert heir.call("return 1") == 1

    asyncio.run(body())


LEAVE = """const fs = require('fs'), { spawn } = require('child_process');
fs.writeFileSync('/tmp/secret', 'of the last owner');
fs.mkdirSync('/tmp/folder');
for (let n = 0; n < 5; n++) spawn('sh', ['-c', 'sleep 1000 &'], { detached: true, stdio: 'ignore' }).unref();
require('net').createServer().listen('/tmp/socket');
const inside = (folder) => { try { fs.writeFileSync(folder + '/left', 'x'); return 'written' } catch (error) { return error.code } };
return ['/dev', '/dev/shm', '/run', '/var/tmp', '/proc/1'].map(inside)"""
LOOK = """const fs = require('fs');
const list = (folder) => { try { return fs.readdirSync(folder) } catch (error) { return [] } };
return [list('/tmp'), list('/proc').filter((name) => /^[0-9]+$/.test(name)).length]"""


def test_the_next_owner_of_a_slot_finds_nothing_of_the_last_one(bed: Bed) -> None:
    async def body() -> None:
        box = await bed.make()
        [in_tmp, fresh] = box.call(LOOK)
        assert in_tmp == []
        assert "written" not in box.call(LEAVE)
        slot, uids = box.spec.slot, range(box.uid() - 1, box.uid() + 7)
        await bed.end(box)
        assert until(lambda: not processes_of(uids), patience=1)
        assert owned_by(uids) == []
        heir = await bed.make(slot=slot)
        assert heir.call(LOOK) == [[], fresh]

    asyncio.run(body())


def owned_by(uids: range) -> list[str]:
    """Files of these users in every place of this machine where everybody may write, and in System V's and POSIX's."""
    found = []
    for folder in ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run"):
        for path in Path(folder).glob("*"):
            with contextlib.suppress(OSError):
                if path.lstat().st_uid in uids:
                    found.append(str(path))
    for kind in ("shm", "sem", "msg"):
        _, *lines = Path(f"/proc/sysvipc/{kind}").read_text().splitlines()
        found += [line for line in lines if any(str(uid) in line.split() for uid in uids)]
    return found


def test_a_slot_is_usable_at_once_after_removal(bed: Bed) -> None:
    async def body() -> None:
        for _ in range(8):
            box = await bed.make(slot=77)
            assert box.call("return 1") == 1
            await bed.end(box)

    asyncio.run(body())


def test_what_was_never_made_is_removed_without_complaint(bed: Bed) -> None:
    asyncio.run(bed.engine.remove("0" * 12, "1" * 12, 5))


def test_a_fork_bomb_is_killed_at_once(bed: Bed) -> None:
    async def body() -> None:
        box = await bed.make()
        box.call("require('child_process').spawn('sh', ['-c', 'f() { f | f & }; f'], {stdio: 'ignore'})")
        await asyncio.sleep(0.3)
        began = time.monotonic()
        await bed.engine.kill(box.spec.sandbox_id, box.spec.group_id)
        # One that is dying has left its group, and runs no more, before it is shown as dead.
        assert until(lambda: not box.processes(), patience=3)
        assert time.monotonic() - began < 3

    asyncio.run(body())


def test_the_tenants_group_goes_with_its_last_sandbox(bed: Bed) -> None:
    async def body() -> None:
        first = await bed.make(limits=Limits(memory=96 * MiB))
        second = await bed.make(group_id=first.spec.group_id, limits=Limits(memory=96 * MiB))
        await bed.end(first)
        assert second.call("return 1") == 1
        bed.engine.set_limits(second.spec.group_id, Limits(), bed.host.engine)
        await bed.end(second)
        with pytest.raises(EngineError):
            bed.engine.set_limits(second.spec.group_id, Limits(), bed.host.engine)

    asyncio.run(body())


def test_a_cancelled_start_can_be_removed(bed: Bed) -> None:
    async def body() -> None:
        cancelled = 0
        for delay in (0.0, 0.002, 0.01, 0.02, 0.04):
            spec = bed.spec()
            task = asyncio.create_task(bed.engine.start(spec))
            await asyncio.sleep(delay)
            task.cancel()
            (result,) = await asyncio.gather(task, return_exceptions=True)
            cancelled += isinstance(result, asyncio.CancelledError)
            await bed.engine.remove(spec.sandbox_id, spec.group_id, spec.slot)
            assert bed.engine.find() == []
        assert cancelled >= 3

    asyncio.run(body())


def test_an_id_or_slot_in_use_is_refused(bed: Bed) -> None:
    async def body() -> None:
        box = await bed.make()
        with pytest.raises(EngineError, match="already"):
            await bed.engine.start(replace(bed.spec(), sandbox_id=box.spec.sandbox_id))
        taken = bed.spec(slot=box.spec.slot)
        with pytest.raises(EngineError, match="File exists"):
            await bed.engine.start(taken)
        with pytest.raises(EngineError, match="outside"):
            await bed.engine.start(bed.spec(slot=bed.host.slots))
        await bed.engine.remove(taken.sandbox_id, taken.group_id, taken.slot)
        assert box.call("return 1") == 1
        assert [item.sandbox_id for item in bed.engine.find()] == [box.spec.sandbox_id]

    asyncio.run(body())


# --- after the engine's process has died ------------------------------------------------------------------------


def test_another_process_finds_what_is_there(bed: Bed) -> None:
    async def body() -> None:
        box = await bed.make()
        other = ENGINES["oci"](bed.host)
        await other.open()
        (found,) = other.find()
        assert (found.sandbox_id, found.group_id, found.slot) == (box.spec.sandbox_id, box.spec.group_id, box.spec.slot)
        assert found.pid == box.started.pid
        assert box.call("return 1") == 1
        os.kill(box.started.pid, 9)
        assert box.has_ended()
        (found,) = other.find()
        assert found.pid is None
        await other.remove(found.sandbox_id, found.group_id, box.spec.slot)
        assert other.find() == []
        await other.close(purge=False)

    asyncio.run(body())


@pytest.mark.long
def test_a_kill_at_any_moment_of_a_start_leaves_nothing_after_find_and_remove(bed: Bed) -> None:
    program = (
        "import asyncio, os, sys; sys.path.insert(0, sys.argv[1]); import msgspec; from support import engine_bed\n"
        "from sandpost.model.host import Host; from sandpost.engines.contract import SandboxSpec\n"
        "from sandpost.model.limits import Limits\n"
        "host = msgspec.json.decode(sys.argv[2], type=Host); engine = engine_bed.ENGINES[sys.argv[3]](host)\n"
        "async def main():\n"
        "    await engine.open(); null = os.open('/dev/null', os.O_WRONLY); n = 0\n"
        "    print('open', flush=True)\n"
        "    while True:\n"
        "        n += 1; name = f'{n:012x}'\n"
        "        spec = SandboxSpec(sandbox_id=name, group_id=name, slot=1000 + n, runtime='node', limits=Limits(),\n"
        "            stdout=null, stderr=null, frames=null, engine=host.engine)\n"
        "        await engine.start(spec)\n"
        "        await engine.remove(name, name, 1000 + n)\n"
        "asyncio.run(main())\n"
    )
    arguments = [os.path.dirname(os.path.dirname(__file__)), msgspec.json.encode(bed.host).decode(), "oci"]

    async def body() -> None:
        # A start of runsc takes longer, so that as many moments of it are met by fewer and longer steps.
        steps, pause = (20, 0.011) if is_runc(bed) else (12, 0.025)
        for step in range(steps):
            with subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE) as child:
                assert child.stdout is not None
                assert child.stdout.readline() == b"open\n"
                time.sleep(pause * step)
                child.kill()
            fresh = ENGINES["oci"](bed.host)
            await fresh.open()
            for found in fresh.find():
                await fresh.remove(found.sandbox_id, found.group_id, found.slot or 0)
            assert fresh.find() == []
            await fresh.close(purge=False)
            uids = range(bed.host.sandbox_uids, bed.host.sandbox_uids + 8 * bed.host.slots)
            assert until(lambda uids=uids: not processes_of(uids))  # type: ignore[misc]
            assert os.listdir(bed.host.path(bed.host.engine)) == []

    asyncio.run(body())


@pytest.mark.long
def test_300_sandboxes_leave_nothing_and_our_memory_flat(bed: Bed) -> None:
    async def body() -> None:
        async def some(count: int) -> None:
            for _ in range(count):
                boxes = await asyncio.gather(bed.make(), bed.make(), bed.make())
                await asyncio.gather(*(bed.end(box) for box in boxes))
                bed._slot %= 1000

        await some(20)
        before, fds = rss(), len(os.listdir("/proc/self/fd"))
        await some(80)
        assert rss() - before < 4 * MiB
        # The fixture's FIFOs are the test's own.
        assert len(os.listdir("/proc/self/fd")) - fds == 80 * 3 * 3

    asyncio.run(body())


# --- helpers ----------------------------------------------------------------------------------------------------


async def eventually(condition: object, patience: float = 5.0) -> bool:
    end = time.monotonic() + patience
    while not condition():  # type: ignore[operator]
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.01)
    return True


def is_runc(bed: Bed) -> bool:
    """Whether programs call the host's kernel."""
    return bed.host.engine == "runc"


def status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def fill(box: Sandbox, mib: int) -> None:
    """Let a program keep `mib` MiB of touched memory outside V8's heap.

    A killed sentry says nothing to who waits for its answer: its network stack is gone with it.
    """
    try:
        box.call(
            f"globalThis.kept = []; for (let i = 0; i < {mib}; i++) kept.push(Buffer.alloc(1 << 20, i)); return kept.length",
            patience=3,
        )
    except OSError as error:
        assert error.errno in (None, errno.ECONNRESET), error  # noqa: PT017 - a killed sandbox ends the exchange
    except Exception as error:
        assert type(error).__name__ in ("RemoteDisconnected", "AssertionError"), error  # noqa: PT017


def consumption(bed: Bed, box: Sandbox) -> Consumption:
    used = consumption_or_none(bed, box)
    assert used is not None
    return used


def consumption_or_none(bed: Bed, box: Sandbox) -> Consumption | None:
    return bed.engine.consumption(box.spec.sandbox_id, box.spec.group_id)


def read_all(_box: Sandbox, fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except BlockingIOError:
        return b""


def host_address() -> str:
    """Return an address of the host that is not loopback; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


def reached_by(uid: int, box: Sandbox) -> bool:
    program = "import socket, sys; socket.create_connection((sys.argv[1], 8000), timeout=0.5)"
    done = subprocess.run(
        ["/usr/bin/python3", "-c", program, box.address()], user=uid, check=False, stderr=subprocess.DEVNULL
    )
    return done.returncode == 0


def rss() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
