"""The kernel's table of connections beside a whole installation: full by others, and what a tenant may fill of it."""

import json
import threading
from collections.abc import Iterator

import pytest

from support import tracked
from support.lab import PUBLIC, Lab, lab
from support.logs import until_said
from support.platform import Platform, platform
from support.waiting import until

COUNT = "let n = 0; return (cb) => cb(null, ++n)"
CONNECT = f"""return (cb) => {{
  const sock = require('net').connect({{ host: '{PUBLIC}', port: 80, timeout: 3000 }});
  sock.on('connect', () => {{ sock.destroy(); cb(null, 'yes'); }});
  sock.on('error', (error) => cb(null, error.code));
  sock.on('timeout', () => {{ sock.destroy(); cb(null, 'silence'); }});
}};"""
FLOOD = f"""return (cb) => {{
  const sock = require('dgram').createSocket('udp4');
  let port = 0;
  const more = () => {{
    for (let n = 0; n < 500; n++) if (++port < 65535) sock.send('x', port, '{PUBLIC}');
    port < 65535 ? setTimeout(more, 5) : sock.close(() => cb(null, port));
  }};
  more();
}};"""


@pytest.fixture
def made() -> Iterator[Lab]:
    with lab() as laboratory:
        yield laboratory


@pytest.fixture
def running(made: Lab) -> Iterator[Platform]:
    with platform(made.host, pool_size="3") as found:
        try:
            yield found
        finally:
            tracked.empty(made.host)


def pace(made: Lab, running: Platform) -> int:
    """How many connections tenants may begin a second, as the kernel has it."""
    found = json.loads(made.host.command("nft", "-j", "list", "set", "inet", running.host.nft_table, "pace"))
    rates: list[int] = [one["elem"]["limit"]["rate"] for one in found["nftables"][-1]["set"].get("elem", [])]
    return max(rates, default=1 << 30)


@pytest.mark.long
def test_calls_of_all_go_on_when_it_is_full_and_what_tenants_begin_is_refused_and_told(
    made: Lab, running: Platform
) -> None:
    assert running.call("settled", COUNT).json == 1
    assert running.call("settled", CONNECT).json == "yes"
    tracked.fill(made.host)
    until(lambda: "the kernel's table of connections is nearly full" in running.output(), "the operator to be told", 15)
    # Each call comes on a connection of its own; each newcomer's is the first to its sandbox, some of which are made now.
    for n in range(2, 8):
        assert running.call("settled", COUNT).json == n
        assert running.call(f"newcomer-{n}", COUNT).json == 1
    assert running.api("GET", "/api/tenants").status == 200
    count, room = tracked.room(made.host)
    assert count >= room
    assert running.call("settled", CONNECT).json == "ECONNREFUSED"
    until_said(
        running.host.logs_dir, "settled", "1 connection refused: this machine tracks as many connections as it can", 15
    )
    tracked.empty(made.host)
    until(lambda: "the kernel's table of connections has room again" in running.output(), "the operator to be told", 15)
    assert running.call("settled", CONNECT).json == "yes"
    assert running.call("settled", COUNT).json == 8


def test_a_tenant_without_limits_leaves_a_tenth_to_others(made: Lab, running: Platform) -> None:
    running.set_tenant("greedy", limits={"connections": 0, "connection_rate": 0, "bandwidth_out": 0})
    assert running.call("neighbour", COUNT).json == 1
    _, room = tracked.room(made.host)
    # Of what tenants may have a third is left, of the whole less than it wants.
    tracked.fill(made.host, leave=int(room * 0.15))
    until(lambda: pace(made, running) < room * 0.05, "the controller to have seen it", 15)
    most, over = 0, threading.Event()

    def look() -> None:
        nonlocal most
        while not over.wait(0.01):
            most = max(most, tracked.room(made.host)[0])

    looking = threading.Thread(target=look)
    looking.start()
    try:
        wanted = running.call("greedy", FLOOD).json
        assert wanted > room * 0.15, "else it would fit"
        for n in range(2, 5):
            assert running.call("neighbour", COUNT).json == n
    finally:
        over.set()
        looking.join()
    # The pace follows what is there a moment later. Unpaced it would be full.
    assert room * 0.87 < most <= room * 0.96
    until_said(running.host.logs_dir, "greedy", "this machine tracks as many", 15)
    assert running.call("neighbour", CONNECT).json in {"yes", "ECONNREFUSED"}
