"""Slots: names, addresses, and the ring they are dealt from."""

from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from sandpost.model.errors import NoRoom
from sandpost.model.host import Host, Users
from sandpost.model.limits import Limits
from sandpost.network import addresses


def host(instance: int = 15) -> Host:
    return Host(
        instance=instance, state_dir="/s", run_dir="/r", image_dir="/i", image="d", listen_host="127.0.0.1",
        listen_port=1, workers=1, users=Users(proxy=1, api=2, collector=3, egress=5, gid=4),
        sandbox_network=f"198.{18 + instance // 8}.{instance % 8 * 32}.0/19", sandbox_uids=1 << 20,
        runtime_command="/usr/sbin/runc", cgroups=2, pool_size=1, parallel_starts=1, queue=1, memory_reserve=0.1,
        drain_timeout=1, head_timeout=1, body_timeout=1, keep_alive=1, max_head=1, max_connections=1, max_programs=1 << 27, defaults=Limits(),
    )  # fmt: skip


slots = st.integers(0, host().slots - 1)


@given(slots)
def test_a_slots_addresses_are_one_31_of_the_instances_block(slot: int) -> None:
    link = addresses.link(host(), slot)
    assert link.sandbox_address in IPv4Network(f"{link.host_address}/31")
    assert link.host_address in IPv4Network(host().sandbox_network)
    assert int(link.sandbox_address) == int(link.host_address) + 1


@given(slots, slots)
def test_no_two_slots_share_anything(one: int, two: int) -> None:
    if one != two:
        first, second = addresses.link(host(), one), addresses.link(host(), two)
        assert first.interface != second.interface
        assert len({first.host_mac, first.sandbox_mac, second.host_mac, second.sandbox_mac}) == 4
        assert len({first.host_address, first.sandbox_address, second.host_address, second.sandbox_address}) == 4


@given(slots)
def test_interface_names_fit_the_kernel_and_say_their_slot(slot: int) -> None:
    name = addresses.link(host(), slot).interface
    assert len(name) <= 15
    assert addresses.slot_of(host(), name) == slot
    assert addresses.slot_of(host(14), name) is None


@pytest.mark.parametrize("name", ["spf-", "spf-00", "spf-1000", "spf--1", "spf-1g", "spf-A", "sp1-1", "eth0", ""])
def test_other_names_are_nobodys(name: str) -> None:
    assert addresses.slot_of(host(), name) is None


def test_macs_are_local_and_single() -> None:
    link = addresses.link(host(), 3)
    for mac in (link.host_mac, link.sandbox_mac):
        assert len(mac) == 6
        assert mac[0] & 0b11 == 0b10


@given(st.integers(1, 20), st.integers(0, 40))
def test_a_ring_deals_all_and_then_says_there_is_none(size: int, first: int) -> None:
    ring = addresses.SlotRing(size, first=first)
    dealt = [ring.deal() for _ in range(size)]
    assert sorted(dealt) == list(range(size))
    assert dealt[0] == first % size
    with pytest.raises(NoRoom, match=r"network\.block") as caught:
        ring.deal()
    assert caught.value.status == 503


def test_what_is_not_free_cannot_be_claimed_nor_what_is_not_dealt_returned() -> None:
    ring = addresses.SlotRing(4)
    ring.claim(2)
    for slot in (2, 4, -1):
        with pytest.raises(ValueError):
            ring.claim(slot)
    with pytest.raises(KeyError):
        ring.give_back(1)


class RingMachine(RuleBasedStateMachine):
    """No slot is in use twice, and one that came back comes last."""

    SIZE = 7
    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.ring = addresses.SlotRing(self.SIZE)
        self.used: set[int] = set()
        self.waiting = list(range(self.SIZE))

    @rule(target=held)
    def deal(self) -> int:
        if not self.waiting:
            with pytest.raises(NoRoom):
                self.ring.deal()
            return -1
        slot = self.ring.deal()
        assert slot not in self.used
        assert slot == self.waiting.pop(0)
        self.used.add(slot)
        return slot

    @rule(target=held, slot=st.integers(0, SIZE - 1))
    def claim(self, slot: int) -> int:
        if slot in self.used:
            with pytest.raises(ValueError):
                self.ring.claim(slot)
            return -1
        self.ring.claim(slot)
        self.waiting.remove(slot)
        self.used.add(slot)
        return slot

    @rule(slot=consumes(held))
    def give_back(self, slot: int) -> None:
        if slot >= 0:
            self.ring.give_back(slot)
            self.used.remove(slot)
            self.waiting.append(slot)

    @invariant()
    def counts(self) -> None:
        assert self.ring.free == len(self.waiting) == self.SIZE - len(self.used)


TestRing = RingMachine.TestCase
