"""The table's rules as nft reads them. Pure.

Interfaces are matched by the instance's prefix, and who is who stands in sets and maps, so that no rule changes when
a sandbox comes or goes. A sandbox that is in no map reaches nothing: rules stand before its process does.

What egress sends is judged where it is asked for, before the machine's owner may translate it: a table of his that
sends questions elsewhere, or HTTP through a proxy, goes on as it was.

A packet's mark is the number of its tenant while a chain of ours looks at it, and 0 when it leaves: sets of limits
have it as their key, so that all sandboxes of a tenant share them.
"""

from ipaddress import IPv4Network

from sandpost.model.forbidden import FORBIDDEN
from sandpost.model.host import GATE_PORT, INSTANCES, RESOLVER_PORT, SANDBOX_PORT, Host

REFUSALS, REFUSALS_BURST = 100, 200
"""Refusals a second that a sandbox is told of at once; beyond them packets vanish."""
QUESTIONS, QUESTIONS_BURST = 5000, 1000
"""Packets a second that a sandbox may send to the resolver; how many it answers is its own affair."""
NAMED, NAMED_BURST = 5, 20
"""Refused addresses a second of a sandbox that are kept by name for its log."""
KEPT_SECONDS = 600
"""So long a connection that the table has no room for is kept without a packet."""
HIT_SECONDS = 60
"""So long a limit that was hit is remembered by the kernel; the controller reads it every second."""
MASQUERADE_PORTS = "32768-65535"
"""Ports that leave with the host's address. Below them services listen, and a connection that borrowed such a port
would take what the other side sends to the service; the port is drawn, so that none can be chosen either."""

TIMEOUTS = (
    "syn_sent : 20, syn_recv : 20, established : 7440, fin_wait : 20, close_wait : 20, last_ack : 10, "
    "time_wait : 10, close : 5"
)
"""Seconds that a TCP connection of a sandbox is tracked in each state: RFC 5382 wants 2 h 4 min of an idle one; the
kernel's five days, and two minutes after an end, would let one tenant fill the table that the whole machine shares."""

RATES = "connection_rates"
CONNECTIONS, COUNTED = "connection_limits", "counted"
BANDWIDTH_IN = "bandwidth_in"
BANDWIDTH_OUT = "bandwidth_out"
TENANTS, POLICIES, GATED, BLOCKS, OPENED, GUARDED = "tenants", "policies", "gated", "blocks", "opened", "guarded"
WRITTEN = (TENANTS, POLICIES, GATED, BLOCKS, RATES, CONNECTIONS, BANDWIDTH_IN, BANDWIDTH_OUT)
"""Sets and maps whose elements are the controller's."""
COUNT_CHAIN = "count_"
"""A chain for each limit of connections that some tenant has, `count_256`, which the writer makes.

The kernel forgets elements that count connections when there is none, limit and all: so they are made anew by a rule
that knows the limit.
"""
REFUSING = "refuse_connections"
"""Where such a chain sends what is too many."""
CROWDED, PACE = "crowded", "pace"
"""What the kernel's table of connections has room for (`network.conntrack`): an element in the first says that it is
nearly full; that in the second how many connections all tenants together may begin."""
TALKS, CALLERS = "talks", "callers"
"""Connections that were begun while it was crowded, to sandboxes and to the listener: they are kept here, and not in
the table, by the address and port of their other side."""
KINDS = ("connections", "connection_rate", "room", "bandwidth_in", "bandwidth_out", "address_refused", "egress_refused")
"""What can be hit; each has a set `hit_<kind>` of sandboxes' addresses that counts."""
RESOLVERS = "resolvers"
"""Addresses and ports that egress asks for names; those of IPv6 in `resolvers6`."""
REFUSED = "refused"
"""Pairs of a sandbox's address and one that it was refused."""


def render(host: Host) -> str:
    """Return the nft script that replaces the instance's table in one transaction, with no moment without it."""
    table = f"inet {host.nft_table}"
    return f"table {table} {{}}\ndelete table {table}\ntable {table} {{\n{_sets(host)}{_chains(host)}}}\n"


def forbidden(host: Host) -> dict[IPv4Network, str]:
    """Return what no sandbox reaches, with the reasons: the list, and our own block wherever it lies."""
    found = dict(FORBIDDEN)
    own = IPv4Network(host.sandbox_network)
    if not any(own.subnet_of(network) for network in found):
        found[own] = "other sandboxes"
    return found


def _sets(host: Host) -> str:
    listed = ",\n\t\t\t".join(f'{network} comment "{reason}"' for network, reason in forbidden(host).items())
    remembered = f"size 65536; flags dynamic,timeout; timeout {HIT_SECONDS}s;"
    kept = f"size 65536; flags dynamic,timeout; timeout {KEPT_SECONDS}s;"
    hits = "\n".join(f"\tset hit_{kind} {{\n\t\ttype ipv4_addr; {remembered} counter;\n\t}}" for kind in KINDS)
    return f"""\
	map {TENANTS} {{
		type ifname . ipv4_addr : mark;
	}}
	map {POLICIES} {{
		type mark : verdict;
	}}
	set {GATED} {{
		type ifname . ipv4_addr;
	}}
	set {BLOCKS} {{
		type ipv4_addr . ipv4_addr . inet_service; flags interval;
	}}
	set {RATES} {{
		type mark; size {host.slots}; limit rate over 50/second burst 50 packets;
	}}
	map {CONNECTIONS} {{
		type mark : verdict;
	}}
	set {COUNTED} {{
		type mark; size 65536; flags dynamic;
	}}
	set {BANDWIDTH_IN} {{
		type mark; size {host.slots}; limit rate over 12500000 bytes/second;
	}}
	set {BANDWIDTH_OUT} {{
		type mark; size {host.slots}; limit rate over 12500000 bytes/second;
	}}
	set {CROWDED} {{
		type nf_proto;
	}}
	set {PACE} {{
		type nf_proto; limit rate over 50/second burst 50 packets;
	}}
	set {TALKS} {{
		type ipv4_addr . inet_service; {kept}
	}}
	set {CALLERS} {{
		type ipv4_addr . inet_service; {kept}
	}}
	set {CALLERS}6 {{
		type ipv6_addr . inet_service; {kept}
	}}
	set forbidden {{
		type ipv4_addr; flags interval;
		elements = {{
			{listed}
		}}
	}}
	set {RESOLVERS} {{
		type ipv4_addr . inet_service;
	}}
	set {RESOLVERS}6 {{
		type ipv6_addr . inet_service;
	}}
	set {OPENED} {{
		type ipv4_addr; size 65536; flags dynamic;
	}}
	set {GUARDED} {{
		type ifname;
	}}
	set refusing {{
		type ipv4_addr; {remembered}
	}}
	set naming {{
		type ipv4_addr; {remembered}
	}}
	set asking {{
		type ipv4_addr; {remembered}
	}}
	set {REFUSED} {{
		type ipv4_addr . ipv4_addr; {remembered} counter;
	}}
{hits}
	ct timeout brief {{
		protocol tcp;
		l3proto ip;
		policy = {{ {TIMEOUTS} }};
	}}
"""


def _kept(name: str, key: str) -> str:
    """Return what keeps a packet out of the table whose connection is kept in a set of ours, and keeps it there."""
    return f"{key} @{name} update @{name} {{ {key} }} notrack return"


def _chains(host: Host) -> str:
    ours = f'"{host.interface_prefix}*"'
    # Other installations' interfaces too: each guards its own, and none must cut the others.
    sandboxes = ", ".join(f'"sp{k:x}-*"' for k in range(INSTANCES))
    platform, gate, resolver = host.platform_address, GATE_PORT, RESOLVER_PORT
    from_tenant = f"meta mark set iifname . ip saddr map @{TENANTS}"
    to_tenant = f"meta mark set oifname . ip daddr map @{TENANTS}"
    runtime, listener = SANDBOX_PORT, host.listen_port
    crowded = f"meta nfproto @{CROWDED}"
    first = f"tcp flags & (fin | syn | rst | ack) == syn {crowded}"
    # A port of a proxy's may be a service's by now: a packet that would begin something is none of its talk.
    talked = f"tcp sport {runtime} tcp flags & (syn | ack) != syn"
    begin = f"{{ 0, {host.users.proxy} }}"
    named = f"limit rate {NAMED}/second burst {NAMED_BURST} packets"
    return f"""\
	chain untracked_in {{
		type filter hook prerouting priority raw; policy accept;
		iifname {ours} jump untracked_from
		tcp dport {listener} jump called
	}}
	chain untracked_out {{
		type filter hook output priority raw; policy accept;
		oifname {ours} jump untracked_to
		tcp sport {listener} jump calling
		tcp dport {listener} oifname "lo" jump called
	}}
	chain speaking {{
		type filter hook output priority mangle; policy accept;
		oifname {ours} return
		meta skuid {host.users.egress} goto of_egress
		ip saddr {platform} udp sport {resolver} goto of_egress
	}}
	chain arriving {{
		type filter hook prerouting priority mangle; policy accept;
		iifname {ours} jump arrive
	}}
	chain gate {{
		type nat hook prerouting priority dstnat; policy accept;
		iifname {ours} meta l4proto tcp iifname . ip saddr @{GATED} jump to_gate
	}}
	chain input {{
		type filter hook input priority filter; policy accept;
		iifname {ours} goto to_host
	}}
	chain output {{
		type filter hook output priority filter; policy accept;
		oifname {ours} goto from_host
		ip daddr {host.sandbox_network} oif != lo counter goto tell
	}}
	chain forward {{
		type filter hook forward priority filter; policy accept;
		iifname {ours} goto outward
		oifname {ours} goto answers
		iifname @{GUARDED} oifname != {{ {sandboxes} }} counter drop
	}}
	chain leaving {{
		type nat hook postrouting priority srcnat; policy accept;
		iifname {ours} oifname != {ours} ip saddr {host.sandbox_network} jump masked
	}}

	chain untracked_from {{
		ip daddr {platform} udp dport {resolver} notrack return
		{talked} {_kept(TALKS, "ip saddr . tcp dport")}
		{first} notrack
	}}
	chain untracked_to {{
		ip saddr {platform} udp sport {resolver} notrack return
		tcp dport {runtime} {_kept(TALKS, "ip daddr . tcp sport")}
		tcp dport {runtime} {first} meta skuid {begin} add @{TALKS} {{ ip daddr . tcp sport }} notrack
		ip saddr != {platform} tcp flags & rst == rst {crowded} notrack
	}}
	chain called {{
		{_kept(CALLERS, "ip saddr . tcp sport")}
		{_kept(CALLERS + "6", "ip6 saddr . tcp sport")}
		{first} ct state invalid fib daddr type local jump come
	}}
	chain come {{
		add @{CALLERS} {{ ip saddr . tcp sport }} notrack
		add @{CALLERS}6 {{ ip6 saddr . tcp sport }} notrack
	}}
	chain calling {{
		{_kept(CALLERS, "ip daddr . tcp dport")}
		{_kept(CALLERS + "6", "ip6 daddr . tcp dport")}
	}}
	chain masked {{
		meta l4proto {{ tcp, udp }} masquerade to :{MASQUERADE_PORTS} fully-random
		masquerade
	}}
	chain arrive {{
		meta nfproto != ipv4 counter drop
		fib saddr . iif oif missing counter drop
		ct direction reply return
		ip daddr {platform} return
		ct state untracked {talked} ip saddr . tcp dport @{TALKS} return
		fib daddr type local goto refuse_address
		ip daddr @forbidden goto refuse_address
	}}
	chain to_gate {{
		fib daddr type local return
		ip daddr @forbidden return
		ip saddr . ip daddr . tcp dport @{BLOCKS} return
		meta l4proto tcp dnat ip to {platform}:{gate}
	}}
	chain to_host {{
		ct direction reply ct state established accept
		ct state untracked {talked} ip saddr . tcp dport @{TALKS} accept
		ip daddr != {platform} goto refuse_address
		ct state untracked meta l4proto tcp goto refuse_room
		udp dport {resolver} {from_tenant} goto ask
		tcp dport {resolver} {from_tenant} goto spend
		tcp dport {gate} ct status dnat iifname . ip saddr @{GATED} {from_tenant} goto spend
		goto refuse_egress
	}}
	chain outward {{
		ct state untracked meta l4proto tcp {crowded} goto refuse_room
		ct state invalid,untracked counter drop
		ip daddr @forbidden goto refuse_address
		{from_tenant} meta mark vmap @{POLICIES}
		goto refuse_egress
	}}
	chain public {{
		meta l4proto {{ tcp, udp }} goto spend
		icmp type echo-request goto spend
		goto refuse_egress
	}}
	chain listed {{
		meta l4proto {{ tcp, udp }} ip saddr . ip daddr . th dport @{BLOCKS} goto spend
		goto refuse_egress
	}}
	chain answers {{
		ct direction reply ct state established {to_tenant} goto receive
		meta l4proto icmp ct state related {to_tenant} goto receive
		counter drop
	}}
	chain from_host {{
		ip saddr {platform} tcp sport {gate} ct direction reply ct state established {to_tenant} goto receive
		ct state established,related accept
		ct state untracked tcp dport {runtime} ip daddr . tcp sport @{TALKS} accept
		ct state untracked tcp flags & rst == rst accept
		meta skuid {begin} accept
		meta skuid {host.users.egress} ip saddr {platform} udp sport {resolver} accept
		icmp type destination-unreachable accept
		counter drop
	}}

	chain of_egress {{
		ip saddr {platform} ct direction reply ct state established accept
		meta l4proto {{ tcp, udp }} ip daddr . th dport @{RESOLVERS} accept
		meta l4proto {{ tcp, udp }} ip6 daddr . th dport @{RESOLVERS}6 accept
		meta nfproto != ipv4 counter goto tell
		fib daddr type != unicast counter goto tell
		ip daddr @forbidden counter goto tell
	}}

	chain spend {{
		ct status ! confirmed jump begin
		meta mark @{BANDWIDTH_OUT} goto over_bandwidth_out
		meta mark set 0 accept
	}}
	chain begin {{
		meta mark @{RATES} goto refuse_rate
		meta nfproto @{CROWDED} goto refuse_room
		meta nfproto @{PACE} goto refuse_room
		meta mark vmap @{CONNECTIONS}
		add @{OPENED} {{ ip saddr }}
		meta l4proto tcp ct timeout set "brief"
	}}
	chain ask {{
		update @asking {{ ip saddr limit rate over {QUESTIONS}/second burst {QUESTIONS_BURST} packets }} counter drop
		meta mark set 0 accept
	}}
	chain receive {{
		meta mark @{BANDWIDTH_IN} goto over_bandwidth_in
		meta mark set 0 accept
	}}

	chain over_bandwidth_out {{
		update @hit_bandwidth_out {{ ip saddr }}
		counter drop
	}}
	chain over_bandwidth_in {{
		update @hit_bandwidth_in {{ ip daddr }}
		counter drop
	}}
	chain refuse_rate {{
		update @hit_connection_rate {{ ip saddr }}
		goto refuse
	}}
	chain refuse_room {{
		update @hit_room {{ ip saddr }}
		goto refuse
	}}
	chain {REFUSING} {{
		update @hit_connections {{ ip saddr }}
		goto refuse
	}}
	chain refuse_address {{
		update @hit_address_refused {{ ip saddr }}
		update @naming {{ ip saddr {named} }} update @{REFUSED} {{ ip saddr . ip daddr }}
		goto refuse
	}}
	chain refuse_egress {{
		update @hit_egress_refused {{ ip saddr }}
		update @naming {{ ip saddr {named} }} update @{REFUSED} {{ ip saddr . ip daddr }}
		goto refuse
	}}
	chain refuse {{
		update @refusing {{ ip saddr limit rate {REFUSALS}/second burst {REFUSALS_BURST} packets }} jump tell
		counter drop
	}}
	chain tell {{
		meta l4proto tcp reject with tcp reset
		reject with icmpx admin-prohibited
	}}
"""  # noqa: S608 - nft's language, not SQL
