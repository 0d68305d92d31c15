"""What the kernel's firewall must be able to do, each with the smallest table that needs it. Pure.

`nft --check` shows them to the kernel, which then forgets them.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Feature:
    """`module` is what a kernel lacks that cannot do it; `body` what stands in a table `inet`."""

    module: str
    body: str


FEATURES: Mapping[str, Feature] = {
    "connection tracking": Feature("nf_conntrack, nft_ct", "chain tracking { ct state established accept; }"),
    "address translation": Feature(
        "nf_nat, nft_chain_nat, nft_nat",
        "chain translation { type nat hook prerouting priority dstnat; meta l4proto tcp dnat ip to 192.0.2.1:1; }",
    ),
    "masquerading": Feature("nft_masq", "chain masking { type nat hook postrouting priority srcnat; masquerade; }"),
    "looking up routes (fib)": Feature(
        "nft_fib_inet", "chain routes { type filter hook prerouting priority mangle; fib daddr type local drop; }"
    ),
    "limits of rate": Feature(
        "nft_limit", "set rates { type mark; size 16; limit rate over 1/second burst 1 packets; }"
    ),
    "limits of connections": Feature(
        "nft_connlimit",
        "set counts { type mark; size 16; flags dynamic; }\n"
        "chain counting { add @counts { meta mark ct count over 1 }; }",
    ),
    "refusing with an answer": Feature(
        "nft_reject_inet",
        "chain refusing { type filter hook prerouting priority mangle; meta l4proto tcp reject with tcp reset; }",
    ),
    "times of tracked connections": Feature(
        "nf_conntrack with CONFIG_NF_CONNTRACK_TIMEOUT",
        "ct timeout brief { protocol tcp; l3proto ip; policy = { time_wait : 10 }; }",
    ),
    "blocks of addresses and ports": Feature(
        "nf_tables of Linux 5.6", "set blocks { type ipv4_addr . inet_service; flags interval; }"
    ),
}


def script(*names: str) -> str:
    """Return what `nft --check` takes only from a kernel that can do all of `names`."""
    bodies = "\n".join(FEATURES[name].body for name in names)
    return f"table inet sandpost_probe {{\n{bodies}\n}}\n"
