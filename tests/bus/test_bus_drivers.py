"""The one driver that is set, and nothing of the other."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sandpost.bus import drivers, kafka_sender
from sandpost.bus.kafka import KafkaReader, KafkaWriter
from sandpost.bus.kafka_link import RefusedError
from sandpost.bus.local import Limits, LocalReader, LocalWriter
from sandpost.model.host import Host, Kafka
from support.bus import batch, keep
from support.installation import host_in


def with_kafka(folder: Path, **changes: Any) -> Host:
    kafka = Kafka(
        brokers=["localhost:1", "[::1]:2"], ports=[1, 2], topic="t", create=False, partitions=3, replicas=2,
        compression="zstd", tls=False, tls_ca=False, tls_cert=False, sasl="", user="",
    )  # fmt: skip
    return host_in(str(folder), kafka=msgspec.structs.replace(kafka, **changes), keep_for=3600)


def test_the_local_driver_keeps_as_much_as_is_set(tmp_path: Path) -> None:
    host = host_in(str(tmp_path), keep=1 << 21, keep_all=1 << 25, keep_for=60)
    assert isinstance(drivers.reader(host), LocalReader)
    assert isinstance(drivers.writer(host), LocalWriter)
    assert drivers.limits(host) == Limits(stream_bytes=1 << 21, total_bytes=1 << 25, seconds=60)


def test_the_driver_of_kafka_is_told_what_is_set_and_each_part_its_own_password(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = with_kafka(tmp_path, tls=True, tls_ca=True, tls_cert=True, sasl="PLAIN", user="me")
        for part in ("collector", "api"):
            os.makedirs(host.kafka_dir(part))
            Path(host.kafka_dir(part), "password").write_text(f"of {part}")
        writer, reader = drivers.writer(host), drivers.reader(host)
        assert isinstance(writer, KafkaWriter)
        assert isinstance(reader, KafkaReader)
        for settings, part in ((writer._settings, "collector"), (reader._settings, "api")):
            folder = host.kafka_dir(part)
            assert (settings.servers, settings.topic, settings.create) == ("localhost:1,[::1]:2", "t", False)
            assert (settings.partitions, settings.replicas, settings.compression) == (3, 2, "zstd")
            assert settings.retention_ms == 3_600_000
            files = (settings.tls_ca, settings.tls_cert, settings.tls_key)
            assert files == (f"{folder}/ca.pem", f"{folder}/cert.pem", f"{folder}/key.pem")
            assert (settings.tls, settings.sasl, settings.user) == (True, "PLAIN", "me")
            assert settings.password == f"of {part}"
            assert settings.password not in repr(settings)
        await writer.close()
        await reader.close()

    asyncio.run(scenario())


def test_nothing_of_kafka_is_imported_where_the_local_driver_is_used(tmp_path: Path) -> None:
    program = """
import sys
import msgspec
import sandpost.api.main, sandpost.collector.main
from sandpost.bus import drivers
from sandpost.model.host import Host
host = msgspec.json.decode(sys.argv[1], type=Host)
drivers.load(host)
drivers.writer(host), drivers.reader(host)
print("aiokafka" in sys.modules)
"""

    def imported(host: Host) -> str:
        return subprocess.run(
            [sys.executable, "-c", program, msgspec.json.encode(host)], check=True, capture_output=True, text=True
        ).stdout.strip()

    assert imported(host_in(str(tmp_path))) == "False"
    assert imported(with_kafka(tmp_path)) == "True"


def held(host: Host) -> int:
    return sum(path.stat().st_size for path in Path(host.logs_dir, "acme").iterdir())


def test_less_retention_holds_for_what_is_kept_already_once_it_is_taken_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = host_in(str(tmp_path))
        writer = drivers.writer(host)
        await writer.open()
        for number in range(16):
            await keep(writer, batch("acme", range(400 * number, 400 * (number + 1)), size=1000))
        assert held(host) > 6_000_000
        drivers.take_up(writer, msgspec.structs.replace(host, keep=1 << 20))
        async with asyncio.timeout(20):
            while held(host) > 5 << 20:  # noqa: ASYNC110  (another thread's work)
                await asyncio.sleep(0.05)
        await writer.close()

    asyncio.run(scenario())


def test_a_writer_that_was_refused_can_be_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the collector does, who would else find it closed for ever once the topics are there."""

    async def scenario() -> None:
        writer = drivers.writer(with_kafka(tmp_path))
        assert isinstance(writer, KafkaWriter)
        refused = True

        async def begin(self: kafka_sender.Sender) -> None:
            if refused:
                raise RefusedError("there is no topic")
            self._producer = 1
            self.why = None
            self.ready.set()
            self._on_change()

        monkeypatch.setattr(kafka_sender.Sender, "_begin", begin)
        for _ in range(2):
            with pytest.raises(RefusedError):
                await writer.open()
        refused = False
        await writer.open()
        assert writer.problem == ""
        assert writer.room("acme") > 0
        await writer.close()

    asyncio.run(scenario())
