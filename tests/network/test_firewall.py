"""The instance's table: as text, as the kernel takes it, and as it is found when somebody altered it."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from sandpost.model.errors import HostUnfit
from sandpost.model.forbidden import FORBIDDEN
from sandpost.model.host import Host
from sandpost.network.firewall import nft, readback, render
from support.engine_bed import claimed_host

DISPATCH = {"to_host", "outward", "answers", "from_host"}
"""The chains that base chains send everything of sandboxes to."""


@pytest.fixture
def host() -> Iterator[Host]:
    with claimed_host() as made:
        yield made
        nft.remove(made)


def rules(listing: dict[str, Any]) -> dict[str, list[list[dict[str, Any]]]]:
    """The rules of each chain, in order, as the kernel has them."""
    found: dict[str, list[list[dict[str, Any]]]] = {}
    for item in listing["nftables"]:
        if "chain" in item:
            found[item["chain"]["name"]] = []
        elif "rule" in item:
            found[item["rule"]["chain"]].append(item["rule"]["expr"])
    return found


def test_rules_match_only_the_instances_own_interfaces(host: Host) -> None:
    text = render.render(msgspec.structs.replace(host, listen_port=8721))
    matches = [line for line in text.splitlines() if 'ifname "' in line]
    # Who calls the listener on this machine is no sandbox; what is said of him keeps him out of the table at most.
    assert [line.strip() for line in matches if '"lo"' in line] == ['tcp dport 8721 oifname "lo" jump called']
    assert len(matches) == 11
    assert all(f'"{host.interface_prefix}*"' in line for line in matches if '"lo"' not in line)
    chains = {part.split(" ", 1)[0]: part for part in text.split("chain ")}
    for name in ("called", "come", "calling"):
        assert not set(chains[name].split()) & {"accept", "drop", "goto", "reject"}, name


def test_the_kernels_table_refuses_at_the_end_of_every_chain_that_decides(host: Host) -> None:
    nft.install(host)
    listing = nft.listed(host)
    assert listing is not None
    chains = rules(listing)
    for name in DISPATCH:
        last = chains[name][-1]
        verdict = last[-1]
        assert verdict in ({"drop": None}, {"goto": {"target": "refuse_egress"}}), name
        assert not any("match" in expression for expression in last), name
    for name in ("refuse", "over_bandwidth_in", "over_bandwidth_out"):
        assert chains[name][-1][-1] == {"drop": None}
    for name in ("public", "listed"):
        assert chains[name][-1] == [{"goto": {"target": "refuse_egress"}}]
    for name in (one for one in chains if one.startswith("refuse_")):
        assert chains[name][-1] == [{"goto": {"target": "refuse"}}]


def test_base_chains_hand_everything_of_sandboxes_on_and_nothing_else_back(host: Host) -> None:
    nft.install(host)
    listing = nft.listed(host)
    assert listing is not None
    chains = rules(listing)
    ours = {"right": f"{host.interface_prefix}*"}
    first = {name: chains[name][0] for name in ("input", "output", "forward")}
    for name, (match, verdict) in first.items():
        assert match["match"] | ours == match["match"], name
        # `goto`: what its chain does not decide does not come back to be accepted by policy.
        assert "goto" in verdict, name


def test_who_may_leave_is_known_by_interface_and_source_together(host: Host) -> None:
    """A source can be forged; the interface cannot."""
    nft.install(host)
    listing = nft.listed(host)
    assert listing is not None
    accepting = {"spend", "ask", "receive"}
    for name, chain in rules(listing).items():
        for rule in chain:
            text = json.dumps(rule)
            if any(f'"goto": {{"target": "{target}"}}' in text for target in accepting) and name not in {
                "public",
                "listed",
            }:
                assert '"data": "@tenants"' in text, (name, rule)
                assert '{"meta": {"key": "iifname"}}' in text or '{"meta": {"key": "oifname"}}' in text, (name, rule)
    # And before all that: a packet from an interface that its source does not belong to goes no further.
    assert '"fib": {"result": "oif", "flags": ["saddr", "iif"]}' in json.dumps(rules(listing)["arrive"][1])


def test_every_forbidden_address_stands_in_the_kernel_with_its_reason(host: Host) -> None:
    nft.install(host)
    text = subprocess.check_output(["nft", "list", "set", "inet", host.nft_table, "forbidden"], text=True)
    for network, reason in FORBIDDEN:
        shown = str(network).removesuffix("/32")
        assert f'{shown} comment "{reason}"' in text


def test_a_block_that_is_nowhere_forbidden_is_ours_and_forbidden(host: Host) -> None:
    elsewhere = msgspec.structs.replace(host, sandbox_network="203.0.113.0/26")
    assert '203.0.113.0/26 comment "other sandboxes"' in render.render(elsewhere)


def test_installing_twice_is_one_table_and_removing_twice_is_none(host: Host) -> None:
    assert nft.listed(host) is None
    nft.install(host)
    nft.install(host)
    assert nft.altered(host, nft.listed(host)) == []
    nft.remove(host)
    assert nft.listed(host) is None
    nft.remove(host)


def test_a_table_that_stands_is_left_with_who_is_in_it(host: Host) -> None:
    nft.install(host)
    element = f'{{ "{host.interface_prefix}1" . {host.slot_addresses(1)[1]} : 7 }}'
    subprocess.run(["nft", "add", "element", "inet", host.nft_table, "tenants", element], check=True)
    nft.ensure(host)
    listing = nft.listed(host)
    assert listing is not None
    assert readback.tenants(listing) == {(f"{host.interface_prefix}1", str(host.slot_addresses(1)[1])): 7}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("flush chain inet T outward", "chain outward is changed"),
        ("insert rule inet T outward accept", "chain outward is changed"),
        ("add rule inet T to_host accept", "chain to_host is changed"),
        ("insert rule inet T of_egress accept", "chain of_egress is changed"),
        ("delete element inet T forbidden {{ 10.0.0.0/8 }}", "set forbidden is changed"),
        ("add chain inet T more", "chain more is not ours"),
        ("add set inet T more {{ type ipv4_addr; }}", "set more is not ours"),
        ("delete table inet T", "table inet T is missing"),
    ],
)
def test_what_somebody_altered_is_named_and_put_right(host: Host, change: str, named: str) -> None:
    nft.install(host)
    subprocess.run(["nft", change.replace(" T", f" {host.nft_table}").format()], check=True)
    assert nft.altered(host, nft.listed(host)) == [named.replace(" T", f" {host.nft_table}")]
    nft.ensure(host)
    assert nft.altered(host, nft.listed(host)) == []


def test_a_table_of_another_release_is_replaced_whole(host: Host) -> None:
    subprocess.run(
        ["nft", "-f", "-"], input=f"table inet {host.nft_table} {{ chain old {{ accept; }}; }}", text=True, check=True
    )
    nft.ensure(host)
    assert "chain old" not in subprocess.check_output(["nft", "list", "table", "inet", host.nft_table], text=True)


def test_what_nft_says_is_in_the_error(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft, "render", lambda _: "nonsense")
    with pytest.raises(HostUnfit, match="syntax error"):
        nft.install(host)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(HostUnfit, match="apt-get install nftables"):
        nft.install(host)
