"""The way out of a whole installation, which runs in a lab."""

import json
from collections.abc import Iterator

import pytest

from support.lab import FORBIDDEN, PUBLIC, Lab, lab
from support.logs import until_said
from support.platform import Platform, platform

REACH = """return (ctx, cb) => {
  const sock = require('net').connect({ host: ctx.data.host, port: +ctx.data.port, timeout: 2000 });
  sock.on('connect', () => sock.write('who\\n'));
  sock.on('data', (data) => {
    sock.destroy();
    cb(null, data[0] === 123 ? JSON.parse(data) : { error: data.toString().split('\\r')[0] });
  });
  sock.on('error', (error) => cb(null, { error: error.code }));
  sock.on('timeout', () => { sock.destroy(); cb(null, { error: 'silence' }); });
};"""


@pytest.fixture(scope="module")
def laboratory() -> Iterator[Lab]:
    with lab() as made:
        yield made


@pytest.fixture(scope="module")
def running(laboratory: Lab) -> Iterator[Platform]:
    with platform(laboratory.host, pool_size="2") as made:
        yield made
    assert laboratory.host.setting("ipv4/conf/up0/forwarding") == "0"
    assert "sandpost" not in laboratory.host.command("nft", "list", "tables")


def reach(running: Platform, tenant: str, host: str, port: int = 80) -> dict[str, object]:
    answer = running.call(tenant, REACH, f"host={host}&port={port}")
    assert answer.status == 200, answer.body
    found: dict[str, object] = json.loads(answer.body)
    return found


def test_a_program_reaches_the_internet_and_no_private_address(running: Platform) -> None:
    assert reach(running, "acme", PUBLIC)["local"] == PUBLIC
    for address in (*FORBIDDEN, "203.0.113.2", "10.9.0.2", "127.0.0.1"):
        assert reach(running, "acme", address)["error"] == "ECONNREFUSED", address


def test_the_first_instruction_of_a_program_is_let_out_and_walled(running: Platform) -> None:
    for n in range(8):
        assert reach(running, f"first-{n}", PUBLIC)["local"] == PUBLIC
        assert reach(running, f"walled-{n}", FORBIDDEN[4])["error"] == "ECONNREFUSED"


def test_a_policy_set_by_the_command_line_holds_at_once_and_is_told_in_the_log(running: Platform) -> None:
    assert reach(running, "listed", PUBLIC)["local"] == PUBLIC
    done = running.command("tenant", "set", "listed", "--egress", f"allow:{PUBLIC}:443")
    assert done.returncode == 0, done.stderr
    assert reach(running, "listed", PUBLIC, 443)["local"] == PUBLIC
    # Where no block lets it pass it comes to the gate, which finds no name that would.
    assert reach(running, "listed", PUBLIC, 80)["error"] == "HTTP/1.1 403 Forbidden"
    assert running.command("tenant", "set", "listed", "--egress", "none").returncode == 0
    assert reach(running, "listed", PUBLIC, 443)["error"] == "ECONNREFUSED"
    record = until_said(running.host.logs_dir, "listed", "refused by the tenant's egress policy", 15)
    assert (record["level"], record["container"]) == (40, "listed")


def test_connections_beyond_the_limit_are_refused_and_told(running: Platform) -> None:
    running.set_tenant("many", limits={"connections": 5, "connection_rate": 0})
    program = f"""return (cb) => {{
      const net = require('net'); let open = 0, refused = 0; const all = [];
      const done = () => {{ if (open + refused === 30) {{ all.forEach((s) => s.destroy()); cb(null, {{ open, refused }}); }} }};
      for (let n = 0; n < 30; n++) {{
        const sock = net.connect({{ host: '{PUBLIC}', port: 80 }}); all.push(sock);
        sock.on('connect', () => {{ open++; done(); }}); sock.on('error', () => {{ refused++; done(); }});
      }}
    }};"""
    answer = running.call("many", program)
    assert json.loads(answer.body) == {"open": 5, "refused": 25}
    until_said(running.host.logs_dir, "many", "25 connections refused: 5 at once (limits.connections)")
