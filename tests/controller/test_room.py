"""Memory decides what starts and what ends."""

from hypothesis import given
from hypothesis import strategies as st

from sandpost.controller import room
from sandpost.controller.room import Candidate, Memory, MiB
from sandpost.model.engines import ENGINES
from sandpost.model.limits import EngineName

GiB = 1 << 30


def memory(used: int, bound: int = 2 * GiB, available: int = 8 * GiB, total: int = 16 * GiB) -> Memory:
    return Memory(used=used, bound=bound, available=available, total=total)


candidates = st.lists(
    st.builds(
        Candidate,
        sandbox_id=st.integers(0, 10**9).map(str),
        memory=st.integers(0, 200 * MiB),
        guaranteed=st.just(32 * MiB),
        idle_for=st.sampled_from([0.0, 1.0, 6.0, 60.0, 600.0]),
    ),
    unique_by=lambda one: one.sandbox_id,
)


@given(bound=st.integers(16 * MiB, 1 << 42))
def test_the_marks_stand_in_order_below_the_bound(bound: int) -> None:
    one = memory(0, bound)
    assert 0 < one.soft < one.hard < bound


engines = st.sampled_from(ENGINES)


@given(used=st.integers(0, 2 * GiB), engine=engines, starting=st.lists(engines, max_size=8))
def test_what_fits_leaves_no_pressure(used: int, engine: EngineName, starting: list[EngineName]) -> None:
    one = memory(used)
    if room.fits(one, engine, starting):
        more = room.idle_cost(engine) + sum(map(room.idle_cost, starting))
        assert room.pressure(memory(used + more)) == "none"


def test_the_machines_own_memory_counts() -> None:
    assert room.fits(memory(0, available=2 * GiB), "runc", [])
    assert not room.fits(memory(0, available=int(1.61 * GiB)), "runc", [])
    assert not room.fits(memory(0, available=int(1.63 * GiB)), "runc", ["runc"] * 4)
    assert room.fits(memory(0, available=int(1.64 * GiB)), "runc", [])
    assert not room.fits(memory(0, available=int(1.64 * GiB)), "runsc", [])


@given(used=st.integers(0, 4 * GiB))
def test_the_watch_looks_before_it_can_be_full(used: int) -> None:
    one = memory(used)
    wait = room.next_look(one)
    assert 0.01 <= wait <= 1.0
    if wait > 0.01:
        assert used + wait * (2 << 30) <= one.bound


@given(candidates, st.integers(0, GiB))
def test_busy_sandboxes_within_their_guarantee_are_never_chosen(them: list[Candidate], wanted: int) -> None:
    chosen = room.victims(them, wanted)
    assert len(chosen) == len(set(chosen))
    by_id = {one.sandbox_id: one for one in them}
    for sandbox_id in chosen:
        one = by_id[sandbox_id]
        assert one.idle_for >= room.IDLE_AFTER or one.memory > one.guaranteed
    freed = sum(by_id[one].memory for one in chosen)
    may_go = [one for one in them if one.idle_for >= room.IDLE_AFTER or one.memory > one.guaranteed]
    assert freed >= wanted or len(chosen) == len(may_go)
    if chosen:
        assert freed - by_id[chosen[-1]].memory < wanted, "one more than needed"


def test_the_longest_idle_goes_first_then_who_is_furthest_above_its_guarantee() -> None:
    them = [
        Candidate(sandbox_id="busy-small", memory=30 * MiB, guaranteed=32 * MiB, idle_for=0),
        Candidate(sandbox_id="busy-100", memory=100 * MiB, guaranteed=32 * MiB, idle_for=0),
        Candidate(sandbox_id="busy-120-guaranteed", memory=120 * MiB, guaranteed=100 * MiB, idle_for=0),
        Candidate(sandbox_id="idle-10", memory=16 * MiB, guaranteed=32 * MiB, idle_for=10),
        Candidate(sandbox_id="idle-99", memory=16 * MiB, guaranteed=32 * MiB, idle_for=99),
    ]
    assert room.victims(them, 1) == ["idle-99"]
    assert room.victims(them, GiB) == ["idle-99", "idle-10", "busy-100", "busy-120-guaranteed"]
    assert room.longest_idle(them, GiB) == ["idle-99", "idle-10"]
