"""Answers that are kept: a lifetime, a bound for each tenant and for all, and no tenant sees another's."""

import tracemalloc

import dns.message
import dns.name
import dns.rcode
import dns.rrset
import pytest
from dns.rdatatype import RdataType

from sandpost.egress.answer import Answer
from sandpost.egress.cache import ALL_BYTES, EACH, EACH_BYTES, Cache
from sandpost.egress.scrub import scrub

A = RdataType.A


def answer(ttl: int = 10, size: int = 100) -> Answer:
    return Answer(dns.rcode.NOERROR, ttl=ttl, size=size)


def test_an_answer_is_kept_for_its_lifetime_and_says_what_is_left_of_it() -> None:
    cache = Cache()
    cache.put("acme", ("a.example", A), answer(10), 100)
    found = cache.get("acme", ("a.example", A), 103.5)
    assert found is not None
    assert found.ttl == 7
    assert cache.get("acme", ("a.example", A), 110) is None
    assert cache.size == 0


def test_one_tenants_answers_are_nobody_elses() -> None:
    cache = Cache()
    cache.put("acme", ("a.example", A), answer(), 0)
    assert cache.get("other", ("a.example", A), 0) is None
    cache.forget("acme")
    assert cache.get("acme", ("a.example", A), 0) is None
    assert cache.size == 0


def test_a_tenant_that_fills_its_share_loses_its_own_oldest_alone() -> None:
    cache = Cache()
    cache.put("quiet", ("a.example", A), answer(), 0)
    for n in range(EACH * 2):
        cache.put("loud", (f"n{n}.example", A), answer(size=1), 0)
    assert cache.get("quiet", ("a.example", A), 0) is not None
    assert cache.get("loud", ("n0.example", A), 0) is None
    assert cache.get("loud", (f"n{EACH * 2 - 1}.example", A), 0) is not None
    assert cache.size <= EACH_BYTES + 2000


def test_all_together_are_bounded() -> None:
    cache = Cache()
    for n in range(300):
        for k in range(120):
            cache.put(f"tenant{n}", (f"{k}.example", A), answer(size=4000), 0)
    assert cache.size <= ALL_BYTES
    assert cache.get("tenant0", ("0.example", A), 0) is None
    assert cache.get("tenant299", ("119.example", A), 0) is not None


@pytest.mark.parametrize("records", [1, 8, 50, 200])
def test_what_is_counted_is_what_answers_weigh(records: int) -> None:
    cache, count = Cache(), 20
    wires = []
    for n in range(count):
        message = dns.message.make_response(dns.message.make_query(f"n{n}.example.com", "A"))
        addresses = [f"203.0.113.{k}" for k in range(records)]
        message.answer.append(dns.rrset.from_text_list(f"n{n}.example.com.", 60, "IN", "A", addresses))
        wires.append(message.to_wire(max_size=65535))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for n, wire in enumerate(wires):
            name = dns.name.from_text(f"n{n}.example.com")
            cache.put("acme", (f"n{n}.example.com", A), scrub(name, A, dns.message.from_wire(wire), hints=True), 0)
        weight = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.6 < weight / cache.size < 1.3
