"""A line to the brokers: requests by partition, whoever leads it now. All of Kafka's protocol that the driver speaks
stands here and in `kafka_sender`.

aiokafka's client keeps connections, metadata and SASL; its producer and consumer are not used. The producer cannot be
given up on without waiting for brokers that are away, and loses its place after a refusal; a consumer reads for one
place in a partition, where a thousand readers want to share.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import BrokerResponseError, KafkaError, for_code
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.structs import TopicPartition

from sandpost.bus.kafka_settings import KafkaSettings
from sandpost.model.errors import BusError

# What it has to say of brokers that are away it says ten times a second; we say it in our own words, once.
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)

REQUEST_MS = 10_000
LONG_POLL_MS = 5_000
EARLIEST, LATEST = -2, -1
DAY_MS = 86_400_000
STALE_AFTER = 30.0
"""Seconds of asking without any answer after which the brokers' addresses are asked for anew, from `servers`."""

_UNREACHED = (KafkaError, OSError, TimeoutError, UnicodeError)
"""What aiokafka says of somebody who is not reached, is silent or is no Kafka; the last is of names that are none."""

OFFSET_OUT_OF_RANGE = 1
TOPIC_EXISTS = 36
INVALID_CONFIG = 40
TOPIC_DENIED = 29
CLUSTER_DENIED = 31
RIGHTS = "Describe, Read and Write"
"""What a user needs on both topics."""
DENIED = frozenset({TOPIC_DENIED, CLUSTER_DENIED, 53})
"""What Kafka says to somebody who may not; 53 is of transactional ids, which idempotent writers of old brokers need."""


class AwayError(BusError):
    """No answer, or one that says to ask again later."""


class RefusedError(BusError):
    """An answer that will be the same next time: no permission, a topic that is missing or too small."""


class OutOfRange(Exception):  # noqa: N818  # no error: a place that is not there
    """A place in a partition that is before its first record, or behind its end."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What lies from a place on. `first`: the partition's first record that is kept; `end`: behind its last one;
    `data`: what came."""

    first: int
    end: int
    data: bytes


class Link:
    """Connects when it is first used, and again whenever it must. Any number of tasks may use it."""

    def __init__(self, settings: KafkaSettings, name: str) -> None:
        self.settings = settings
        self._name = name
        self._client: AIOKafkaClient | None = None
        self._connecting = asyncio.Lock()
        self._silent_since: float | None = None
        self._closed = False

    async def client(self) -> AIOKafkaClient:
        """Return the client, connected. Raises `AwayError` or `RefusedError`."""
        if self._client is not None and not self._stale():
            return self._client
        async with self._connecting:
            if self._closed:
                raise AwayError("the line to Kafka is closed")
            if self._client is not None:
                if not self._stale():
                    return self._client
                old, self._client = self._client, None
                await old.close()
            client = AIOKafkaClient(**self._arguments())
            try:
                await client.bootstrap()
                # Of all topics: asked for by name, ours would be made by brokers that make what they are asked for,
                # with as many partitions as they like.
                async with asyncio.timeout(REQUEST_MS / 1000):
                    await client.force_metadata_update()
            except _UNREACHED as error:
                await client.close()
                raise AwayError(f"Kafka does not answer: {await self._reason(error)}") from error
            except BaseException:
                await client.close()
                raise
            self._client = client
            self._silent_since = None
            return client

    def _stale(self) -> bool:
        return self._silent_since is not None and time.monotonic() - self._silent_since >= STALE_AFTER

    def _silent(self) -> None:
        if self._silent_since is None:
            self._silent_since = time.monotonic()

    def _arguments(self) -> dict[str, Any]:
        settings = self.settings
        try:
            security = settings.security()
        except OSError as error:
            files = " or ".join(filter(None, (settings.tls_ca, settings.tls_cert, settings.tls_key)))
            raise RefusedError(f"the certificates for Kafka cannot be read, of {files}: {error}") from error
        return {
            "bootstrap_servers": settings.servers,
            "client_id": self._name,
            "request_timeout_ms": REQUEST_MS,
            "metadata_max_age_ms": 60_000,
            "retry_backoff_ms": 100,
            **security,
        }

    async def _reason(self, error: BaseException) -> str:
        """Return why no server of the list can be talked to: aiokafka's own error does not say."""
        arguments = self._arguments()
        for name in ("bootstrap_servers", "metadata_max_age_ms", "retry_backoff_ms"):
            del arguments[name]
        arguments["request_timeout_ms"] = 2_000
        for host, port, _ in collect_hosts(self.settings.servers):
            try:
                connection = await create_conn(host, port, **arguments)
            except _UNREACHED as why:
                return f"{host}:{port}: {why!r}"
            connection.close()
        return repr(error)

    def unheard(self) -> AwayError:
        """Return the error for who waited for his whole patience, while nothing is known yet."""
        return AwayError(f"Kafka does not answer: nobody has, of {', '.join(self.settings.servers.split(','))}")

    async def close(self) -> None:
        """Let go. What waits for an answer gets `AwayError`."""
        self._closed = True
        await self.drop()

    async def drop(self) -> None:
        """Close all connections; who asks next makes new ones, and sees what topics there are then."""
        async with self._connecting:
            client, self._client = self._client, None
            if client is not None:
                await client.close()

    async def leader(self, topic: str, partition: int) -> int:
        """Return the number of the broker that leads a partition. Raises `AwayError`, `RefusedError`."""
        client = await self.client()
        leader = client.cluster.leader_for_partition(TopicPartition(topic, partition))
        if leader is None or leader == -1:
            await self.refresh()
            leader = client.cluster.leader_for_partition(TopicPartition(topic, partition))
        if leader is None or leader == -1:
            raise AwayError(f"Kafka has no topic {topic} for this user, or no broker leads its partition {partition}")
        return int(leader)

    def known_leader(self, topic: str, partition: int) -> int | None:
        """Return who led a partition when that was last asked."""
        if self._client is None:
            return None
        leader = self._client.cluster.leader_for_partition(TopicPartition(topic, partition))
        return None if leader is None or leader == -1 else int(leader)

    async def refresh(self) -> None:
        """Ask who leads what. Raises `AwayError`."""
        client = await self.client()
        try:
            async with asyncio.timeout(REQUEST_MS / 1000):
                updated = await client.force_metadata_update()
        except _UNREACHED as error:
            self._silent()
            raise AwayError(f"Kafka does not answer: {error!r}") from error
        if not updated:
            self._silent()
            raise AwayError(f"Kafka does not answer: no broker of it does, of those at {self.settings.servers} neither")
        self._silent_since = None

    async def send(self, node: int, request: Any, group: object = 0) -> Any:
        """Return a broker's answer. `group`: requests of one use a connection, and wait for one another there. Raises
        `AwayError`."""
        client = await self.client()
        try:
            answer = await client.send(node, request, group=group)
        except _UNREACHED as error:
            self._silent()
            raise AwayError(f"broker {node} of Kafka does not answer: {error!r}") from error
        self._silent_since = None
        return answer

    async def fetch(
        self, topic: str, partition: int, at: int, *, wait_ms: int = 0, size: int = 1 << 20, group: object = 0
    ) -> Fetched:
        """Return what lies from `at` on, at least one whole append if there is one; waits so long for it. Raises
        `AwayError`, `RefusedError`, `OutOfRange`."""
        node = await self.leader(topic, partition)
        request = FetchRequest(wait_ms, 1, size, 0, [(topic, [(partition, at, size)])])
        answer = await self.send(node, request, group)
        for _, partitions in answer.topics:
            for _, code, end, _stable, first, *_, data in partitions:
                if code == OFFSET_OUT_OF_RANGE:
                    raise OutOfRange
                if code:
                    await self.failed(code, topic, "Read")
                return Fetched(first, end, data)
        raise AwayError("Kafka's answer lacks what was asked for")

    async def bound(self, topic: str, partition: int, which: int) -> int | None:
        """Return the offset of a partition's first record (`EARLIEST`), behind its last (`LATEST`), or of its first
        record of a time in milliseconds or later (none: None). Raises `AwayError`, `RefusedError`."""
        node = await self.leader(topic, partition)
        answer = await self.send(node, OffsetRequest(-1, 0, [(topic, [(partition, which)])]))
        for _, partitions in answer.topics:
            for _, code, *_, offset in partitions:
                if code:
                    await self.failed(code, topic, "Describe")
                return None if offset == -1 else int(offset)
        raise AwayError("Kafka's answer lacks what was asked for")

    async def failed(self, code: int, topic: str, right: str) -> NoReturn:
        """Raise what an error of a broker means; `right`: what was needed on the topic."""
        error: type[BrokerResponseError] = for_code(code)
        if getattr(error, "invalid_metadata", False):
            with contextlib.suppress(AwayError):
                await self.refresh()
        raise failure(code, topic, right)

    async def make_topics(self) -> None:
        """See that both topics are there and large enough; make them if that is allowed. Raises `AwayError`,
        `RefusedError`."""
        settings = self.settings
        client = await self.client()
        have = {name: client.cluster.partitions_for_topic(name) for name in (settings.topic, settings.index_topic)}
        missing = [name for name, partitions in have.items() if not partitions]
        for name, partitions in have.items():
            if partitions and len(partitions) < settings.partitions:
                raise RefusedError(
                    f"Kafka's topic {name} has {len(partitions)} partitions and {settings.partitions} are configured: "
                    f"configure {len(partitions)} before anything is written there"
                )
        if missing and not settings.create:
            raise RefusedError(
                f"Kafka has no topic {' and no topic '.join(missing)}, and none may be made; if there are such topics, "
                f"this user needs the rights {RIGHTS} on them"
            )
        if missing:
            await self._create(client, missing)
            await self.refresh()

    async def _create(self, client: AIOKafkaClient, missing: Sequence[str]) -> None:
        settings = self.settings
        replicas = settings.replicas or min(3, len(client.cluster.brokers()))
        common = {"min.insync.replicas": "2" if replicas >= 3 else "1", "message.timestamp.type": "CreateTime"}
        # The index goes a day later than what it points to.
        index_ms = -1 if settings.retention_ms < 0 else settings.retention_ms + DAY_MS
        configs = {
            settings.topic: {
                "retention.ms": str(settings.retention_ms),
                "retention.bytes": str(settings.retention_bytes),
            },
            settings.index_topic: {"retention.ms": str(index_ms)},
        }
        admin = AIOKafkaAdminClient(**self._arguments())
        try:
            await admin.start()
            # Brokers from 3.6 on do not take what a host writes whose clock is an hour ahead of theirs, unless they are
            # told to; older ones take it, and do not know the setting.
            for more in ({"message.timestamp.after.max.ms": str((1 << 63) - 1)}, {}):
                topics = [
                    NewTopic(name, settings.partitions, replicas, topic_configs=common | configs[name] | more)
                    for name in missing
                ]
                answer = await admin.create_topics(topics)
                if all(code != INVALID_CONFIG for _, code, *_ in answer.topic_errors):
                    break
        except _UNREACHED as error:
            raise AwayError(f"Kafka's topics cannot be made now: {error!r}") from error
        finally:
            await admin.close()
        # Brokers answer in any order.
        for name, code, *message in sorted(answer.topic_errors):
            if code in DENIED:
                raise RefusedError(
                    f"Kafka shows this user no topic {name} and lets it make none: it needs the rights {RIGHTS}, and "
                    f"Create where there is no such topic, on {settings.topic} and {settings.index_topic}"
                )
            if code and code != TOPIC_EXISTS:
                raise AwayError(
                    f"Kafka's topic {name} cannot be made: {message[0] if message else for_code(code).__name__}"
                )


def failure(code: int, topic: str, right: str) -> BusError:
    """Return what an error code of a broker means to us; `right`: what was needed on the topic."""
    error: type[BrokerResponseError] = for_code(code)
    if code in DENIED:
        return RefusedError(
            f"Kafka's topic {topic} may not be used by this user: it needs the right {right} there, and for all that "
            f"is done {RIGHTS}"
        )
    return AwayError(f"Kafka says of its topic {topic}: {error.__name__}")
