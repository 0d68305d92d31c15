"""The driver of the bus that an installation is set to. Of the other one nothing is imported."""

import os
import socket
from typing import TYPE_CHECKING

from sandpost.bus.contract import Reader, Writer
from sandpost.bus.local import Limits, LocalReader, LocalWriter
from sandpost.model.host import Host, Kafka
from sandpost.model.messages import Part

if TYPE_CHECKING:
    from sandpost.bus.kafka import KafkaSettings


def load(host: Host) -> None:
    """Import what `writer` and `reader` make, so that a part can do so before it gives up what it does not need."""
    if host.kafka is not None:
        import sandpost.bus.kafka  # noqa: F401, PLC0415


def writer(host: Host) -> Writer:
    """Return the collector's writer, not opened. `OSError` if the supervisor left no password for it."""
    if host.kafka is None:
        return LocalWriter(host.logs_dir, limits=limits(host))
    from sandpost.bus.kafka import KafkaWriter  # noqa: PLC0415

    return KafkaWriter(_settings("collector", host, host.kafka), _name(host))


def reader(host: Host) -> Reader:
    """Return the api's reader. `OSError` if the supervisor left no password for it."""
    if host.kafka is None:
        return LocalReader(host.logs_dir)
    from sandpost.bus.kafka import KafkaReader  # noqa: PLC0415

    return KafkaReader(_settings("api", host, host.kafka), _name(host))


def take_up(bus: Writer, host: Host) -> None:
    """Let a writer know what a running installation took up. Topics of a Kafka stay as they were made."""
    if isinstance(bus, LocalWriter):
        bus.set_limits(limits(host))


def limits(host: Host) -> Limits:
    """Return how much the local driver keeps."""
    return Limits(stream_bytes=host.keep, total_bytes=host.keep_all, seconds=host.keep_for)


def _settings(part: Part, host: Host, kafka: Kafka) -> "KafkaSettings":
    from sandpost.bus.kafka import KafkaSettings  # noqa: PLC0415

    folder = host.kafka_dir(part)
    password = ""
    if kafka.sasl:
        with open(os.path.join(folder, "password"), encoding="utf-8") as file:
            password = file.read()
    return KafkaSettings(
        servers=",".join(kafka.brokers),
        topic=kafka.topic,
        create=kafka.create,
        partitions=kafka.partitions,
        replicas=kafka.replicas,
        retention_ms=int(host.keep_for * 1000),
        compression=kafka.compression,
        tls=kafka.tls,
        tls_ca=os.path.join(folder, "ca.pem") if kafka.tls_ca else "",
        tls_cert=os.path.join(folder, "cert.pem") if kafka.tls_cert else "",
        tls_key=os.path.join(folder, "key.pem") if kafka.tls_cert else "",
        sasl=kafka.sasl,
        user=kafka.user,
        password=password,
    )


def _name(host: Host) -> str:
    return f"{socket.gethostname()}-{host.tag}"
