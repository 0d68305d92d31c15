"""The `kafka` driver on a real broker."""

import asyncio
import itertools
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.structs import TopicPartition

from sandpost.bus import kafka_link, kafka_tail
from sandpost.bus.contract import MAX_BATCH, Batch, Missing, Record, Start
from sandpost.bus.kafka import KafkaSettings
from sandpost.bus.kafka_index import GUARD, SPAN
from sandpost.bus.kafka_link import EARLIEST, Link
from sandpost.bus.kafka_reader import EARLIER
from sandpost.bus.kafka_wire import HEADER, Label, header, offset_of, partition_of
from sandpost.model.errors import BusError
from support.kafka import Cluster
from support.kafka_bed import (
    WITHIN,
    Following,
    at_least,
    batch,
    fails,
    has,
    keep,
    numbers,
    read,
    reader,
    settings,
    until,
    waits,
    writer,
)
from support.lab import Place

OTHERS = [
    name for name in (f"other-{number}" for number in range(100)) if partition_of(name, 4) == partition_of("acme", 4)
]
"""Streams that share the partition of `acme`."""


async def admin(cluster: Cluster, what: str, *arguments: Any) -> None:
    client = AIOKafkaAdminClient(bootstrap_servers=cluster.address)
    await client.start()
    try:
        answer = await getattr(client, what)(*arguments)
        assert "error_code=0" in str(answer) or what == "delete_records", answer
    finally:
        await client.close()


async def put(
    cluster: Cluster, how: KafkaSettings, key: bytes | None, value: bytes, headers: Any = (), topic: str = ""
) -> None:
    """Write as somebody else does, into the partition of `acme`. `topic`: of the records, unless it is told."""
    async with AIOKafkaProducer(bootstrap_servers=cluster.address) as producer:
        await producer.send_and_wait(
            topic or how.topic, value, key=key, partition=partition_of("acme", 4), headers=list(headers)
        )


@pytest.mark.parametrize("compression", ["none", "gzip", "lz4", "zstd"])
def test_every_compression_is_read_again(kafka: Cluster, compression: str) -> None:
    async def scenario() -> None:
        how = settings(kafka.address, compression=compression)
        async with writer(how) as bus, reader(how) as other:
            await keep(bus, batch(0, 500, pad=50))
            assert numbers(await read(other, Start(offset=0), at_least(500))) == list(range(500))

    asyncio.run(scenario())


def test_offsets_grow_strictly_and_name_the_same_record_ever_after(kafka: Cluster) -> None:
    async def scenario() -> None:
        how = settings(kafka.address)
        async with writer(how) as bus, reader(how) as other:
            # One larger than an append usually is, one with more records than a chunk may have.
            await keep(bus, batch(0, 3), batch(3, 9_000), batch(9_003, 400, pad=1_200))
            found = await read(other, Start(offset=0), has(9_402))
            offsets = [record.offset for record in found if isinstance(record, Record)]
            assert numbers(found) == list(range(9_403))
            assert all(one < two for one, two in itertools.pairwise(offsets))
            for which in (0, 2, 3, 4_098, 4_099, 9_002, 9_402):
                assert numbers(await read(other, Start(offset=offsets[which]), at_least(1)))[0] == which

    asyncio.run(scenario())


def test_a_batch_of_the_greatest_size_is_kept_whole(kafka: Cluster) -> None:
    line = b'{"n":"' + secrets.token_hex((MAX_BATCH - 9) // 2).encode() + b'"}\n'
    one = Batch(stream="acme", source="s1", end=1, lines=line, count=1, time=time.time())

    async def scenario() -> None:
        how = settings(kafka.address, compression="none")
        async with writer(how) as bus, reader(how) as other:
            await keep(bus, one)
            (record,) = await read(other, Start(offset=0), at_least(1))
            assert isinstance(record, Record)
            assert record.line + b"\n" == line

    asyncio.run(scenario())


def test_a_stream_that_was_never_written_to_waits(kafka: Cluster) -> None:
    async def scenario() -> None:
        how = settings(kafka.address, patience=1.0)
        async with writer(how) as bus, reader(how) as other:
            waiting = Following(other, Start(offset=0))
            await asyncio.sleep(2.5)
            await keep(bus, batch(0, 1))
            assert numbers(await waiting.until(at_least(1))) == [0]
            await waiting.end()

    asyncio.run(scenario())


def test_a_slow_reader_loses_nothing_that_is_kept(kafka: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_tail.Ring.__init__, "__defaults__", (20_000,))

    async def scenario() -> None:
        how = settings(kafka.address)
        async with writer(how) as bus, reader(how) as other:
            await keep(bus, batch(0, 1))
            slow = Following(other, Start(offset=0), pause=0.05)
            await slow.until(at_least(1))
            for number in range(1, 4_001, 40):
                await keep(bus, batch(number, 40))
            ring = other._partitions[partition_of("acme", 4)].tail.ring
            await until(lambda: ring.next_ >= 101)
            assert ring.start > 50
            assert ring._size <= 20_000
            assert numbers(await slow.until(has(4_000))) == list(range(4_001))
            await slow.end()

    asyncio.run(scenario())


def test_all_that_follow_a_stream_share_one_reading(kafka: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    fetches = []
    fetch = Link.fetch

    async def counted(self: Link, *arguments: Any, **more: Any) -> Any:
        fetches.append(arguments)
        return await fetch(self, *arguments, **more)

    monkeypatch.setattr(Link, "fetch", counted)

    async def scenario() -> None:
        how = settings(kafka.address)
        async with writer(how) as bus, reader(how) as other:
            following = [Following(other, Start()) for _ in range(200)]
            waiting = other._partitions
            await until(
                lambda: sum(len(found) for one in waiting.values() for found in one.tail._waiting.values()) == 200
            )
            fetches.clear()
            for number in range(50):
                await keep(bus, batch(number, 1))
            for one in following:
                assert numbers(await one.until(has(49))) == list(range(50))
            assert len(fetches) <= 55
            for one in following:
                await one.end()
            assert other._partitions[partition_of("acme", 4)].tail._task is None

    asyncio.run(scenario())


def test_the_writer_takes_a_bounded_amount(kafka: Cluster) -> None:
    async def scenario() -> None:
        how = settings(kafka.address, memory=300_000)
        async with writer(how) as bus, reader(how) as other:
            taken = 0
            while taken < 20_000:
                one = batch(taken, 100, pad=50)
                while bus.room("acme") < len(one.lines):
                    await bus.kept()
                bus.append([one])
                taken += 100
                assert sum(len(lane.waiting) for lane in bus._sender.lanes) * len(one.lines) <= 2 * 300_000
            with pytest.raises(ValueError, match="more was appended than there is room for"):
                bus.append([batch(taken, 4_000, pad=90)])
            assert numbers(await read(other, Start(offset=0), has(19_999))) == list(range(20_000))
            await until(lambda: bus._room() == 300_000)
            # Each has room, all together have not.
            with pytest.raises(ValueError, match="more was appended than there is room for"):
                bus.append([batch(0, 1_500, stream=name, source=name, pad=90) for name in ("acme", "far-away", "beta")])
            assert bus._room() == 300_000

    asyncio.run(scenario())


def test_a_writer_that_follows_is_told_how_far_each_source_came(kafka: Cluster) -> None:
    async def scenario() -> None:
        how = settings(kafka.address)
        names = ["acme", OTHERS[0], "far-away"]
        async with writer(how) as bus:
            for number in range(30):
                await keep(bus, *(batch(number * 10, 10, stream=name, source=f"of-{name}") for name in names))
            await keep(bus, batch(0, 5, stream=names[2], source="once"), batch(0, 1, source=""))
            reached = bus.reached()
            await keep(bus, batch(300, 1, source="of-acme"))
        async with writer(how) as bus:
            asked = {f"of-{name}": name for name in names} | {"once": names[2], "never": "nobody"}
            assert await bus.positions(asked, {}) == {
                "of-acme": 301, f"of-{names[1]}": 300, "of-far-away": 300, "once": 5,
            }  # fmt: skip
            assert await bus.positions({}, {}) == {}
            assert await bus.positions(asked, reached) == {"of-acme": 301}

    asyncio.run(scenario())


def test_what_was_sent_twice_is_told_once(kafka: Cluster) -> None:
    async def scenario() -> None:
        how = settings(kafka.address)
        async with writer(how) as bus, reader(how) as other:
            await keep(bus, batch(0, 2))
            lines = batch(2, 2).lines
            for label in (
                Label(1, 77, 5, "s1", 4, 0, 2),
                # By a producer that was retried in doubt; by one that followed one that died; without a source.
                Label(1, 77, 5, "s1", 4, 0, 2),
                Label(1, 88, 0, "s1", 4, 0, 2),
            ):
                await put(kafka, how, b"acme", lines, header(label))
            for _ in range(2):
                await put(kafka, how, b"acme", batch(4, 1).lines, header(Label(1, 99, 0, "", 5, 0, 1)))
            await keep(bus, batch(5, 1))
            found = await read(other, Start(offset=0), has(5))
            assert numbers(found) == [0, 1, 2, 3, 4, 5]
            # Also from a place between the two.
            assert numbers(await read(other, Start(offset=offset_of(2)), has(5))) == [4, 5]
            assert numbers(await read(other, Start(tail=4), has(5))) == [2, 3, 4, 5]

    asyncio.run(scenario())


def test_rubbish_of_others_is_skipped_and_told(kafka: Cluster) -> None:
    async def scenario() -> None:
        how = settings(kafka.address)
        good = header(Label(1, 7, 1, "s9", 4, 0, 2))
        async with writer(how) as bus, reader(how) as other:
            live = Following(other, Start())
            await waits(other)
            await keep(bus, batch(0, 1))
            await live.until(at_least(1))
            await put(kafka, how, b"acme", b"who are you")
            await put(kafka, how, b"acme", b'{"n":7}\n{"n":8', good)
            await put(kafka, how, b"acme", b"", good)
            await put(kafka, how, b"acme", batch(7, 2).lines, [(HEADER, b"\xc1 not msgpack")])
            await put(kafka, how, b"acme", batch(7, 2).lines, header(Label(2, 7, 1, "s9", 4, 0, 2)))
            await put(kafka, how, None, b"nobody's")
            await put(kafka, how, b"\xff\xfe", b"nobody's")
            await keep(bus, batch(1, 1))
            found = await live.until(has(1))
            assert numbers(found) == [0, 1]
            missing = [one for one in found if isinstance(one, Missing)]
            assert [(one.first, one.next_) for one in missing] == [
                (offset_of(at), offset_of(at + 1)) for at in range(1, 6)
            ]
            assert all("written" in one.why for one in missing)
            assert await read(other, Start(offset=0), has(1)) == found
            assert other.skipped == 1
            await live.end()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "rubbish",
    [
        b"who are you",
        b"",
        msgspec.msgpack.encode([1, 7, [["acme", 2**63, 0]]]),
        msgspec.msgpack.encode([1, 7, [["acme", 0, 2**63]]]),
        msgspec.msgpack.encode([1, 7, [["acme", -1, 0]]]),
        msgspec.msgpack.encode([1, 2**64 - 1, [["x" * 100_000, 1, 1]]]),
        msgspec.msgpack.encode([2, 7, [["acme", 0, 0]]]),
    ],
    ids=["text", "nothing", "place", "count", "negative", "name", "version"],
)
def test_rubbish_in_the_index_costs_neither_history_nor_a_writer(kafka: Cluster, rubbish: bytes) -> None:
    async def scenario() -> None:
        how = settings(kafka.address)
        async with writer(how) as bus, reader(how) as other:
            await keep(bus, batch(0, 3, source="s1"))
            await put(kafka, how, None, rubbish, topic=how.index_topic)
            await keep(bus, batch(3, 2, source="s1"))
            assert numbers(await read(other, Start(tail=2), has(4))) == [3, 4]
            assert numbers(await read(other, Start(offset=0), has(4))) == list(range(5))
        async with writer(how) as following:
            assert await following.positions({"s1": "acme"}, {}) == {"s1": 5}

    asyncio.run(scenario())


def test_what_is_no_longer_kept_is_told_and_reading_goes_on(kafka: Cluster) -> None:
    async def scenario() -> None:
        how = settings(kafka.address)
        async with writer(how) as bus, reader(how) as other:
            for number in range(20):
                await keep(bus, batch(number, 1))
            partition = TopicPartition(how.topic, partition_of("acme", 4))
            await admin(kafka, "delete_records", {partition: RecordsToDelete(before_offset=12)})
            found = await read(other, Start(offset=offset_of(5)), has(19))
            missing = found[0]
            assert isinstance(missing, Missing)
            assert (missing.first, missing.next_) == (offset_of(5), offset_of(12))
            assert "no longer kept" in missing.why
            assert numbers(found) == list(range(12, 20))
            assert numbers(await read(other, Start(tail=100), has(19))) == list(range(12, 20))
            found = await read(other, Start(since=1.0), has(19))
            assert numbers(found) == list(range(12, 20))
            assert found[0] == Missing(0, offset_of(12), EARLIER)
            assert numbers(await read(other, Start(tail=3, since=1.0), has(19))) == [17, 18, 19]

    asyncio.run(scenario())


def test_what_went_by_age_is_told(kafka: Cluster) -> None:
    async def scenario() -> None:
        how = settings(kafka.address, retention_ms=3_600_000)
        async with writer(how) as bus, reader(how) as other:
            for number in range(5):
                await keep(bus, batch(number, 1, at=time.time() - 7_200))
            partition = partition_of("acme", 4)
            async with asyncio.timeout(WITHIN):
                while await other._link.bound(how.topic, partition, EARLIEST) != 5:  # noqa: ASYNC110  # nobody tells
                    await asyncio.sleep(0.1)
            await keep(bus, batch(5, 1))
            missing, record = await read(other, Start(offset=offset_of(2)), has(5))
            assert isinstance(missing, Missing)
            assert isinstance(record, Record)
            assert (missing.first, missing.next_, record.offset) == (offset_of(2), offset_of(5), offset_of(5))

    asyncio.run(scenario())


def test_a_time_that_only_others_have_reached_hides_nothing_that_comes(kafka: Cluster) -> None:
    async def scenario() -> None:
        how = settings(kafka.address)
        async with writer(how) as bus, reader(how) as other:
            ahead = time.time() + 3_600
            await keep(bus, batch(0, 1), batch(0, 1, stream=OTHERS[0], source="s2", at=ahead))
            late = Following(other, Start(since=ahead))
            await waits(other)
            await keep(bus, batch(1, 1))
            assert numbers(await late.until(at_least(1))) == [1]
            await late.end()

    asyncio.run(scenario())


def test_what_was_there_is_marked_where_others_alone_wrote_what_is_read_late(
    kafka: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = Link.fetch

    async def scenario() -> None:
        go_on = asyncio.Event()

        async def late(self: Link, *arguments: Any, **more: Any) -> Any:
            fetched = await fetch(self, *arguments, **more)
            if more["group"] != "history":
                await go_on.wait()
            return fetched

        monkeypatch.setattr(Link, "fetch", late)
        how = settings(kafka.address)
        async with writer(how) as bus, reader(how) as other:
            first = Following(other, Start())
            await waits(other)
            await keep(bus, batch(0, 1, stream=OTHERS[0]))
            second = other.follow("acme", Start(offset=0))
            marked = asyncio.ensure_future(anext(second))
            await until(lambda: any(one.tail._moving for one in other._partitions.values()))
            go_on.set()
            async with asyncio.timeout(WITHIN):
                assert not await marked
            await second.aclose()
            await first.end()

    asyncio.run(scenario())


def test_a_reader_whose_place_goes_while_it_is_slow_is_told(kafka: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_tail.Ring.__init__, "__defaults__", (1_000,))

    async def scenario() -> None:
        how = settings(kafka.address)
        async with writer(how) as bus, reader(how) as other:
            following = other.follow("acme", Start())
            assert not await anext(following)
            first = asyncio.ensure_future(anext(following))
            await waits(other)
            await keep(bus, batch(0, 1))
            assert numbers(await first) == [0]
            for number in range(1, 40):
                await keep(bus, batch(number, 1, pad=100))
            partition = TopicPartition(how.topic, partition_of("acme", 4))
            await admin(kafka, "delete_records", {partition: RecordsToDelete(before_offset=30)})
            found: list[Record | Missing] = []
            async with asyncio.timeout(20):
                while not found or numbers(found[-1:]) != [39]:
                    found += await anext(following)
            await following.aclose()
            assert isinstance(found[0], Missing)
            assert (found[0].first, found[0].next_) == (offset_of(1), offset_of(30))
            assert numbers(found) == list(range(30, 40))

    asyncio.run(scenario())


def test_a_topic_that_was_made_anew_is_told(kafka: Cluster) -> None:
    async def scenario() -> None:
        how = settings(kafka.address, patience=20.0)
        async with reader(how) as other:
            async with writer(how) as bus:
                await keep(bus, *(batch(number, 1) for number in range(9)))
                live = Following(other, Start(offset=0))
                await live.until(has(8))
            await admin(kafka, "delete_topics", [how.topic])
            await asyncio.sleep(1)
            async with writer(how) as bus:
                missing = (await live.until(lambda found: isinstance(found[-1], Missing)))[-1]
                assert isinstance(missing, Missing)
                assert "anew" in missing.why
                assert (missing.first, missing.next_) == (0, 0)
                await keep(bus, batch(9, 1))
                assert numbers(await live.until(has(9)))[-1] == 9
            await live.end()

    asyncio.run(scenario())


def test_topics_are_made_only_if_that_is_allowed(kafka: Cluster) -> None:
    async def scenario() -> None:
        how = settings(kafka.address, create=False)
        async with asyncio.timeout(30):
            with pytest.raises(BusError, match=f"no topic {how.topic} and no topic {how.topic}.index"):
                async with writer(how):
                    pass
            await admin(kafka, "create_topics", [NewTopic(how.topic, 4, 1), NewTopic(how.index_topic, 4, 1)])
            async with writer(how) as bus, reader(how) as other:
                await keep(bus, batch(0, 1))
                assert numbers(await read(other, Start(offset=0), at_least(1))) == [0]

    asyncio.run(scenario())


def test_a_topic_with_too_few_partitions_is_refused_and_one_with_more_is_not(kafka: Cluster) -> None:
    async def scenario() -> None:
        few = settings(kafka.address, partitions=2)
        async with writer(few) as bus:
            await keep(bus, batch(0, 1))
        more = settings(kafka.address, topic=few.topic, partitions=3)
        with pytest.raises(BusError, match="has 2 partitions and 3 are configured"):
            async with writer(more):
                pass
        less = settings(kafka.address, topic=few.topic, partitions=1)
        async with writer(less) as bus, reader(less) as other:
            for stream in ("acme", OTHERS[0], "far-away"):
                await keep(bus, batch(5, 1, stream=stream))
                assert numbers(await read(other, Start(tail=1), at_least(1), stream)) == [5]

    asyncio.run(scenario())


@contextmanager
def nobody() -> Iterator[str]:
    """Nobody listens at port 1."""
    yield "127.0.0.1:1"


@contextmanager
def unknown() -> Iterator[str]:
    """A name that nobody knows, where nobody can be asked."""
    yield "kafka.example:9092"


@contextmanager
def too_long() -> Iterator[str]:
    """What cannot be a name."""
    yield f"{'k' * 64}.example:9092"


@contextmanager
def silent() -> Iterator[str]:
    """Somebody who takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield f"127.0.0.1:{sock.getsockname()[1]}"


@contextmanager
def of_another_kind() -> Iterator[str]:
    """A web server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    "there", [nobody, unknown, too_long, silent, pytest.param(of_another_kind, marks=pytest.mark.long)]
)
def test_with_a_wrong_address_the_start_goes_on_and_says_so(
    there: Callable[[], AbstractContextManager[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_link, "REQUEST_MS", 300)

    async def scenario() -> None:
        with there() as address:
            how = settings(address, patience=0.5)
            async with writer(how) as bus, reader(how) as other:
                why = await fails(bus.kept())
                assert address in why
                bus.append([batch(0, 1)])
                assert address in await fails(bus.kept())
                assert address in bus.problem
                assert address in await fails(bus.positions({"s1": "acme"}, {}))
                assert address in await fails(anext(other.follow("acme", Start())))
                assert bus.room("acme") == how.memory // 4 - len(batch(0, 1).lines)

    with closing(Place()) as place:
        place.ip("link set lo up")
        place.run(lambda: asyncio.run(scenario()))


def test_a_writer_ends_after_a_second_where_brokers_are_away_and_keeps_what_it_can_where_they_are(
    kafka: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_link, "REQUEST_MS", 300)

    async def scenario() -> None:
        async with writer(settings("localhost:1", patience=0.5)) as bus:
            bus.append([batch(0, 1)])
            await fails(bus.kept())
            began = time.monotonic()
        assert time.monotonic() - began < 2
        how = settings(kafka.address)
        async with writer(how) as bus:
            bus.append([batch(0, 1)])
        async with reader(how) as other:
            assert numbers(await read(other, Start(offset=0), has(0))) == [0]

    asyncio.run(scenario())


def test_history_of_one_among_many_is_found_by_few_requests(kafka: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[str] = []
    fetch = Link.fetch

    async def counted(self: Link, topic: str, partition: int, at: int, **more: Any) -> Any:
        if not more.get("wait_ms"):
            requests.append(f"{topic} {at}")
        return await fetch(self, topic, partition, at, **more)

    monkeypatch.setattr(Link, "fetch", counted)

    async def scenario() -> None:
        how = settings(kafka.address, partitions=1)
        names = [f"tenant-{number}" for number in range(50)]
        async with writer(how) as bus, reader(how) as other:
            await keep(bus, batch(0, 3, stream="seldom", source="seldom"))
            for number in range(0, 12_000, 40):
                batches = [batch(number, 40, stream=name, source=name, pad=20) for name in names]
                for one in batches:
                    while bus.room(one.stream) < len(one.lines):
                        await bus.kept()
                    bus.append([one])
            await keep(bus, batch(3, 1, stream="seldom", source="seldom"))
            for number in range(12_000, 12_400, 40):
                await keep(bus, *(batch(number, 40, stream=name, source=name) for name in names))
            # The first time it reads the index, whose first requests are few too.
            found = await read(other, Start(tail=10_000), at_least(1), names[7])
            assert numbers(found)[0] == 2_400
            requests.clear()
            assert numbers(await read(other, Start(tail=10_000), at_least(1), names[8]))[0] == 2_400
            assert len(requests) <= 8, requests
            # The index that was asked for to find the beginning is enough for what is read from there.
            assert sum(one.startswith(how.index_topic) for one in requests) == 1, requests
            requests.clear()
            assert numbers(await read(other, Start(tail=4), at_least(4), "seldom")) == [0, 1, 2, 3]
            assert numbers(await read(other, Start(offset=0), at_least(4), "seldom")) == [0, 1, 2, 3]
            assert len(requests) <= 16, requests

    asyncio.run(scenario())


def test_without_an_index_history_is_read_whole(kafka: Cluster) -> None:
    async def scenario() -> None:
        how = settings(kafka.address)
        async with writer(how) as bus:
            for number in range(0, 2_000, 10):
                bus.append([batch(number, 10)])
            await keep(bus, batch(2_000, 1))
        await admin(kafka, "delete_topics", [how.index_topic])
        await asyncio.sleep(1)
        async with writer(how), reader(how) as other:
            assert numbers(await read(other, Start(tail=1_500), has(2_000))) == list(range(501, 2_001))
            assert numbers(await read(other, Start(offset=0), has(2_000))) == list(range(2_001))

    asyncio.run(scenario())


def test_two_hosts_write_one_stream(kafka: Cluster) -> None:
    async def scenario() -> None:
        how = settings(kafka.address)
        async with writer(how, "one") as one, writer(how, "two") as two, reader(how) as other:
            for number in range(0, 6_000, 30):
                first = 1 if number % 60 else 0
                await keep((one, two)[first], batch(number, 30, source=f"s{first}"))
            assert numbers(await read(other, Start(offset=0), has(5_999))) == list(range(6_000))
            for count in (10, 1_000, 2_777, 5_999):
                assert numbers(await read(other, Start(tail=count), has(5_999))) == list(range(6_000 - count, 6_000))

    asyncio.run(scenario())


def test_what_is_not_marked_is_not_told_as_kept(kafka: Cluster) -> None:
    async def scenario() -> None:
        how = settings(kafka.address)
        async with writer(how) as bus, reader(how) as other:
            await keep(bus, batch(0, 1))
            bus.reached()
            marks = bus._marks[partition_of("acme", 4)]
            marks.retry_at = time.monotonic() + 3 * WITHIN
            # The first of a stream is marked; what follows it in the partition and is not waits too.
            bus.append([batch(0, 1, stream=OTHERS[0], source="s2")])
            assert numbers(await read(other, Start(tail=1), has(0), OTHERS[0])) == [0]
            await until(lambda: bool(marks.waiting))
            assert not bus._news
            assert bus.reached() == {}
            marks.retry_at = 0.0
            # What comes wakes who sends.
            bus.append([batch(1, 1)])
            ends: dict[str, int] = {}
            async with asyncio.timeout(WITHIN):
                while ends != {"s1": 2, "s2": 1}:
                    ends |= await bus.kept()
            assert set(bus.reached()) == {"acme", OTHERS[0]}

    asyncio.run(scenario())


def test_what_a_killed_writer_left_unmarked_is_found_after_its_successor_has_looked(kafka: Cluster) -> None:
    async def scenario() -> None:
        how = settings(kafka.address)
        async with writer(how) as bus:
            # So many that it does not lie beside what a reader reads anyway, before the index knows all.
            for number in range(2 * SPAN):
                bus.append([batch(number, 1, stream=OTHERS[0], source="s2", pad=1_000)])
            await keep(bus, batch(2 * SPAN, 1, stream=OTHERS[0], source="s2"))
            reached = bus.reached()
        async with writer(how, "other host") as bus:
            # As by a writer that was killed before it had sent the mark.
            await put(kafka, how, b"acme", batch(0, 5).lines, header(Label(1, 7, 0, "s1", 5, 0, 5)))
            for number in range(GUARD + SPAN):
                bus.append([batch(number, 1, stream=OTHERS[0], source="s3")])
        async with writer(how) as bus, reader(how) as other:
            assert await bus.positions({"s1": "acme"}, reached) == {"s1": 5}
            await keep(bus, batch(5, 1))
            assert numbers(await read(other, Start(tail=6), has(5))) == [0, 1, 2, 3, 4, 5]

    asyncio.run(scenario())


def test_a_host_whose_clock_is_ahead_is_not_refused(kafka: Cluster) -> None:
    async def scenario() -> None:
        how = settings(kafka.address)
        async with writer(how) as bus, reader(how) as other:
            ahead = time.time() + 86_400
            await keep(bus, batch(0, 1, at=ahead))
            assert bus.problem == ""
            assert numbers(await read(other, Start(since=ahead - 1), has(0))) == [0]

    asyncio.run(scenario())
