"""The `kafka` driver: the contract, on a real broker."""

import uuid

import pytest

from bus.contract_suite import *  # noqa: F403  (all of the contract's tests run here)
from sandpost.bus.contract import Reader, Writer
from sandpost.bus.kafka import KafkaReader, KafkaSettings, KafkaWriter
from support.kafka import Cluster
from support.kafka_bed import settings


class Kafka:
    """The driver for the contract's suite."""

    def __init__(self, how: KafkaSettings) -> None:
        self._how = how

    def writer(self) -> Writer:
        return KafkaWriter(self._how, "host")

    def reader(self) -> Reader:
        return KafkaReader(self._how, "api")

    def stream(self) -> str:
        return f"s-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def bus(kafka: Cluster) -> Kafka:
    return Kafka(settings(kafka.address))
