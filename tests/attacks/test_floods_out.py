"""Ten thousand connections out, connections begun and ended without a pause, and all the bandwidth that there is.

Weaker: one tenant fills the table of connections that the machine shares, or the line that all share.
Must: each is held to its limit, and told in the tenant's log; a neighbour who is called all the while notices nothing.
"""

import json
import time
from collections.abc import Callable, Iterator

import pytest

from sandpost.selftest.neighbour import Neighbour
from sandpost.selftest.runner import harmed
from support.lab import PUBLIC, Lab, lab
from support.logs import until_said
from support.platform import Platform, platform

pytestmark = pytest.mark.long

HELLO = 'return function (cb) { cb(null, "Hello, world!") }'
TRIES = 10_000
CONNECTIONS, RATE = 256, 50
BANDWIDTH = 4_000_000
SECONDS = 4
MANY = f"""return (cb) => {{
  const net = require('net'); const open = []; let begun = 0, refused = 0, under = 0;
  const next = () => {{
    while (begun < {TRIES} && under < 400) {{
      begun++; under++;
      const sock = net.connect({{ host: '{PUBLIC}', port: 80, timeout: 1000 }});
      let over = false;
      const end = (list) => {{ if (over) return; over = true; under--; list === open ? open.push(sock) : (refused++, sock.destroy()); setImmediate(next) }};
      sock.on('connect', () => {{ sock.write('hold\\n'); end(open) }});
      sock.on('error', () => end()); sock.on('timeout', () => end());
    }}
    if (begun === {TRIES} && under === 0) {{ const all = open.length; open.forEach((sock) => sock.destroy()); begun++; cb(null, {{ open: all, refused }}) }}
  }};
  next();
}};"""
CHURN = f"""return (cb) => {{
  const net = require('net'); let made = 0, refused = 0, under = 0; const end = Date.now() + {SECONDS * 1000};
  const next = () => {{
    if (Date.now() > end) {{ if (under === 0) {{ under = -1; cb(null, {{ made, refused }}) }} return }}
    while (under < 50) {{
      under++;
      const sock = net.connect({{ host: '{PUBLIC}', port: 80, timeout: 1000 }});
      let over = false;
      const done = (well) => {{ if (over) return; over = true; under--; well ? made++ : refused++; sock.destroy(); setImmediate(next) }};
      sock.on('connect', () => done(true)); sock.on('error', () => done(false)); sock.on('timeout', () => done(false));
    }}
  }};
  next();
}};"""
MOVE = f"""return (cb) => {{
  const net = require('net'); let took = 0, gave = 0; const piece = Buffer.alloc(65536);
  const down = net.connect({{ host: '{PUBLIC}', port: 80 }}), up = net.connect({{ host: '{PUBLIC}', port: 80 }});
  down.on('connect', () => down.write('send 10000000000\\n')); down.on('data', (data) => {{ took += data.length }});
  const more = () => {{ while (up.write(piece)); }};
  up.on('connect', () => {{ up.write('take\\n'); more() }}); up.on('drain', more);
  for (const sock of [down, up]) sock.on('error', () => {{}});
  setTimeout(() => {{ gave = up.bytesWritten - up.writableLength; down.destroy(); up.destroy(); cb(null, {{ took, gave }}) }}, {SECONDS * 1000});
}};"""


@pytest.fixture(scope="module")
def laboratory() -> Iterator[Lab]:
    with lab() as made:
        yield made


@pytest.fixture(scope="module")
def running(laboratory: Lab) -> Iterator[Platform]:
    with platform(laboratory.host, pool_size="3") as made:
        yield made


def beside(running: Platform, work: Callable[[], dict[str, int]]) -> dict[str, int]:
    """Do `work` beside a neighbour, which must not notice; return what it returns."""

    def call_neighbour() -> str:
        answer = running.call("neighbour", HELLO)
        return "" if answer.status == 200 else f"{answer.status} {answer.body!r}"

    assert call_neighbour() == ""
    with Neighbour(call_neighbour) as neighbour:
        began = time.monotonic()
        time.sleep(2)
        quiet = neighbour.since(began)
        began = time.monotonic()
        found = work()
        seen = neighbour.since(began)
    print(f"{found}; neighbour p99 {seen.p99 * 1000:.1f} ms ({quiet.p99 * 1000:.1f} ms quiet)")
    assert harmed(seen) == ""
    return found


def attempt(running: Platform, tenant: str, program: str) -> dict[str, int]:
    answer = running.call(tenant, program, timeout=60)
    assert answer.status == 200, answer.body
    found: dict[str, int] = json.loads(answer.body)
    return found


def entries(laboratory: Lab, running: Platform, tenant: str) -> int:
    """How many entries a tenant's sandbox has in the table of connections that the whole host shares."""
    [slot] = [record["slot"] for record in running.records() if record["tenant"] == tenant]
    address = running.host.slot_addresses(slot)[1]
    shown = laboratory.host.command("cat", "/proc/net/nf_conntrack").splitlines()
    # Those of the proxies' calls to it are theirs.
    return sum(f" src={address} dst={PUBLIC} " in line for line in shown)


def test_ten_thousand_connections_are_held_to_their_limit(laboratory: Lab, running: Platform) -> None:
    running.set_tenant("many", limits={"connections": CONNECTIONS, "connection_rate": 0})
    found = beside(running, lambda: attempt(running, "many", MANY))
    assert found == {"open": CONNECTIONS, "refused": TRIES - CONNECTIONS}
    assert 0 < entries(laboratory, running, "many") <= CONNECTIONS
    until_said(running.host.logs_dir, "many", "limits.connections", 15)


def test_churn_is_held_to_its_rate(laboratory: Lab, running: Platform) -> None:
    running.set_tenant("churning", limits={"connections": 0, "connection_rate": RATE})
    found = beside(running, lambda: attempt(running, "churning", CHURN))
    assert RATE <= found["made"] <= RATE * (SECONDS + 3)
    assert found["refused"] > found["made"]
    # What was let through and came too late for the program is an entry, too.
    assert entries(laboratory, running, "churning") <= RATE * (SECONDS + 3)
    until_said(running.host.logs_dir, "churning", "limits.connection_rate", 15)


def test_bandwidth_is_held_both_ways_at_once(running: Platform) -> None:
    running.set_tenant("greedy", limits={"bandwidth_in": BANDWIDTH, "bandwidth_out": BANDWIDTH})
    found = beside(running, lambda: attempt(running, "greedy", MOVE))
    # A second's worth at once; what is given may lie in sockets yet.
    for way in ("took", "gave"):
        assert found[way] < BANDWIDTH * (SECONDS + 1) * 1.45, way
    assert found["took"] > BANDWIDTH
    until_said(running.host.logs_dir, "greedy", "limits.bandwidth_in", 15)
