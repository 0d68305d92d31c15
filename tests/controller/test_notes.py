"""What tenants are told of the walls they met, and how often."""

import pytest

from sandpost.controller.notes import AGAIN, BURST, KINDS, LONGEST, Notes, sentence
from sandpost.model.limits import Limits
from sandpost.model.messages import Noted


def test_a_hit_is_told_at_once_and_then_in_sums() -> None:
    notes, limits = Notes(), Limits()
    first = notes.hit("s", "connections", 3, 100.0, limits=limits)
    assert first is not None
    assert first.times == 3
    assert notes.hit("s", "connections", 4, 101.0, limits=limits) is None
    assert notes.hit("s", "connections", 5, 102.0, limits=limits) is None
    assert notes.due(103.0) == []
    assert notes.due(100.0 + AGAIN) == [("s", "connections")]
    later = notes.again(("s", "connections"), limits, 100.0 + AGAIN)
    assert later is not None
    assert later.times == 9
    assert notes.due(100.0 + 3 * AGAIN) == []
    assert notes.counts["connections"] == 12


def test_nothing_is_told_of_a_sandbox_that_is_gone() -> None:
    notes = Notes()
    notes.hit("s", "connections", 1, 100.0, limits=Limits())
    notes.hit("s", "connections", 1, 101.0, limits=Limits())
    assert notes.again(("s", "connections"), None, 120.0) is None
    assert notes.due(200.0) == []


def test_egress_is_passed_on_at_a_bounded_rate_cut_and_counted() -> None:
    notes = Notes()
    told = [notes.passed(Noted(sandbox_id="s", kind="name_refused", text="x" * 9999, times=2), 5.0) for _ in range(100)]
    kept = [one for one in told if one is not None]
    assert len(kept) == BURST
    assert {len(one.text) for one in kept} == {LONGEST}
    assert notes.counts["name_refused"] == 200
    assert notes.dropped == 100 - BURST
    assert notes.passed(Noted(sandbox_id="other", kind="name_refused", text="x"), 5.0) is not None


@pytest.mark.parametrize("kind", ["", "Upper", "with space", "x" * 41, 'a"b'])
def test_a_kind_that_is_no_word_is_left_out(kind: str) -> None:
    notes = Notes()
    assert notes.passed(Noted(sandbox_id="s", kind=kind, text="x"), 1.0) is None
    assert notes.counts == {}


def test_kinds_are_bounded() -> None:
    notes = Notes()
    for n in range(KINDS + 50):
        notes.passed(Noted(sandbox_id=f"s{n}", kind=f"k{'abcdefghij'[n // 26]}{chr(97 + n % 26)}", text="x"), 1.0)
    assert len(notes.counts) == KINDS


def test_sentences_name_the_limit_and_why() -> None:
    limits = Limits()
    assert sentence("connections", 1, (), limits) == "1 connection refused: 256 at once (limits.connections) are open"
    assert "over 50 new ones a second (limits.connection_rate)" in sentence("connection_rate", 2, (), limits)
    assert "over 12500000B/s (limits.bandwidth_in)" in sentence("bandwidth_in", 2, (), limits)
    refused = sentence("address_refused", 2, ("10.0.0.5", "203.0.113.9"), limits)
    assert refused == (
        "2 packets refused: no sandbox may reach 10.0.0.5 (private), 203.0.113.9 (an address of the host)"
    )
    assert "to 198.51.100.1 refused by the tenant's egress policy" in sentence(
        "egress_refused", 2, ("198.51.100.1",), limits
    )
