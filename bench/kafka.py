"""A real Kafka for the time of a measurement, and the plainest programs that use one: the references."""

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

# The broker is the tests' own.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from support.kafka import Cluster, libraries

_TOPIC = "bare"
_PARTITION = TopicPartition(_TOPIC, 0)


@contextlib.contextmanager
def cluster() -> Iterator[str]:
    """Start a broker with a folder of its own; yield its address. `RuntimeError` if there is no Kafka to be had."""
    try:
        libraries()
    except pytest.fail.Exception as error:
        raise RuntimeError(str(error)) from None
    with tempfile.TemporaryDirectory(prefix="sandpost-bench-") as folder, Cluster(Path(folder)) as made:
        yield made.address


@contextlib.asynccontextmanager
async def bare(address: str) -> AsyncIterator["Bare"]:
    """Yield a producer and a consumer of a topic that is made for them, with one partition."""
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        if _TOPIC not in await admin.list_topics():
            await admin.create_topics([NewTopic(_TOPIC, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()
    async with (
        AIOKafkaProducer(bootstrap_servers=address, acks="all") as producer,
        AIOKafkaConsumer(bootstrap_servers=address) as consumer,
    ):
        consumer.assign([_PARTITION])
        await consumer.seek_to_end(_PARTITION)
        yield Bare(producer, consumer)


class Bare:
    """What `bare` yields; messages are lines."""

    def __init__(self, producer: AIOKafkaProducer, consumer: AIOKafkaConsumer) -> None:
        self._producer = producer
        self._consumer = consumer

    async def say(self, line: bytes) -> None:
        """Produce a line; it is on its way."""
        await self._producer.send(_TOPIC, line, partition=0)

    async def flush(self) -> None:
        """Wait until all is kept."""
        await self._producer.flush()

    async def next(self) -> bytes:
        """Return the next line."""
        async with asyncio.timeout(60):
            return bytes((await self._consumer.getone()).value)

    def go_to(self, offset: int) -> None:
        """Read on from this offset."""
        self._consumer.seek(_PARTITION, offset)
