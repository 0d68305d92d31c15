"""What a program prints through the real runtime, from `console.log` to the tenant's file."""

import asyncio
import hashlib
import http.client
import json
import os
import subprocess
import time
from pathlib import Path

from bench.running import free_port, node_binary

from support.collector import Fifos, rig

RUNTIME = Path(__file__).parents[2] / "src/sandpost/runtimes/node"
PROGRAM = b"""return function (context, cb) {
  console.log('hi %s', context.data.n, { deep: [1] })
  console.error(new Error('bad').message)
  console.warn('two\\nlines'); console.debug('d')
  console.log('\\u20ac'.repeat(9000))
  process.stdout.write('raw\\n')
  process.stderr.write('raw error\\n')
  cb(null, 1)
}"""


def start_runtime(fifos: Fifos, port: int) -> "subprocess.Popen[bytes]":
    """Start node as a sandbox does: output into the FIFOs, frames on descriptor 3."""
    flags = json.loads((RUNTIME / "flags.json").read_text())["flags"]
    out, err, frames = fifos.writes
    # A shell moves the descriptor to its number; 3 is not ours to take in this process.
    script = f'exec "$@" 3>&{frames} {frames}>&-'
    command = ["bash", "-c", script, "runtime", node_binary(), *flags, str(RUNTIME / "main.js")]
    environment = {"SANDPOST_PORT": str(port), "PATH": os.environ["PATH"]}
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err, pass_fds=[frames]
    )


def ask(port: int, method: str, target: str, headers: dict[str, str], body: bytes | None) -> tuple[int, bytes]:
    deadline = time.monotonic() + 10
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "the runtime does not listen"
            time.sleep(0.02)
        finally:
            connection.close()


def test_console_and_raw_output_of_a_real_program_are_records(tmp_path: Path) -> None:
    async def body() -> None:
        async with rig(tmp_path) as r:
            one, port = r.sandbox(1, "acme"), free_port()
            runtime = start_runtime(one, port)
            try:
                code = hashlib.sha256(PROGRAM).hexdigest()
                headers = {"x-sandpost-code": code, "x-sandpost-req": "req-1"}
                load = {**headers, "x-sandpost-op": "load"}
                assert (await asyncio.to_thread(ask, port, "PUT", "/", load, PROGRAM))[0] == 204
                call = {**headers, "x-sandpost-op": "call"}
                assert (await asyncio.to_thread(ask, port, "GET", "/?n=7", call, None)) == (200, b"1")
                await r.until(lambda: len(r.records("acme")) == 7)
            finally:
                runtime.kill()
                runtime.wait(10)
            shown = {(x["level"], x["msg"], x.get("req_id")) for x in r.records("acme")}
            assert shown == {
                (30, "hi 7 { deep: [ 1 ] }", "req-1"),
                (50, "bad", "req-1"),
                (40, "two\nlines", "req-1"),
                (20, "d", "req-1"),
                (30, "\u20ac" * 9000, "req-1"),
                (30, "raw", None),
                (50, "raw error", None),
            }
            await r.until(lambda: r.figure("sandpost_output_records_total") == 7)
            assert r.figure("sandpost_output_forged_total") == 0
            r.release(one)
            await r.until(lambda: r.figure("sandpost_output_sandboxes") == 0)

    asyncio.run(body())
