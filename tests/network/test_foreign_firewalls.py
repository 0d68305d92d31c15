"""Firewalls of others beside ours: what they cut is told with what lets it pass, and that it passes then, in a lab."""

import json
import subprocess
from collections.abc import Iterator

import pytest

from sandpost.config import foreign
from support.lab import PUBLIC, Place, Server, reaches
from support.walls import Walls

DOCKER = """
table ip filter {
	chain DOCKER { }
	chain DOCKER-USER { counter return; }
	chain DOCKER-ISOLATION-STAGE-1 { counter return; }
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
		counter jump DOCKER-USER
		counter jump DOCKER-ISOLATION-STAGE-1
		oifname "docker0" ct state established,related counter accept
		oifname "docker0" counter jump DOCKER
		iifname "docker0" oifname != "docker0" counter accept
	}
	chain INPUT { type filter hook input priority filter; policy accept; }
}
"""
UFW = """
table ip filter {
	chain ufw-before-input { iifname "lo" accept; ct state established,related accept; }
	chain ufw-user-input { tcp dport 22 accept; }
	chain ufw-before-forward { ct state established,related accept; }
	chain ufw-user-forward { }
	chain INPUT {
		type filter hook input priority filter; policy drop;
		jump ufw-before-input
		jump ufw-user-input
	}
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
		jump ufw-before-forward
		jump ufw-user-forward
	}
	chain OUTPUT { type filter hook output priority filter; policy accept; }
}
"""
FIREWALLD = """
table inet firewalld {
	chain filter_IN_public { tcp dport 22 accept; reject with icmpx admin-prohibited; }
	chain filter_INPUT {
		type filter hook input priority filter + 10; policy accept;
		ct state { established, related } accept
		iifname "lo" accept
		ct state invalid drop
		jump filter_IN_public
		reject with icmpx admin-prohibited
	}
	chain filter_FORWARD {
		type filter hook forward priority filter + 10; policy accept;
		ct state { established, related } accept
		reject with icmpx admin-prohibited
	}
	chain filter_OUTPUT {
		type filter hook output priority filter + 10; policy accept;
		oifname "lo" accept
	}
}
"""
PLAIN = """
table inet mine {
	chain in { type filter hook input priority filter; policy drop; iifname { "lo", "up0" } accept; }
	chain forward { type filter hook forward priority filter; policy drop; }
	chain out { type filter hook output priority filter; policy drop; oifname { "lo", "up0" } accept; }
}
"""
OPEN = """
table inet mine {
	chain in { type filter hook input priority filter; policy drop; iifname "sp*" accept; iifname "lo" accept; }
	chain forward { type filter hook forward priority filter; policy accept; tcp dport 25 drop; }
}
table ip nat { chain POSTROUTING { type nat hook postrouting priority srcnat; policy accept; }; }
"""
TABLES = {"docker": "ip filter", "ufw": "ip filter", "firewalld": "inet firewalld", "plain": "inet mine"}
RULES = {"docker": DOCKER, "ufw": UFW, "firewalld": FIREWALLD, "plain": PLAIN}


@pytest.fixture
def beside(walls: Walls, request: pytest.FixtureRequest) -> Iterator[tuple[Walls, Place, str]]:
    """A tenant's sandbox that is well, beside a firewall that is loaded then."""
    _, place = walls.sandbox()
    assert reaches(place, PUBLIC) == "yes"
    name = request.param
    walls.lab.host.run(lambda: subprocess.run(["nft", "-f", "-"], input=RULES[name], text=True, check=True))
    yield walls, place, name
    walls.lab.host.command("nft", "delete", "table", *TABLES[name].split())


def told(walls: Walls) -> list[str]:
    return foreign.cuts(json.loads(walls.lab.host.command("nft", "-j", "list", "ruleset")))


@pytest.mark.parametrize("beside", ["docker"], indirect=True)
def test_dockers_forward_policy_is_told_with_rules_for_its_own_chain(beside: tuple[Walls, Place, str]) -> None:
    walls, place, _ = beside
    assert reaches(place, PUBLIC, patience=0.3) == "silent", "it cuts"
    (sentence,) = told(walls)
    assert "`ip filter FORWARD` drops what sandboxes send to the internet and its answers" in sentence
    assert "`iptables -I DOCKER-USER -i sp+ -j ACCEPT` and `iptables -I DOCKER-USER -o sp+ -j ACCEPT`" in sentence
    # What these commands do, in nft's words.
    for side in ("iifname", "oifname"):
        walls.lab.host.command("nft", f'insert rule ip filter DOCKER-USER {side} "sp*" counter accept')
    assert reaches(place, PUBLIC) == "yes"
    assert told(walls) == []


@pytest.mark.parametrize("beside", ["ufw"], indirect=True)
def test_ufws_policies_are_told_with_its_own_commands(beside: tuple[Walls, Place, str]) -> None:
    walls, place, _ = beside
    assert reaches(place, PUBLIC, patience=0.3) == "silent"
    sentences = told(walls)
    assert len(sentences) == 2
    assert "`ufw allow in on sp+`" in sentences[0]
    # Of real ufw's rule for answers nft tells nothing, and `out` is named too (tests/system/test_firewalls_beside.py).
    assert sentences[1].endswith("what sandboxes send to the internet: let it pass with `ufw route allow in on sp+`")
    for chain in ("ufw-user-input", "ufw-user-forward"):
        walls.lab.host.command("nft", f'add rule ip filter {chain} iifname "sp*" counter accept')
    assert reaches(place, PUBLIC) == "yes"
    assert told(walls) == []


@pytest.mark.parametrize("beside", ["firewalld"], indirect=True)
def test_firewallds_last_rules_are_told_with_the_zone(beside: tuple[Walls, Place, str]) -> None:
    walls, place, _ = beside
    assert reaches(place, PUBLIC, patience=0.3) in {"prohibited", "refused"}
    sentences = told(walls)
    assert len(sentences) == 2
    for sentence in sentences:
        assert "`firewall-cmd --permanent --zone=trusted --add-interface=sp+` and `firewall-cmd --reload`" in sentence
    for chain, sides in (("filter_INPUT", ["iifname"]), ("filter_FORWARD", ["iifname", "oifname"])):
        for side in sides:
            walls.lab.host.command("nft", f'insert rule inet firewalld {chain} {side} "sp*" accept')
    assert reaches(place, PUBLIC) == "yes"
    assert told(walls) == []


@pytest.mark.parametrize("beside", ["plain"], indirect=True)
def test_the_commands_for_a_table_of_ones_own_work_as_they_are_told(beside: tuple[Walls, Place, str]) -> None:
    walls, place, _ = beside
    slot = walls.writer._book.slots
    with Server(place, [8000]):
        address = walls.address(max(slot))
        assert reaches(walls.lab.host, address, 8000, patience=0.3) in {"silent", "not permitted"}
        assert reaches(place, PUBLIC, patience=0.3) == "silent"
        sentences = told(walls)
        assert len(sentences) == 3
        for sentence in sentences:
            for command in sentence.split("`")[3::2]:
                walls.lab.host.command("sh", "-c", command)
        assert reaches(walls.lab.host, address, 8000) == "yes"
        assert reaches(place, PUBLIC) == "yes"
        assert told(walls) == []


def test_what_cuts_nothing_of_ours_is_not_told(walls: Walls) -> None:
    walls.lab.host.run(lambda: subprocess.run(["nft", "-f", "-"], input=OPEN, text=True, check=True))
    try:
        assert told(walls) == []
    finally:
        for table in ("inet mine", "ip nat"):
            walls.lab.host.command("nft", "delete", "table", *table.split())


ANSWERS = {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}
ACCEPT, DROP, REJECT = {"accept": None}, {"drop": None}, {"xt": {"type": "target", "name": "REJECT"}}
UNREADABLE = {"xt": {"type": "match", "name": "conntrack"}}
COUNTER = {"counter": {"packets": 0, "bytes": 0}}


def named(side: str, name: str = "sp*") -> dict[str, object]:
    return {"match": {"op": "==", "left": {"meta": {"key": f"{side}name"}}, "right": name}}


def judged(hook: str, policy: str, *rules: tuple[object, ...], **others: list[list[object]]) -> tuple[str, ...]:
    """Which sides a chain with these rules cuts, as the sentence has it; `others` are chains that it may look into."""
    chains: dict[str, list[list[object]]] = {"BASE": [list(rule) for rule in rules], **others}
    listing: list[dict[str, object]] = []
    for name, own in chains.items():
        base = {"hook": hook, "policy": policy} if name == "BASE" else {}
        where = {"family": "ip", "table": "filter"}
        listing.append({"chain": {**where, "name": name, **base}})
        listing += [{"rule": {**where, "chain": name, "expr": expr}} for expr in own]
    sentences = foreign.cuts({"nftables": listing})
    return tuple(side for side in ("-i", "-o") if any(f" {side} sp+ " in sentence for sentence in sentences))


@pytest.mark.parametrize(
    ("hook", "cut", "rules", "others"),
    [
        # As iptables has it: a last rule whose target is a module's.
        ("input", ("-i",), [(UNREADABLE, COUNTER, ACCEPT), (COUNTER, REJECT)], {}),
        ("forward", ("-i", "-o"), [(UNREADABLE, ACCEPT), (REJECT,)], {}),
        ("forward", ("-i",), [(ANSWERS, ACCEPT), (REJECT,)], {}),
        ("input", ("-i",), [(ANSWERS, ACCEPT), (DROP,)], {}),
        ("input", (), [(named("iif"), ACCEPT), (REJECT,)], {}),
        ("input", ("-i",), [(DROP,), (named("iif"), ACCEPT)], {}),
        ("input", (), [(UNREADABLE, DROP)], {}),
        ("input", ("-i",), [(named("iif"), DROP)], {}),
        ("input", (), [(named("iif", "eth0"), DROP), (named("iif", "s*"), ACCEPT), (DROP,)], {}),
        # As firewalld has it: a chain for the interface, which ends in a word for all.
        ("input", (), [({"jump": {"target": "zones"}},), (DROP,)], {
            "zones": [[named("iif"), {"goto": {"target": "trusted"}}], [{"goto": {"target": "public"}}]],
            "trusted": [[{"jump": {"target": "empty"}}], [ACCEPT]], "public": [[REJECT]], "empty": [],
        }),
        ("input", ("-i",), [({"jump": {"target": "zones"}},), (ACCEPT,)], {
            "zones": [[named("iif", "eth0"), {"goto": {"target": "trusted"}}], [{"goto": {"target": "public"}}]],
            "trusted": [[ACCEPT]], "public": [[REJECT]],
        }),
        # What not every packet comes to decides nothing.
        ("input", ("-i",), [(UNREADABLE, {"jump": {"target": "some"}}), (DROP,)], {"some": [[ACCEPT]]}),
        ("input", (), [(UNREADABLE, {"jump": {"target": "some"}})], {"some": [[DROP]]}),
        ("input", (), [(UNREADABLE, {"jump": {"target": "some"}}), (DROP,)], {"some": [[named("iif"), ACCEPT]]}),
        # As ufw has it: a chain that drops what did not return from it before.
        ("input", (), [({"jump": {"target": "some"}},)], {"some": [[UNREADABLE, {"return": None}], [DROP]]}),
        ("output", ("-o",), [({"jump": {"target": "first"}},), (DROP,)], {"first": [[{"return": None}], [ACCEPT]]}),
    ],
)  # fmt: skip
def test_rules_are_followed_in_their_order(
    hook: str, cut: tuple[str, ...], rules: list[tuple[object, ...]], others: dict[str, list[list[object]]]
) -> None:
    assert judged(hook, "accept", *rules, **others) == cut


LEGACY = """# Generated by iptables-save v1.8.9
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT DROP [0:0]
COMMIT
*filter
:INPUT DROP [5:300]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER-USER - [0:0]
-A INPUT -i lo -j ACCEPT
-A FORWARD -j DOCKER-USER
%s
COMMIT
"""


def test_tables_of_the_old_iptables_are_judged_too() -> None:
    sentences = foreign.cuts({"nftables": []}, LEGACY % "-A DOCKER-USER -j RETURN")
    assert len(sentences) == 2
    assert "`iptables-legacy -I INPUT -i sp+ -j ACCEPT`" in sentences[0]
    assert (
        "`iptables-legacy -I DOCKER-USER -i sp+ -j ACCEPT` and `iptables-legacy -I DOCKER-USER -o sp+" in sentences[1]
    )
    passing = "-A INPUT -i sp+ -j ACCEPT\n-A DOCKER-USER -i sp+ -j ACCEPT\n-A DOCKER-USER -o sp+ -j ACCEPT"
    assert foreign.cuts({"nftables": []}, LEGACY % passing) == []
    half = foreign.cuts({"nftables": []}, LEGACY % "-A INPUT -i sp+ -j ACCEPT\n-A DOCKER-USER -i sp+ -j ACCEPT")
    assert len(half) == 1
    assert "drops the internet's answers to sandboxes: let it pass with `iptables-legacy -I DOCKER-USER -o" in half[0]
    last = LEGACY.replace("INPUT DROP", "INPUT ACCEPT").replace("FORWARD DROP", "FORWARD ACCEPT")
    assert foreign.cuts({"nftables": []}, last % "-A INPUT -p tcp -j DROP") == []
    (refusing,) = foreign.cuts({"nftables": []}, last % "-A INPUT -j REJECT --reject-with icmp-port-unreachable")
    assert "`iptables-legacy -I INPUT -i sp+ -j ACCEPT`" in refusing
