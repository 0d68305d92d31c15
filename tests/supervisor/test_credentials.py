"""What lets us in where logs go reaches the parts that need it, each for itself, and nobody else."""

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
from sandpost.supervisor import credentials


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
        credentials.judged(host, settings)()
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
        credentials.judged(host, settings)()
    assert not Path(host.path("kafka")).exists()


def test_a_password_that_others_may_read_is_refused(top: Path) -> None:
    host, settings = made(top)
    (top / "password").chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        credentials.judged(host, settings)()


def test_without_a_kafka_nothing_is_copied(top: Path) -> None:
    host, settings = made(top, LOGS_BUS="local")
    credentials.judged(host, settings)()
    assert not Path(host.path("kafka")).exists()


def test_what_a_receiver_of_otlp_wants_is_the_collectors_alone(top: Path) -> None:
    (top / "headers").write_text("x-api-key: abc\n")
    (top / "headers").chmod(0o600)
    wanted = {
        "LOGS_OTLP_ENDPOINT": "https://127.0.0.1:4318/v1/logs", "LOGS_OTLP_CA": f"{top}/ca",
        "LOGS_OTLP_HEADERS_FILE": f"{top}/headers",
    }  # fmt: skip
    host, settings = made(top, LOGS_BUS="local", **wanted)
    credentials.judged(host, settings)()
    folder = Path(host.otlp_dir)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"ca.pem": "ca\n", "headers": "x-api-key: abc"}
    for path, mode in ((folder, 0o700), *((path, 0o400) for path in folder.iterdir())):
        status = os.stat(path)
        assert (stat.S_IMODE(status.st_mode), status.st_uid) == (mode, host.users.collector)
    (top / "headers").write_text("s3cret\n")
    with pytest.raises(ConfigError, match="line 1 of") as error:
        credentials.judged(host, settings)()
    assert "s3cret" not in error.value.message
    assert (folder / "headers").read_text() == "x-api-key: abc"
