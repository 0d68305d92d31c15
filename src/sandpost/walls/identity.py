"""Which host users a slot's sandbox is. Pure."""

from dataclasses import dataclass

from sandpost.model.host import Host


@dataclass(frozen=True, slots=True)
class Identity:
    """The two host ids of a sandbox, of users and of groups alike.

    `root` stands for the sandbox's uid 0, which no process ever has: the OCI runtime wants it mapped. `user` is
    what its processes are on the host.
    """

    root: int
    user: int


def identity(host: Host, slot: int) -> Identity:
    """Return the ids of `slot`; no two slots share one."""
    base = host.slot_uid(slot)
    return Identity(root=base, user=base + 1)
