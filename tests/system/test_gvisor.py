"""A whole platform on runsc: what a tenant of it sees is what a tenant of runc sees, and nothing is left of it."""

import json
import time
from collections.abc import Iterator

import pytest

from support import gvisor
from support.http import request
from support.logs import until_said
from support.platform import Platform, platform

HELLO = 'return function (cb) { cb(null, "Hello, world!") }'
KERNEL = "return function (cb) { cb(null, require('os').release()) }"
FILL = "return function (cb) { const all = []; for (;;) all.push(Buffer.alloc(1 << 20, 1)) }"
ECHO = "return function (context, req, res) { req.pipe(res) }"


@pytest.fixture(scope="module")
def strong() -> Iterator[Platform]:
    """A platform whose tenants are on runsc."""
    gvisor.runsc()
    with platform(pool_size="1", engine_runtime="runsc", limits_blocked_after="1s") as started:
        yield started


def test_programs_run_on_gvisors_kernel_and_those_of_a_tenant_of_runc_do_not(strong: Platform) -> None:
    assert strong.call("acme", HELLO).body == b'"Hello, world!"'
    assert "gvisor" in strong.call("acme", KERNEL).json
    strong.set_tenant("weak", engine="runc")
    assert "gvisor" not in strong.call("weak", KERNEL).json
    strong.set_tenant("weak", engine=None)
    assert "gvisor" in strong.call("weak", KERNEL).json


def test_typescript_and_modules_run_on_gvisor(strong: Platform) -> None:
    module = (
        "import { release } from 'node:os';\nconst kernel = await release();\nexport default cb => cb(null, kernel)"
    )
    assert "gvisor" in strong.call("acme", module).json
    typed = "enum A { B = 1, C }\nreturn (cb: any): void => cb(null, A.C)"
    assert strong.call("acme", typed, headers={"Content-Type": "text/typescript"}).json == 2


def test_a_body_of_megabytes_streams_through_its_network(strong: Platform) -> None:
    code = strong.call("echo", ECHO).headers["x-sandpost-code"]
    body = bytes(range(256)) * 20_000
    answer = request(strong.port, "PUT", f"/echo?webtask_code={code}&key={strong.key}", body)
    assert answer.status == 200
    assert answer.body == body


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (FILL, "memory"),
        ("return function (cb) { for (;;); }", "blocked"),
        ("return function (cb) { process.reallyExit(3) }", "exit"),
    ],
)
def test_a_program_that_ends_its_sandbox_gets_its_error_at_once_and_the_next_call_works(
    strong: Platform, program: str, reason: str
) -> None:
    tenant = f"ends-{reason}"
    assert strong.call(tenant, HELLO).status == 200
    began = time.monotonic()
    answer = strong.call(tenant, program)
    # A killed sentry closes no connection; the word of the controller does.
    assert time.monotonic() - began < 10
    assert answer.status == 500
    assert json.loads(answer.body)["reason"] == reason
    assert strong.call(tenant, HELLO).status == 200


def test_a_call_of_its_own_sandbox_each(strong: Platform) -> None:
    strong.set_tenant("alone", isolation="per_request")
    count = "let n = 0; return function (cb) { cb(null, ++n) }"
    assert [strong.call("alone", count).json for _ in range(2)] == [1, 1]


def test_the_selftest_tries_the_engine_of_its_tenants_and_says_so(strong: Platform) -> None:
    done = strong.command("selftest", "--case", "devices", "--case", "inodes", "--case", "sys")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "3 held, 0 broken, 0 could not be tried; on runsc"


def test_what_it_prints_is_in_the_tenants_log(strong: Platform) -> None:
    program = "return function (cb) { console.log('framed'); process.stdout.write('raw\\n'); cb(null, 1) }"
    assert strong.call("printing", program).status == 200
    for text in ("framed", "raw"):
        until_said(strong.host.logs_dir, "printing", text)
