"""Whether a question is answered at all: its type, its name, its tenant's policy. Pure."""

from collections.abc import Collection

from dns.edns import EDECode
from dns.rdatatype import RdataType

from sandpost.egress.answer import EMPTY, Answer, absent, refused
from sandpost.egress.question import Question
from sandpost.egress.special import why_local
from sandpost.model.egress import Egress

TYPES = frozenset(
    {
        RdataType.A,
        RdataType.AAAA,
        RdataType.CAA,
        RdataType.CNAME,
        RdataType.HTTPS,
        RdataType.MX,
        RdataType.NS,
        RdataType.PTR,
        RdataType.SOA,
        RdataType.SRV,
        RdataType.SVCB,
        RdataType.TXT,
    }
)
"""What programs ask for. Not ANY (RFC 8482), no transfers, nothing that carries data without a use, such as NULL."""


def judge(question: Question, policy: Egress, own: Collection[str]) -> Answer | None:
    """Return the answer that needs no asking; None if the question may be passed upstream."""
    name = question.name
    if policy.kind == "none":
        return refused("name_refused", EDECode.PROHIBITED, "egress is `none`: this tenant reaches nothing outside")
    if question.type not in TYPES:
        kind = RdataType.to_text(question.type)
        return refused("type_refused", EDECode.NOT_SUPPORTED, f"questions of type {kind} are not answered")
    if (local := why_local(name, own)) is not None:
        return absent(local)
    if question.type == RdataType.PTR and not name.endswith(".in-addr.arpa"):
        return refused("type_refused", EDECode.NOT_SUPPORTED, "PTR is answered for addresses alone")
    if policy.kind == "allow" and not any(domain.covers(name) for domain in policy.domains):
        return refused(
            "name_refused", EDECode.PROHIBITED, f"not in the allow-list: add `{name}` to this tenant's egress"
        )
    if question.type == RdataType.AAAA:
        # Until IPv6 is walled like IPv4. An empty answer lets every client go on with IPv4 at once.
        return EMPTY
    return None
