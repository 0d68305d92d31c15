"""The instance's table: as text, and as the kernel takes it."""

import json
import subprocess
from collections.abc import Iterator

import pytest

from sandpost.model.errors import HostUnfit
from sandpost.model.host import Host
from sandpost.network import firewall
from support.engine_bed import claimed_host


@pytest.fixture
def host() -> Iterator[Host]:
    with claimed_host() as made:
        yield made
        firewall.remove(made)


def test_the_table_matches_only_its_own_interfaces(host: Host) -> None:
    text = firewall.render(host)
    matches = [line.strip() for line in text.splitlines() if "ifname" in line]
    assert len(matches) == 4
    assert all(f'"{host.interface_prefix}*"' in line for line in matches)
    assert f"skuid {{ 0, {host.users.proxy} }}" in text


def test_installing_twice_is_one_table_and_removing_twice_is_none(host: Host) -> None:
    assert not firewall.installed(host)
    firewall.install(host)
    firewall.install(host)
    assert firewall.installed(host)
    listed = json.loads(subprocess.check_output(["nft", "-j", "list", "table", "inet", host.nft_table]))["nftables"]
    chains = {item["chain"]["name"]: item["chain"] for item in listed if "chain" in item}
    assert {chains[name]["hook"] for name in ("input", "output", "forward")} == {"input", "output", "forward"}
    assert len([item for item in listed if "rule" in item]) == 9
    firewall.remove(host)
    assert not firewall.installed(host)
    firewall.remove(host)


def test_a_table_of_another_release_is_replaced_whole(host: Host) -> None:
    subprocess.run(
        ["nft", "-f", "-"], input=f"table inet {host.nft_table} {{ chain old {{ accept; }}; }}", text=True, check=True
    )
    firewall.install(host)
    assert "chain old" not in subprocess.check_output(["nft", "list", "table", "inet", host.nft_table], text=True)


def test_a_foreign_drop_is_named_with_what_to_do(host: Host) -> None:
    name = f"foreign_{host.nft_table}"
    chain = "chain wall { type filter hook output priority 300; policy accept; }; chain in { type filter hook input priority 300; policy accept; };"
    subprocess.run(["nft", "-f", "-"], input=f"table inet {name} {{ {chain} }}", text=True, check=True)
    try:
        assert firewall.obstacles(host) == []
        listed = json.loads(subprocess.check_output(["nft", "-j", "list", "ruleset"]))
    finally:
        subprocess.run(["nft", "delete", "table", "inet", name], check=True)
    # The policy itself is changed in the listing alone: a real one would cut this machine off.
    for item in listed["nftables"]:
        if item.get("chain", {}).get("table") == name:
            item["chain"]["policy"] = "drop"
    found = firewall.foreign(listed, host)
    assert len(found) == 2
    assert f'nft insert rule inet {name} wall oifname "{host.interface_prefix}*" accept' in found[0]
    assert f'nft insert rule inet {name} in iifname "{host.interface_prefix}*" accept' in found[1]


def test_our_own_table_and_forwarding_are_no_obstacle(host: Host) -> None:
    chains = [
        {"family": "inet", "table": host.nft_table, "name": "input", "hook": "input", "policy": "drop"},
        {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"},
        {"family": "ip", "table": "filter", "name": "DOCKER"},
    ]
    assert firewall.foreign({"nftables": [{"metainfo": {}}, *({"chain": chain} for chain in chains)]}, host) == []


def test_what_nft_says_is_in_the_error(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firewall, "render", lambda _: "nonsense")
    with pytest.raises(HostUnfit, match="syntax error"):
        firewall.install(host)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(HostUnfit, match="apt-get install nftables"):
        firewall.install(host)
