"""Memory of a sandbox is memory alone: what it may swap is nothing, as the kernel's files say."""

import asyncio
from pathlib import Path

from sandpost.model.engines import outside
from sandpost.model.limits import Limits
from support.engine_bed import Bed, MiB


def test_a_tenants_group_may_not_swap(bed: Bed) -> None:
    async def body() -> None:
        box = await bed.make(limits=Limits(memory=64 * MiB))
        memory = outside(box.spec.limits, bed.host.engine).memory
        lines = Path(f"/proc/{box.started.pid}/cgroup").read_text().splitlines()
        groups = {line.split(":", 2)[1]: line.split(":", 2)[2] for line in lines}
        if "memory" in groups:
            tenants = Path("/sys/fs/cgroup/memory" + groups["memory"]).parent
            both = tenants / "memory.memsw.limit_in_bytes"
            allowed = int(both.read_text()) - memory if both.exists() else 0
            if not both.exists():
                assert (tenants / "memory.swappiness").read_text() == "0\n"
            assert int((tenants / "memory.limit_in_bytes").read_text()) == memory
        else:
            tenants = Path("/sys/fs/cgroup" + groups[""]).parent
            allowed = int((tenants / "memory.swap.max").read_text())
            assert int((tenants / "memory.max").read_text()) == memory
        assert allowed == 0

    asyncio.run(body())
