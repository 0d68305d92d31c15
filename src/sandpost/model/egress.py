"""What a tenant may reach outside: its egress policy, as it is written and as it is meant. Pure.

`public` (the default): the public internet. `none`: nothing, no name either. `allow:ENTRY,ENTRY..`: what an entry
names and nothing else. An entry is `DOMAIN[:PORT]`, `*.DOMAIN[:PORT]` (one or more labels before it) or
`ADDRESS[/BITS][:PORT]`; PORT is a number or a range `8000-8010`. A domain without a port means 80 and 443, and goes
through the gate, which reads names of TLS (SNI) and HTTP (Host); an address without a port means all of them, TCP and
UDP.
"""

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Literal

from sandpost.model.errors import InvalidValue, shown
from sandpost.model.forbidden import FORBIDDEN

Kind = Literal["public", "none", "allow"]

MAX_ENTRIES = 256
WEB_PORTS = ((80, 80), (443, 443))
"""First and last port of each range that a domain without a port means."""
ALL_PORTS = ((1, 65535),)

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_DOMAIN = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})+", re.ASCII)
_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)
_ADDRESS = re.compile(r"[\d./]+", re.ASCII)
_LONGEST_DOMAIN = 253


@dataclass(frozen=True, slots=True)
class Domain:
    """A name, in lower case without a final dot, that may be reached at some ports. `wildcard`: names below it."""

    name: str
    wildcard: bool
    ports: tuple[tuple[int, int], ...] = WEB_PORTS

    def covers(self, name: str) -> bool:
        """Whether `name` (lower case, no final dot) is meant."""
        return name.endswith("." + self.name) if self.wildcard else name == self.name


@dataclass(frozen=True, slots=True)
class Block:
    """Addresses that may be reached at some ports, TCP and UDP."""

    network: IPv4Network
    ports: tuple[tuple[int, int], ...] = ALL_PORTS


@dataclass(frozen=True, slots=True)
class Egress:
    """A policy. `domains` and `blocks` are empty unless `kind` is `allow`; `text` is how it was written."""

    kind: Kind
    text: str
    domains: tuple[Domain, ...] = field(default=())
    blocks: tuple[Block, ...] = field(default=())


def parse_egress(text: str) -> Egress:
    """Return the policy that `text` means; `InvalidValue` with the entry that is wrong and what may stand there."""
    if text in {"public", "none"}:
        return Egress("public" if text == "public" else "none", text)
    way, _, rest = text.partition(":")
    entries = [entry.strip() for entry in rest.split(",")]
    if way != "allow" or not rest.strip():
        raise InvalidValue(
            f"`{shown(text)}` is no egress policy: write `public`, `none` or `allow:` with domains and addresses, "
            "such as `allow:api.example.com:443,203.0.113.0/24`"
        )
    if len(entries) > MAX_ENTRIES:
        raise InvalidValue(f"an allow-list has {MAX_ENTRIES} entries at most, this one has {len(entries)}")
    found = [_entry(entry) for entry in entries]
    return Egress(
        "allow",
        text,
        tuple(one for one in found if isinstance(one, Domain)),
        tuple(one for one in found if isinstance(one, Block)),
    )


def _entry(entry: str) -> Domain | Block:
    if "//" in entry:
        raise InvalidValue(
            f"`{shown(entry)}` in the allow-list is a URL: write its domain alone, like `api.example.com`"
        )
    if entry.count(":") > 1:
        raise InvalidValue(f"`{shown(entry)}` in the allow-list is IPv6, which sandboxes do not have")
    place, _, tail = entry.partition(":")
    ports = _ports(entry, tail) if ":" in entry else None
    if _ADDRESS.fullmatch(place):
        return Block(_network(entry, place), ports or ALL_PORTS)
    name = place.lower().removesuffix(".")
    if _DOMAIN.fullmatch(name) is None or len(name) > _LONGEST_DOMAIN:
        raise InvalidValue(
            f"`{shown(entry)}` in the allow-list is no domain, address or block: write it like `api.example.com:443`, "
            "`*.example.com`, `203.0.113.7:5432` or `203.0.113.0/24`"
        )
    return Domain(name.removeprefix("*."), name.startswith("*."), ports or WEB_PORTS)


def _ports(entry: str, text: str) -> tuple[tuple[int, int], ...]:
    match = _PORTS.fullmatch(text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last <= 65535:
        raise InvalidValue(
            f"`{shown(entry)}` in the allow-list has no port from 1 to 65535: write one, or a range like 8000-8010"
        )
    return ((first, last),)


def _network(entry: str, text: str) -> IPv4Network:
    try:
        network = IPv4Network(text)
    except ValueError as error:
        raise InvalidValue(f"`{shown(entry)}` in the allow-list is no IPv4 address or block: {error}") from None
    for block, reason in FORBIDDEN:
        if network.subnet_of(block):
            raise InvalidValue(
                f"`{shown(entry)}` in the allow-list lies in {block}, which no sandbox may reach ({reason})"
            )
    return network
