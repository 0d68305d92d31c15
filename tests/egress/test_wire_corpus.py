"""Messages of DNS from the corpus, and what becomes of them when bytes change: a verdict, or the one error."""

from ipaddress import IPv4Address
from pathlib import Path

import dns.message
import dns.rcode
import pytest
from dns.name import Name
from dns.rdatatype import RdataType
from hypothesis import given

from sandpost.egress.answer import Answer, render
from sandpost.egress.judge import judge
from sandpost.egress.question import LEAST, MOST_ANSWER, UNREADABLE, Malformed, read, refusal
from sandpost.egress.scrub import MAX_ANSWER, scrub
from sandpost.model.egress import parse_egress
from sandpost.model.forbidden import why
from support.corpus import lines, mutated

CORPUS = Path(__file__).with_name("corpus")
QUESTIONS, ANSWERS = lines(CORPUS / "questions.hex"), lines(CORPUS / "answers.hex")
POLICIES = [parse_egress(text) for text in ("public", "none", "allow:example.com", "allow:*.example.com:443")]
MOST_SOA = 1024
"""Bytes: three names and five numbers."""


def check_question(wire: bytes) -> None:
    """It is read or answered; what we write is parsed back as what we meant."""
    found = read(wire)
    if isinstance(found, Malformed):
        if found.reply:
            told = dns.message.from_wire(found.reply)
            assert told.id == int.from_bytes(wire[:2], "big")
            assert told.rcode() != dns.rcode.NOERROR
    else:
        assert found.name == found.name.lower()
        assert len(found.name) <= 253
        for policy in POLICIES:
            answer = judge(found, policy, ("me.example",))
            if answer is not None:
                told = dns.message.from_wire(render(found, answer))
                assert (told.id, told.rcode()) == (found.query.id, answer.rcode)
                assert told.question == found.query.question
    if len(wire) >= LEAST:
        assert len(refusal(wire)) <= len(wire) + 5


def check_answer(wire: bytes) -> None:
    """It is unreadable, or what is told of it is bounded, public, and parsed back as it was."""
    try:
        message = dns.message.from_wire(wire, ignore_trailing=True, raise_on_truncation=False)
    except UNREADABLE:
        return
    if len(message.question) == 1:
        name, kind = message.question[0].name, message.question[0].rdtype
        for hints in (True, False):
            told = scrub(name, kind, message, hints=hints)
            assert told.size <= MAX_ANSWER + MOST_SOA
            assert all(why(IPv4Address(address)) is None for address in told.addresses)
            check_rendered(name, kind, told)


def check_rendered(name: Name, kind: RdataType, told: Answer) -> None:
    query = dns.message.make_query(name, kind)
    found = read(query.to_wire())
    if isinstance(found, Malformed):
        return
    assert len(render(found, told)) <= MOST_ANSWER
    back = dns.message.from_wire(render(found, told, by_tcp=True))
    assert (back.id, back.rcode()) == (query.id, told.rcode)
    assert [(rrset.name, rrset.rdtype, set(rrset)) for rrset in back.answer] == [
        (rrset.name, rrset.rdtype, set(rrset)) for rrset in told.records
    ]
    assert {rrset.ttl for rrset in back.answer} <= {told.ttl}


@pytest.mark.parametrize("wire", QUESTIONS)
def test_questions_of_the_corpus_are_read_or_answered(wire: bytes) -> None:
    check_question(wire)


@pytest.mark.parametrize("wire", ANSWERS)
def test_answers_of_the_corpus_are_told_within_bounds_or_not_at_all(wire: bytes) -> None:
    check_answer(wire)


@given(mutated(QUESTIONS))
def test_changed_questions_are_read_or_answered(wire: bytes) -> None:
    check_question(wire)


@given(mutated(ANSWERS))
def test_changed_answers_are_told_within_bounds_or_not_at_all(wire: bytes) -> None:
    check_answer(wire)
