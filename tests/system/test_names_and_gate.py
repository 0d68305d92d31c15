"""Names and the gate of a whole installation: a real program, the real firewall, the real egress, a made-up internet."""

import http.server
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from support.lab import HOST, OTHER_PUBLIC, PUBLIC, Lab, lab
from support.logs import until_said
from support.platform import Platform, platform
from support.zone import answer_names

DNS_PORT, HTTP_PORT = 5354, 8080
ZONE = {
    "api.example.com.": PUBLIC,
    "other.example.com.": PUBLIC,
    "inside.example.com.": "10.0.0.5",
    "metadata.example.com.": "169.254.169.254",
}
FETCH = """return async (ctx) => {
  try {
    const answer = await fetch(ctx.data.url, { redirect: 'manual' });
    return { status: answer.status, body: await answer.text() };
  } catch (error) { return { error: error.cause?.code ?? error.message } }
};"""


class Site(http.server.BaseHTTPRequestHandler):
    """Says who came and which host was asked for."""

    def do_GET(self) -> None:
        body = json.dumps({"peer": self.client_address[0], "host": self.headers["host"]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture(scope="module")
def laboratory() -> Iterator[Lab]:
    with lab() as made:
        sock = made.internet.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.bind((OTHER_PUBLIC, DNS_PORT))
        site = made.internet.run(lambda: http.server.ThreadingHTTPServer((PUBLIC, HTTP_PORT), Site))
        threads = [
            threading.Thread(target=answer_names, args=(sock, ZONE.get), daemon=True),
            threading.Thread(target=site.serve_forever, daemon=True),
        ]
        for thread in threads:
            thread.start()
        yield made
        site.shutdown()
        site.server_close()
        sock.close()


@pytest.fixture(scope="module")
def running(laboratory: Lab) -> Iterator[Platform]:
    with platform(laboratory.host, pool_size="2", egress_resolvers=f"{OTHER_PUBLIC}:{DNS_PORT}") as made:
        yield made


def fetch(running: Platform, tenant: str, url: str) -> dict[str, Any]:
    answer = running.call(tenant, FETCH, f"url={url}")
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json
    return found


def log_says(running: Platform, tenant: str, text: str) -> None:
    until_said(running.host.logs_dir, tenant, text, 15)


def test_a_program_finds_names_and_reaches_what_they_mean(running: Platform) -> None:
    seen = fetch(running, "public", f"http://api.example.com:{HTTP_PORT}/")
    assert json.loads(seen["body"]) == {"peer": HOST, "host": f"api.example.com:{HTTP_PORT}"}
    assert fetch(running, "public", f"http://nothing.example.com:{HTTP_PORT}/") == {"error": "ENOTFOUND"}


@pytest.mark.parametrize("name", ["inside", "metadata"])
def test_a_name_that_means_a_forbidden_address_means_nothing_and_the_log_says_why(running: Platform, name: str) -> None:
    assert "error" in fetch(running, "rebinding", f"http://{name}.example.com/")
    log_says(running, "rebinding", f"{name}.example.com")


def test_an_allow_list_lets_pass_what_it_names_and_nothing_else(running: Platform) -> None:
    running.set_tenant("listed", egress=f"allow:api.example.com:{HTTP_PORT}")
    seen = fetch(running, "listed", f"http://api.example.com:{HTTP_PORT}/")
    assert json.loads(seen["body"]) == {"peer": HOST, "host": f"api.example.com:{HTTP_PORT}"}
    # A name that is not on the list, though it means the same address; then the address, and another port.
    assert "error" in fetch(running, "listed", f"http://other.example.com:{HTTP_PORT}/")
    seen = fetch(running, "listed", f"http://{PUBLIC}:{HTTP_PORT}/")
    assert "error" in seen or seen["status"] == 403, seen
    seen = fetch(running, "listed", "http://api.example.com:80/")
    assert "error" in seen or seen["status"] == 403, seen
    log_says(running, "listed", "other.example.com")


def test_none_has_no_names_either(running: Platform) -> None:
    running.set_tenant("shut", egress="none")
    assert "error" in fetch(running, "shut", f"http://api.example.com:{HTTP_PORT}/")
    assert "error" in fetch(running, "shut", f"http://{PUBLIC}:{HTTP_PORT}/")


def test_a_killed_egress_comes_back_and_calls_go_on_meanwhile(running: Platform) -> None:
    assert fetch(running, "survivor", f"http://api.example.com:{HTTP_PORT}/")["status"] == 200
    [victim] = running.pids("egress")
    os.kill(victim, signal.SIGKILL)
    assert running.call("survivor", "return (cb) => cb(null, 1)").json == 1
    deadline = time.monotonic() + 15
    while fetch(running, "survivor", f"http://api.example.com:{HTTP_PORT}/").get("status") != 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert running.pids("egress") != [victim]
