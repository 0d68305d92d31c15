"""What the measurements of logs stand on: stamped lines, who reads them, what processes used, which parts are asked for."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bench import machine, talkers
from bench.client import BrokenAnswer
from bench.following import Chunks, Delays, Follower, Whole, delays, paced, printed, stamped
from bench.measures.logs import history, streams
from bench.options import choose
from bench.running import beside, node_binary, until
from hypothesis import given
from hypothesis import strategies as st

NAMES = ["warm", "logs latency", "logs flood", "load"]
RUN = """
const [program, data] = process.argv.slice(1)
new Function('require', program)(require)({ data: JSON.parse(data) }, (error, found) => console.error(found))
"""


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        ([], NAMES),
        (["warm"], ["warm"]),
        (["logs"], ["logs latency", "logs flood"]),
        (["logs", "flood"], ["logs flood"]),
        (["logs", "flood", "latency", "warm"], ["logs flood", "logs latency", "warm"]),
        (["logs", "warm"], ["logs latency", "logs flood", "warm"]),
        (["warm", "logs", "flood", "logs", "warm"], ["warm", "logs flood", "logs latency"]),
    ],
)
def test_a_group_is_asked_for_as_a_whole_or_by_its_parts(words: list[str], chosen: list[str]) -> None:
    assert choose(words, NAMES) == chosen


@pytest.mark.parametrize("words", [["flood"], ["logs", "nothing"], ["log"], ["warm", ""]])
def test_a_word_that_names_nothing_is_told(words: list[str]) -> None:
    with pytest.raises(ValueError, match=f"^{words[-1]}$"):
        choose(words, NAMES)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.data())
def test_chunks_and_lines_are_the_same_however_they_are_cut(parts: list[bytes], data: st.DataObject) -> None:
    wire = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=8)))
    chunks, whole = Chunks(), Whole()
    content = [chunks.feed(wire[one:other]) for one, other in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    everything = b"".join(parts)
    assert b"".join(content) == everything
    lines = [whole.feed(one) for one in content]
    assert all(one.endswith(b"\n") for one in lines if one)
    assert b"".join(lines) == everything[: everything.rfind(b"\n") + 1]


def test_what_is_no_chunk_is_refused() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        Chunks().feed(b"hello\r\n")


def test_a_delay_is_from_the_stamp_to_the_moment_it_is_there() -> None:
    before = time.monotonic_ns()
    line = stamped(60)
    now = time.monotonic_ns()
    assert len(line) == 61
    (late,) = delays(b'{"msg":"' + line, now + 5_000_000)
    assert 0.005 <= late <= 0.005 + (now - before) / 1e9
    assert delays(line + b"{}\n" + line, now) == pytest.approx([late - 0.005] * 2, abs=1e-9)


def test_lines_come_at_their_pace_and_none_is_left_out() -> None:
    async def body() -> tuple[int, float]:
        began = time.monotonic()
        return sum([1 async for _ in paced(500, 0.4, 20)]), time.monotonic() - began

    count, took = asyncio.run(body())
    assert count == 200
    assert 0.4 <= took < 2


def test_a_follower_gets_all_lines_of_a_stream_and_tells_its_end() -> None:
    served: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET /refused "):
            writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno")
        else:
            assert b"Authorization: Bearer k\r\n" in head
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(20):
                line = stamped(50)
                writer.write(b"%x\r\n%b\r\n" % (20, line[:20]))
                await writer.drain()
                await asyncio.sleep(0.002)
                writer.write(b"%x\r\n%b\r\n" % (31, line[20:]))
        await writer.drain()
        await asyncio.sleep(0.2)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        served.append(head)

    async def body() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            taken = Delays()
            async with Follower(port, "/lines", "k", taken.take) as follower:
                await until(lambda: len(taken.seconds) == 20, "the lines", 10)
                follower.check()
                # A line is there when its end is.
                assert all(0.002 <= one < 1 for one in taken.seconds)
                await until(lambda: len(served) == 1, "its end", 10)
                await asyncio.sleep(0.1)
                with pytest.raises(BrokenAnswer, match="ended"):
                    follower.check()
            with pytest.raises(BrokenAnswer, match="403"):
                async with Follower(port, "/refused", "k", taken.take):
                    raise AssertionError
            await until(lambda: len(served) == 2, "the server's end", 10)

    asyncio.run(body())


def test_what_a_command_prints_is_taken_as_it_comes_and_it_ends_with_the_block(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.touch()
    taken = Delays()

    async def body() -> None:
        async with printed(("tail", "-n", "+1", "-f", str(path)), taken.take):
            with open(path, "ab", buffering=0) as file:
                async for line in paced(50, 0.2, 40):
                    os.write(file.fileno(), line)
            await until(lambda: len(taken.seconds) == 10, "the lines", 20)

    asyncio.run(body())
    assert min(taken.seconds) > 0
    assert not [command for command in machine.commands().values() if str(path) in command]


def test_work_beside_that_fails_is_raised_as_it_is_and_the_rest_is_broken_off() -> None:
    ends: list[str] = []

    async def fails() -> None:
        raise RuntimeError("what failed")

    async def lasts() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ends.append("lasts")

    async def body() -> None:
        async with beside(lasts(), fails()):
            await asyncio.sleep(0.01)
            ends.append("block")

    with pytest.raises(RuntimeError, match="what failed"):
        asyncio.run(body())
    assert ends == ["block", "lasts"]


def test_the_cpu_of_a_process_is_that_of_all_its_threads_and_its_memory_has_a_peak() -> None:
    code = (
        "import sys, threading, time\n"
        "def work():\n"
        "    while time.thread_time() < 0.2: pass\n"
        "threads = [threading.Thread(target=work) for _ in range(2)]\n"
        "[one.start() for one in threads]; [one.join() for one in threads]\n"
        "large = b'x' * (60 << 20); del large\n"
        "print(time.process_time(), flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        told = float(process.stdout.readline())
        # The kernel shows it in hundredths.
        assert told >= 0.4
        assert told - 0.03 <= machine.cpu(process.pid) <= told + 0.1
        assert machine.peak(process.pid) > machine.resident(process.pid) + (40 << 20)
        process.communicate()
    with pytest.raises(OSError, match=str(process.pid)):
        machine.cpu(process.pid)


@pytest.mark.parametrize("how", ["console", "raw"])
def test_the_program_writes_as_many_lines_as_it_says_stamped_by_our_clock(how: str) -> None:
    data = f'{{"how":"{how}","rate":"200","seconds":"0.5","size":"50"}}'
    before = time.monotonic_ns()
    done = subprocess.run(
        [node_binary(), "-e", RUN, talkers._SAY.decode(), data], capture_output=True, timeout=20, check=True
    )
    now = time.monotonic_ns()
    lines = done.stdout.splitlines()
    assert (int(done.stderr), len(lines), {len(line) for line in lines}) == (100, 100, {50})
    late = delays(done.stdout, now)
    assert late == sorted(late, reverse=True)
    assert (now - before) / 1e9 > late[0] > late[-1] > 0
    assert 0.3 < late[0] - late[-1] < 2


@pytest.mark.parametrize(("how", "size"), [("raw", 100), ("console", 100), ("nothing", 0)])
def test_the_flood_writes_until_its_time_is_over(how: str, size: int) -> None:
    done = subprocess.run(
        [node_binary(), "-e", RUN, talkers._FLOOD.decode(), f'{{"how":"{how}","seconds":"0.2"}}'],
        capture_output=True, timeout=20, check=True,
    )  # fmt: skip
    assert int(done.stderr) > 1
    assert {len(line) + 1 for line in done.stdout.splitlines()} == ({size} if size else set())


def test_the_bare_server_passes_lines_to_all_who_asked_for_their_name() -> None:
    mine, others = Delays(), Delays()

    async def body() -> None:
        with streams._fan() as (process, port):
            assert process.stdin is not None
            async with (
                Follower(port, "/t1", "none", mine.take), Follower(port, "/t1", "none", mine.take),
                Follower(port, "/t2", "none", others.take),
            ):  # fmt: skip
                for _ in range(5):
                    process.stdin.write(b"t1 " + stamped(40))
                    process.stdin.flush()
                process.stdin.write(b"t2 " + stamped(40))
                process.stdin.flush()
                await until(lambda: (len(mine.seconds), len(others.seconds)) == (10, 1), "the lines", 10)
            assert process.poll() is None
        assert process.poll() is not None

    asyncio.run(body())
    assert all(0 < one < 5 for one in mine.seconds + others.seconds)


def test_the_history_is_numbered_and_a_wrong_first_record_is_no_figure() -> None:
    batches = list(history._lines("t7", 300))
    assert [batch.count(b"\n") for batch in batches] == [100, 100, 100]
    lines = b"".join(batches).splitlines()
    for number in (0, 99, 100, 299):
        history._check(lines[number], number)
    assert all(b'"container":"t7"' in line for line in lines)
    with pytest.raises(RuntimeError, match="not record 270"):
        history._check(lines[271], 270)
