"""What lets us in at a Kafka: files of the operator's, copied for the collector and the api, each for itself alone."""

import os

from sandpost.config import Settings
from sandpost.config.sources import read_secret
from sandpost.kernel import files
from sandpost.model.errors import ConfigError
from sandpost.model.host import KAFKA_FILES, Host
from sandpost.model.messages import Part
from sandpost.supervisor import layout, spawn

PARTS: tuple[Part, ...] = ("collector", "api")
"""Who connects to the brokers."""
_SETTINGS = dict(zip(KAFKA_FILES, ("tls_ca", "tls_cert", "tls_key", "password_file"), strict=True))
_MOST = 1 << 20


def copy(host: Host, settings: Settings) -> None:
    """Copy what `settings` name, which root alone may read, to `Host.kafka_dir` of each of `PARTS`.

    Does nothing for an installation whose log bus is no Kafka. Raises `ConfigError` with what to do, and changes
    nothing, if a file cannot be read.
    """
    if host.kafka is None:
        return
    texts = {
        name: _read(setting, path) for name, setting in _SETTINGS.items() if (path := settings[f"logs.kafka.{setting}"])
    }
    if not texts:
        return
    layout.folder(host.path("kafka"), 0o711, 0, 0)
    for part in PARTS:
        owner = spawn.user_of(part, host)
        layout.folder(host.kafka_dir(part), 0o700, *owner)
        for name, text in texts.items():
            files.replace(os.path.join(host.kafka_dir(part), name), text, 0o400, owner)


def _read(setting: str, path: str) -> bytes:
    if setting == "password_file":
        return read_secret(path).encode()
    try:
        with open(path, "rb") as file:
            return file.read(_MOST)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}: check logs.kafka.{setting}") from None
