"""Two tenants that want all of something, and two sandboxes of one tenant: who is left with what."""

import asyncio
import contextlib
import os

import pytest

from sandpost.model.limits import Limits
from support.engine_bed import Bed, MiB, Sandbox, until

SPIN = """const {spawn} = require('child_process');
for (let n = 0; n < %d; n++) spawn('sh', ['-c', 'while :; do :; done'], {stdio: 'ignore'}); return 1"""
FILL = """const {spawn} = require('child_process');
spawn(process.execPath, ['-e', 'const all = []; for (;;) all.push(Buffer.alloc(1 << 20, 1))'], {stdio: 'ignore'});
return 1"""


def test_a_tenant_with_more_busy_processes_gets_no_more_of_the_processors(bed: Bed) -> None:
    cores = os.cpu_count() or 1

    async def body() -> None:
        many, few = await asyncio.gather(*(bed.make(limits=Limits(cpu=cores)) for _ in range(2)))
        many.call(SPIN % 16)
        few.call(SPIN % 4)
        for box in (many, few):
            # All on one core: over several the kernel balances for longer than we look.
            pin(box, core=0)
        await asyncio.sleep(0.5)
        before = [seconds(bed, box) for box in (many, few)]
        await asyncio.sleep(3)
        of_many, of_few = (seconds(bed, box) - was for box, was in zip((many, few), before, strict=True))
        # By number of processes it would be a quarter.
        assert of_few > 0.6 * of_many

    asyncio.run(body())


def test_tenants_share_a_busy_processor_in_proportion_to_their_limits(bed: Bed) -> None:
    async def body() -> None:
        large, small = [await bed.make(limits=Limits(cpu=cpu)) for cpu in (3, 1)]
        for box in (large, small):
            box.call(SPIN % 3)
            # All on one core, so that it does not suffice for either.
            pin(box, core=0)
        await asyncio.sleep(0.5)
        before = [seconds(bed, box) for box in (large, small)]
        await asyncio.sleep(3)
        of_large, of_small = (seconds(bed, box) - was for box, was in zip((large, small), before, strict=True))
        assert 2 < of_large / of_small < 4.5

    asyncio.run(body())


# The memory of programs on runsc is a file of their sentry: where the kernel ends a stub (v1) nothing comes free, and
# it goes on to what else is in the tenant's group.
@pytest.mark.engine("runc")
def test_one_process_that_wants_memory_ends_its_sandbox_and_not_the_tenants_other(bed: Bed) -> None:
    async def body() -> None:
        one = await bed.make(limits=Limits(memory=128 * MiB))
        other = await bed.make(group_id=one.spec.group_id, limits=Limits(memory=128 * MiB))
        other.call("return 1")
        one.call(FILL)
        if bed.host.cgroups == 1:
            # The kernel ends one process there, and tells; all others are ours to end.
            assert await asyncio.to_thread(until, lambda: kills(bed, one) > 0, 10)
            await bed.engine.kill(one.spec.sandbox_id, one.spec.group_id)
        assert one.has_ended(10)
        assert kills(bed, one) > 0
        assert (other.call("return 1"), kills(bed, other)) == (1, 0)

    asyncio.run(body())


def pin(box: Sandbox, core: int) -> None:
    for pid in box.processes():
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread), {core})


def seconds(bed: Bed, box: Sandbox) -> float:
    used = bed.engine.consumption(box.spec.sandbox_id, box.spec.group_id)
    assert used is not None
    return used.cpu_seconds


def kills(bed: Bed, box: Sandbox) -> int:
    used = bed.engine.consumption(box.spec.sandbox_id, box.spec.group_id)
    assert used is not None
    return used.oom_kills
