"""Runs wrk, and reads what it found as JSON from a script of ours."""

import subprocess
import tempfile
from pathlib import Path

import msgspec

_SCRIPT = """
wrk.method = "POST"
wrk.body = [==[%s]==]
wrk.headers["Authorization"] = "Bearer %s"
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nJSON {"requests": %%d, "seconds": %%.6f, "failed": %%d, "p50": %%.6f, "p99": %%.6f}\\n',
    summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50) / 1e6, latency:percentile(99) / 1e6))
end
"""


class Run(msgspec.Struct, frozen=True):
    """One run. `failed` counts broken connections and answers of 400 and above; times in seconds."""

    requests: int
    seconds: float
    failed: int
    p50: float
    p99: float

    @property
    def rate(self) -> float:
        """Answered calls a second."""
        return (self.requests - self.failed) / self.seconds


def run(port: int, path: str, body: bytes, key: str, *, connections: int, seconds: int) -> Run:
    """POST `body` from so many connections, as fast as answers come, for `seconds`. One thread."""
    with tempfile.TemporaryDirectory() as folder:
        # The key stays out of the command line, which everybody can read.
        script = Path(folder, "post.lua")
        script.touch(0o600)
        script.write_text(_SCRIPT % (body.decode(), key))
        options = ("wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s")
        done = subprocess.run(
            [*options, "-s", str(script), f"http://127.0.0.1:{port}{path}"],
            capture_output=True,
            text=True,
            timeout=seconds + 60,
            check=True,
        )
    _, found, line = done.stdout.partition("\nJSON ")
    if not found:
        raise RuntimeError(f"wrk said nothing of its run: {done.stdout[-500:]}{done.stderr[-500:]}")
    return msgspec.json.decode(line, type=Run)
