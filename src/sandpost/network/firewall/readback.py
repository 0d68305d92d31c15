"""What `nft -j list table` says, reduced to what must not change, and compared. Pure.

The schema is libnftables-json(5)'s. Handles, counts, what the controller and the kernel put into sets, and the chains
that are added to count connections (`counts`) do not belong to a table's shape; rules, their order, chains' hooks and
policies, sets' types and the forbidden addresses do.
"""

from collections.abc import Mapping
from typing import Any

from sandpost.network.firewall import render

Shape = dict[str, Any]
"""`chain NAME`, `set NAME`, `map NAME`, `ct timeout NAME` to what it is; of a chain also its rules, in order."""

_CONSTANT = frozenset({"forbidden"})


def shape(listing: Mapping[str, Any]) -> Shape:
    """Return what of a listing must be as it was rendered."""
    found: Shape = {}
    for item in listing["nftables"]:
        ((kind, what),) = item.items()
        if kind in {"metainfo", "table"}:
            continue
        if (what["chain"] if kind == "rule" else what["name"]).startswith(render.COUNT_CHAIN):
            continue
        if kind == "rule":
            chain = found[f"chain {what['chain']}"]
            chain["rules"].append(_without_counts(what["expr"]))
            continue
        kept = {name: value for name, value in what.items() if name not in {"handle", "elem", "table", "family"}}
        if what["name"] in _CONSTANT:
            kept["elem"] = what.get("elem", [])
        if kind == "chain":
            kept["rules"] = []
        found[f"{kind} {what['name']}"] = kept
    return found


def differences(wanted: Shape, found: Shape) -> list[str]:
    """Name what is missing, changed or too many, such as `chain outward is changed`."""
    named = []
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            named.append(f"{name} is missing")
        elif name not in wanted:
            named.append(f"{name} is not ours")
        elif wanted[name] != found[name]:
            named.append(f"{name} is changed")
    return named


def tenants(listing: Mapping[str, Any]) -> dict[tuple[str, str], int]:
    """Return who is in the map of tenants: interface and address to the tenant's number."""
    for item in listing["nftables"]:
        if item.get("map", {}).get("name") == render.TENANTS:
            return {(key["concat"][0], key["concat"][1]): number for key, number in item["map"].get("elem", [])}
    return {}


def resolvers(listing: Mapping[str, Any]) -> set[tuple[str, int]]:
    """Return which addresses and ports egress may ask for names."""
    found = set()
    for item in listing["nftables"]:
        if item.get("set", {}).get("name") in {render.RESOLVERS, f"{render.RESOLVERS}6"}:
            found |= {(key["concat"][0], key["concat"][1]) for key in item["set"].get("elem", [])}
    return found


def connections(listing: Mapping[str, Any]) -> dict[int, str]:
    """Return the chain that counts the connections of each tenant's number."""
    for item in listing["nftables"]:
        if item.get("map", {}).get("name") == render.CONNECTIONS:
            return {number: verdict["jump"]["target"] for number, verdict in item["map"].get("elem", [])}
    return {}


def counted(listing: Mapping[str, Any]) -> dict[int, int]:
    """Return of which tenants' numbers the kernel counts connections now, with the limit it knows."""
    for item in listing["nftables"]:
        if item.get("set", {}).get("name") == render.COUNTED:
            found = (one["elem"] for one in item["set"].get("elem", []) if "elem" in one)
            return {one["val"]: one["ct count"]["val"] for one in found if "ct count" in one}
    return {}


def counts(listing: Mapping[str, Any]) -> set[int]:
    """Return the limits of connections that have a chain which counts as it should."""
    chains = _count_chains(listing)
    good = (int(name.removeprefix(render.COUNT_CHAIN)) for name, rules in chains.items() if _counts(name, rules))
    return set(good)


def count_chains(listing: Mapping[str, Any]) -> set[str]:
    """Return all chains that are to count connections, by name."""
    return set(_count_chains(listing))


def _count_chains(listing: Mapping[str, Any]) -> dict[str, list[Any]]:
    chains: dict[str, list[Any]] = {}
    for item in listing["nftables"]:
        name = item.get("chain", {}).get("name", "")
        if name.startswith(render.COUNT_CHAIN):
            chains[name] = []
        elif item.get("rule", {}).get("chain") in chains:
            chains[item["rule"]["chain"]].append(item["rule"]["expr"])
    return chains


def _counts(name: str, rules: list[Any]) -> bool:
    text = name.removeprefix(render.COUNT_CHAIN)
    if not text.isdecimal():
        return False
    counting = {"ct count": {"val": int(text), "inv": True}}
    mark = {"meta": {"key": "mark"}}
    update = {"set": {"op": "add", "elem": mark, "set": f"@{render.COUNTED}", "stmt": [counting]}}
    return rules == [[update, {"goto": {"target": render.REFUSING}}]]


def sizes(listing: Mapping[str, Any]) -> dict[str, int]:
    """Return how many elements each set and map has that the controller writes."""
    found = dict.fromkeys(render.WRITTEN, 0)
    for item in listing["nftables"]:
        what = item.get("set") or item.get("map") or {}
        if what.get("name") in found:
            found[what["name"]] = len(what.get("elem", []))
    return found


def _without_counts(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_counts(one) for one in value]
    if isinstance(value, dict):
        if value.keys() == {"counter"}:
            return {"counter": None}
        return {name: _without_counts(one) for name, one in value.items()}
    return value
