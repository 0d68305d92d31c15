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
_CONDITIONS = frozenset({"match", "vmap", "limit", "quota", "ct count"})
"""Statements of libnftables-json(5) that not every packet meets."""
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
    """Return the sides of sandboxes' interfaces that a base chain refuses."""
    if chain.hook not in _HOOKS:
        return ()
    own = {one.name: one for one in chains if (one.family, one.table) == (chain.family, chain.table)}
    found = []
    for side in _HOOKS[chain.hook][1]:
        passes = _Walk(own, side, answers=(chain.hook, side) == ("forward", "oif")).passes(chain.name)
        if passes is False or (passes is None and chain.policy == "drop"):
            found.append(side)
    return tuple(found)


class _Walk:
    """A way through the chains of a table for what has a sandbox's interface at `side`; `answers`: it answers it."""

    def __init__(self, chains: Mapping[str, _Chain], side: str, *, answers: bool) -> None:
        self._chains = chains
        self._side = side
        self._answers = answers
        self._known: dict[tuple[str, bool], bool | None] = {}

    def passes(self, name: str, *, certain: bool = True) -> bool | None:
        """Whether a chain, with those that it looks into, lets it pass; None: it decides nothing.

        Rules that ask for more than the interface refuse some of it at most, and are taken to accept all that is
        needed. `certain`: all of it comes here; else rules must name the interface.
        """
        key = name, certain
        if key not in self._known:
            # The kernel lets no chain come back to itself.
            self._known[key] = None
            self._known[key] = self._look(self._chains[name], certain=certain)
        return self._known[key]

    def _look(self, chain: _Chain, *, certain: bool) -> bool | None:
        for rule in chain.rules:
            if any(_is_anothers(statement, self._side) for statement in rule):
                continue
            kinds = {kind: what for statement in rule for kind, what in statement.items()}
            ours = any(_is_sandboxes(statement, self._side) for statement in rule)
            asks_more = any(_is_condition(one) and not _is_sandboxes(one, self._side) for one in rule)
            sure = not asks_more and (ours or certain)
            if "accept" in kinds and (ours or sure or (self._answers and _is_of_answers(rule))):
                return True
            if sure and _refuses(kinds):
                return False
            target = (kinds.get("jump") or kinds.get("goto") or {}).get("target", "")
            if target in self._chains:
                said = self.passes(target, certain=sure)
                if said is True or (said is False and sure):
                    return said
            if "goto" in kinds or "return" in kinds:
                if sure:
                    return None
                # Some of it comes no further.
                certain = False
        return None


def _refuses(kinds: Mapping[str, Any]) -> bool:
    # iptables' own way to refuse is a target of its own, by whichever program it was loaded.
    return not kinds.keys().isdisjoint({"drop", "reject"}) or (kinds.get("xt") or {}).get("name") == "REJECT"


def _is_condition(statement: Mapping[str, Any]) -> bool:
    if "xt" in statement:
        # Of what iptables loads, nft tells a name at most.
        return (statement["xt"] or {}).get("type") != "target" and (statement["xt"] or {}).get("name") != "comment"
    return bool(statement.keys() & _CONDITIONS)


def _is_of_answers(rule: list[dict[str, Any]]) -> bool:
    """Whether the rule is for packets of established connections, and asks for nothing else."""
    conditions = [statement for statement in rule if _is_condition(statement)]
    if len(conditions) != 1:
        return False
    match = conditions[0].get("match", {})
    right = match.get("right")
    states = right.get("set", []) if isinstance(right, dict) else right
    return match.get("left") == {"ct": {"key": "state"}} and match.get("op") in {"==", "in"} and "established" in states


def _is_sandboxes(statement: Mapping[str, Any], side: str) -> bool:
    return any(name.endswith("*") and _covers(name[:-1]) for name in _interfaces(statement, side))


def _is_anothers(statement: Mapping[str, Any], side: str) -> bool:
    names = _interfaces(statement, side)
    return bool(names) and not any(name.startswith(PREFIX) or _is_sandboxes(statement, side) for name in names)


def _interfaces(statement: Mapping[str, Any], side: str) -> list[str]:
    """Return the interfaces that a statement asks for at `side`, with `*` at the end where it is a beginning."""
    match = statement.get("match", {})
    if match.get("op") != "==" or match.get("left") != {"meta": {"key": f"{side}name"}}:
        return []
    right = match["right"]
    return [one for one in (right.get("set", []) if isinstance(right, dict) else [right]) if isinstance(one, str)]


def _covers(prefix: str) -> bool:
    return PREFIX.startswith(prefix) or re.fullmatch(rf"{PREFIX}[0-9a-f]-", prefix) is not None


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
        refuses = re.search(rf"^-A {name} -j (?:REJECT|DROP)\b", table, re.MULTILINE)
        if hook not in _HOOKS or not (policy == "DROP" or refuses):
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
