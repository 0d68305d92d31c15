"""Questions and answers on the wire: what is let in, what comes out, and that nothing breaks it."""

import itertools
import struct
from ipaddress import IPv4Address

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rrset
import pytest
from dns.rdatatype import RdataType
from hypothesis import example, given
from hypothesis import strategies as st

from sandpost.egress.answer import Answer, refused, render
from sandpost.egress.judge import judge
from sandpost.egress.question import Malformed, Question, read, refusal
from sandpost.egress.scrub import LEAST_TTL, MAX_CHAIN, MOST_TTL, scrub
from sandpost.egress.special import why_local
from sandpost.egress.upstream import is_answer, make, servers
from sandpost.model.egress import parse_egress
from sandpost.model.forbidden import why

QUERY = dns.message.make_query("WWW.example.com", "A", use_edns=0, payload=4096).to_wire()
NAME = dns.name.from_text("www.example.com")


def test_a_resolver_that_never_answers_again_rests_for_a_bounded_time() -> None:
    [server] = servers(["203.0.113.1:53"])
    for number in range(3000):
        server.failed(float(number))
    assert 0 < server.rests_until - 2999 <= 60


def question(name: str = "www.example.com", kind: str = "A", **options: object) -> Question:
    found = read(dns.message.make_query(name, kind, **options).to_wire())  # type: ignore[arg-type]
    assert isinstance(found, Question)
    return found


def response(*lines: str, name: str = "www.example.com", kind: str = "A") -> dns.message.Message:
    made = dns.message.make_response(dns.message.make_query(name, kind))
    for line in lines:
        owner, ttl, type_, data = line.split(" ", 3)
        made.answer.append(dns.rrset.from_text(owner, int(ttl), "IN", type_, data))
    return made


def test_a_question_is_read_with_its_size_bounded() -> None:
    found = question(use_edns=0, payload=4096)
    assert (found.name, found.type, found.size, found.edns) == ("www.example.com", RdataType.A, 1232, True)
    assert question(use_edns=-1).size == 512
    assert question(use_edns=0, payload=100).size == 512


@pytest.mark.parametrize(
    ("change", "rcode"),
    [
        (lambda w: w[:11], None),
        (lambda w: w[:2] + b"\x80" + w[3:], None),
        (lambda w: w[:2] + b"\x28" + w[3:], dns.rcode.NOTIMP),
        (lambda w: w[:4] + b"\x00\x00" + w[6:], dns.rcode.FORMERR),
        (lambda w: w[:4] + b"\x00\x02" + w[6:], dns.rcode.FORMERR),
        (lambda w: w[:-20], dns.rcode.FORMERR),
        (lambda w: w + b"\0" * 1300, dns.rcode.FORMERR),
        (lambda _: dns.message.make_query("x.example", "A", rdclass="CH").to_wire(), dns.rcode.REFUSED),
        (lambda _: dns.message.make_query(r"a\.b.example", "A").to_wire(), dns.rcode.REFUSED),
        (lambda _: dns.message.make_query(r"\000\001.example", "A").to_wire(), dns.rcode.REFUSED),
        (lambda _: dns.message.make_query(".", "NS").to_wire(), dns.rcode.REFUSED),
        (lambda _: dns.message.make_query("x.example", "A", use_edns=1).to_wire(), dns.rcode.BADVERS),
        # A name that points at itself.
        (lambda w: w[:12] + b"\xc0\x0c" + w[-15:], dns.rcode.FORMERR),
    ],
)
def test_what_is_no_question_gets_a_bare_answer_or_none(change: object, rcode: dns.rcode.Rcode | None) -> None:
    found = read(change(QUERY))  # type: ignore[operator]
    assert isinstance(found, Malformed)
    if rcode is None:
        assert found.reply == b""
    else:
        assert dns.message.from_wire(found.reply).rcode() == rcode


@given(st.binary(max_size=600))
@example(QUERY)
@example(QUERY[:12] + b"\xc0\x0c\x00\x01\x00\x01")
@example(b"\0" * 12)
def test_any_bytes_are_a_question_or_are_answered_without_one(wire: bytes) -> None:
    for data in (wire, QUERY[:2] + wire, QUERY[:12] + wire):
        found = read(data)
        if isinstance(found, Question):
            answer = judge(found, parse_egress("public"), ()) or Answer(dns.rcode.NOERROR)
            assert len(render(found, answer)) <= 1232
        elif found.reply:
            assert dns.message.from_wire(found.reply).flags & dns.flags.QR
        if len(data) >= 12:
            assert len(refusal(data)) <= len(data) + 5


@given(st.integers(0, len(QUERY) - 1), st.integers(0, 255))
def test_a_changed_byte_breaks_nothing(at: int, value: int) -> None:
    read(QUERY[:at] + bytes((value,)) + QUERY[at + 1 :])


def test_a_refusal_repeats_the_question() -> None:
    told = dns.message.from_wire(refusal(dns.message.make_query("WWW.example.com", "A", use_edns=-1).to_wire()))
    assert told.rcode() == dns.rcode.REFUSED
    assert told.question[0].name.to_text() == "WWW.example.com."


def test_an_answer_repeats_the_spelling_has_one_lifetime_and_a_reason_for_who_knows_edns() -> None:
    found = read(QUERY)
    assert isinstance(found, Question)
    records = (dns.rrset.from_text("www.example.com.", 9, "IN", "A", "203.0.113.5"),)
    told = dns.message.from_wire(render(found, Answer(dns.rcode.NOERROR, records, ttl=7)))
    assert told.question[0].name.labels[0] == b"WWW"
    assert told.answer[0].ttl == 7
    no = refused("kind", 18, "because")  # type: ignore[arg-type]
    assert dns.message.from_wire(render(found, no)).options
    assert not dns.message.from_wire(render(question(use_edns=-1), no)).options


def test_only_what_follows_from_the_question_is_passed_on() -> None:
    told = scrub(
        NAME,
        RdataType.A,
        response("other.example. 300 A 203.0.113.9", "www.example.com. 300 A 203.0.113.5"),
        hints=True,
    )
    assert told.addresses == ("203.0.113.5",)
    assert [rrset.name for rrset in told.records] == [NAME]
    message = response("www.example.com. 300 MX 5 mail.example.com.", kind="MX")
    message.additional.append(dns.rrset.from_text("mail.example.com.", 300, "IN", "A", "10.0.0.1"))
    assert len(scrub(NAME, RdataType.MX, message, hints=True).records) == 1


@pytest.mark.parametrize("count", [1, MAX_CHAIN, MAX_CHAIN + 1])
def test_aliases_are_followed_so_far(count: int) -> None:
    names = ["www.example.com."] + [f"a{n}.example.com." for n in range(count)]
    lines = [f"{a} 300 CNAME {b}" for a, b in itertools.pairwise(names)]
    told = scrub(NAME, RdataType.A, response(*lines, f"{names[-1]} 300 A 203.0.113.5"), hints=True)
    assert (told.why is None) == (count <= MAX_CHAIN)


def test_lifetimes_are_held_between_bounds() -> None:
    for ttl, wanted in ((0, LEAST_TTL), (60, 60), (1 << 20, MOST_TTL)):
        assert scrub(NAME, RdataType.A, response(f"www.example.com. {ttl} A 203.0.113.5"), hints=True).ttl == wanted


def test_absence_is_known_as_long_as_its_own_zone_says() -> None:
    message = response()
    message.authority.append(dns.rrset.from_text("example.com.", 900, "IN", "SOA", "a. b. 1 2 3 4 77"))
    assert scrub(NAME, RdataType.A, message, hints=True).ttl == 77
    message.authority[0].name = dns.name.from_text("other.example.")
    told = scrub(NAME, RdataType.A, message, hints=True)
    assert (told.ttl, told.authority) == (5, ())


@given(st.lists(st.integers(0, 2**32 - 1).map(IPv4Address), min_size=1, max_size=5))
def test_an_answer_with_a_forbidden_address_is_never_passed_on(addresses: list[IPv4Address]) -> None:
    message = response()
    message.answer.append(dns.rrset.from_text_list("www.example.com.", 60, "IN", "A", [str(one) for one in addresses]))
    told = scrub(NAME, RdataType.A, message, hints=True)
    assert (told.why is None) == all(why(address) is None for address in addresses)
    assert (told.records == ()) == (told.why is not None)


def test_a_record_that_needs_what_was_taken_out_goes_too() -> None:
    message = response("www.example.com. 60 HTTPS 1 . mandatory=ipv4hint ipv4hint=10.0.0.1", kind="HTTPS")
    assert scrub(NAME, RdataType.HTTPS, message, hints=True).records == ()


@given(st.binary(max_size=300))
def test_any_answer_of_an_upstream_is_scrubbed_or_refused(tail: bytes) -> None:
    query = make(NAME, RdataType.HTTPS)
    head = query.to_wire()[:12]
    for counts in (b"\0\1\0\2\0\0\0\0", b"\0\1\0\1\0\1\0\1"):
        wire = head[:2] + b"\x81\x80" + counts + query.to_wire()[12:-11] + tail
        try:
            message = dns.message.from_wire(wire, ignore_trailing=True)
        except (dns.exception.DNSException, ValueError, struct.error):
            continue
        if is_answer(query, message):
            scrub(NAME, RdataType.HTTPS, message, hints=False)


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_names_of_addresses_are_public_where_the_addresses_are(address: IPv4Address) -> None:
    assert (why_local(address.reverse_pointer, ()) is None) == (why(address) is None)


def test_an_answer_must_be_to_the_question() -> None:
    query = make(dns.name.from_text("a-name-of-many-letters.example.com"), RdataType.A)
    good = dns.message.make_response(query)
    assert is_answer(query, good)
    good.id ^= 1
    assert not is_answer(query, good)
    swapped = dns.message.from_wire(dns.message.make_response(query).to_wire())
    swapped.question[0].name = dns.name.Name([label.swapcase() for label in query.question[0].name.labels])
    assert not is_answer(query, swapped)
    assert is_answer(query, swapped, exact=False)
    assert not is_answer(query, query)
