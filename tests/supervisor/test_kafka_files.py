"""What lets us in at a Kafka reaches the collector and the api, each for itself, and nobody else."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from sandpost.config import Settings, load
from sandpost.config import host as host_file
from sandpost.model.errors import ConfigError
from sandpost.model.host import Host
from sandpost.supervisor import kafka_files


@pytest.fixture
def top() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="sandpost-kafka-"))
    (path / "run").mkdir()
    for name in ("ca", "cert", "key", "password"):
        (path / name).write_text(f"{name}\n")
        (path / name).chmod(0o600)
    yield path
    shutil.rmtree(path)


def made(top: Path, **more: str) -> tuple[Host, Settings]:
    environ = {
        "LOGS_BUS": "kafka", "LOGS_KAFKA_BROKERS": "k:1", "LOGS_KAFKA_TLS": "on", "LOGS_KAFKA_TLS_CA": f"{top}/ca",
        "LOGS_KAFKA_TLS_CERT": f"{top}/cert", "LOGS_KAFKA_TLS_KEY": f"{top}/key", "LOGS_KAFKA_SASL": "PLAIN",
        "LOGS_KAFKA_USER": "me", "LOGS_KAFKA_PASSWORD_FILE": f"{top}/password", **more,
    }  # fmt: skip
    settings = load({f"SANDPOST_{name}": value for name, value in environ.items()})
    host = host_file.make(settings, instance=13, image="", runtime_command="", cgroups=1, cores=2)
    return msgspec.structs.replace(host, run_dir=str(top / "run")), settings


def test_each_part_has_copies_that_it_alone_can_read(top: Path) -> None:
    host, settings = made(top)
    for text in ("password", "another"):
        (top / "password").write_text(f"{text}\n")
        kafka_files.copy(host, settings)
        for part, uid in (("collector", host.users.collector), ("api", host.users.api)):
            folder = Path(host.kafka_dir(part))
            found = {path.name: path.read_text() for path in folder.iterdir()}
            assert found == {"ca.pem": "ca\n", "cert.pem": "cert\n", "key.pem": "key\n", "password": text}
            for path, mode in ((folder, 0o700), *((path, 0o400) for path in folder.iterdir())):
                status = os.stat(path)
                assert (stat.S_IMODE(status.st_mode), status.st_uid) == (mode, uid)


@pytest.mark.parametrize("name", ["ca", "cert", "key", "password"])
def test_a_file_that_is_missing_is_named_and_nothing_is_changed(top: Path, name: str) -> None:
    host, settings = made(top)
    (top / name).unlink()
    with pytest.raises(ConfigError, match=f"{top}/{name}"):
        kafka_files.copy(host, settings)
    assert not Path(host.path("kafka")).exists()


def test_a_password_that_others_may_read_is_refused(top: Path) -> None:
    host, settings = made(top)
    (top / "password").chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        kafka_files.copy(host, settings)


def test_without_a_kafka_nothing_is_copied(top: Path) -> None:
    host, settings = made(top, LOGS_BUS="local")
    kafka_files.copy(host, settings)
    assert not Path(host.path("kafka")).exists()
