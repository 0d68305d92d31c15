"""The `kafka` driver while brokers die, hang, change, and while its own writer is killed: numbered lines, each read
exactly once."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiokafka.structs import TopicPartition

from sandpost.bus.contract import Missing, Start
from sandpost.bus.kafka import KafkaSettings, KafkaWriter
from sandpost.bus.kafka_wire import partition_of
from sandpost.model.errors import BusError
from support.kafka import ROOT, Broker, Cluster, Secure, authority
from support.kafka_bed import Following, batch, fails, has, keep, numbers, read, reader, settings, waits, writer

pytestmark = pytest.mark.timeout(300)

STREAMS = ["acme", "beta", "gamma", "delta", "epsilon"]


async def in_thread(what: Callable[[], None]) -> None:
    await asyncio.get_running_loop().run_in_executor(None, what)


class Load:
    """Numbered lines to all streams until it is told to end; what does not fit waits, as the spool would."""

    def __init__(self, bus: KafkaWriter) -> None:
        self.next_ = 0
        self.away = 0
        self.least_room = bus._room()
        self._bus = bus
        self._ending = False
        self._kept: dict[str, int] = {}
        self._writing = asyncio.create_task(self._write())
        self._counting = asyncio.create_task(self._count())

    async def _write(self) -> None:
        while not self._ending:
            batches = [batch(self.next_, 10, stream=name, source=name, pad=50) for name in STREAMS]
            # All or none: where there is no room for all, they wait.
            with contextlib.suppress(ValueError):
                self._bus.append(batches)
                self.next_ += 10
            self.least_room = min(self.least_room, self._bus._room())
            await asyncio.sleep(0.005)

    async def _count(self) -> None:
        while True:
            try:
                for source, end in (await self._bus.kept()).items():
                    assert end > self._kept.get(source, 0)
                    self._kept[source] = end
            except BusError:
                self.away += 1

    async def until(self, content: Callable[["Load"], bool]) -> None:
        async with asyncio.timeout(60):
            while not content(self):
                await asyncio.sleep(0.01)
                if self._counting.done():
                    self._counting.result()

    async def more(self, count: int) -> None:
        """Wait until so many further lines are kept of each stream."""
        wanted = self.next_ + count
        await self.until(lambda load: all(load._kept.get(name, 0) >= wanted for name in STREAMS))

    async def end(self) -> None:
        self._ending = True
        await self._writing
        await self.until(lambda load: all(load._kept.get(name, 0) == load.next_ for name in STREAMS))

    async def stop(self) -> None:
        """End it, whatever was kept; a closed writer says that it is closed to whoever asks on."""
        self._writing.cancel()
        self._counting.cancel()
        await asyncio.gather(self._writing, self._counting, return_exceptions=True)


async def under_load(how: KafkaSettings, fault: Callable[[Load], Awaitable[None]], patience: float = 30.0) -> Load:
    """Let something happen while lines are written and read; all of them must be read once, live and later."""
    async with writer(KafkaSettings(**{**how.__dict__, "patience": patience})) as bus, reader(how) as other:
        following = {name: Following(other, Start(), name) for name in STREAMS}
        for name in STREAMS:
            await waits(other, name)
        load = Load(bus)
        try:
            await load.more(200)
            await fault(load)
            await load.more(200)
            await load.end()
        finally:
            await load.stop()
        every = list(range(load.next_))
        for name in STREAMS:
            assert numbers(await following[name].until(has(every[-1]))) == every
            assert not any(isinstance(one, Missing) for one in await following[name].end())
            assert numbers(await read(other, Start(offset=0), has(every[-1]), name)) == every
            assert numbers(await read(other, Start(tail=150), has(every[-1]), name)) == every[-150:]
        return load


@pytest.mark.long
def test_a_killed_broker_that_comes_back_loses_and_doubles_nothing(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        async def fault(load: Load) -> None:
            broker = cluster.brokers[0]
            await in_thread(broker.kill)
            # It stays away until the driver says so and has no room for more.
            await load.until(lambda load: load.away >= 2 and load.least_room < 20_000)
            await in_thread(broker.start)

        load = await under_load(settings(cluster.address, patience=30.0, memory=200_000), fault, 1.0)
        assert load.least_room >= 0

    with Cluster(tmp_path) as cluster:
        asyncio.run(scenario(cluster))


@pytest.mark.long
def test_who_follows_is_told_when_brokers_are_away_for_longer_than_patience(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        how = settings(cluster.address, patience=1.0)
        async with writer(how) as bus, reader(how) as other:
            following = Following(other, Start())
            await waits(other)
            await in_thread(cluster.brokers[0].kill)
            with pytest.raises(BusError, match="Kafka"):
                await following.until(lambda _: False)
            assert "Kafka" in await fails(anext(other.follow("acme", Start(tail=1))))
            await in_thread(cluster.brokers[0].start)
            await keep(bus, batch(0, 1))
            assert numbers(await read(other, Start(tail=1), has(0))) == [0]

    with Cluster(tmp_path) as cluster:
        asyncio.run(scenario(cluster))


@pytest.mark.long
def test_a_broker_that_hangs_loses_and_doubles_nothing(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        async def fault(load: Load) -> None:
            cluster.brokers[0].pause()
            # Longer than a request waits for its answer, so that what it has not answered is sent again.
            await asyncio.sleep(12)
            cluster.brokers[0].resume()

        await under_load(settings(cluster.address, patience=30.0), fault)

    with Cluster(tmp_path) as cluster:
        asyncio.run(scenario(cluster))


@pytest.mark.long
def test_a_leader_that_changes_loses_and_doubles_nothing(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        how = settings(cluster.address, patience=30.0)

        async def leader(load: Load) -> Broker:
            client = await load._bus._link.client()
            await load._bus._link.refresh()
            node = client.cluster.leader_for_partition(TopicPartition(how.topic, partition_of("acme", 4)))
            return cluster.brokers[int(node) - 1]

        async def fault(load: Load) -> None:
            killed = await leader(load)
            await in_thread(killed.kill)
            await load.more(200)
            other = await leader(load)
            assert other is not killed
            await in_thread(killed.start)
            # In order this time: it hands on what it leads. Three have all again by then, or it could not.
            await load.more(200)
            await in_thread(other.stop)
            await load.more(200)
            await in_thread(other.start)

        await under_load(how, fault)

    with Cluster(tmp_path, 3) as cluster:
        asyncio.run(scenario(cluster))


WRITER = """
import asyncio, contextlib, json, sys
from sandpost.bus.kafka import KafkaSettings
from sandpost.bus.kafka import KafkaWriter
from sandpost.model.errors import BusError
from support.kafka_bed import batch

async def main(servers, topic, *streams):
    bus = KafkaWriter(KafkaSettings(servers=servers, topic=topic, partitions=4), "host")
    await bus.open()
    while True:
        # Of a topic that was made a moment ago not every broker knows its place yet.
        with contextlib.suppress(BusError):
            found = await bus.positions({name: name for name in streams}, {})
            break
    at = {name: found.get(name, 0) for name in streams}
    while True:
        for name in streams:
            one = batch(at[name], 7, stream=name, source=name, pad=40)
            if bus.room(name) >= len(one.lines):
                bus.append([one])
                at[name] += 7
        print(json.dumps(dict(await bus.kept())), flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.long
def test_a_writer_that_is_killed_again_and_again_loses_and_doubles_nothing(kafka: Cluster, tmp_path: Path) -> None:
    script = tmp_path / "writer.py"
    script.write_text(WRITER)
    how = settings(kafka.address)
    kept: dict[str, int] = {}
    for number in range(12):
        process = subprocess.Popen(
            [sys.executable, script, how.servers, how.topic, *STREAMS],
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": f"{ROOT}/tests:{ROOT}/src"},
        )
        assert process.stdout is not None
        try:
            for _ in range(40 + 7 * number):
                kept |= json.loads(process.stdout.readline())
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    async def scenario() -> None:
        async with writer(how) as bus, reader(how) as other:
            found = await bus.positions({name: name for name in STREAMS}, {})
            for name in STREAMS:
                assert found[name] >= kept[name]
                every = list(range(found[name]))
                assert numbers(await read(other, Start(offset=0), has(every[-1]), name)) == every
                assert numbers(await read(other, Start(tail=500), has(every[-1]), name)) == every[-500:]

    asyncio.run(scenario())


@pytest.mark.long
def test_tls_and_sasl_are_spoken_and_what_is_wrong_with_them_is_said(tmp_path: Path) -> None:
    certificate, both = authority(tmp_path)
    (tmp_path / "other").mkdir()
    stranger, _ = authority(tmp_path / "other")

    async def scenario(cluster: Cluster) -> None:
        right = {
            "tls": True,
            "tls_ca": str(certificate),
            "sasl": "SCRAM-SHA-512",
            "user": "sandpost",
            "password": "s3cret-7",
        }
        how = settings(cluster.address, **right)
        assert "s3cret" not in repr(how)
        async with writer(how) as bus, reader(how) as other:
            await keep(bus, batch(0, 10))
            assert numbers(await read(other, Start(offset=0), has(9))) == list(range(10))
        for wrong, word in (
            ({"password": "wrong"}, "uthentication"),
            ({"tls_ca": str(stranger)}, "CERTIFICATE_VERIFY_FAILED"),
            ({"tls": False}, "localhost"),
        ):
            how = settings(cluster.address, **{**right, **wrong, "patience": 1.0})
            async with writer(how) as bus:
                why = await fails(bus.kept())
                assert word in why
                assert "s3cret" not in why
        with pytest.raises(BusError, match=r"certificates for Kafka cannot be read.*nowhere\.pem"):
            async with writer(settings(cluster.address, **{**right, "tls_ca": str(tmp_path / "nowhere.pem")})):
                pass

    with Cluster(tmp_path, secure=Secure(both, "sandpost", "s3cret-7")) as cluster:
        asyncio.run(scenario(cluster))


@pytest.mark.long
def test_brokers_that_make_what_they_are_asked_for_make_nothing_of_ours(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        how = settings(cluster.address, partitions=5, patience=0.5)
        async with reader(how) as other:
            # Before there is a topic, which a broker of these would make with a single partition.
            assert how.topic in await fails(anext(other.follow("acme", Start())))
            async with writer(how) as bus:
                await keep(bus, batch(0, 1))
                client = await bus._link.client()
                for topic in (how.topic, how.index_topic):
                    assert len(client.cluster.partitions_for_topic(topic)) == 5
            assert numbers(await read(other, Start(tail=1), has(0))) == [0]

    with Cluster(tmp_path, properties={"auto.create.topics.enable": "true"}) as cluster:
        asyncio.run(scenario(cluster))
