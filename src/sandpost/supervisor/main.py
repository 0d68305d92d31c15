"""`sandpost serve`: becomes the supervisor, in the foreground or, with --detach, in the background."""

import asyncio
import contextlib
import gc
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sandpost import config
from sandpost.config import Settings
from sandpost.kernel import capabilities, descriptors
from sandpost.logs.setup import configure, connect
from sandpost.model.errors import AlreadyRunning, ConfigError, SandpostError
from sandpost.model.units import format_duration
from sandpost.supervisor import spawn, start
from sandpost.supervisor.outlet import Outlet
from sandpost.supervisor.release import release
from sandpost.supervisor.start import Prepared
from sandpost.supervisor.supervisor import Plan, Supervisor
from sandpost.supervisor.wish import WISH, Stopped
from sandpost.walls.own import root

_TRIM_EVERY = 60.0
_USAGE = """usage: sandpost serve [--config FILE] [--detach] [SETTING ..]

Starts Sandpost on this machine and stays in the foreground; SIGTERM or Ctrl-C stops everything (a second Ctrl-C at
once), SIGHUP takes up settings that can change (*). --detach goes to the background once all is ready.

Ends with 0 after a stop, 1 if it cannot start or left something behind, 2 if a setting is wrong, 3 if it runs already.

Settings, each also in the environment (SANDPOST_POOL_SIZE) and in FILE or /etc/sandpost.toml (pool_size):
"""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says beside settings."""

    config: str | None
    detach: bool
    help: bool
    flags: tuple[str, ...]

    def settings(self) -> Settings:
        """Read the settings as they are now."""
        return config.load(os.environ, self.flags, self.config)


def main(argv: Sequence[str]) -> int:
    """Run until told to stop; return the exit status."""
    WISH.listen()
    try:
        options = parse(argv)
        if options.help:
            sys.stdout.write(_USAGE + "\n".join(_help()) + "\n")
            return 0
        settings = options.settings()
    except ConfigError as error:
        sys.stderr.write(f"sandpost: {error.message}\n")
        return 2
    return _detached(options, settings) if options.detach else serve(options, settings, None)


def parse(argv: Sequence[str]) -> Options:
    """Split `argv` into our own options and flags of settings. Pure."""
    path: str | None = None
    detach = wants_help = False
    flags: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if name == "--config":
            if not equals and not rest:
                raise ConfigError("--config needs a file: --config /etc/sandpost.toml")
            path = value if equals else rest.pop(0)
        elif word == "--detach":
            detach = True
        elif word in {"--help", "-h"}:
            wants_help = True
        else:
            flags.append(word)
            takes_value = not equals and not any(s.flag == name and s.kind.name == "switch" for s in config.SETTINGS)
            if takes_value and rest:
                flags.append(rest.pop(0))
    return Options(path, detach, wants_help, tuple(flags))


def serve(options: Options, settings: Settings, parent: "Parent | None") -> int:
    """Run one installation. `parent`: who waits to hear that all is ready and the terminal is free, if detached."""
    began = time.monotonic()
    os.umask(0o022)
    descriptors.allow_most()
    capabilities.give_up(root.UNUSED)
    with contextlib.suppress(OSError):
        spawn.go_last_when_memory_runs_out()
    outlet = Outlet(None)
    configure("supervisor")
    try:
        prepared = start.prepare(settings, options.settings, outlet.say)
    except AlreadyRunning as error:
        outlet.complain(f"sandpost: {error.message}")
        return 3
    except SandpostError as error:
        outlet.complain(f"sandpost: {error.message}")
        return 2 if isinstance(error, ConfigError) else 1
    except Stopped:
        # Nothing ran yet.
        return 0
    if parent is not None or os.isatty(2):
        outlet = Outlet(os.path.join(settings["state_dir"], "serve.log"))

    shown = False

    def on_ready() -> None:
        nonlocal shown
        outlet.say(start.greeting(prepared, began))
        if outlet.path is not None:
            outlet.say(f"Log lines go to {outlet.path}.")
        shown = True
        if parent is not None:
            parent.tell(0)
            outlet.leave()

    plan = Plan(
        host=prepared.host,
        host_file=prepared.host_file,
        release=release(),
        output=outlet.log,
        # Who detaches leaves the terminal to others.
        stdout=outlet.log if parent is not None else 1,
        tidy=[sys.executable, "-I", "-m", "sandpost.image", prepared.host.image_dir, prepared.host.image],
        on_ready=on_ready,
        on_ended=lambda: start.release(prepared),
        reread=prepared.reread,
    )
    try:
        asyncio.run(_run(plan, prepared, outlet))
    except SandpostError as error:
        outlet.complain(f"sandpost: {error.message}")
        if outlet.path is not None:
            outlet.complain(f"Log lines are in {outlet.path}.")
        return 1
    finally:
        if prepared.first_key and not shown:
            outlet.complain(f"The first operator's key was made all the same: {prepared.first_key}")
    return 0


async def _run(plan: Plan, prepared: Prepared, outlet: Outlet) -> None:
    supervisor = Supervisor(plan)
    connect(plan.host.records_socket)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if not supervisor.stop_asked.is_set():
            timeout = format_duration(plan.host.drain_timeout)
            outlet.say(f"Stopping: calls under way have {timeout} to end. Asked again, it stops at once.")
        supervisor.stop()

    loop.add_signal_handler(signal.SIGTERM, stop)
    loop.add_signal_handler(signal.SIGINT, stop)
    loop.add_signal_handler(signal.SIGHUP, supervisor.reload)
    if WISH.asked_reload:
        supervisor.reload()
    if WISH.asked:
        stop()

    def trim() -> None:
        outlet.trim()
        supervisor.later(_TRIM_EVERY, trim)

    trim()
    # What the start has left is collected once; after this there is little that makes garbage.
    gc.collect()
    await supervisor.run(prepared.previous)


class Parent:
    """The process that was started with --detach and waits for how the start goes."""

    def __init__(self, pipe: int) -> None:
        self._pipe: int | None = pipe

    def tell(self, status: int) -> None:
        """Let it end with `status`. Only the first time counts."""
        if self._pipe is not None:
            # A parent that is gone hears nothing; all goes on.
            with contextlib.suppress(BrokenPipeError):
                os.write(self._pipe, str(status).encode())
            os.close(self._pipe)
            self._pipe = None


def _detached(options: Options, settings: Settings) -> int:
    # What the caller left open is none of a background process's business.
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    reader, writer = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.setsid()
        parent = Parent(writer)
        result = 1
        try:
            result = serve(options, settings, parent)
        finally:
            parent.tell(result)
            os._exit(result)
    os.close(writer)
    with open(reader, "rb") as pipe:
        try:
            with WISH.breaking_off():
                said = pipe.read(1)
        except Stopped:
            # Meant for the start, which is in a session of its own; it says how it ended.
            os.kill(child, signal.SIGTERM)
            said = pipe.read(1)
    return int(said or b"1")


def _help() -> list[str]:
    lines = []
    for setting in config.SETTINGS:
        name = f"({setting.environment})" if setting.secret else setting.flag
        default = setting.kind.show(setting.default)
        shown = f" [{default}]" if default else ""
        lines.append(f"  {name:30} {setting.help}{shown}{' *' if setting.live else ''}")
    return lines
