"""What is told to tenants in their own logs about their ways out: at what rate, in which words. Pure.

The same thing of the same sandbox is told at once and then every `AGAIN` seconds with the number of times since.
Egress tells what it refused; it is believed in nothing but that it speaks, at a bounded rate.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from sandpost.model.forbidden import why
from sandpost.model.limits import Limits
from sandpost.model.messages import Noted
from sandpost.model.units import format_size

AGAIN = 10.0
"""Seconds between two notes of the same kind about one sandbox."""
RATE, BURST = 2.0, 20.0
"""Notes a second, and at once, of one sandbox that egress may have passed on."""
LONGEST = 500
"""Letters of a note."""
KINDS = 64
"""Kinds that are counted; more there are not."""

_KIND = re.compile(r"[a-z][a-z_]{0,39}", re.ASCII)


@dataclass(slots=True)
class _Repeated:
    told_at: float
    times: int = 0
    addresses: tuple[str, ...] = ()


@dataclass(slots=True)
class _Passed:
    level: float
    at: float


@dataclass(slots=True)
class Notes:
    """Everything that is being told. `now` is a monotonic clock's seconds."""

    counts: Counter[str] = field(default_factory=Counter)
    """How often each kind happened, told or not."""
    dropped: int = 0
    """Notes of egress beyond what is passed on."""
    _repeated: dict[tuple[str, str], _Repeated] = field(default_factory=dict)
    _passed: dict[str, _Passed] = field(default_factory=dict)

    def hit(
        self, sandbox_id: str, kind: str, times: int, now: float, *, limits: Limits, addresses: tuple[str, ...] = ()
    ) -> Noted | None:
        """The firewall stopped something `times` times; return what to tell of it now."""
        self.counts[kind] += times
        known = self._repeated.setdefault((sandbox_id, kind), _Repeated(told_at=now - AGAIN))
        known.times += times
        known.addresses = addresses or known.addresses
        if now - known.told_at < AGAIN:
            return None
        return self._tell(sandbox_id, kind, known, limits, now)

    def due(self, now: float) -> list[tuple[str, str]]:
        """Return sandbox and kind of what was kept back for long enough; `again` tells it. Forget what is over."""
        found = []
        for key, known in list(self._repeated.items()):
            if now - known.told_at < AGAIN:
                continue
            if known.times:
                found.append(key)
            else:
                del self._repeated[key]
        for sandbox_id, passed in list(self._passed.items()):
            if now - passed.at > BURST / RATE:
                del self._passed[sandbox_id]
        return found

    def again(self, key: tuple[str, str], limits: Limits | None, now: float) -> Noted | None:
        """Return what was kept back; nothing of a sandbox that is gone (no `limits`)."""
        known = self._repeated[key]
        if limits is None:
            del self._repeated[key]
            return None
        return self._tell(*key, known, limits, now)

    def passed(self, noted: Noted, now: float) -> Noted | None:
        """Egress has noted something of a sandbox that has a tenant; return what is passed on."""
        if _KIND.fullmatch(noted.kind) is None or noted.times < 1 or not noted.text:
            self.dropped += 1
            return None
        if noted.kind in self.counts or len(self.counts) < KINDS:
            self.counts[noted.kind] += noted.times
        bucket = self._passed.setdefault(noted.sandbox_id, _Passed(BURST, now))
        bucket.level, bucket.at = min(BURST, bucket.level + (now - bucket.at) * RATE), now
        if bucket.level < 1:
            self.dropped += 1
            return None
        bucket.level -= 1
        return Noted(sandbox_id=noted.sandbox_id, kind=noted.kind, text=noted.text[:LONGEST], times=noted.times)

    def _tell(self, sandbox_id: str, kind: str, known: _Repeated, limits: Limits, now: float) -> Noted:
        text = sentence(kind, known.times, known.addresses, limits)
        noted = Noted(sandbox_id=sandbox_id, kind=kind, text=text, times=known.times)
        known.told_at, known.times = now, 0
        return noted


def sentence(kind: str, times: int, addresses: tuple[str, ...], limits: Limits) -> str:
    """Return what a tenant reads of a wall that his code met."""
    match kind:
        case "connections":
            return f"{_many(times, 'connection')} refused: {limits.connections} at once (limits.connections) are open"
        case "connection_rate":
            return (
                f"{_many(times, 'connection')} refused: over {limits.connection_rate} new ones a second "
                "(limits.connection_rate)"
            )
        case "room":
            return f"{_many(times, 'connection')} refused: this machine tracks as many connections as it can"
        case "bandwidth_in" | "bandwidth_out":
            way = "from" if kind == "bandwidth_in" else "to"
            rate = format_size(getattr(limits, kind))
            return f"{_many(times, 'packet')} {way} the internet dropped: over {rate}/s (limits.{kind})"
        case "address_refused":
            return f"{_many(times, 'packet')} refused: no sandbox may reach {_reasons(addresses)}"
        case _:
            whither = f" to {', '.join(addresses)}" if addresses else ""
            return f"{_many(times, 'packet')}{whither} refused by the tenant's egress policy"


def _reasons(addresses: tuple[str, ...]) -> str:
    if not addresses:
        return "private, reserved and the host's own addresses"
    return ", ".join(f"{one} ({why(IPv4Address(one)) or 'an address of the host'})" for one in addresses)


def _many(times: int, what: str) -> str:
    return f"{times:,} {what}{'' if times == 1 else 's'}"
