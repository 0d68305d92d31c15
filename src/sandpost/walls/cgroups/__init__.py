"""Control groups: `sandpost-<k>` above all, `t-<id>` with a tenant's limits, `s-<id>` for a sandbox.

`pick` returns the driver of the machine's version; `contract.Groups` is what both do.
"""

from sandpost.model.host import Host
from sandpost.walls.cgroups import mounts, v1, v2
from sandpost.walls.cgroups.contract import Groups as Groups
from sandpost.walls.cgroups.contract import Usage as Usage


def pick(host: Host) -> Groups:
    """Return the driver for `host.cgroups`, on the hierarchies that this process sees."""
    found = mounts.read()
    return v2.GroupsV2(host, found) if host.cgroups == 2 else v1.GroupsV1(host, found)
