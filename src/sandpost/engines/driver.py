"""What the engine must know of an OCI runtime. The drivers `runc` and `runsc` are siblings of this module."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sandpost.model.host import Host
from sandpost.model.limits import EngineName, Limits
from sandpost.walls.identity import Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What one run of the runtime is about."""

    sandbox_id: str
    bundle: str
    """Its folder; `config.json` is there, `runtime.log` and `pid` come there."""
    ready: bool
    """Descriptor 4 is passed on, besides 0 to 3."""
    entries: Sequence[str]
    """Files that a process writes 0 to, to enter the sandbox's group."""
    limits: Limits
    identity: Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command line, and the file to run if that is not its first word."""

    words: Sequence[str]
    program: str | None = None


class Driver(Protocol):
    """One OCI runtime of a host. Methods may be called from several threads at once."""

    name: EngineName
    """How tenants, records and settings call it."""

    def open(self) -> None:
        """Make what its runs share; done before the first one. `EngineError` if the runtime is not there."""

    def take_up(self, host: Host) -> None:
        """Take up where the runtime's program is now."""

    def adapt(self, config: dict[str, Any], limits: Limits) -> None:
        """Change an OCI configuration where this runtime needs another one than runc."""

    def command(self, launch: Launch) -> Command:
        """Return what starts a sandbox: detached, with its host pid in `<bundle>/pid`, JSON in `<bundle>/runtime.log`.

        The descriptors 0 to 3 (and 4) are inherited, and are those of the program.
        """

    def forget(self, sandbox_id: str) -> None:
        """Remove the runtime's own files of a sandbox whose processes have ended. Idempotent."""

    def close(self, *, purge: bool) -> None:
        """Let go of what `open` made; with `purge` nothing of it is left on the host."""
