"""A Kafka that lets a user do only what its lists of rights say: what docs/logs.md lists is enough, and what lacks is named."""

import asyncio
import re
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.protocol.admin import CreateAclsRequest

from sandpost.bus.contract import Start
from sandpost.bus.kafka import KafkaSettings
from sandpost.model.errors import BusError
from support.kafka import Cluster, Secure, authority
from support.kafka_bed import batch, keep, numbers, reader, settings, writer
from support.kafka_bed import read as read_stream

OPERATIONS = {"Read": 3, "Write": 4, "Create": 5, "Describe": 8}
"""Numbers of Kafka's protocol, as the next ones."""
TOPIC, LITERAL, ALLOW = 2, 3, 3
USER, PASSWORD = "sandpost", "s3cret-7"
DOCUMENTED = re.findall(r"--operation (\w+)", (Path(__file__).parents[2] / "docs" / "logs.md").read_text())


class Guarded:
    """A Kafka with rights, and the user that has none to begin with."""

    def __init__(self, cluster: Cluster, certificate: Path) -> None:
        self._cluster = cluster
        self._certificate = certificate

    def settings(self, **more: Any) -> KafkaSettings:
        """Return settings with a topic of the test's own."""
        return settings(
            self._cluster.address, tls=True, tls_ca=str(self._certificate), sasl="SCRAM-SHA-512", user=USER,
            password=PASSWORD, **more,
        )  # fmt: skip

    async def make(self, how: KafkaSettings) -> None:
        """Make the topics as an administrator does."""
        client = await self._admin()
        try:
            topics = [NewTopic(name, how.partitions, 1) for name in (how.topic, how.index_topic)]
            answer = await client.create_topics(topics)
            assert all(code == 0 for _, code, *_ in answer.topic_errors), answer
        finally:
            await client.close()

    async def allow(self, topic: str, *operations: str) -> None:
        """Give the user rights on a topic."""
        client = await self._admin()
        try:
            for operation in operations:
                number = OPERATIONS[operation]
                request = CreateAclsRequest(TOPIC, topic, LITERAL, f"User:{USER}", "*", number, ALLOW)
                answer = await client._send_request(request)
                assert "error_code=0" in str(answer), answer
        finally:
            await client.close()

    async def _admin(self) -> AIOKafkaAdminClient:
        client = AIOKafkaAdminClient(bootstrap_servers=self._cluster.inside)
        await client.start()
        return client


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    certificate, both = authority(folder)
    rights = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        # Of the brokers' own listeners.
        "super.users": "User:ANONYMOUS",
    }
    with Cluster(folder, secure=Secure(both, USER, PASSWORD), properties=rights) as cluster:
        yield Guarded(cluster, certificate)


def run(body: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await body

    asyncio.run(bounded())


async def refusal(how: KafkaSettings) -> str:
    """Return why a writer does not open, or keeps nothing: who may write elsewhere may open."""

    async def tried() -> None:
        async with writer(how) as bus:
            bus.append([batch(0, 1)])
            await bus.kept()

    with pytest.raises(BusError) as caught:
        await tried()
    assert PASSWORD not in caught.value.message
    return caught.value.message


def test_what_the_page_lists_is_enough_to_make_write_and_read(guarded: Guarded) -> None:
    async def body() -> None:
        assert set(DOCUMENTED) == set(OPERATIONS)
        how = guarded.settings()
        for topic in (how.topic, how.index_topic):
            await guarded.allow(topic, *DOCUMENTED)
        async with writer(how) as bus, reader(how) as other:
            await keep(bus, *(batch(number, 1) for number in range(5)))
            found = await read_stream(other, Start(tail=3), lambda found: len(found) == 3)
            assert numbers(found) == [2, 3, 4]
        async with writer(how, "after a restart") as bus:
            assert await bus.positions({"s1": "acme"}, {}) == {"s1": 5}

    run(body())


def test_topics_that_are_there_need_no_right_to_make_them(guarded: Guarded) -> None:
    async def body() -> None:
        how = guarded.settings()
        await guarded.make(how)
        for topic in (how.topic, how.index_topic):
            await guarded.allow(topic, *(set(DOCUMENTED) - {"Create"}))
        async with writer(how) as bus, reader(how) as other:
            await keep(bus, batch(0, 5))
            found = await read_stream(other, Start(offset=0), lambda found: len(found) == 5)
            assert numbers(found) == [0, 1, 2, 3, 4]

    run(body())


def test_without_a_right_topics_are_neither_seen_nor_made_and_it_says_what_it_takes(guarded: Guarded) -> None:
    async def body() -> None:
        how = guarded.settings()
        why = await refusal(how)
        assert f"no topic {how.topic} and lets it make none" in why
        assert "Describe, Read and Write, and Create" in why
        assert how.index_topic in why
        # Whether they are there makes no difference to who may not see them.
        await guarded.make(how)
        assert await refusal(how) == why
        assert "needs the rights Describe, Read and Write" in await refusal(guarded.settings(create=False))

    run(body())


@pytest.mark.long
def test_the_right_that_lacks_is_named_and_all_goes_on_once_it_is_given(guarded: Guarded) -> None:
    async def body() -> None:
        how = guarded.settings(patience=1.0)
        await guarded.make(how)
        for topic in (how.topic, how.index_topic):
            await guarded.allow(topic, "Describe")
        assert f"topic {how.topic} may not be used by this user: it needs the right Write" in await refusal(how)
        await guarded.allow(how.topic, "Write")
        async with writer(how) as bus, reader(how) as other:
            bus.append([batch(0, 5)])
            with pytest.raises(BusError, match=f"topic {how.index_topic} may not .* needs the right Write"):
                await bus.kept()
            await guarded.allow(how.index_topic, "Write")
            async with asyncio.timeout(20):
                kept: dict[str, int] = {}
                while kept != {"s1": 5}:
                    try:
                        kept |= await bus.kept()
                    except BusError:
                        continue
            assert bus.problem == ""
            with pytest.raises(BusError, match=f"topic {how.topic}(.index)? may not .* needs the right Read"):
                await anext(other.follow("acme", Start(offset=0)))
            for topic in (how.topic, how.index_topic):
                await guarded.allow(topic, "Read")
            found = await read_stream(other, Start(offset=0), lambda found: len(found) == 5)
            assert numbers(found) == [0, 1, 2, 3, 4]

    run(body())
