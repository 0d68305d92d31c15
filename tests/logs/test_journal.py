"""A process's records on their way to the collector: nothing waits, what is lost is counted and told."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandpost.logs import drops, journal
from sandpost.logs.journal import LONGEST, MOST, Journal
from sandpost.model.names import SYSTEM
from support.heard import Heard


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A socket that nobody has bound yet."""
    return str(tmp_path / "records.sock")


@pytest.fixture
def heard(path: str) -> Iterator[Heard]:
    """Who reads there."""
    made = Heard(path)
    yield made
    made.close()


@pytest.fixture
def made(path: str) -> Iterator[Journal]:
    """A process's."""
    with contextlib.closing(Journal(path)) as one:
        yield one


def line(number: int, size: int = 0) -> bytes:
    """Return a record."""
    return json.dumps({"msg": f"{number}", "pad": "x" * size}).encode() + b"\n"


def test_records_of_a_stream_come_together_and_in_their_order(made: Journal, heard: Heard) -> None:
    for number in range(100):
        made.add("acme" if number % 2 else SYSTEM, line(number), 1.0)
    made.flush()
    assert heard.texts("acme") == [str(number) for number in range(1, 100, 2)]
    assert heard.texts(SYSTEM) == [str(number) for number in range(0, 100, 2)]


def test_what_a_tenant_is_told_is_the_platforms_and_his(made: Journal, heard: Heard) -> None:
    made.tell("acme", "webtask container assigned", sandbox_id="0a", req_id="")
    made.flush()
    (record,) = heard.of("acme")
    assert (record["name"], record["level"], record["v"]) == ("sandpost", 30, 0)
    assert (record["container"], record["sandbox_id"]) == ("acme", "0a")
    assert "sandbox" not in record
    assert "req_id" not in record


def test_what_nobody_takes_waits_and_goes_on_by_itself(made: Journal, heard: Heard) -> None:
    async def body() -> None:
        # More datagrams than the kernel lets wait.
        for number in range(30):
            made.add("acme", line(number, 30_000), 1.0)
        async with asyncio.timeout(10):
            while len(heard.of("acme")) < 30:  # noqa: ASYNC110 - the socket is the event
                await asyncio.sleep(0.01)
        assert heard.texts("acme") == [str(number) for number in range(30)]

    asyncio.run(body())


def test_records_find_the_next_socket_when_the_first_is_gone(
    made: Journal, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_CONNECT_AGAIN", 0.0)
    made.add("acme", line(1), 1.0)
    made.flush()
    first = Heard(path)
    made.flush()
    assert first.texts("acme") == ["1"]
    first.close()
    made.add("acme", line(2), 1.0)
    made.flush()
    second = Heard(path)
    made.flush()
    assert second.texts("acme") == ["2"]
    second.close()


def test_beyond_the_bound_records_are_counted_and_the_count_is_told(
    made: Journal, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_CONNECT_AGAIN", 0.0)
    monkeypatch.setattr(drops, "TELL_QUIET", 0.05)
    size = len(line(0, 1000))
    sent = MOST // size + 500
    for number in range(sent):
        made.add("acme", line(number, 1000), 1.0)
    made.add("acme", line(0, LONGEST), 1.0)
    heard = Heard(path)
    deadline = time.monotonic() + 10
    while "dropped" not in (heard.texts("acme") or [""])[-1]:
        assert time.monotonic() < deadline
        made.flush()
        time.sleep(0.01)
    *kept, told = heard.of("acme")
    assert len(kept) > 1000
    assert [one["msg"] for one in kept] == [str(number) for number in range(len(kept))]
    assert told["msg"].startswith(f"{sent - len(kept) + 1} lines dropped in")
    assert (told["level"], told["container"]) == (40, "acme")
    heard.close()


def test_threads_write_at_once_and_lose_nothing(made: Journal, heard: Heard) -> None:
    writers = 4

    def write(writer: int) -> None:
        for number in range(500):
            made.add("acme", line(writer * 1000 + number), 1.0)
            made.flush()

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(writers)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        heard.of("acme")
    made.flush()
    deadline = time.monotonic() + 10
    while len(heard.of("acme")) < writers * 500:
        assert time.monotonic() < deadline
        made.flush()
    numbers = [int(text) for text in heard.texts("acme")]
    for writer in range(writers):
        assert [one for one in numbers if one // 1000 == writer] == list(range(writer * 1000, writer * 1000 + 500))
