"""What lets us in where logs go: files of the operator's, copied for who needs them, each for itself alone."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from sandpost.config import Settings
from sandpost.config.sources import read_secret
from sandpost.kernel import files
from sandpost.model.errors import ConfigError
from sandpost.model.host import KAFKA_FILES, OTLP_FILES, Host
from sandpost.model.messages import Part
from sandpost.model.otlp import headers
from sandpost.supervisor import spawn

PARTS: tuple[Part, ...] = ("collector", "api")
"""Who connects to the brokers."""
_SECRET = frozenset({"logs.kafka.password_file", "logs.otlp.headers_file"})
_MOST = 1 << 20


@dataclass(frozen=True, slots=True)
class _Place:
    """A part's folder, and which setting names each file in it."""

    part: Part
    folder: str
    settings: Mapping[str, str]


def judged(host: Host, settings: Settings) -> Callable[[], None]:
    """Read what `settings` name, which root alone may; return what copies it to `Host.kafka_dir` and `Host.otlp_dir`.

    That is nothing for an installation whose logs stay on the machine. Raises `ConfigError` with what to do if a file
    cannot be read.
    """
    texts = [
        (place, {name: _read(key, path) for name, key in place.settings.items() if (path := settings[key])})
        for place in _places(host)
    ]

    def copy() -> None:
        for place, found in texts:
            if not found:
                continue
            owner = spawn.user_of(place.part, host)
            above = os.path.dirname(place.folder)
            if above != host.run_dir:
                files.folder(above, 0o711, 0, 0)
            files.folder(place.folder, 0o700, *owner)
            for name, text in found.items():
                files.replace(os.path.join(place.folder, name), text, 0o400, owner)

    return copy


def _places(host: Host) -> Iterator[_Place]:
    if host.kafka is not None:
        names = ("tls_ca", "tls_cert", "tls_key", "password_file")
        settings = {file: f"logs.kafka.{name}" for file, name in zip(KAFKA_FILES, names, strict=True)}
        for part in PARTS:
            yield _Place(part, host.kafka_dir(part), settings)
    if host.otlp is not None:
        settings = {file: f"logs.otlp.{name}" for file, name in zip(OTLP_FILES, ("ca", "headers_file"), strict=True)}
        yield _Place("collector", host.otlp_dir, settings)


def _read(setting: str, path: str) -> bytes:
    if setting in _SECRET:
        text = read_secret(path)
        if setting == "logs.otlp.headers_file":
            headers(text)
        return text.encode()
    try:
        with open(path, "rb") as file:
            return file.read(_MOST)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}: check {setting}") from None
