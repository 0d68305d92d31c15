"""Reads a question of a sandbox from the wire (RFC 1035 section 4, RFC 6891). Pure.

What a sandbox may ask is narrow: one question, class IN, a name of plain labels. dnspython decodes; everything it
finds beyond the question and the size that the asker takes is ignored and goes nowhere.
"""

import re
import struct
from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
from dns.rdatatype import RdataType

MAX_QUERY = 1232
"""Bytes of a query: a name has 255 at most, and nobody's options need a thousand."""
LEAST_ANSWER, MOST_ANSWER = 512, 1232
"""Bytes of an answer by UDP, whatever the asker says: above 1,232 it would be sent in fragments (RFC 9715)."""

_HEADER = struct.Struct("!HHHHHH")
LEAST = _HEADER.size
"""Bytes of a message that can be answered at all."""
UNREADABLE = (dns.exception.DNSException, ValueError, struct.error)
"""What dnspython says to bytes that are no message."""
_LABEL = re.compile(rb"[A-Za-z0-9_-]{1,63}")
_QR, _RD = 0x8000, 0x0100


@dataclass(frozen=True, slots=True)
class Question:
    """One question. `name` is in lower case, labels joined by dots, without a final dot; `size` bytes fit by UDP."""

    query: dns.message.QueryMessage
    name: str
    type: RdataType
    size: int
    edns: bool

    @property
    def asked(self) -> dns.name.Name:
        """The name in the case in which it was asked."""
        return self.query.question[0].name


@dataclass(frozen=True, slots=True)
class Malformed:
    """What cannot be a question. `reply` is what goes back; empty: nothing does."""

    reply: bytes


def read(wire: bytes) -> Question | Malformed:
    """Return the question that `wire` asks."""
    if len(wire) < _HEADER.size or _flags(wire) & _QR:
        # Answering an answer is how two resolvers talk for ever.
        return Malformed(b"")
    if len(wire) > MAX_QUERY:
        return Malformed(error(wire, dns.rcode.FORMERR))
    opcode = dns.opcode.from_flags(_flags(wire))
    if opcode != dns.opcode.QUERY:
        return Malformed(error(wire, dns.rcode.NOTIMP))
    try:
        message = dns.message.from_wire(wire)
    except UNREADABLE:
        return Malformed(error(wire, dns.rcode.FORMERR))
    if not isinstance(message, dns.message.QueryMessage) or len(message.question) != 1:
        return Malformed(error(wire, dns.rcode.FORMERR))
    if message.edns > 0:
        return Malformed(error(wire, dns.rcode.BADVERS))
    asked = message.question[0]
    labels = asked.name.labels[:-1]
    # `a\.example.com` has the label `a.example`: written with dots it would look like a name below example.com.
    plain = labels and all(_LABEL.fullmatch(label) for label in labels)
    if not plain or asked.rdclass != dns.rdataclass.IN:
        return Malformed(error(wire, dns.rcode.REFUSED))
    name = b".".join(labels).lower().decode("ascii")
    size = min(max(message.payload, LEAST_ANSWER), MOST_ANSWER) if message.edns == 0 else LEAST_ANSWER
    return Question(message, name, asked.rdtype, size, edns=message.edns == 0)


def error(wire: bytes, rcode: dns.rcode.Rcode) -> bytes:
    """Return the bare answer to a query that is not looked at: its id and question count zero, `rcode`."""
    number = _HEADER.unpack_from(wire)[0]
    flags = _QR | (_flags(wire) & (0x7800 | _RD)) | dns.flags.RA | (rcode & 0xF)
    if rcode <= 0xF:
        return _HEADER.pack(number, flags, 0, 0, 0, 0)
    # The upper bits of the code have their place in an OPT record.
    opt = struct.pack("!BHHBBHH", 0, 41, MOST_ANSWER, rcode >> 4, 0, 0, 0)
    return _HEADER.pack(number, flags, 0, 0, 0, 1) + opt


def refusal(wire: bytes) -> bytes:
    """Return REFUSED with the question repeated as it stands, without parsing it: askers look for it."""
    number, flags, *_ = _HEADER.unpack_from(wire)
    end = _HEADER.size
    while end < len(wire) and wire[end]:
        end += 1 + wire[end]
    end += 5
    whole = end <= len(wire)
    flags = _QR | (flags & _RD) | dns.flags.RA | dns.rcode.REFUSED
    return _HEADER.pack(number, flags, int(whole), 0, 0, 0) + (wire[_HEADER.size : end] if whole else b"")


def _flags(wire: bytes) -> int:
    flags: int = _HEADER.unpack_from(wire)[1]
    return flags
