"""What of an upstream's answer reaches a sandbox. Pure.

An upstream may lie, loop, or be asked for a name whose owner does: only records that follow from the question are
kept, along at most `MAX_CHAIN` aliases, and an answer with one forbidden address is no answer at all (rebinding
mixes them with good ones). The additional section is never passed on.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address
from typing import Any

import dns.message
import dns.rcode
import dns.rdataclass
import dns.rrset
from dns.edns import EDECode
from dns.name import Name
from dns.rdatatype import RdataType
from dns.rdtypes.svcbbase import ParamKey
from dns.rrset import RRset

from sandpost.egress.answer import Answer, failed, refused
from sandpost.model.forbidden import why

MAX_CHAIN = 8
"""Aliases on the way to an answer; the longest seen in use are five."""
MAX_TEXT = 1024
MAX_ANSWER = 4096
"""Bytes of a TXT record set, and of everything else together."""
LEAST_TTL, MOST_TTL = 2, 3600
"""Seconds. Below the least a name could be asked upstream again and again, which would carry a tunnel."""
UNKNOWN_TTL = 5
"""Seconds for which the absence of a name is known where its zone does not say."""
MOST_ABSENT = 300


def scrub(name: Name, kind: RdataType, message: dns.message.Message, *, hints: bool) -> Answer:
    """Return what of `message`, which has been found to answer `name` and `kind`, a sandbox is told.

    `hints`: whether addresses may stand in HTTPS and SVCB records, where nobody learns them.
    """
    if message.rcode() not in {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}:
        text = f"the resolver of this host says {dns.rcode.to_text(message.rcode())}"
        return failed("upstream_failed", EDECode.NETWORK_ERROR, text)
    chain = _chain(name, kind, message.answer)
    if chain is None:
        return failed("upstream_loops", EDECode.INVALID_DATA, f"its aliases form a loop, or are more than {MAX_CHAIN}")
    records, last = chain
    found = [rrset for rrset in records if rrset.rdtype == kind]
    for rrset in found:
        if kind == RdataType.A and (bad := _forbidden(rrset)) is not None:
            return refused("name_filtered", EDECode.FILTERED, bad)
    if kind in {RdataType.HTTPS, RdataType.SVCB}:
        records = _without_hints(records, hints=hints)
    if kind == RdataType.TXT and sum(_weight(rrset) for rrset in found) > MAX_TEXT:
        return refused("answer_too_large", EDECode.FILTERED, f"its texts are longer than {MAX_TEXT} bytes together")
    size = sum(map(_weight, records))
    if size > MAX_ANSWER:
        return refused("answer_too_large", EDECode.FILTERED, f"the answer is longer than {MAX_ANSWER} bytes")
    authority: tuple[RRset, ...] = ()
    if found:
        ttl = min((rrset.ttl for rrset in records), default=UNKNOWN_TTL)
        addresses = tuple(rdata.address for rrset in found if kind == RdataType.A for rdata in rrset)
    else:
        authority, ttl = _absence(last, message.authority)
        addresses = ()
    ttl = min(max(ttl, LEAST_TTL), MOST_TTL)
    return Answer(message.rcode(), tuple(records), authority, ttl, size + sum(map(_weight, authority)), addresses)


def _chain(name: Name, kind: RdataType, answer: Iterable[RRset]) -> tuple[list[RRset], Name] | None:
    """Return the records that lead from `name` to its answer, and the name at the end; None for an endless chain."""
    by_name = {
        (rrset.name, rrset.rdtype): rrset for rrset in answer if rrset.rdclass == dns.rdataclass.IN and len(rrset) > 0
    }
    records: list[RRset] = []
    seen = {name}
    while (name, kind) not in by_name:
        alias = by_name.get((name, RdataType.CNAME))
        if alias is None:
            return records, name
        records.append(alias)
        name = alias[0].target
        if name in seen or len(records) > MAX_CHAIN or len(alias) != 1:
            return None
        seen.add(name)
    return [*records, by_name[name, kind]], name


def _forbidden(rrset: RRset) -> str | None:
    for rdata in rrset:
        if (reason := why(IPv4Address(rdata.address))) is not None:
            return f"it leads to {rdata.address}, which no sandbox reaches ({reason})"
    return None


def _without_hints(records: Iterable[RRset], *, hints: bool) -> list[RRset]:
    """Leave out of HTTPS and SVCB what would go around the gate: ECH hides the name, hints are addresses unfiltered."""
    cleaned = []
    for rrset in records:
        if rrset.rdtype == RdataType.CNAME:
            cleaned.append(rrset)
            continue
        kept = [better for rdata in rrset if (better := _plain(rdata, hints=hints)) is not None]
        if kept:
            cleaned.append(dns.rrset.from_rdata_list(rrset.name, rrset.ttl, kept))
    return cleaned


def _plain(rdata: Any, *, hints: bool) -> Any:
    params = dict(rdata.params)
    params.pop(ParamKey.ECH, None)
    params.pop(ParamKey.IPV6HINT, None)
    addresses = params.get(ParamKey.IPV4HINT)
    if addresses is not None and (not hints or any(why(IPv4Address(one)) for one in addresses.addresses)):
        del params[ParamKey.IPV4HINT]
    if params == rdata.params:
        return rdata
    needed = rdata.params.get(ParamKey.MANDATORY)
    if needed is not None and not all(key in params for key in needed.keys):
        # A client that does not find what it must understand may not use the record.
        return None
    return rdata.replace(params=params)


def _absence(name: Name, authority: Iterable[RRset]) -> tuple[tuple[RRset, ...], int]:
    """Return the SOA that says how long the absence of `name` is known (RFC 2308), and for how many seconds."""
    for rrset in authority:
        if rrset.rdtype == RdataType.SOA and len(rrset) == 1 and name.is_subdomain(rrset.name):
            return (rrset,), min(rrset.ttl, rrset[0].minimum, MOST_ABSENT)
    return (), UNKNOWN_TTL


def _weight(rrset: RRset) -> int:
    return sum(len(rdata.to_wire() or b"") + 12 for rdata in rrset) + len(rrset.name)
