"""Programs of tenants that write lines, and the calls that run them."""

import json
import time
from pathlib import Path

from bench.client import ask_once, post
from bench.running import Platform

SETTINGS = {"limits_deadline": "60s", "limits_idle": "1h"}
"""Of a platform on which such calls last, and sandboxes stay from one to the next."""
SPEAKS = b'return function (cb) { console.log(`at=${process.hrtime.bigint()};`); cb(null, "Hello, world!") }'
_SAY = Path(__file__).with_name("say.js").read_bytes()
_FLOOD = Path(__file__).with_name("flood.js").read_bytes()
_CLOCK = b"return function (cb) { cb(null, String(process.hrtime.bigint())) }"


async def call(platform: Platform, target: str, program: bytes) -> bytes:
    """Return what a program answers; `RuntimeError` unless it succeeds."""
    answer = await ask_once(platform.port, post(target, platform.key, program))
    if answer.status != 200:
        raise RuntimeError(f"{target}: {answer.status} {answer.body[:300]!r}")
    return answer.body


async def say(platform: Platform, tenant: str, *, how: str, rate: float, seconds: float, size: int = 40) -> int:
    """Let a tenant write lines at a pace (`say.js`); return how many it wrote."""
    return int(await call(platform, f"/{tenant}?how={how}&rate={rate}&seconds={seconds}&size={size}", _SAY))


async def flood(platform: Platform, tenant: str, *, how: str, seconds: float) -> None:
    """Let a tenant write, or compute, without a pause (`flood.js`)."""
    await call(platform, f"/{tenant}?how={how}&seconds={seconds}", _FLOOD)


async def check_clock(platform: Platform, tenant: str) -> None:
    """Raise `RuntimeError` unless stamps of a sandbox are of our clock."""
    before = time.monotonic_ns()
    told = int(json.loads(await call(platform, f"/{tenant}", _CLOCK)))
    if not before < told < time.monotonic_ns():
        raise RuntimeError(f"the clock inside says {told}, which is not between {before} and now: no delay can be told")
