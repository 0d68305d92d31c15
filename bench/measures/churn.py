"""Sandboxes made and ended one after another: what is left, and whether our memory stays flat."""

import asyncio
import time

import uvloop

from bench import machine
from bench.client import BrokenAnswer, ask_once, post
from bench.machine import MiB
from bench.options import Options
from bench.result import Figure, Result
from bench.running import PROGRAM, Platform, wait_until

_TENANTS = 4
_AT_ONCE = 2
_RETRY = 0.2
_TAKEN_UP = 2.0


def churn(options: Options) -> Result:
    """Tenants whose every call has a sandbox of its own, called until so many have come and gone."""
    count = options.pick(10_000, 150)
    warm_up = max(50, count // 10)

    async def calls(platform: Platform, number: int) -> dict[str, int]:
        outcomes: dict[str, int] = {}
        left = number

        async def client(tenant: int) -> None:
            nonlocal left
            while left > 0:
                left -= 1
                try:
                    answer = await ask_once(platform.port, post(f"/churn{tenant}", platform.key, PROGRAM))
                    outcome = str(answer.status)
                except (BrokenAnswer, OSError) as error:
                    outcome = type(error).__name__
                outcomes[outcome] = outcomes.get(outcome, 0) + 1
                if outcome in {"429", "503"}:
                    # Refused for now, as it should be when calls come faster than sandboxes start: asked again.
                    left += 1
                    await asyncio.sleep(_RETRY)

        async with asyncio.TaskGroup() as group:
            for tenant in range(_TENANTS):
                for _ in range(_AT_ONCE):
                    group.create_task(client(tenant))
        return outcomes

    def settled(platform: Platform) -> bool:
        status = platform.status()
        return not (status.assigned or status.draining or status.starting) and status.pool >= status.pool_target

    def left_over(platform: Platform) -> int:
        known = len(platform.sandboxes())
        host = platform.host
        groups = machine.groups(host.cgroup_parent) - known
        interfaces = machine.interfaces(host.interface_prefix) - known
        return max(0, groups) + max(0, interfaces)

    with Platform() as platform:
        for tenant in range(_TENANTS):
            platform.api("PUT", f"/api/tenants/churn{tenant}", {"isolation": "per_request"})
        # Proxies take up a tenant's settings within a second; until then his calls share a sandbox.
        time.sleep(_TAKEN_UP)
        uvloop.run(calls(platform, warm_up))
        wait_until(lambda: settled(platform), "the end of the first sandboxes", 60)
        before = sum(platform.pss().values())
        options.say(f"{warm_up} sandboxes, {before / MiB:.0f} MiB")
        began = time.perf_counter()
        outcomes = uvloop.run(calls(platform, count - warm_up))
        seconds = time.perf_counter() - began
        wait_until(lambda: settled(platform), "the end of the last sandboxes", 60)
        after = sum(platform.pss().values())
        wait_until(lambda: not left_over(platform), "everything of ended sandboxes to be gone", 30)
        left = left_over(platform)
        ends = platform.status().ends
    shown = ", ".join(f"{number} x {outcome}" for outcome, number in sorted(outcomes.items()))
    told = ", ".join(f"{number} {word}" for word, number in sorted(ends.items()) if number)
    bad = sum(number for outcome, number in outcomes.items() if outcome not in {"200", "429", "503"})
    return Result(
        figures=[
            Figure(
                name=f"{count:,} sandboxes made and ended: groups and interfaces left, failed calls",
                value=left + bad,
                unit="",
                goal=0,
                note=f"{(count - warm_up) / seconds:.1f} a second; calls: {shown}; ends: {told}",
            ),
            Figure(
                name="memory of the platform's processes after them",
                value=after / 1e6,
                unit="MB",
                goal=before / 1e6 * 1.1,
                reference=before / 1e6,
                beside=f"after the first {warm_up}",
                note="PSS; flat means at most a tenth more",
            ),
        ]
    )
