"""A made-up internet's resolver."""

import socket
from collections.abc import Callable

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


def answer_names(sock: socket.socket, address_of: Callable[[str], str | None]) -> None:
    """Answer what comes to `sock` until it is closed: `address_of` a name in small letters; None: there is no such name."""
    while True:
        try:
            data, peer = sock.recvfrom(4096)
        except OSError:
            return
        query = dns.message.from_wire(data)
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        question = query.question[0]
        address = address_of(question.name.to_text().lower())
        if address is None:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif question.rdtype == dns.rdatatype.A:
            answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", "A", address))
        sock.sendto(answer.to_wire(), peer)
