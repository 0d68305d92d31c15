"""Names and connections to the outside, asked for without a pause: of tenants with all of it, with a list, and with nothing.

Weaker: the one resolver and the one gate of a host are busy for whoever asks most, and keep what each asked.
Must: each is held to his budget, and told; a neighbour who is called all the while, and one who asks for names himself,
lose no call.
"""

import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from sandpost.egress.budget import LONG_NAMES, LONG_RATE
from sandpost.selftest.neighbour import Neighbour
from sandpost.selftest.runner import harmed
from support.lab import OTHER_PUBLIC, PUBLIC, Lab, lab
from support.platform import Platform, platform
from support.zone import answer_names

pytestmark = pytest.mark.long

DNS_PORT = 5354
HELLO = 'return function (cb) { cb(null, "Hello, world!") }'
LOOK_UP = "return async (context) => (await require('dns').promises.lookup('own.example.com')).address"
SECONDS = 5
NAMES = f"""return async (context) => {{
  const {{ Resolver }} = require('dns').promises;
  const end = Date.now() + {SECONDS * 1000};
  let asked = 0, had = 0;
  const each = async (own) => {{
    const resolver = new Resolver({{ timeout: 200, tries: 1 }});
    while (Date.now() < end) {{
      asked++;
      try {{ await resolver.resolve4(`${{own.toString(36)}}-${{asked.toString(36).padStart(40, 'a')}}.tunnel.example.com`); had++ }} catch {{}}
    }}
  }};
  await Promise.all(Array.from({{ length: 100 }}, (_, own) => each(own)));
  return {{ asked, had }};
}};"""
GATE = f"""return async (context) => {{
  const net = require('net');
  const end = Date.now() + {SECONDS * 1000};
  const hellos = ['GET / HTTP/1.1\\r\\nHost: other.example.com\\r\\n\\r\\n', '\\x16\\x03\\x01\\x40\\x00' + 'x'.repeat(16000), 'x'.repeat(60000), 'GET /'];
  let asked = 0, had = 0;
  const each = () => new Promise((done) => {{
    asked++;
    const socket = net.connect({{ host: '{PUBLIC}', port: 80, timeout: 300 }});
    const over = () => {{ socket.destroy(); done() }};
    socket.on('connect', () => socket.write(hellos[asked % hellos.length], 'latin1'));
    socket.on('data', (data) => {{ if (data.includes('peer')) had++; over() }});
    socket.on('error', over); socket.on('timeout', over); socket.on('close', over);
  }});
  await Promise.all(Array.from({{ length: 50 }}, async () => {{ while (Date.now() < end) await each() }}));
  return {{ asked, had }};
}};"""


@pytest.fixture(scope="module")
def laboratory() -> Iterator[Lab]:
    with lab() as made:
        sock = made.internet.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.bind((OTHER_PUBLIC, DNS_PORT))
        threading.Thread(target=answer_names, args=(sock, lambda _: PUBLIC), daemon=True).start()
        yield made
        sock.close()


@pytest.fixture(scope="module")
def running(laboratory: Lab) -> Iterator[Platform]:
    with platform(laboratory.host, pool_size="4", egress_resolvers=f"{OTHER_PUBLIC}:{DNS_PORT}") as made:
        made.set_tenant("listed", egress="allow:api.example.com:80", limits={"connection_rate": 0})
        made.set_tenant("shut", egress="none")
        yield made


@pytest.mark.parametrize(
    ("tenant", "program"), [("tunnel", NAMES), ("listed", NAMES), ("listed", GATE), ("shut", NAMES), ("shut", GATE)]
)
def test_a_neighbour_loses_no_call_and_no_name(running: Platform, tenant: str, program: str) -> None:
    def call(neighbour: str, text: str, wanted: str) -> str:
        answer = running.call(neighbour, text)
        return "" if answer.status == 200 and answer.json == wanted else f"{answer.status} {answer.body!r}"

    assert call("neighbour", HELLO, "Hello, world!") == ""
    assert call("asking", LOOK_UP, PUBLIC) == ""
    names: list[str] = []
    with Neighbour(lambda: call("neighbour", HELLO, "Hello, world!")) as neighbour:
        began = time.monotonic()
        time.sleep(2)
        quiet = neighbour.since(began)
        found: list[dict[str, int]] = []
        began = time.monotonic()
        attacker = threading.Thread(target=lambda: found.append(running.call(tenant, program, timeout=60).json))
        attacker.start()
        while attacker.is_alive():
            names.append(call("asking", LOOK_UP, PUBLIC))
            attacker.join(0.1)
        seen = neighbour.since(began)
    print(f"{json.dumps(found)}; neighbour p99 {seen.p99 * 1000:.1f} ms ({quiet.p99 * 1000:.1f} ms quiet)")
    assert harmed(seen) == ""
    assert [one for one in names if one] == []
    [counts] = found
    assert counts["asked"] > 0
    # Of a tunnel only what its budget lets through; of what is on no list nothing at all.
    assert counts["had"] <= (LONG_NAMES + LONG_RATE * (SECONDS + 3) if tenant == "tunnel" else 0)
