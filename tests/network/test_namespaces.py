"""Network slots on this kernel, and the messages that make them."""

import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpost.model.errors import EngineError
from sandpost.network import addresses, namespaces, netlink
from sandpost.network.addresses import Link
from support.engine_bed import claimed_host

Result = TypeVar("Result")


@pytest.fixture
def link() -> Iterator[Link]:
    with claimed_host() as host:
        made = addresses.link(host, 4)
        yield made
        assert namespaces.wait_gone(made.interface, 5)


def test_a_slot_is_complete_and_goes_with_its_last_descriptor(link: Link) -> None:
    home = os.readlink("/proc/thread-self/ns/net")
    fd = namespaces.make(link)
    try:
        assert os.readlink("/proc/thread-self/ns/net") == home
        assert os.readlink(f"/proc/self/fd/{fd}") != home
        assert namespaces.exists(link.interface)
        assert link.interface in namespaces.interfaces()
        seen = inside(fd, lambda: sorted(name for _, name in socket.if_nameindex()))
        assert {"eth0", "lo"} <= set(seen)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((str(link.sandbox_address), 9))
            assert probe.getsockname()[0] == str(link.host_address)
        with open("/proc/net/arp", encoding="ascii") as file:
            (entry,) = [line for line in file if line.startswith(f"{link.sandbox_address} ")]
        assert "0x6" in entry
        assert link.sandbox_mac.hex(":") in entry
    finally:
        os.close(fd)
    assert namespaces.wait_gone(link.interface, 5)


def test_host_and_slot_reach_each_other(link: Link) -> None:
    fd = namespaces.make(link)
    try:
        server = inside(fd, lambda: socket.create_server((str(link.sandbox_address), 0)))
        with server, socket.create_connection(server.getsockname(), timeout=2) as client:
            accepted, peer = server.accept()
            accepted.close()
            assert peer == client.getsockname()
            assert peer[0] == str(link.host_address)
    finally:
        os.close(fd)


def test_an_interface_in_use_is_an_error_and_nothing_is_left(link: Link) -> None:
    fd = namespaces.make(link)
    before = os.listdir("/proc/self/fd")
    try:
        with pytest.raises(EngineError, match=rf"{link.interface}.*File exists"):
            namespaces.make(link)
        assert len(os.listdir("/proc/self/fd")) == len(before)
        assert namespaces.exists(link.interface)
    finally:
        os.close(fd)


def test_an_address_that_cannot_be_is_an_error_and_the_pair_goes(link: Link) -> None:
    broken = Link(link.interface, link.host_address, link.host_mac, link.sandbox_address, b"\xff" * 6)
    home = os.readlink("/proc/thread-self/ns/net")
    with pytest.raises(EngineError):
        namespaces.make(broken)
    assert os.readlink("/proc/thread-self/ns/net") == home


def test_a_stubborn_interface_can_be_deleted(link: Link) -> None:
    fd = namespaces.make(link)
    try:
        assert not namespaces.wait_gone(link.interface, 0.05)
        namespaces.delete(link.interface)
        assert not namespaces.exists(link.interface)
        namespaces.delete(link.interface)
    finally:
        os.close(fd)


@given(
    st.lists(
        st.builds(
            netlink.Message,
            st.integers(0, 65535),
            st.just(0),
            st.binary(max_size=64).map(lambda b: b + bytes(-len(b) % 4)),
        )
    )
)
def test_a_batch_is_aligned_and_numbered(messages: list[netlink.Message]) -> None:
    packed, offset, seen = netlink.pack(messages), 0, []
    while offset < len(packed):
        length, kind, flags, number, port = struct.unpack_from("=IHHII", packed, offset)
        assert length % 4 == 0
        assert flags & 0x5 == 0x5
        assert port == 0
        seen.append((number, kind, packed[offset + 16 : offset + length]))
        offset += length
    assert seen == [(n, m.kind, m.payload) for n, m in enumerate(messages, 1)]


@given(st.binary(max_size=200))
def test_answers_of_any_bytes_are_read_without_harm(data: bytes) -> None:
    for number, _ in netlink.errors(data + bytes(20)):
        assert number >= 0


def inside(fd: int, work: Callable[[], Result]) -> Result:
    """Run `work` in a thread that enters the namespace and then ends."""
    results: list[Result] = []

    def run() -> None:
        namespaces._call("setns", fd, 0x40000000)
        results.append(work())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    (result,) = results
    return result
