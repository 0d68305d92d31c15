"""Which installation of this host is meant: its state folder and the root of run folders, and no other setting.

A running installation is found whatever became of the rest of its settings, also by who may not read its secrets.
"""

import os
from dataclasses import dataclass

from sandpost.cli.options import Options
from sandpost.config.given import Given, from_environment, from_flags, from_table
from sandpost.config.resolve import DEFAULT_ORIGIN, resolve
from sandpost.config.sources import DEFAULT_FILE, not_toml
from sandpost.config.table import BY_NAME
from sandpost.model.errors import ConfigError

_NAMES = ("state_dir", "run_dir")


@dataclass(frozen=True, slots=True)
class Which:
    """Where to look. `doubt`: why the settings file had no say; empty if it had."""

    state_dir: str
    run_dir: str
    doubt: str = ""


def which(options: Options) -> Which:
    """Return where to look; `ConfigError` if a file that cannot be used is alone in naming the state folder."""
    variables = {BY_NAME[name].environment for name in _NAMES}
    named = (
        from_environment({name: text for name, text in os.environ.items() if name in variables}),
        from_flags(["--state-dir", options.state_dir] if options.state_dir else []),
    )
    doubt = ""
    try:
        found = resolve(_from_file(options.config or os.environ.get("SANDPOST_CONFIG") or ""), *named)
    except ConfigError as error:
        found, doubt = resolve(*named), error.message
        if found.origins["state_dir"] == DEFAULT_ORIGIN:
            raise ConfigError(f"{doubt}; until then --state-dir says which installation is meant") from None
    return Which(found["state_dir"], found["run_dir"], doubt)


def _from_file(path: str) -> list[Given]:
    # Imported where there is a file to read, as the settings' own reader does.
    import tomllib  # noqa: PLC0415

    file_name = path or DEFAULT_FILE
    try:
        with open(file_name, "rb") as file:
            table = tomllib.load(file)
    except FileNotFoundError:
        if not path:
            return []
        raise ConfigError(f"there is no settings file {path}: make it, or name none") from None
    except OSError as error:
        raise ConfigError(f"cannot read {file_name}: {error.strerror}: make it readable") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise not_toml(file_name, error) from None
    return from_table({name: table[name] for name in _NAMES if name in table}, file_name)
