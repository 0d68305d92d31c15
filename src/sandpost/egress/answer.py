"""What a question is answered with, and how that is written on the wire. Pure."""

from dataclasses import dataclass, field, replace

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
from dns.edns import EDECode
from dns.rcode import Rcode
from dns.rrset import RRset

from sandpost.egress.question import MOST_ANSWER, Question

_MOST_TEXT = 200


@dataclass(frozen=True, slots=True)
class Why:
    """Why there is no answer: `kind` for figures and notes, `code` of RFC 8914, `text` for people."""

    kind: str
    code: EDECode
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known. `ttl` seconds from when it was made; `size` is its weight in bytes, `addresses` its A records."""

    rcode: Rcode
    records: tuple[RRset, ...] = ()
    authority: tuple[RRset, ...] = ()
    ttl: int = 0
    size: int = 0
    addresses: tuple[str, ...] = ()
    why: Why | None = field(default=None)


EMPTY = Answer(dns.rcode.NOERROR)
"""The name may exist, and has nothing of this type."""


def refused(kind: str, code: EDECode, text: str) -> Answer:
    """Return the answer to what is not to be answered."""
    return Answer(dns.rcode.REFUSED, why=Why(kind, code, text))


def failed(kind: str, code: EDECode, text: str) -> Answer:
    """Return the answer to what could not be found out."""
    return Answer(dns.rcode.SERVFAIL, why=Why(kind, code, text))


def absent(text: str) -> Answer:
    """Return the answer for a name that we ourselves say does not exist."""
    return Answer(dns.rcode.NXDOMAIN, why=Why("name_local", EDECode.BLOCKED, text))


def aged(answer: Answer, seconds: int) -> Answer:
    """Return `answer` as it is `seconds` after it was made."""
    return replace(answer, ttl=max(answer.ttl - seconds, 0)) if seconds > 0 else answer


def render(question: Question, answer: Answer, *, by_tcp: bool = False) -> bytes:
    """Return the answer's bytes, truncated (TC, no records) where they do not fit a datagram that the asker takes."""
    response = _response(question, answer)
    for source, target in ((answer.records, response.answer), (answer.authority, response.authority)):
        for rrset in source:
            # One lifetime for the whole answer: the chain is as good as its weakest link.
            copy = dns.rrset.from_rdata_list(rrset.name, answer.ttl, list(rrset))
            target.append(copy)
    wire: bytes = response.to_wire(max_size=65535)
    if by_tcp or len(wire) <= question.size:
        return wire
    response = _response(question, answer)
    response.flags |= dns.flags.TC
    return bytes(response.to_wire(max_size=65535))


def _response(question: Question, answer: Answer) -> dns.message.Message:
    response = dns.message.QueryMessage(id=question.query.id)
    response.flags = dns.flags.QR | dns.flags.RA | (question.query.flags & dns.flags.RD)
    response.question = question.query.question
    if question.edns:
        options: list[dns.edns.Option] = []
        if answer.why is not None:
            options = [dns.edns.EDEOption(answer.why.code, answer.why.text[:_MOST_TEXT])]
        response.use_edns(0, payload=MOST_ANSWER, options=options)
    response.set_rcode(answer.rcode)
    return response
