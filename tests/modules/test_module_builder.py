"""The builder's program: what it makes of the words of npm and pip, which are scripted here."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from bench.running import node_binary

BUILD = Path(__file__).parents[2] / "src" / "sandpost" / "modules" / "build.js"
HOSTS = ["NPM.example.com", "files.example.com", "198.51.100.7"]
# Nothing is written and nothing runs: what npm or pip would print is there.
SCRIPT = """
const [build, order, told] = JSON.parse(process.argv[1]);
const fs = require('node:fs');
fs.mkdirSync = fs.writeFileSync = () => {};
console.log = () => {};
const { EventEmitter } = require('node:events');
const { PassThrough } = require('node:stream');
require('node:child_process').spawn = () => {
  const child = Object.assign(new EventEmitter(), { stdout: new PassThrough(), stderr: new PassThrough() });
  child.stderr.on('end', () => child.emit('close', 1, null));
  child.stdout.end();
  child.stderr.end(told);
  return child;
};
const res = { writeHead: (status) => { res.status = status; },
  end: (body) => process.stdout.write(JSON.stringify([res.status, JSON.parse(body)])) };
require(build)({ query: { order: JSON.stringify(order) } }, {}, res);
"""


def judged(registry: str, told: str) -> tuple[int, str]:
    """Return status and reason that the builder answers with where npm or pip said `told`."""
    order: dict[str, Any] = {
        "registry": registry, "name": "x", "version": "1.0.0", "url": "https://npm.example.com/", "hosts": HOSTS, "scripts": False,
    }  # fmt: skip
    asked = json.dumps([str(BUILD), order, told])
    done = subprocess.run([node_binary(), "-e", SCRIPT, asked], capture_output=True, text=True, check=True, timeout=60)
    status, said = json.loads(done.stdout)
    return status, said["reason"]


def npm(code: str, summary: str) -> str:
    return f"npm error code {code}\n" + json.dumps(
        {"error": {"code": code, "summary": summary, "detail": ""}}, indent=2
    )


def failed(url: str, reason: str) -> str:
    return f"FetchError: request to {url} failed, reason: {reason}"


@pytest.mark.parametrize(
    ("told", "place"),
    [
        (npm("ECONNREFUSED", failed("http://203.0.113.9/x.tgz", "connect ECONNREFUSED 203.0.113.9:80")), "203.0.113.9"),
        (npm("ECONNRESET", failed("https://203.0.113.9:8443/x.tgz", "read ECONNRESET")), "203.0.113.9"),
        (npm("EHOSTUNREACH", failed("http://[2001:db8::1]/x.tgz", "connect EHOSTUNREACH ::1")), "[2001:db8::1]"),
        (npm("E403", "403 Forbidden - GET http://203.0.113.9/far.tgz"), "203.0.113.9"),
        (npm("E502", "502 Bad Gateway - GET http://far.example.com/far.tgz"), "far.example.com"),
        (npm("ENOTFOUND", failed("http://u:p@far.example.com/x", "getaddrinfo ENOTFOUND far.example.com")), "far.example.com"),
    ],
)  # fmt: skip
def test_a_place_that_is_not_the_registry_is_named_also_by_its_address(told: str, place: str) -> None:
    reason = f"it fetches from {place}, which is not the registry: add that to `modules.hosts` if you trust it"
    assert judged("npm", told) == (422, reason)


def test_a_place_that_pip_is_sent_to_is_named() -> None:
    told = "HTTPConnectionPool(host='203.0.113.9', port=80): Max retries exceeded with url: /x (ConnectTimeoutError"
    assert judged("pypi", told)[1].startswith("it fetches from 203.0.113.9, which is not the registry")


@pytest.mark.parametrize(
    "told",
    [
        # Its address alone is what the connection failed at.
        npm("ECONNREFUSED", failed("https://npm.example.com/x", "connect ECONNREFUSED 198.51.100.10:443")),
        npm("ECONNREFUSED", failed("http://198.51.100.7/x.tgz", "connect ECONNREFUSED 198.51.100.7:80")),
        npm("ECONNRESET", failed("https://files.example.com/x.tgz", "read ECONNRESET")),
        npm("ECONNECTIONTIMEOUT", failed("https://npm.example.com/x", "Timeout connecting to host `npm.example.com:443`")),
        npm("E502", "502 Bad Gateway - GET https://npm.example.com/x/-/x-1.0.0.tgz"),
    ],
)  # fmt: skip
def test_a_registry_that_does_not_answer_is_away(told: str) -> None:
    status, reason = judged("npm", told)
    assert status == 424
    assert reason.startswith("the registry does not answer (E")
