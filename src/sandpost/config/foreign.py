"""Which firewall of somebody else's cuts sandboxes off, and the command that lets them pass. Pure.

A packet must be accepted by every base chain of its hook: what one of theirs drops, ours cannot accept. Nothing of
theirs is changed here; the operator is told. Docker, ufw, firewalld and plain iptables are known by the names of
their tables and chains, so that the command is one that their owner keeps. What passes them is still judged by ours.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

PREFIX = "sp"
"""What the names of all sandboxes' interfaces begin with, whichever installation's."""

_HOOKS = {
    "forward": ("what sandboxes send to the internet and its answers", ("iif", "oif")),
    "input": ("what sandboxes send to their resolver and the answers of all calls", ("iif",)),
    "output": ("every call of a sandbox", ("oif",)),
}
"""What a hook that drops cuts, and by which side of a sandbox's interface it must be let pass."""
_FAMILIES = frozenset({"ip", "inet"})
_PLAIN = frozenset({"counter", "log", "limit", "comment"})
_POLICY = re.compile(r"^:(\S+) (ACCEPT|DROP) ", re.MULTILINE)


@dataclass(slots=True)
class _Chain:
    family: str
    table: str
    name: str
    hook: str
    policy: str
    rules: list[list[dict[str, Any]]] = field(default_factory=list)


def cuts(ruleset: Mapping[str, Any], legacy: str = "") -> list[str]:
    """Say what is cut and what to do, a sentence for each chain that does.

    `ruleset` is what `nft -j list ruleset` says (libnftables-json(5)), `legacy` what `iptables-legacy-save` does.
    """
    chains = list(_chains(ruleset))
    found = [
        _sentence(chain, sides, _commands(chain, sides, chains)) for chain in chains if (sides := _cut(chain, chains))
    ]
    return [*dict.fromkeys(found), *_legacy(legacy)]


def _chains(ruleset: Mapping[str, Any]) -> Iterator[_Chain]:
    known: dict[tuple[str, str, str], _Chain] = {}
    for item in ruleset.get("nftables", ()):
        if "chain" in item:
            one = item["chain"]
            key = one["family"], one["table"], one["name"]
            known[key] = _Chain(*key, one.get("hook", ""), one.get("policy", "accept"))
        elif "rule" in item:
            one = item["rule"]
            chain = known.get((one["family"], one["table"], one["chain"]))
            if chain is not None:
                chain.rules.append(one["expr"])
    for chain in known.values():
        if chain.family in _FAMILIES and not chain.table.startswith("sandpost_"):
            yield chain


def _cut(chain: _Chain, chains: list[_Chain]) -> tuple[str, ...]:
    """Return the sides of sandboxes' interfaces that a base chain drops and lets pass nowhere."""
    if chain.hook not in _HOOKS or not (chain.policy == "drop" or (chain.rules and _refuses_all(chain.rules[-1]))):
        return ()
    return tuple(side for side in _HOOKS[chain.hook][1] if not _passes(chain, side, chains, set()))


def _refuses_all(rule: list[dict[str, Any]]) -> bool:
    kinds = [kind for statement in rule for kind in statement if kind not in _PLAIN]
    return kinds in (["drop"], ["reject"])


def _passes(chain: _Chain, side: str, chains: list[_Chain], seen: set[str]) -> bool:
    """Whether some rule of the chain, or of one that it looks into, accepts by a sandbox's interface."""
    seen.add(chain.name)
    for rule in chain.rules:
        verdicts = {kind for statement in rule for kind in statement}
        if "accept" in verdicts and any(_is_sandboxes(statement, side) for statement in rule):
            return True
        for statement in rule:
            target = (statement.get("jump") or statement.get("goto") or {}).get("target")
            inner = next(
                (
                    one
                    for one in chains
                    if (one.family, one.table, one.name) == (chain.family, chain.table, target) and target not in seen
                ),
                None,
            )
            if inner is not None and _passes(inner, side, chains, seen):
                return True
    return False


def _is_sandboxes(statement: Mapping[str, Any], side: str) -> bool:
    match = statement.get("match", {})
    if match.get("op") != "==" or match.get("left") != {"meta": {"key": f"{side}name"}}:
        return False
    right = match["right"]
    names = right.get("set", []) if isinstance(right, dict) else [right]
    return any(isinstance(name, str) and name.endswith("*") and _covers(name[:-1]) for name in names)


def _covers(prefix: str) -> bool:
    return prefix == PREFIX or re.fullmatch(rf"{PREFIX}[0-9a-f]-", prefix) is not None


def _commands(chain: _Chain, sides: tuple[str, ...], chains: list[_Chain]) -> list[str]:
    names = {one.name for one in chains if (one.family, one.table) == (chain.family, chain.table)}
    flags = {"iif": "in", "oif": "out"}
    if chain.table == "firewalld":
        zone = f"firewall-cmd --permanent --zone=trusted --add-interface={PREFIX}+"
        return [zone, "firewall-cmd --reload"]
    if any(name.startswith("ufw-") for name in names):
        way = "ufw route allow" if chain.hook == "forward" else "ufw allow"
        return [f"{way} {flags[side]} on {PREFIX}+" for side in sides]
    if (chain.family, chain.table) == ("ip", "filter") and chain.name.isupper():
        where = "DOCKER-USER" if chain.hook == "forward" and "DOCKER-USER" in names else chain.name
        return [_iptables("iptables", where, side) for side in sides]
    place = f"{chain.family} {chain.table} {chain.name}"
    return [f"nft 'insert rule {place} {side}name \"{PREFIX}*\" accept'" for side in sides]


def _iptables(program: str, chain: str, side: str) -> str:
    return f"{program} -I {chain} -{side[0]} {PREFIX}+ -j ACCEPT"


def _sentence(chain: _Chain, sides: tuple[str, ...], commands: list[str]) -> str:
    told = " and ".join(f"`{command}`" for command in commands)
    name = f"{chain.family} {chain.table} {chain.name}"
    if chain.table == "firewalld":
        return f"firewalld cuts sandboxes off (chain `{name}`): let them pass with {told}"
    return f"the firewall chain `{name}` drops {_what(chain.hook, sides)}: let it pass with {told}"


def _what(hook: str, sides: tuple[str, ...]) -> str:
    if hook == "forward" and len(sides) == 1:
        return "what sandboxes send to the internet" if sides == ("iif",) else "the internet's answers to sandboxes"
    return _HOOKS[hook][0]


def _legacy(text: str) -> Iterator[str]:
    """Judge the table `filter` of `iptables-legacy-save`."""
    table = text.partition("*filter")[2].partition("COMMIT")[0]
    for name, policy in _POLICY.findall(table):
        hook = name.lower()
        if policy != "DROP" or hook not in _HOOKS:
            continue
        letter = {"iif": "-i", "oif": "-o"}
        sides = tuple(
            side
            for side in _HOOKS[hook][1]
            if re.search(rf"^-A \S+ .*{letter[side]} {PREFIX}(?:[0-9a-f]-)?\+ .*-j ACCEPT", table, re.MULTILINE) is None
        )
        if sides:
            where = "DOCKER-USER" if hook == "forward" and ":DOCKER-USER " in table else name
            told = " and ".join(f"`{_iptables('iptables-legacy', where, side)}`" for side in sides)
            yield f"the iptables chain `filter {name}` drops {_what(hook, sides)}: let it pass with {told}"
