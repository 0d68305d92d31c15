"""What it costs to make records of output: microseconds a line, and the share of a core at the default rate.

    python -m bench.output [--json]

Times decoding, rendering and writing in one process, without FIFOs. The least of several rounds is shown.
"""

import argparse
import json
import struct
import tempfile
import time
from collections.abc import Callable

from sandpost.bus.contract import Batch
from sandpost.bus.local_append import Appender
from sandpost.bus.retention import Limits
from sandpost.logs import bunyan, records
from sandpost.logs.frames import FrameCutter
from sandpost.logs.lines import LineCutter
from sandpost.logs.said import Decoder

_ROUNDS = 5
_CHUNK = 64 * 1024


def _frame(text: bytes) -> bytes:
    req_id = b"01hf2k3v5t9m"
    return struct.pack(">BBBBHBB", 0xF5, 1, 30, 0, len(text), len(req_id), 0) + req_id + text


def _lines(size: int) -> bytes:
    return (b"x" * size + b"\n") * (_CHUNK // (size + 1))


_OWN = (
    b'{"name":"shop","hostname":"web","pid":1,"level":30,"msg":"paid in full","time":"2024-05-17T12:00:00.125Z","v":0,'
    b'"order":{"id":12345,"items":3}}\n'
)
CASES: dict[str, tuple[Callable[[], Decoder], bytes]] = {
    "lines of 10 bytes": (lambda: LineCutter(30), _lines(10)),
    "lines of 100 bytes": (lambda: LineCutter(30), _lines(100)),
    "lines of 1,000 bytes": (lambda: LineCutter(30), _lines(1000)),
    "bunyan's own, 150 bytes": (lambda: LineCutter(30), _OWN * (_CHUNK // len(_OWN))),
    "frames of 100 bytes": (FrameCutter, _frame(b"x" * 100) * (_CHUNK // 120)),
    "binary": (lambda: LineCutter(30), bytes(range(256)) * (_CHUNK // 256)),
}


def measure(make: Callable[[], Decoder], chunk: bytes, folder: str) -> tuple[float, float]:
    """Return microseconds a record made and written, and nanoseconds a byte skipped."""
    decoder, best, skip = make(), float("inf"), float("inf")
    scribe = records.Scribe(hostname="host", tenant="acme", sandbox_id="0123456789ab")
    bus = Appender(folder, limits=Limits(), open_files=1)
    bus.open()
    for _ in range(_ROUNDS):
        began, count = time.perf_counter(), 0
        for _ in range(20):
            at = time.time()
            said = decoder.feed(chunk)
            lines = [scribe.line(one, bunyan.timestamp(at), raw=True) for one in said]
            batch = Batch(
                stream="acme",
                source="0123456789ab.out",
                end=said[-1].end,
                lines=b"".join(lines),
                count=len(lines),
                time=at,
            )
            done, _, error = bus.append("acme", [batch])
            if not done:
                raise SystemExit(f"the bus cannot be written: {error}")
            count += len(lines)
        best = min(best, (time.perf_counter() - began) / count * 1e6)
        began = time.perf_counter()
        for _ in range(100):
            decoder.skip(chunk)
        skip = min(skip, (time.perf_counter() - began) / (100 * len(chunk)) * 1e9)
        decoder = make()
    bus.close()
    return best, skip


def main() -> None:
    """Measure all cases and print them."""
    parser = argparse.ArgumentParser(description="What records of output cost.")
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (make, chunk) in CASES.items():
            each, skipped = measure(make, chunk, folder)
            found[name] = {"us_a_record": round(each, 2), "ns_a_byte_skipped": round(skipped, 3)}
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for name, figures in found.items():
        made, skipped = figures["us_a_record"], figures["ns_a_byte_skipped"]
        print(f"{name:<22}{made:>8.2f} us a record{skipped:>9.3f} ns a byte skipped")


if __name__ == "__main__":
    main()
