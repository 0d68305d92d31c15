"""Where the hierarchies of control groups are mounted for this process. Pure but for `read`.

What is mounted there is the highest group that we may manage: the root of the machine's hierarchy, or in a
container that container's own group, which a bind mount or a cgroup namespace shows in the root's place. The
OCI runtime takes `cgroupsPath` relative to the same mount points, so the two always agree.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mounts:
    """Mount points: of each v1 controller, of all hierarchies (named ones too), and of the v2 tree if any."""

    controllers: Mapping[str, str] = field(default_factory=dict)
    hierarchies: tuple[str, ...] = ()
    unified: str | None = None


def read() -> Mounts:
    """Read the calling process's mounts."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return parse(file.read())


def parse(mountinfo: str) -> Mounts:
    """Find the hierarchies in `/proc/<pid>/mountinfo` (proc(5)); of several mounts of one the first counts."""
    controllers: dict[str, str] = {}
    hierarchies: dict[str, str] = {}
    unified = None
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(" "), after.split(" ")
        if len(fields) < 5 or len(kinds) < 3:
            continue
        device, point = fields[2], _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4])
        if kinds[0] == "cgroup2":
            unified = unified or point
        elif kinds[0] == "cgroup":
            hierarchies.setdefault(device, point)
            for name in kinds[2].split(","):
                if name not in ("rw", "ro") and "=" not in name:
                    controllers.setdefault(name, point)
    return Mounts(controllers, tuple(hierarchies.values()), unified)
