"""Records on stdout: all of them, unless nobody reads."""

import os
import threading
import time
from collections.abc import Iterator

import pytest

from sandpost.bus.contract import Batch
from sandpost.collector import printed
from sandpost.collector.printed import Printed
from support.waiting import until


def batch(*lines: bytes) -> Batch:
    return Batch(stream="acme", source="", end=0, lines=b"".join(lines), count=len(lines), time=1.0)


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A pipe's read end; its other one is where records are printed."""
    out, into = os.pipe()
    really = os.write

    def write(fd: int, data: bytes) -> int:
        return really(into if fd == 1 else fd, data)

    monkeypatch.setattr(os, "write", write)
    yield out
    os.close(into)


def test_every_record_is_a_line_in_its_order(reader: int) -> None:
    out = Printed()
    out.start()
    lines = [b'{"n":%d}\n' % number for number in range(20_000)]
    seen = bytearray()

    def read() -> None:
        while seen.count(b"\n") < len(lines):
            seen.extend(os.read(reader, 65536))

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    for at in range(0, len(lines), 10):
        out.take([batch(*lines[at : at + 10])])
    reading.join(20)
    out.close()
    assert bytes(seen) == b"".join(lines)
    assert out.lost == 0
    os.close(reader)


def test_a_reader_that_rests_holds_nobody_up_and_costs_the_oldest(reader: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(printed, "MOST", 100_000)
    out = Printed()
    out.start()
    longest = 0.0
    for number in range(5000):
        began = time.monotonic()
        out.take([batch(b'{"n":%d,"pad":"%b"}\n' % (number, b"x" * 200))])
        longest = max(longest, time.monotonic() - began)
    assert longest < 1, "it waited for the reader"
    assert out.lost > 3000
    began = time.monotonic()
    out.close()
    assert time.monotonic() - began < 3
    os.close(reader)


def test_a_reader_that_goes_is_counted_and_ends_nothing(reader: int) -> None:
    out = Printed()
    out.start()
    os.close(reader)
    for _ in range(3):
        out.take([batch(b"{}\n")])
        time.sleep(0.05)
    until(lambda: out.lost == 3, "the loss")
    out.close()
