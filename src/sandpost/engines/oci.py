"""The engine that drives OCI runtimes (runc, runsc) directly, without a daemon."""

import asyncio
import contextlib
import os
import platform
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

import msgspec

from sandpost.engines import launch
from sandpost.engines.bundle import Bundles, Owner
from sandpost.engines.contract import Consumption, Found, SandboxSpec, Started
from sandpost.engines.driver import Driver, Launch
from sandpost.engines.runc import Runc
from sandpost.engines.runsc import Runsc
from sandpost.image import use
from sandpost.kernel import pids, threads
from sandpost.kernel.processes import start_time
from sandpost.model.engines import HOW_TO_GET, outside
from sandpost.model.errors import SEE_OUTPUT, EngineError, HostUnfit
from sandpost.model.host import Host
from sandpost.model.inside import RUNTIMES as FOLDER
from sandpost.model.limits import EngineName, Limits
from sandpost.model.runtimes import RUNTIMES, Runtimes
from sandpost.network import addresses, firewall, namespaces
from sandpost.walls import cgroups, modules, names, oci_config, pressure
from sandpost.walls.identity import identity

_START_PATIENCE = 10.0
_LOCK_PATIENCE = 5.0
_SLOT_PATIENCE = 2.0
_REMOVERS = 4

Result = TypeVar("Result")


class _Flags(msgspec.Struct, frozen=True):
    flags: list[str] = []


class OciEngine:
    """Implements `contract.Engine` for one installation.

    `walls` is one frozen value for all sandboxes; only tests hand one in, to see that a wall's absence is noticed, and
    `runtimes` of their own.
    """

    def __init__(self, host: Host, walls: oci_config.Walls | None = None, *, runtimes: Runtimes = RUNTIMES) -> None:
        self._host = host
        self._runtimes = runtimes
        self._walls = walls or oci_config.standing(platform.machine())
        self._groups = cgroups.pick(host)
        self._bundles = Bundles(host.path("bundles"))
        self._drivers: dict[EngineName, Driver] = {"runc": Runc(host), "runsc": Runsc(host)}
        self._image = -1
        self._commands: dict[str, tuple[str, ...]] = {}
        # Starts and removals block on the kernel, each in threads of its own, so that neither waits for the other.
        self._starters = threads.started(host.parallel_starts, "sandbox-start")
        self._removers = threads.started(_REMOVERS, "sandbox-remove")
        # Starts at work: a removal waits for them, also when whoever began them was cancelled.
        self._starting: dict[str, Future[Started]] = {}
        self._gofers: dict[str, int] = {}

    async def open(self) -> None:
        await self._run(self._removers, self._open)

    async def start(self, spec: SandboxSpec) -> Started:
        job = self._starters.submit(self._start, spec)
        self._starting[spec.sandbox_id] = job
        job.add_done_callback(lambda _: self._starting.pop(spec.sandbox_id, None))
        return await asyncio.shield(asyncio.wrap_future(job))

    def set_limits(self, group_id: str, limits: Limits, engine: EngineName) -> None:
        self._groups.set_limits(group_id, outside(limits, engine, self._groups.count(group_id)))

    def take_up(self, host: Host) -> None:
        for driver in self._drivers.values():
            driver.take_up(host)

    def limit_parent(self, memory: int) -> None:
        self._groups.limit_parent(memory)

    async def kill(self, sandbox_id: str, group_id: str) -> None:
        await self._run(self._removers, lambda: self._groups.kill(group_id, sandbox_id))

    async def remove(self, sandbox_id: str, group_id: str, slot: int) -> None:  # noqa: ARG002 - the bundle knows it
        job = self._starting.get(sandbox_id)
        if job is not None:
            job.cancel()
        self._gofers.pop(sandbox_id, None)
        await self._run(self._removers, lambda: self._remove(sandbox_id, group_id, job))

    def consumption(self, sandbox_id: str, group_id: str) -> Consumption | None:
        usage = self._groups.usage(group_id, sandbox_id)
        if usage is None:
            return None
        return Consumption(
            memory=usage.memory,
            cpu_seconds=usage.cpu_seconds,
            pids=usage.pids,
            oom_kills=usage.oom_kills,
            parent_full=usage.parent_full,
            peak_memory=usage.peak_memory,
            pids_refused=usage.pids_refused,
        )

    def pressure(self, sandbox_id: str, group_id: str, pid: int, limits: Limits) -> pressure.Pressure | None:
        owner = self._bundles.owner(sandbox_id)
        if owner is None:
            return None
        if owner.engine == "runsc":
            # What its sentry counts (processes, open files) shows nothing of itself outside.
            gofer = self._gofer(sandbox_id, group_id, pid)
            return pressure.look_at_tmp(gofer) if gofer is not None else None
        usage = self._groups.usage(group_id, sandbox_id)
        return pressure.look(pid, limits, usage.pids_refused) if usage is not None else None

    def memory(self) -> tuple[int, int]:
        return self._groups.parent_memory()

    def watch_memory(self, sandbox_id: str, group_id: str, on_out_of_memory: Callable[[], None]) -> Callable[[], None]:
        return self._groups.watch(group_id, sandbox_id, on_out_of_memory)

    def watch_parent(self, threshold: int, on_full: Callable[[], None]) -> Callable[[], None]:
        return self._groups.watch_parent(threshold, on_full)

    def find(self) -> list[Found]:
        owners = self._bundles.find()
        groups = {sandbox_id: group_id for group_id, sandbox_id in self._groups.find()}
        found = []
        for sandbox_id in sorted(owners.keys() | groups.keys()):
            owner = owners.get(sandbox_id)
            group_id = owner.group_id if owner is not None else groups[sandbox_id]
            pids = self._groups.processes(group_id, sandbox_id)
            found.append(
                Found(
                    sandbox_id=sandbox_id,
                    group_id=group_id,
                    pid=self._first(sandbox_id, pids),
                    slot=owner.slot if owner is not None else None,
                )
            )
        return found

    async def close(self, *, purge: bool) -> None:
        await self._run(self._removers, lambda: self._close(purge=purge))
        self._starters.shutdown(wait=True, cancel_futures=True)
        self._removers.shutdown(wait=True, cancel_futures=True)

    def _open(self) -> None:
        host = self._host
        if not os.access(host.command(host.engine), os.X_OK):
            missing = host.command(host.engine) or host.engine
            raise HostUnfit(f"there is no {missing}: {HOW_TO_GET[host.engine]}")
        # Another one's when a tenant is set to it: it reads all of its program, which is large.
        self._drivers[host.engine].open()
        if self._image < 0:
            self._image = use.hold(host.image_dir, host.image)
        self._bundles.open()
        names.write(host)
        modules.ensure(host)
        self._groups.open()
        firewall.ensure(host)
        # The group that first touches a page is charged for it: that must be none of a tenant's.
        use.warm(host.rootfs)

    def _start(self, spec: SandboxSpec) -> Started:
        host = self._host
        if spec.slot < 0 or spec.slot >= host.slots:
            raise EngineError(f"slot {spec.slot} is outside the address block of {host.slots}")
        driver = self._drivers[spec.engine]
        driver.open()
        namespace = lock = -1
        try:
            owner = Owner(group_id=spec.group_id, slot=spec.slot, engine=spec.engine)
            lock = self._bundles.make(spec.sandbox_id, owner)
            # A further runtime of a tenant comes to the group of the first.
            sandboxes = self._groups.count(spec.group_id) + 1
            self._groups.create(spec.group_id, spec.sandbox_id, outside(spec.limits, spec.engine, sandboxes))
            namespace = namespaces.make(addresses.link(host, spec.slot))
            config = self._config(spec, namespace)
            driver.adapt(config, spec.limits)
            self._bundles.configure(spec.sandbox_id, config)
            return self._launch(driver, spec, lock)
        except OSError as error:
            raise EngineError(f"cannot make sandbox {spec.sandbox_id}: {error}") from error
        finally:
            # By now the namespace lives by the sandbox's processes.
            for fd in (namespace, lock):
                if fd >= 0:
                    os.close(fd)

    def _launch(self, driver: Driver, spec: SandboxSpec, lock: int) -> Started:
        bundle = self._bundles.path(spec.sandbox_id)
        entries = self._groups.entries(spec.group_id, spec.sandbox_id)
        command = driver.command(
            Launch(
                sandbox_id=spec.sandbox_id, bundle=bundle, ready=spec.ready is not None, entries=entries,
                limits=spec.limits, identity=identity(self._host, spec.slot),
            )
        )  # fmt: skip
        code = launch.run(
            command.words,
            program=command.program,
            stdout=spec.stdout,
            stderr=spec.stderr,
            frames=spec.frames,
            ready=spec.ready,
            lock=lock,
            patience=_START_PATIENCE,
        )
        if code is None:
            raise EngineError(f"{driver.name} did not start sandbox {spec.sandbox_id} within {_START_PATIENCE:.0f} s")
        if code != 0:
            said = launch.complaint(os.path.join(bundle, "runtime.log"))
            if scarce := pids.scarce():
                said = f"{said}; {scarce}"
            raise EngineError(f"{driver.name} could not start sandbox {spec.sandbox_id}: {said}")
        pid = self._bundles.pid(spec.sandbox_id)
        began = start_time(pid) if pid is not None else 0
        if pid is None or not began:
            raise EngineError(f"sandbox {spec.sandbox_id} ended as it started: {SEE_OUTPUT}")
        return Started(pid=pid, start_time=began)

    def _config(self, spec: SandboxSpec, namespace: int) -> dict[str, object]:
        return oci_config.render(
            walls=self._walls,
            program=oci_config.Program(
                command=self._command(spec.runtime),
                programs=spec.limits.programs,
                ready=None if spec.ready is None else launch.READY,
            ),
            limits=spec.limits,
            identity=identity(self._host, spec.slot),
            rootfs=self._host.rootfs,
            namespace=f"/proc/{os.getpid()}/fd/{namespace}",
            group_path=self._groups.path(spec.group_id, spec.sandbox_id),
            resolv_conf=self._host.resolv_conf,
            modules=self._host.modules_ready,
        )

    def _command(self, name: str) -> tuple[str, ...]:
        if name not in self._commands:
            runtime = self._runtimes.get(name)
            if runtime is None:
                raise EngineError(f"this release has no runtime `{name}`: it has {', '.join(self._runtimes)}")
            found = _Flags()
            path = f"{self._host.rootfs}{FOLDER}/{runtime.folder}/flags.json"
            with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
                found = msgspec.json.decode(file.read(), type=_Flags)
            self._commands[name] = tuple(runtime.command(tuple(found.flags)))
        return self._commands[name]

    def _remove(self, sandbox_id: str, group_id: str, job: Future[Started] | None) -> None:
        if job is not None:
            wait([job])
        owner = self._bundles.owner(sandbox_id)
        if owner is not None:
            group_id = owner.group_id
        if not self._bundles.wait_unlocked(sandbox_id, 0):
            # An OCI runtime that somebody left behind: it would go on making what we remove.
            launch.kill_launchers(self._bundles.path(sandbox_id))
            if not self._bundles.wait_unlocked(sandbox_id, _LOCK_PATIENCE):
                raise EngineError(f"an OCI runtime still works for sandbox {sandbox_id}: see /proc/locks")
        self._groups.kill(group_id, sandbox_id)
        self._groups.remove(group_id, sandbox_id)
        for driver in self._drivers.values():
            driver.forget(sandbox_id)
        if owner is not None:
            # Without a bundle nothing says that the slot is still this sandbox's: it may be another's by now.
            self._free(sandbox_id, owner.slot)
        self._bundles.remove(sandbox_id)

    def _first(self, sandbox_id: str, pids: list[int]) -> int | None:
        """Return which of the processes in a sandbox's group is its first: of runsc's two are first of a namespace."""
        known = self._bundles.pid(sandbox_id)
        return next((pid for pid in pids if launch.is_first(pid) and pid == (known or pid)), None)

    def _gofer(self, sandbox_id: str, group_id: str, sentry: int) -> int | None:
        """Return the process of a sandbox of runsc's whose root is the one that programs see."""
        pids = self._groups.processes(group_id, sandbox_id)
        if self._gofers.get(sandbox_id) not in pids:
            first = (pid for pid in pids if pid != sentry and launch.is_first(pid))
            self._gofers[sandbox_id] = next(first, 0)
        return self._gofers[sandbox_id] or None

    def _free(self, sandbox_id: str, slot: int) -> None:
        """See to it that the slot's interface is gone, unless it is another's for whom this start was refused."""
        interface = addresses.link(self._host, slot).interface
        if namespaces.wait_gone(interface, _SLOT_PATIENCE):
            return
        if all(owner.slot != slot for other, owner in self._bundles.find().items() if other != sandbox_id):
            namespaces.delete(interface)

    def _close(self, *, purge: bool) -> None:
        self._groups.close(purge=purge)
        if purge:
            firewall.remove(self._host)
            self._bundles.purge()
            names.remove(self._host)
        for driver in self._drivers.values():
            driver.close(purge=purge)
        if self._image >= 0:
            os.close(self._image)
            self._image = -1

    async def _run(self, pool: ThreadPoolExecutor, work: Callable[[], Result]) -> Result:
        """Run `work` in a thread; cancelling the wait does not stop what has begun."""
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(pool, work))
