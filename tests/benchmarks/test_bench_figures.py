"""The arithmetic, the client and the report of the benchmark, against servers and numbers that are known."""

import asyncio
import json
from pathlib import Path

import pytest
from bench import report, wrk
from bench.client import BrokenAnswer, Connection, ask_once, parse, post
from bench.result import Curve, Figure, Point, Result, median, percentile
from bench.running import ANSWER, PROGRAM, BareNode
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0, 1))
def test_percentile_is_the_least_sample_that_enough_are_not_above(samples: list[float], share: float) -> None:
    found = percentile(samples, share)
    assert found in samples
    assert sum(sample <= found for sample in samples) >= share * len(samples) - 1e-9
    below = [sample for sample in samples if sample < found]
    assert not below or len(below) < share * len(samples)


def test_median_and_ratio_and_goal() -> None:
    assert median([3.0, 1.0, 2.0]) == 2.0
    figure = Figure(name="x", value=10.0, unit="ms", goal=12.0, reference=5.0)
    assert (figure.ratio, figure.met) == (2.0, True)
    assert Figure(name="x", value=0.3, unit="", goal=0.4, better="more").met is False
    assert Figure(name="x", value=0.3, unit="").met is None
    assert Figure(name="x", value=0.3, unit="").ratio is None


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    ],
)
def test_answer_is_whole_at_its_last_byte_and_not_before(data: bytes) -> None:
    assert all(parse(data[:end]) is None for end in range(len(data)))
    assert parse(data + b"HTTP/1.1 500") == (200, b"hello", len(data))


def test_client_and_wrk_see_what_the_bare_server_answers() -> None:
    async def body(port: int) -> None:
        async with Connection(port) as connection:
            for _ in range(3):
                answer = await connection.ask(post("/", "k", PROGRAM))
                assert (answer.status, answer.body) == (200, ANSWER.encode())
                assert 0 < answer.seconds < 1
        assert (await ask_once(port, post("/", "k", PROGRAM))).status == 200

    with BareNode() as bare:
        asyncio.run(body(bare.port))
        run = wrk.run(bare.port, "/", PROGRAM, "k", connections=2, seconds=1)
        assert run.requests > 100
        assert run.failed == 0
        assert 0 < run.p50 <= run.p99 < 1


def test_connection_that_ends_is_told() -> None:
    async def body() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            with pytest.raises((BrokenAnswer, OSError)):
                await ask_once(server.sockets[0].getsockname()[1], b"GET / HTTP/1.1\r\n\r\n")

    asyncio.run(body())


def test_report_shows_value_goal_reference_and_ratio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure = Figure(name="first", value=4.0, unit="ms", goal=5.0, reference=0.5, beside="bare")
    missed = Figure(name="rate", value=12345.6, unit="/s", goal=20000, better="more")
    report.show([figure, missed])
    shown = capsys.readouterr().out
    for text in ("4 ms", "<= 5", "met", "0.5", "8.00", "bare", "12,346/s", ">= 20,000", "missed"):
        assert text in shown
    curve = Curve(name="c", points=[Point(connections=1, rate=10.0, p50=1.0, p99=2.0)])
    document = json.loads(report.to_json({"x": Result(figures=[figure, missed], curves=[curve])}, quick=True))
    assert document["results"]["x"]["figures"][0]["ratio"] == 8.0
    assert [entry["met"] for entry in document["results"]["x"]["figures"]] == [True, False]
    assert document["results"]["x"]["curves"][0]["points"][0]["rate"] == 10.0
    report.plot([curve], str(tmp_path / "plot.png"))
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
