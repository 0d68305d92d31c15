"""What a tenant may ask: rates, and names that carry data. The clock is the test's."""

from hypothesis import given
from hypothesis import strategies as st

from sandpost.egress import budget as limits
from sandpost.egress.buckets import Bucket
from sandpost.egress.budget import Budget, suffix_of
from sandpost.egress.learned import HOLD, MOST, Learned
from sandpost.egress.notes import MOST_EACH, Notes
from sandpost.egress.tenancy import FORGET, Tenancies


def test_a_rate_has_twice_its_size_at_once() -> None:
    one = Budget(10, 0)
    assert [one.ask(0) for _ in range(21)] == [True] * 20 + [False]
    assert [one.ask(1) for _ in range(11)] == [True] * 10 + [False]
    one.set_rate(1)
    assert [one.ask(100) for _ in range(3)] == [True, True, False]


def test_only_unseen_names_count_and_no_suffix_pays_for_another() -> None:
    one = Budget(100, 0)
    names = [f"{n:03d}{'x' * 40}.tunnel.example" for n in range(100)]
    results = [one.fetch(name, 0) for name in names]
    assert results[0] == 0.0
    assert limits.SLOW in results
    assert results.index(None) == limits.LONG_NAMES
    # Asked before: nothing new is said by it.
    assert one.fetch(names[0], 1) == 0.0
    assert one.fetch("www.other.example", 1) == 0.0
    # A name counts again when it has been forgotten.
    assert one.fetch(names[0], limits.REMEMBERED + 1) == 0.0


def test_bytes_of_labels_are_bounded_however_short_or_spread_they_are() -> None:
    one = Budget(100, 0)
    short = sum(len(f"{n:x}") + 1 for n in range(5000) if one.fetch(f"{n:x}.short.example", 0) is not None)
    assert short <= limits.SUFFIX_BYTES
    one = Budget(100, 0)
    spread = sum(61 for n in range(5000) if one.fetch(f"{n:060d}.zone{n}.example", 0) is not None)
    assert spread <= limits.ALL_BYTES
    # A minute later as much again, no more.
    later = sum(61 for n in range(5000) if one.fetch(f"{n:060d}.new{n}.example", 60) is not None)
    assert later <= limits.ALL_RATE * 60 + 61


@given(st.lists(st.tuples(st.integers(0, 400), st.floats(0, 2)), max_size=300))
def test_no_order_of_questions_carries_more_than_the_bound(asked: list[tuple[int, float]]) -> None:
    one, now, sent = Budget(1e9, 0), 0.0, 0
    seen: dict[str, float] = {}
    for number, pause in asked:
        now += pause
        name = f"{number:055d}.zone{number % 3}.example"
        if one.fetch(name, now) is not None and seen.get(name, 0) <= now:
            seen[name] = now + limits.REMEMBERED
            sent += 56
    assert sent <= limits.ALL_BYTES + limits.ALL_RATE * now + 1


def test_suffixes() -> None:
    assert suffix_of("a.b.example.com") == "example.com"
    assert suffix_of("a.b.example.co.uk") == "example.co.uk"
    assert suffix_of("co.uk") == "co.uk"
    assert suffix_of("a.b.c.de") == "c.de"


def test_a_bucket_does_not_mind_a_clock_that_steps_back() -> None:
    one = Bucket(10, 1, 100)
    assert one.take(10, 100)
    assert not one.take(1, 50)
    assert one.take(1, 101)


def test_what_was_learned_counts_for_its_lifetime_and_a_while_and_is_bounded() -> None:
    one = Learned()
    one.learn("a.example", ["203.0.113.5"], 30, 0)
    assert one.knows("a.example", "203.0.113.5", 30 + HOLD - 1)
    assert not one.knows("a.example", "203.0.113.5", 30 + HOLD)
    assert not one.knows("b.example", "203.0.113.5", 0)
    assert not one.knows("a.example", "203.0.113.6", 0)
    # A shorter answer does not take a longer one back.
    one.learn("a.example", ["203.0.113.5"], 1, 0)
    assert one.knows("a.example", "203.0.113.5", 30 + HOLD - 1)
    for n in range(MOST + 10):
        one.learn(f"n{n}.example", ["203.0.113.5"], 30, 0)
    assert len(one) == MOST
    assert not one.knows("a.example", "203.0.113.5", 0)


def test_notes_are_gathered_and_bounded() -> None:
    notes = Notes()
    for _ in range(1000):
        notes.add("one", "name_refused", "a.example: no")
    for n in range(1000):
        notes.add("two", "name_refused", f"{n}.example: no")
    found = list(notes.take())
    assert [(note.text, note.times) for note in found if note.sandbox_id == "one"] == [("a.example: no", 1000)]
    of_two = [note for note in found if note.sandbox_id == "two"]
    assert len(of_two) == MOST_EACH + 1
    assert sum(note.times for note in of_two) == 1000
    assert list(notes.take()) == []
    for n in range(200_000):
        notes.add(f"sandbox{n}", "kind", "text")
    assert len(list(notes.take())) == 4096
    assert notes.dropped > 0


def test_a_tenants_bounds_do_not_start_anew_with_its_next_sandbox() -> None:
    tenants = Tenancies(1)
    first = tenants.get("acme", 0)
    assert first.budget.ask(0)
    assert tenants.forget(FORGET) == []
    assert tenants.get("acme", FORGET) is first
    assert tenants.forget(FORGET + 1) == ["acme"]
    assert tenants.get("acme", FORGET + 1) is not first
