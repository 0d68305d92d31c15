"""What stands in the table's sets, as ways open, change and close; and the messages that put it there."""

import struct
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sandpost.model.egress import Block, parse_egress
from sandpost.model.limits import Limits
from sandpost.network import forwarding, nfnetlink
from sandpost.network.firewall import Way, render
from sandpost.network.firewall.elements import Book, key_of, mark_of
from sandpost.network.nfnetlink import Chain, Element
from support.walls import host

POLICIES = ("public", "none", "allow:api.example.com", "allow:203.0.113.0/24,203.0.113.7:80,198.51.100.1:8000-8010")
ways = st.builds(
    Way,
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from([parse_egress(text) for text in POLICIES]),
    st.builds(
        Limits,
        connections=st.sampled_from([0, 5, 256]),
        connection_rate=st.sampled_from([0, 50]),
        bandwidth_in=st.sampled_from([0, 1 << 20]),
    ),
)


@given(st.lists(st.tuples(st.integers(0, 5), st.none() | ways), max_size=40))
def test_each_change_fits_what_stands_and_nothing_is_left_at_the_end(steps: list[tuple[int, Way | None]]) -> None:
    book = Book(host())
    standing: dict[Any, Element] = {}

    def apply(slot: int, way: Way | None) -> None:
        change = book.change(slot, way)
        for one in change.remove:
            # The kernel refuses what is not there, and then all of it.
            assert standing.pop((one.set_name, one.key, one.end)) == one
        for one in change.add:
            assert (one.set_name, one.key, one.end) not in standing
            standing[one.set_name, one.key, one.end] = one
        book.take(change)
        assert set(standing.values()) == set(book.elements)

    for slot, way in steps:
        apply(slot, way)
        own = key_of(host(), slot)
        if way is None or way.egress.kind == "none":
            assert (render.TENANTS, own, b"") not in standing
        else:
            number = book.number(way.tenant)
            assert number is not None
            assert standing[render.TENANTS, own, b""].data == nfnetlink.value(mark_of(number))
            assert (render.POLICIES, mark_of(number), b"") in standing
    numbers = [book.number(name) for name in "abc" if book.number(name) is not None]
    assert len(set(numbers)) == len(numbers), "no two tenants share a number"
    for slot in range(6):
        apply(slot, None)
    assert standing == {}


def test_an_unchanged_way_changes_nothing_and_a_changed_limit_its_own_element_alone() -> None:
    book = Book(host())
    way = Way("a", parse_egress("public"), Limits())
    book.take(book.change(1, way))
    again = book.change(1, way)
    assert (again.remove, again.add) == ((), ())
    slower = book.change(1, Way("a", parse_egress("public"), Limits(bandwidth_in=1 << 20)))
    assert [one.set_name for one in slower.remove] == [one.set_name for one in slower.add] == [render.BANDWIDTH_IN]


def test_a_number_is_given_again_as_late_as_can_be() -> None:
    book = Book(host())
    seen = set()
    for n in range(50):
        book.take(book.change(1, Way(f"t{n}", parse_egress("public"), Limits())))
        seen.add(book.number(f"t{n}"))
        book.take(book.change(1, None))
    assert len(seen) == 50


addresses = st.integers(0, 15).map(lambda n: f"203.0.113.{16 * n}")
entries = st.one_of(
    st.builds(
        lambda address, bits: f"{IPv4Network(f'{address}/{bits}', strict=False)}", addresses, st.integers(24, 32)
    ),
    st.builds(lambda address, port: f"{address}:{port}", addresses, st.integers(1, 20)),
    st.builds(
        lambda address, a, b: f"{address}:{min(a, b)}-{max(a, b)}", addresses, st.integers(1, 20), st.integers(1, 20)
    ),
)


@given(st.lists(entries, min_size=1, max_size=8))
def test_an_allow_lists_blocks_are_cut_so_that_none_lies_in_another_and_mean_the_same(texts: list[str]) -> None:
    egress = parse_egress("allow:" + ",".join(texts))
    book = Book(host())
    change = book.change(1, Way("a", egress, Limits()))
    spans = [_span(one) for one in change.add if one.set_name == render.BLOCKS]
    own = int(host().slot_addresses(1)[1])
    assert all(first[0] == last[0] == own for first, last in spans)
    for index, (first, last) in enumerate(spans):
        for other_first, other_last in spans[:index]:
            apart = any(last[field] < other_first[field] or other_last[field] < first[field] for field in (1, 2))
            assert apart, "the kernel takes no overlap"
    for address in (IPv4Address("203.0.113.0") + n for n in range(0, 256, 5)):
        for port in (1, 5, 20, 21, 65535):
            meant = any(_allows(block, address, port) for block in egress.blocks)
            found = any(first[1] <= int(address) <= last[1] and first[2] <= port <= last[2] for first, last in spans)
            assert meant == found


def _span(one: Element) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    first, last = (struct.unpack("!IIHxx", key) for key in (one.key, one.end))
    return (first[0], first[1], first[2]), (last[0], last[1], last[2])


def _allows(block: Block, address: IPv4Address, port: int) -> bool:
    return address in block.network and any(low <= port <= high for low, high in block.ports)


def test_a_transaction_is_numbered_aligned_and_acknowledged_once() -> None:
    some = [Element("tenants", b"k" * 20, data=nfnetlink.value(b"1234")), Element("gated", b"x" * 21)]
    packed, last = nfnetlink.pack("t", some, some, ["policies"])
    offset, seen = 0, []
    while offset < len(packed):
        length, kind, flags, number, _ = struct.unpack_from("=IHHII", packed, offset)
        assert length % 4 == 0
        seen.append((kind & 0xFF, number, bool(flags & 0x4)))
        offset += length
    assert offset == len(packed)
    assert last == 5
    assert [kind for kind, _, _ in seen] == [16, 14, 14, 14, 12, 12, 17]
    assert [number for _, number, acknowledged in seen if acknowledged] == [last]


def test_chains_are_dropped_when_their_sets_are_empty_and_made_before_elements_lead_to_them() -> None:
    one = Element("policies", b"1234", data=nfnetlink.jump("count_7"))
    packed, last = nfnetlink.pack("t", [], [one], ["policies"], chains=[Chain("count_7", b"")], drop=["count_5"])
    kinds = [kind & 0xFF for kind, _, _, _ in nfnetlink.messages(packed)]
    assert kinds == [16, 14, 5, 3, 8, 6, 12, 17]
    assert last == len(kinds) - 2


@given(st.binary(max_size=300))
def test_answers_of_any_bytes_are_read_without_harm(data: bytes) -> None:
    for kind, number, port, payload in nfnetlink.messages(data):
        assert min(kind, number, port) >= 0
        assert len(payload) < len(data)


def test_uplinks_are_the_interfaces_of_default_routes_that_are_up() -> None:
    text = (
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "wg0\t00000000\t00000000\t0001\t0\t0\t5\t00000000\t0\t0\t0\n"
        "down0\t00000000\t010200C0\t0002\t0\t0\t0\t00000000\t0\t0\t0\n"
        "half0\t00000000\t010200C0\t0003\t0\t0\t0\t00000080\t0\t0\t0\n"
        "lan0\t0009090A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    )
    assert forwarding.uplinks(text) == {"eth0", "wg0"}
