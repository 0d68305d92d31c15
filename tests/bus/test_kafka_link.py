"""A line to brokers that connect and then say nothing."""

import asyncio
from typing import Any

import pytest

from sandpost.bus import kafka_link
from sandpost.bus.kafka import KafkaSettings
from sandpost.bus.kafka_link import AwayError, Link
from support.platform import free_port


class Mute:
    """aiokafka's client, of a broker that answers once."""

    closed = 0

    def __init__(self, **_settings: Any) -> None:
        pass

    async def bootstrap(self) -> None:
        return

    async def force_metadata_update(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        Mute.closed += 1


def test_a_broker_that_falls_silent_at_the_beginning_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_link, "AIOKafkaClient", Mute)
    monkeypatch.setattr(kafka_link, "REQUEST_MS", 50)

    async def body() -> None:
        link = Link(KafkaSettings(servers=f"127.0.0.1:{free_port()}"), "test")
        async with asyncio.timeout(5):
            with pytest.raises(AwayError, match="does not answer"):
                await link.client()

    asyncio.run(body())
    assert Mute.closed == 1
