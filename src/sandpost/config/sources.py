"""Reads the sources: the TOML file, the environment, flags, and files that hold secrets."""

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sandpost.config.given import Given, from_environment, from_flags, from_table
from sandpost.config.resolve import Settings, parse, resolve
from sandpost.model.errors import ConfigError

DEFAULT_FILE = "/etc/sandpost.toml"
_MAX_FILE = 1 << 20
_MAX_SECRET = 4096


def load(
    environ: Mapping[str, str], flags: Sequence[str] = (), config: str | None = None, *, secrets: bool = True
) -> Settings:
    """Return this machine's settings: the file, then the environment, then flags.

    `config` is the TOML file (else SANDPOST_CONFIG, else /etc/sandpost.toml if it is there). A setting `x_file`
    of a secret is read into `x`; without `secrets` that file is not opened, and `x` is empty. Raises `ConfigError`.
    """
    path = config or environ.get("SANDPOST_CONFIG") or ""
    settings = resolve(_read_table(path), from_environment(environ), from_flags(flags))
    if not (secret_file := settings["admin_key_file"]):
        return settings
    origin = f"file {secret_file}"
    secret = parse(Given("admin_key", read_secret(secret_file), origin)) if secrets else ""
    return replace(
        settings,
        values={**settings.values, "admin_key": secret},
        origins={**settings.origins, "admin_key": origin},
    )


def read_secret(path: str) -> str:
    """Return the secret in the file at `path`, which nobody but its owner may read; else `ConfigError`."""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(mode) and mode & 0o077:
                raise ConfigError(f"{path} holds a secret and others may read it: `chmod 600 {path}`")
            text = file.read(_MAX_SECRET + 1)
    except OSError as error:
        raise ConfigError(
            f"cannot read the secret in {path}: {error.strerror}: name a file of mode 0600 that holds it alone"
        ) from None
    secret = text.decode("utf-8", "replace").strip()
    if not secret or len(text) > _MAX_SECRET:
        raise ConfigError(f"{path} holds no secret: write it on one line, at most {_MAX_SECRET} bytes")
    return secret


def _read_table(path: str) -> list[Given]:
    try:
        with open(path or DEFAULT_FILE, "rb") as file:
            text = file.read(_MAX_FILE + 1)
    except FileNotFoundError:
        if not path:
            return []
        raise ConfigError(
            f"there is no settings file {path}: make it, or name none: {DEFAULT_FILE} is read if it is there"
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot read {path or DEFAULT_FILE}: {error.strerror}") from None
    path = path or DEFAULT_FILE
    # Imported where there is a file to read: most installations have none, and start faster.
    import tomllib  # noqa: PLC0415

    try:
        if len(text) > _MAX_FILE:
            raise ConfigError(f"{path} is larger than {_MAX_FILE} bytes: it cannot be a settings file")
        return from_table(tomllib.loads(text.decode()), path)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise not_toml(path, error) from None


def not_toml(path: str, error: ValueError) -> ConfigError:
    """Return the error of a settings file that `tomllib` could not read, or that is not UTF-8."""
    # tomllib's words for `listen = ".."` beside `listen.tls_cert`.
    twice = "overwrite a value" in str(error)
    hint = "; where `[listen]` has other settings the address is `address` in it" if twice else ""
    return ConfigError(f"{path} is not TOML: {error}{hint}: mend it")
