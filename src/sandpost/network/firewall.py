"""The instance's one nftables table: pure rendering, and installation by one `nft` run.

Interfaces are matched by the instance's prefix, so that no rule is needed when a sandbox comes or goes. The
regular chains are where a later release hangs its sets and maps; base chains only jump.
"""

import json
import subprocess
from collections.abc import Mapping
from typing import Any

from sandpost.model.errors import HostUnfit
from sandpost.model.host import Host

_DEADLINE = 10.0
_WAYS = {"input": ("iifname", "from"), "output": ("oifname", "to")}


def render(host: Host) -> str:
    """Return the nft script that replaces the instance's table in one transaction, with no moment without it.

    From a sandbox: answers to what the host began, nothing else. To a sandbox: connections begun by the proxies'
    user or by root (the controller's warm-up). `meta skuid` knows no owner of a closed socket's last packets, so
    tracked connections come first.
    """
    table = f"inet {host.nft_table}"
    ours = f'"{host.interface_prefix}*"'
    return f"""\
table {table} {{}}
delete table {table}
table {table} {{
	chain from_sandbox {{
		ct state established,related accept
		counter drop
	}}
	chain to_sandbox {{
		ct state established,related accept
		meta skuid {{ 0, {host.users.proxy} }} accept
		counter drop
	}}
	chain input {{
		type filter hook input priority filter; policy accept;
		iifname {ours} jump from_sandbox
	}}
	chain output {{
		type filter hook output priority filter; policy accept;
		oifname {ours} jump to_sandbox
	}}
	chain forward {{
		type filter hook forward priority filter; policy accept;
		iifname {ours} counter drop
		oifname {ours} counter drop
	}}
}}
"""


def install(host: Host) -> None:
    """Put the table in place, or replace it. Raises `HostUnfit`."""
    _nft(["-f", "-"], render(host))


def remove(host: Host) -> None:
    """Remove the table if it is there."""
    table = f"inet {host.nft_table}"
    _nft(["-f", "-"], f"table {table} {{}}\ndelete table {table}\n")


def installed(host: Host) -> bool:
    """Whether the kernel has the table with every chain of `render`."""
    listed = json.loads(_nft(["-j", "list", "chains", "inet"], ""))
    found = {
        item["chain"]["name"] for item in listed["nftables"] if item.get("chain", {}).get("table") == host.nft_table
    }
    return found >= {"from_sandbox", "to_sandbox", "input", "output", "forward"}


def obstacles(host: Host) -> list[str]:
    """Say in sentences which foreign rules may cut the proxies off from sandboxes, and what to do."""
    return foreign(json.loads(_nft(["-j", "list", "ruleset"], "")), host)


def foreign(ruleset: Mapping[str, Any], host: Host) -> list[str]:
    """Find base chains of others that drop by policy what goes between the host and its sandboxes. Pure."""
    found = []
    for item in ruleset["nftables"]:
        chain = item.get("chain", {})
        if chain.get("policy") != "drop" or chain.get("hook") not in _WAYS or chain["table"] == host.nft_table:
            continue
        name = f"{chain['family']} {chain['table']} {chain['name']}"
        match, way = _WAYS[chain["hook"]]
        found.append(
            f"the firewall chain `{name}` drops by policy: let pass what goes {way} sandboxes with "
            f'`nft insert rule {name} {match} "{host.interface_prefix}*" accept`'
        )
    return found


def _nft(arguments: list[str], script: str) -> str:
    try:
        done = subprocess.run(
            ["nft", *arguments], input=script, capture_output=True, text=True, timeout=_DEADLINE, check=False
        )
    except FileNotFoundError:
        raise HostUnfit("`nft` is missing: run `apt-get install nftables`") from None
    except subprocess.TimeoutExpired:
        raise HostUnfit(f"`nft` did not answer within {_DEADLINE:.0f} s: look for what holds the firewall") from None
    if done.returncode != 0:
        said = " ".join(done.stderr.split())
        raise HostUnfit(
            f"`nft {' '.join(arguments)}` failed: {said}: check that the kernel has nf_tables and conntrack"
        )
    return done.stdout
