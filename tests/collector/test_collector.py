"""The collector as its surroundings see it: bytes into FIFOs, records in files."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sandpost.collector.budget import RECORD_COST
from sandpost.kernel import calls
from sandpost.logs.journal import Journal
from sandpost.model import messages as m
from sandpost.model.limits import Limits
from sandpost.model.names import SYSTEM
from support.collector import UID, Fifos, lines_told, rig, write_all


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(coroutine)


def frame(text: bytes, level: int = 30, req_id: bytes = b"r1", flags: int = 0) -> bytes:
    return struct.pack(">BBBBHBB", 0xF5, 1, level, flags, len(text), len(req_id), 0) + req_id + text


class Flood:
    """Writes as fast as it is read, as `yes` does, until stopped."""

    def __init__(self, fd: int, block: bytes) -> None:
        self.written = 0
        self._fd, self._block = fd, block
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        os.set_blocking(fd, False)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.written += os.write(self._fd, self._block)
            except BlockingIOError:
                self._stop.wait(0.001)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(5)


def test_three_streams_become_records_of_the_tenant(tmp_path: Path) -> None:
    async def body() -> None:
        async with rig(tmp_path) as r:
            one, two = r.sandbox(1, "acme"), r.sandbox(2, "other")
            os.write(one.out, b"hello\n\x1b[31mbad \xff\x07\x1b[0m\n")
            os.write(one.err, b"oops\n")
            os.write(one.frames, frame(b"with request", 40, b"req-7") + frame(b"a ", flags=1) + frame(b"b\nc"))
            os.write(two.out, b"mine\n")
            await r.until(lambda: len(r.records("acme")) == 5 and len(r.records("other")) == 1)
            shown = {(x["level"], x["msg"], x.get("req_id")) for x in r.records("acme")}
            assert shown == {
                (30, "hello", None),
                (30, "bad \ufffd\u2407", None),
                (50, "oops", None),
                (40, "with request", "req-7"),
                (30, "a b\nc", "r1"),
            }
            for record in r.records("acme"):
                assert (record["container"], record["sandbox"], record["sandbox_id"]) == ("acme", True, one.id)
            assert (r.records("other")[0]["container"], r.records("other")[0]["sandbox_id"]) == ("other", two.id)
            await r.until(lambda: r.figure("sandpost_output_records_total") == 6)
            assert r.figure("sandpost_output_sandboxes") == 2
            assert r.stop() == 0

    run(body())


def test_partial_line_is_written_after_a_second_and_costs_no_cycle(tmp_path: Path) -> None:
    async def body() -> None:
        async with rig(tmp_path) as r:
            one = r.sandbox(1, "acme")
            began = time.monotonic()
            os.write(one.out, b"Password: ")
            await r.until(lambda: r.said("acme") == ["Password: "])
            assert 0.9 < time.monotonic() - began < 5
            before = r.cpu()
            await asyncio.sleep(2)
            assert r.cpu() - before < 0.1

    run(body())


def test_forged_frames_are_counted_and_harm_nothing(tmp_path: Path) -> None:
    async def body() -> None:
        async with rig(tmp_path) as r:
            one = r.sandbox(1, "acme")
            os.write(one.frames, b"\xf5\x01\xff not a frame \xf5\xf5" + b'{"msg":"forged"}\n' + frame(b"good", 50, b""))
            os.write(one.frames, os.urandom(3000).replace(b"\xf5", b"x") + frame(b"again", 10, b""))
            await r.until(lambda: r.said("acme") == ["good", "again"])
            await r.until(lambda: r.figure("sandpost_output_forged_total") >= 2)

    run(body())


def test_binary_output_becomes_valid_records(tmp_path: Path) -> None:
    async def body() -> None:
        async with rig(tmp_path) as r:
            one = r.sandbox(1, "acme")
            await asyncio.to_thread(write_all, one.out, os.urandom(200_000))
            await asyncio.to_thread(write_all, one.err, b"\0" * 100_000)
            await asyncio.to_thread(write_all, one.frames, os.urandom(100_000))
            await r.until(lambda: sum(len(x["msg"]) for x in r.records("acme") if x["level"] == 50) >= 100_000)
            os.write(one.out, b"\nafter\n")
            await r.until(lambda: "after" in r.said("acme"))

    run(body())


def test_flood_is_kept_at_the_rate_read_at_four_times_and_told(tmp_path: Path) -> None:
    async def body() -> None:
        rate = 256 * 1024
        async with rig(tmp_path, output=rate) as r:
            one = r.sandbox(1, "loud")
            flood = Flood(one.out, (b"y" * 99 + b"\n") * 160)
            began = time.monotonic()
            await asyncio.sleep(6)
            took = time.monotonic() - began
            flood.stop()
            # The bursts, what is held in FIFO and file, and a margin of a second.
            assert flood.written < 4 * rate * (took + 1) + 3 * rate
            assert flood.written > 2 * rate * took
            await r.until(lambda: len(r.told("loud")) >= 2)
            kept = len(r.said("loud"))
            assert rate * (took - 1) < kept * (99 + RECORD_COST) < rate * (took + 2)
            told = r.told("loud")
            assert all(text.endswith("s: over 256 KiB/s") for text in told)
            dropped = lines_told(told)
            assert abs(dropped + kept - flood.written / 100) <= len(told) + 2
            await r.until(lambda: r.figure("sandpost_output_dropped_total", reason="over_rate") == dropped)

    run(body())


def test_lines_that_a_runtime_lost_are_told_also_if_its_record_of_them_is_dropped(tmp_path: Path) -> None:
    async def body() -> None:
        async with rig(tmp_path, output=64 * 1024) as r:
            one = r.sandbox(1, "loud")
            line = frame(b"y" * 1000, 30, b"")
            lost = b"250 log records (9 bytes) were dropped: they came faster than they are read"
            for _ in range(20):
                await asyncio.to_thread(write_all, one.frames, line * 30 + frame(lost, 40, b"", flags=2))
            await asyncio.sleep(2)
            await asyncio.to_thread(write_all, one.frames, frame(b"last", 30, b""))
            await r.until(lambda: "last" in r.said("loud"))

            def accounted() -> int:
                own = [text for text in r.said("loud") if text != "last"]
                kept = sum(250 if text == lost.decode() else 1 for text in own)
                return kept + lines_told(text for text in r.told("loud"))

            await r.until(lambda: accounted() == 20 * (30 + 250))
            assert len(r.said("loud")) < 400

    run(body())


def test_spools_are_trimmed_while_a_tenant_writes_without_end(tmp_path: Path) -> None:
    async def body() -> None:
        async with rig(tmp_path, output=1 << 20) as r:
            one = r.sandbox(1, "loud")
            flood = Flood(one.out, (b"y" * 99 + b"\n") * 160)
            await r.until(lambda: flood.written > 16 << 20, 20)
            spool = (r.spool / f"{one.id}.out").stat()
            assert spool.st_blocks * 512 < 2 << 20
            assert spool.st_size > 15 << 20
            assert 0 < r.figure("sandpost_output_spooled_bytes") < 2 << 20
            rss = int(Path(f"/proc/{r.process.pid if r.process else 0}/statm").read_text().split()[1]) * 4096
            assert rss < 100 << 20
            flood.stop()

    run(body())


def test_a_tenants_own_rate_counts_and_may_change(tmp_path: Path) -> None:
    async def body() -> None:
        async with rig(tmp_path, output=256 * 1024) as r:
            small, usual = r.sandbox(1, "small", 32 * 1024), r.sandbox(2, "usual")
            floods = [Flood(one.out, b"y" * 99 + b"\n") for one in (small, usual)]
            await r.until(lambda: bool(r.told("small")) and bool(r.told("usual")), 30)
            assert r.told("small")[0].endswith("s: over 32 KiB/s")
            assert r.told("usual")[0].endswith("s: over 256 KiB/s")
            r.assign(small, "small", 64 * 1024)
            await r.until(lambda: r.told("small")[-1].endswith("s: over 64 KiB/s"), 30)
            for flood in floods:
                flood.stop()

    run(body())


def test_what_parts_write_is_in_the_streams_they_name(tmp_path: Path) -> None:
    async def body() -> None:
        async with rig(tmp_path) as r:
            journal = r.journal()
            journal.tell("noted", "webtask container assigned", sandbox_id="0a")
            journal.add(SYSTEM, journal.voice.line(SYSTEM, "the controller serves", 1.0), 1.0)
            await r.until(lambda: bool(r.told("noted")))
            (record,) = r.records("noted")
            assert (record["msg"], record["container"]) == ("webtask container assigned", "noted")
            await r.until(lambda: "the controller serves" in r.told(SYSTEM))
            # Its own come the same way.
            await r.until(lambda: "collector ready" in r.told(SYSTEM))

    run(body())


@pytest.mark.parametrize(
    ("stream", "lines", "uid"),
    [
        ("acme", b'{"msg":"x"}\n', 12_345),
        (".system", b'{"msg":"x"}\n', 12_345),
        ("acme", b'{"msg":"x"}\n', UID),
        ("../acme", b'{"msg":"x"}\n', 0),
        ("acme", b'{"msg":"x"}\n{"msg":"y"}\n', 0),
        ("acme", b"rubbish\n", 0),
        ("acme", b'{"msg":"\xff"}\n', 0),
        ("acme", b'{"msg":"x"}', 0),
    ],
    ids=["stranger", "stranger_system", "collector_as_tenant", "name", "count", "rubbish", "bytes", "no_end"],
)
def test_what_is_no_record_or_not_the_senders_to_say_is_counted_and_left(
    tmp_path: Path, stream: str, lines: bytes, uid: int
) -> None:
    async def body() -> None:
        async with rig(tmp_path) as r:
            os.chmod(r.host.records_socket, 0o666)
            packet = msgspec.msgpack.encode(m.Records(stream=stream, count=1, at=1.0, lines=lines))
            await asyncio.to_thread(send_as, uid, r.host.records_socket, packet)
            await r.until(lambda: r.figure("sandpost_platform_strange_total") == 1)
            # What comes behind it is read.
            with contextlib.closing(Journal(r.host.records_socket)) as journal:
                journal.tell("acme", "fine")
            await r.until(lambda: "fine" in r.told("acme"))
            assert r.told("acme") == ["fine"]

    run(body())


def send_as(uid: int, path: str, packet: bytes) -> None:
    """Send a datagram as another user does."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setresuid(uid, uid, uid)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.sendto(packet, path)
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_records_of_parts_wait_for_the_next_collector(tmp_path: Path) -> None:
    async def body() -> None:
        async with rig(tmp_path) as r:
            journal = r.journal()
            for life in range(3):
                r.kill()
                for number in range(100):
                    journal.tell("acme", f"{life} {number}")
                    if number % 10 == 0:
                        journal.flush()
                await r.start()
                await r.until(lambda: len(r.told("acme")) == (life + 1) * 100)  # noqa: B023
            assert r.told("acme") == [f"{life} {number}" for life in range(3) for number in range(100)]

    run(body())


@pytest.mark.long
def test_where_spools_lie_may_be_full_and_holds_no_writer_up(tmp_path: Path) -> None:
    async def body() -> None:
        spool = tmp_path / "run" / "spool"
        spool.mkdir(parents=True)
        calls.mount_tmpfs(str(spool), 64 * 1024)
        try:
            # Somebody else's files.
            (spool / "filled").write_bytes(bytes(60 * 1024))
            async with rig(tmp_path, output=0) as r:
                box = r.sandbox(1, "full")
                await asyncio.to_thread(write_all, box.out, b"".join(b"%d\n" % n for n in range(60_000)), 60)
                await r.until(lambda: lines_told(r.told("full")) > 0, 20)
                (spool / "filled").unlink()
                await asyncio.to_thread(write_all, box.out, b"afterwards\n", 20)
                await r.until(lambda: "afterwards" in r.said("full"), 20)
                # A line whose beginning was kept, as an unfinished one is after a second, is lost and kept.
                assert lines_told(r.told("full")) + len(r.said("full")) - 60_001 in (0, 1)
        finally:
            calls.unmount(str(spool))

    run(body())


def test_quiet_tenant_is_written_promptly_beside_floods(tmp_path: Path) -> None:
    async def body() -> None:
        async with rig(tmp_path) as r:
            loud = [r.sandbox(number, f"loud{number}") for number in range(4)]
            quiet = r.sandbox(99, "quiet")
            blocks = (b"\n" * 16384, b"x" * 16384, frame(b"") * 1000, b"line\n" * 3000)
            fds = (loud[0].out, loud[1].err, loud[2].frames, loud[3].out)
            floods = [Flood(fd, block) for fd, block in zip(fds, blocks, strict=True)]
            waits = []
            await asyncio.sleep(1)
            for number in range(30):
                at = time.monotonic()
                os.write(quiet.out, b"%d\n" % number)
                await r.until(lambda: len(r.said("quiet")) == number + 1)  # noqa: B023 - evaluated at once
                waits.append(time.monotonic() - at)
                await asyncio.sleep(0.1)
            for flood in floods:
                flood.stop()
            assert r.said("quiet") == [str(number) for number in range(30)]
            # Some ten times what is seen: floods that are waited for cost seconds.
            assert sorted(waits)[15] < 1
            assert max(waits) < 3
            rss = int(Path(f"/proc/{r.process.pid if r.process else 0}/statm").read_text().split()[1]) * 4096
            assert rss < 100 << 20

    run(body())


def test_output_before_assignment_waits_for_its_owner_or_is_dropped(tmp_path: Path) -> None:
    async def body() -> None:
        async with rig(tmp_path) as r:
            late, never = r.sandbox(1), r.sandbox(2)
            os.write(late.out, b"a moment early\n")
            os.write(never.out, b"of the platform\nalone\n")
            await asyncio.sleep(0.3)
            r.assign(late, "acme")
            await r.until(lambda: r.said("acme") == ["a moment early"])
            await r.until(lambda: r.figure("sandpost_output_dropped_total", reason="unassigned") == 2, 5)
            r.assign(never, "acme")
            os.write(never.out, b"now\n")
            await r.until(lambda: r.said("acme") == ["a moment early", "now"])

    run(body())


def test_output_before_assignment_waits_while_no_controller_can_say_whose_it_is(tmp_path: Path) -> None:
    async def body() -> None:
        async with rig(tmp_path) as r:
            r.controller.close()
            late = r.sandbox(1)
            os.write(late.out, b"nobody knows whose\n")
            await asyncio.sleep(3)
            r.routes[late.id] = "acme"
            r.open_controller()
            await r.until(lambda: r.said("acme") == ["nobody knows whose"])
            await r.until(lambda: r.figure("sandpost_output_dropped_total", reason="unassigned") == 0)

    run(body())


def test_second_tenant_of_a_sandbox_is_refused(tmp_path: Path) -> None:
    async def body() -> None:
        async with rig(tmp_path) as r:
            one = r.sandbox(1, "acme")
            os.write(one.out, b"1\n")
            await r.until(lambda: r.said("acme") == ["1"])
            r.assign(one, "thief")
            os.write(one.out, b"2\n")
            await r.until(lambda: r.said("acme") == ["1", "2"])
            assert r.records("thief") == []
            assert "sandbox assigned to a second tenant" in r.log.read_text()

    run(body())


def test_released_sandbox_is_read_to_its_end_and_closed(tmp_path: Path) -> None:
    async def body() -> None:
        async with rig(tmp_path) as r:
            assert r.process is not None
            descriptors = Path(f"/proc/{r.process.pid}/fd")
            await r.until(lambda: len(os.listdir(descriptors)) > 3)
            before = len([fd for fd in descriptors.iterdir() if "fifo" in os.readlink(fd)])
            for number in range(20):
                one = r.sandbox(number, "acme")
                os.write(one.out, b"first\n" + b"x" * 20_000 + b"\nlast words")
                os.write(one.frames, frame(b"unfinished", flags=1))
                r.release(one)
            await r.until(lambda: r.said("acme").count("last words") == 20)
            await r.until(lambda: r.said("acme").count("unfinished") == 20)
            await r.until(lambda: r.figure("sandpost_output_sandboxes") == 0)
            assert len([fd for fd in descriptors.iterdir() if "fifo" in os.readlink(fd)]) == before

    run(body())


def test_released_sandbox_whose_fifo_never_ends_is_closed_all_the_same(tmp_path: Path) -> None:
    async def body() -> None:
        async with rig(tmp_path) as r:
            one = r.sandbox(1, "acme")
            # A supervisor that was restarted holds FIFOs for reading and writing: no reader sees an end.
            holder = os.open(tmp_path / "fifos" / f"{one.id}-out", os.O_RDWR)
            os.write(one.out, b"last words")
            r.release(one)
            await r.until(lambda: r.said("acme") == ["last words"], 3)
            await r.until(lambda: r.figure("sandpost_output_sandboxes") == 0, 4)
            os.close(holder)

    run(body())


def test_sandbox_whose_release_was_lost_is_closed_when_it_is_gone(tmp_path: Path) -> None:
    async def body() -> None:
        async with rig(tmp_path) as r:
            told, untold, alive = r.sandbox(1, "acme"), r.sandbox(2, "acme"), r.sandbox(3, "acme")
            await r.until(lambda: r.figure("sandpost_output_sandboxes") == 3)
            for fifos in (told, untold):
                fifos.end()
            for channel in r.controller.channels:
                channel.send(m.Gone(seq=1, sandbox_id=told.id, tenant="acme", word="idle", message=""))
            await r.until(lambda: r.figure("sandpost_output_sandboxes") == 2, 20)
            # The other's end was told while nobody listened: it is not in the next whole table.
            del r.routes[told.id], r.routes[untold.id]
            for channel in list(r.controller.channels):
                channel.close()
            await r.until(lambda: r.figure("sandpost_output_sandboxes") == 1, 20)
            os.write(alive.out, b"still here\n")
            await r.until(lambda: r.said("acme") == ["still here"])

    run(body())


def test_killed_collector_costs_no_writer_and_returns(tmp_path: Path) -> None:
    async def body() -> None:
        async with rig(tmp_path) as r:
            fifos = [r.sandbox(number, f"t{number}") for number in range(5)]
            for round_ in range(3):
                for number, one in enumerate(fifos):
                    os.write(one.out, b"before %d\n" % round_)
                    await r.until(lambda: f"before {round_}" in r.said(f"t{number}"))  # noqa: B023 - evaluated at once
                r.kill()
                for one in fifos:
                    # No reader but the holder: neither EPIPE nor a lost byte.
                    os.write(one.out, b"between %d\n" % round_)
                await r.start()
                for number in range(5):
                    await r.until(lambda: f"between {round_}" in r.said(f"t{number}"))  # noqa: B023
            for number in range(5):
                expected = [f"{word} {i}" for i in range(3) for word in ("before", "between")]
                assert r.said(f"t{number}") == expected

    run(body())


def test_lost_supervisor_and_controller_stop_no_stream(tmp_path: Path) -> None:
    async def body() -> None:
        async with rig(tmp_path) as r:
            one = r.sandbox(1, "acme")
            os.write(one.out, b"1\n")
            await r.until(lambda: r.said("acme") == ["1"])
            r.supervisor.close()
            r.controller.close()
            os.write(one.out, b"2\n")
            await r.until(lambda: r.said("acme") == ["1", "2"])
            r.open()
            await r.until(lambda: (r.supervisor_up, r.controller_up) == (2, 2))
            os.write(one.out, b"3\n")
            await r.until(lambda: r.said("acme") == ["1", "2", "3"])
            # Given again, the streams are not kept twice.
            assert r.process is not None
            links = [os.readlink(fd) for fd in Path(f"/proc/{r.process.pid}/fd").iterdir()]
            assert len([link for link in links if "/fifos/" in link]) == 3

    run(body())


def test_stream_without_a_writer_costs_no_cycle_and_is_read_again(tmp_path: Path) -> None:
    async def body() -> None:
        async with rig(tmp_path) as r:
            one = r.sandbox(1, "acme")
            os.write(one.out, b"1\n")
            os.close(one.writes.pop(0))
            await r.until(lambda: r.said("acme") == ["1"])
            before = r.cpu()
            await asyncio.sleep(1.5)
            assert r.cpu() - before < 0.1
            again = os.open(tmp_path / "fifos" / f"{one.id}-out", os.O_WRONLY)
            os.write(again, b"2\n")
            await r.until(lambda: r.said("acme") == ["1", "2"])
            os.close(again)

    run(body())


def test_retire_writes_what_is_unfinished(tmp_path: Path) -> None:
    async def body() -> None:
        async with rig(tmp_path) as r:
            one = r.sandbox(1, "acme")
            os.write(one.out, b"whole\nhalf")
            await r.until(lambda: r.said("acme") == ["whole"])
            for channel in r.supervisor.channels:
                channel.send(m.Retire(timeout=5))
            assert r.process is not None
            assert await asyncio.to_thread(r.process.wait, 5) == 0
            assert r.said("acme") == ["whole", "half"]

    run(body())


def test_reload_takes_up_another_rate(tmp_path: Path) -> None:
    async def body() -> None:
        async with rig(tmp_path, output=1 << 20) as r:
            one = r.sandbox(1, "acme")
            r.host = msgspec.structs.replace(r.host, defaults=Limits(output=1024))
            r.write_host()
            for channel in r.supervisor.channels:
                channel.send(m.Reload())
            await asyncio.sleep(0.3)
            await asyncio.to_thread(write_all, one.out, b"0123456\n" * 1000)
            await r.until(lambda: r.told("acme") != [])
            assert r.told("acme")[0].endswith("over 1 KiB/s")
            assert len(r.said("acme")) < 100

    run(body())


def test_reload_takes_up_how_much_is_kept(tmp_path: Path) -> None:
    async def body() -> None:
        async with rig(tmp_path, output=0) as r:
            one = r.sandbox(1, "acme")
            folder = Path(r.host.logs_dir, "acme")

            def held() -> int:
                return sum(path.stat().st_size for path in folder.glob("*") if path.exists())

            line = b"x" * 7999 + b"\n"
            for _ in range(10):
                await asyncio.to_thread(write_all, one.out, line * 100)
            await r.until(lambda: held() > 6 << 20)
            r.host = msgspec.structs.replace(r.host, keep=1 << 20)
            r.write_host()
            for channel in r.supervisor.channels:
                channel.send(m.Reload())
            await r.until(lambda: held() < 5 << 20)

    run(body())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "state" / "logs"
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=128k,uid={UID}", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_costs_no_line_that_the_spool_holds(tmp_path: Path, small_disk: Path) -> None:
    async def body() -> None:
        async with rig(tmp_path) as r:
            one = r.sandbox(1, "acme")
            filler = small_disk / "filler"
            os.write(one.out, b"before\n")
            await r.until(lambda: r.said("acme") == ["before"])
            with open(filler, "wb", buffering=0) as file:
                while file.write(b"x" * 4096) == 4096:
                    if os.statvfs(small_disk).f_bavail == 0:
                        break
            expected = ["before"]
            for number in range(40):
                expected.append(f"{number} " + "z" * 200)
                os.write(one.out, expected[-1].encode() + b"\n")
                if number == 20:
                    await r.until(lambda: "logs of tenants cannot be written" in r.log.read_text())
                    r.kill()
                    await r.start()
            # Each of the two lives has seen it.
            await r.until(lambda: r.log.read_text().count("logs of tenants cannot be written") == 2)
            filler.unlink()
            await r.until(lambda: r.said("acme") == expected)
            assert r.told("acme") == []
            os.write(one.out, b"after\n")
            await r.until(lambda: r.said("acme")[-1] == "after")
            await r.until(lambda: "logs of tenants are written again" in r.log.read_text())

    run(body())


class Numbers:
    """Writes lines until stopped, each made of its number, a few at a time as programs do."""

    def __init__(self, fd: int, line: Callable[[int], bytes]) -> None:
        self.written = 0
        self._fd, self._line = fd, line
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            # Blocking, as descriptors 1 and 2 are inside; with a reader that holds the FIFO it ends always.
            os.write(self._fd, b"".join(self._line(self.written + number) for number in range(10)))
            self.written += 10
            self._stop.wait(0.002)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()


def test_no_line_of_a_living_sandbox_is_lost_or_doubled_by_kills_under_load(tmp_path: Path) -> None:
    async def body() -> None:
        async with rig(tmp_path, output=1 << 26) as r:
            first, second, third = r.sandbox(1, "acme"), r.sandbox(2, "acme"), r.sandbox(3, "other")
            writers = [
                Numbers(first.out, lambda n: b"%d %s\n" % (n, b"x" * (n % 200))),
                Numbers(first.err, lambda n: b"%d\n" % n),
                Numbers(second.frames, lambda n: frame(b"%d" % n)),
                Numbers(third.out, lambda _: b"the same\n"),
            ]
            for number in range(12):
                await asyncio.sleep(0.05 + number % 4 * 0.11)
                r.kill()
                await r.start()
            for writer in writers:
                await asyncio.to_thread(writer.stop)
            assert all(writer.written > 1000 for writer in writers)
            expected = [list(range(writer.written)) for writer in writers[:3]]

            def found() -> list[list[int]]:
                lines: list[list[int]] = [[], [], []]
                for one in r.records("acme"):
                    lines[2 if one["sandbox_id"] == second.id else one["level"] // 50].append(
                        int(one["msg"].split()[0])
                    )
                return lines

            await r.until(lambda: sum(map(len, found())) >= sum(map(len, expected)))
            assert found() == expected
            await r.until(lambda: len(r.said("other")) >= writers[3].written)
            assert r.said("other") == ["the same"] * writers[3].written
            assert r.told("acme") == r.told("other") == []
            assert r.stop() == 0

    run(body())


@pytest.mark.long
def test_what_was_dropped_over_the_rate_is_told_once_over_kills(tmp_path: Path) -> None:
    async def body() -> None:
        async with rig(tmp_path, output=64 * 1024) as r:
            one = r.sandbox(1, "loud")
            writer = Numbers(one.out, lambda n: b"%d %s\n" % (n, b"x" * 100))
            for number in range(6):
                await asyncio.sleep(0.4 + number % 3 * 0.3)
                r.kill()
                await r.start()
            await asyncio.to_thread(writer.stop)

            def counts() -> tuple[int, int]:
                return len(r.said("loud")), lines_told(r.told("loud"))

            await r.until(lambda: sum(counts()) >= writer.written, 20)
            kept, dropped = counts()
            assert kept + dropped == writer.written
            assert dropped
            assert kept
            numbers = [int(text.split()[0]) for text in r.said("loud")]
            assert numbers == sorted(set(numbers))

    run(body())


def test_random_bytes_and_kills_leave_valid_records_and_a_stream_that_goes_on(tmp_path: Path) -> None:
    async def body() -> None:
        async with rig(tmp_path, output=1 << 26) as r:
            one = r.sandbox(1, "acme")
            for _ in range(4):
                for fd in (one.out, one.err, one.frames):
                    await asyncio.to_thread(write_all, fd, os.urandom(100_000))
                    hostile = b'{"name":"x","pid":1e999,"level":%s}\n' % (b"[" * 9000) + frame(b"", 255)
                    await asyncio.to_thread(write_all, fd, hostile)
                r.kill()
                await r.start()
            for fd in (one.out, one.err):
                os.write(fd, b"\nafter\n")
            os.write(one.frames, frame(b"after"))
            await r.until(lambda: r.said("acme").count("after") == 3)
            assert all(record["container"] == "acme" and record["sandbox"] is True for record in r.records("acme"))

    run(body())


def test_a_programs_own_bunyan_records_keep_their_fields(tmp_path: Path) -> None:
    async def body() -> None:
        async with rig(tmp_path) as r:
            one = r.sandbox(1, "acme")
            said = {
                "name": "shop",
                "hostname": "web",
                "pid": 9,
                "level": 40,
                "msg": "low",
                "time": "2024-05-17T12:00:00Z",
                "v": 0,
            }
            os.write(one.out, json.dumps({**said, "stock": 3, "container": "other"}).encode() + b"\n")
            os.write(one.frames, frame(json.dumps(said).encode()))
            await r.until(lambda: len(r.records("acme")) == 2)
            own = next(record for record in r.records("acme") if record["name"] == "shop")
            assert (own["level"], own["msg"], own["stock"], own["container"]) == (40, "low", 3, "acme")
            assert (own["app.pid"], own["app.container"], own["sandbox_id"]) == (9, "other", one.id)
            # What went through our runtime has its level and request already.
            assert json.dumps(said) in r.said("acme")

    run(body())


def test_last_words_of_a_sandbox_that_ended_while_no_collector_was_there(tmp_path: Path) -> None:
    async def body() -> None:
        async with rig(tmp_path) as r:
            one = r.sandbox(1, "acme")
            os.write(one.out, b"first\n")
            await r.until(lambda: r.said("acme") == ["first"])
            os.write(one.out, b"unfinished")
            await r.until(lambda: (r.spool / f"{one.id}.out").stat().st_size == 4096 + 16)
            r.kill()
            r.release(one)
            await r.start()
            await r.until(lambda: r.said("acme") == ["first", "unfinished"], 15)
            await r.until(lambda: f"{one.id}.out" not in os.listdir(r.spool))

    run(body())


@pytest.mark.long
def test_thousand_silent_sandboxes_cost_nothing_and_all_are_heard(tmp_path: Path) -> None:
    async def body() -> None:
        async with rig(tmp_path) as r:
            fifos: list[Fifos] = []
            for number in range(1000):
                fifos.append(r.sandbox(number, f"t{number}"))
                if number % 50 == 0:
                    await asyncio.sleep(0)
            await r.until(lambda: r.figure("sandpost_output_sandboxes") == 1000, 20)
            before = r.cpu()
            await asyncio.sleep(5)
            assert (r.cpu() - before) / 5 < 0.02
            for one in fifos:
                os.write(one.out, b"here\n")
            await r.until(lambda: all(r.said(f"t{number}") == ["here"] for number in range(1000)), 20)
            r.kill()
            began = time.monotonic()
            await r.start()
            await r.until(lambda: r.figure("sandpost_output_sandboxes") == 1000, 20)
            assert time.monotonic() - began < 10

    # The test holds 6,000 ends of FIFOs.
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        run(body())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_missing_host_file_ends_with_a_record(tmp_path: Path) -> None:
    import sys

    code = "import sys; from sandpost.collector.main import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "--host", str(tmp_path / "absent")], capture_output=True, timeout=20, check=False
    )
    assert done.returncode not in {0, -signal.SIGKILL}
    assert json.loads(done.stderr.splitlines()[-1])["err"]["name"] == "FileNotFoundError"
