"""Egress policies: what each way of writing one means, and what is said about one that means nothing."""

import itertools
from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpost.model.egress import ALL_PORTS, MAX_ENTRIES, WEB_PORTS, Block, Domain, parse_egress
from sandpost.model.errors import InvalidValue
from sandpost.model.forbidden import FORBIDDEN, why, why6


def test_the_three_kinds() -> None:
    assert parse_egress("public").kind == "public"
    assert parse_egress("none").kind == "none"
    listed = parse_egress(
        "allow:api.example.com:443, *.Example.org,203.0.113.7:5432,203.0.113.0/24:8000-8010,192.0.2.1"
    )
    assert listed.kind == "allow"
    assert listed.domains == (
        Domain("api.example.com", wildcard=False, ports=((443, 443),)),
        Domain("example.org", wildcard=True, ports=WEB_PORTS),
    )
    assert listed.blocks == (
        Block(IPv4Network("203.0.113.7/32"), ((5432, 5432),)),
        Block(IPv4Network("203.0.113.0/24"), ((8000, 8010),)),
        Block(IPv4Network("192.0.2.1/32"), ALL_PORTS),
    )


def test_a_wildcard_means_names_below_and_a_name_itself_alone() -> None:
    below, itself = Domain("example.com", wildcard=True), Domain("example.com", wildcard=False)
    assert [below.covers(name) for name in ("a.example.com", "a.b.example.com", "example.com", "xexample.com")] == [
        True, True, False, False,
    ]  # fmt: skip
    assert [itself.covers(name) for name in ("example.com", "a.example.com", "example.com.evil.org")] == [
        True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no egress policy"),
        ("Public", "no egress policy"),
        ("allow", "no egress policy"),
        ("allow:", "no egress policy"),
        ("allow:,", "no domain, address or block"),
        ("allow:example", "no domain, address or block"),
        ("allow:*", "no domain, address or block"),
        ("allow:*.com:443", "no domain, address or block"),
        ("allow:a.*.example.com", "no domain, address or block"),
        ("allow:https://example.com", "is a URL"),
        ("allow:exa mple.com", "no domain, address or block"),
        ("allow:bücher.example", "no domain, address or block"),
        ("allow:-a.example.com", "no domain, address or block"),
        (f"allow:{'a' * 64}.example.com", "no domain, address or block"),
        (f"allow:{'a.' * 130}com", "no domain, address or block"),
        ("allow:example.com:0", "no port from 1 to 65535"),
        ("allow:example.com:65536", "no port from 1 to 65535"),
        ("allow:example.com:80-79", "no port from 1 to 65535"),
        ("allow:example.com:", "no port from 1 to 65535"),
        ("allow:203.0.113.1/24", "no IPv4 address or block"),
        ("allow:203.0.113.256", "no IPv4 address or block"),
        ("allow:10.1.2.3", "lies in 10.0.0.0/8, which no sandbox may reach (private)"),
        ("allow:169.254.169.254:80", "lies in 169.254.0.0/16"),
        ("allow:[2001:db8::1]:443", "is IPv6, which sandboxes do not have"),
        ("allow:2001:db8::1", "is IPv6, which sandboxes do not have"),
        ("allow:https://example.com:443/", "is a URL"),
    ],
)
def test_what_means_nothing_is_named(text: str, said: str) -> None:
    with pytest.raises(InvalidValue) as raised:
        parse_egress(text)
    assert said in raised.value.message


def test_a_list_is_bounded() -> None:
    entries = [f"a{n}.example.com" for n in range(MAX_ENTRIES + 1)]
    assert len(parse_egress("allow:" + ",".join(entries[:-1])).domains) == MAX_ENTRIES
    with pytest.raises(InvalidValue, match="256 entries at most"):
        parse_egress("allow:" + ",".join(entries))


def test_a_block_that_holds_forbidden_addresses_is_no_way_to_them() -> None:
    # A policy may say so; the firewall and the gate look at each address all the same.
    assert parse_egress("allow:0.0.0.0/0").blocks[0].network == IPv4Network("0.0.0.0/0")
    assert why(IPv4Address("169.254.169.254")) is not None


@given(st.text(max_size=80))
def test_any_text_is_a_policy_or_an_error_with_a_sentence(text: str) -> None:
    for written in (text, f"allow:{text}"):
        try:
            policy = parse_egress(written)
        except InvalidValue as error:
            assert error.message  # noqa: PT017 - each of many
        else:
            assert policy.text == written


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0", "10.0.0.1", "100.100.100.200", "127.0.0.1", "168.63.129.16", "169.254.169.254", "172.31.0.1",
     "192.0.0.192", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.19.255.255", "224.0.0.1", "255.255.255.255"],
)  # fmt: skip
def test_addresses_that_nobody_may_reach(address: str) -> None:
    assert why(IPv4Address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "172.32.0.0",
                                     "192.0.2.1", "198.51.100.1", "203.0.113.1", "223.255.255.255"])  # fmt: skip
def test_addresses_of_the_public_internet(address: str) -> None:
    assert why(IPv4Address(address)) is None


@pytest.mark.parametrize(
    "address", ["::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "2001:0:a00:1::", "2606::1"]
)
def test_no_ipv6_address_is_reached(address: str) -> None:
    assert why6(IPv6Address(address))


def test_the_list_is_in_order_and_says_a_reason_a_line() -> None:
    blocks = [block.network for block in FORBIDDEN]
    assert blocks == sorted(blocks)
    assert all(not a.overlaps(b) for a, b in itertools.pairwise(blocks))
    assert all(block.reason for block in FORBIDDEN)
