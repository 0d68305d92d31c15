"""What one source of settings gives, by dotted name: pure translation of TOML tables, environments and flags."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandpost.config.table import ALIASES, BY_NAME, SETTINGS, Setting
from sandpost.model.errors import ConfigError

NOT_SETTINGS = frozenset({"SANDPOST_CONFIG", "SANDPOST_URL", "SANDPOST_KEY"})
"""Names in the environment that are the command line's own."""

_NAMES = [*BY_NAME, *ALIASES]
_BY_ENVIRONMENT = {setting.environment: setting.name for setting in SETTINGS} | {
    "SANDPOST_" + alias.upper().replace(".", "_"): name for alias, name in ALIASES.items()
}
_BY_FLAG = {setting.flag: setting.name for setting in SETTINGS if not setting.secret} | {
    "--" + alias.replace(".", "-"): name for alias, name in ALIASES.items()
}


@dataclass(frozen=True, slots=True)
class Given:
    """A value as it was written, for the setting `name`, with where it was written."""

    name: str
    raw: Any
    origin: str


def from_table(table: Mapping[str, Any], path: str) -> list[Given]:
    """Return what a TOML file's top table gives; `path` is where it was read."""
    return [_from_key(key, raw, path) for key, raw in _flatten(table, "", path)]


def from_environment(environ: Mapping[str, str]) -> list[Given]:
    """Return what an environment's `SANDPOST_*` give."""
    found = []
    for variable, raw in environ.items():
        if not variable.startswith("SANDPOST_") or variable in NOT_SETTINGS:
            continue
        name = _BY_ENVIRONMENT.get(variable)
        if name is None:
            raise _unknown(variable, "in the environment", list(_BY_ENVIRONMENT))
        found.append(Given(name, raw, f"environment, {variable}"))
    return found


def from_flags(arguments: Sequence[str]) -> list[Given]:
    """Return what flags give: `--name value`, `--name=value`, or `--name` alone for a switch."""
    found = []
    rest = list(arguments)
    while rest:
        flag, equals, raw = rest.pop(0).partition("=")
        name = _BY_FLAG.get(flag)
        if name is None:
            _refuse_secret(flag)
            raise _unknown(flag, "among the flags", [*_BY_FLAG, "--config", "--detach", "--help"])
        if not equals:
            if BY_NAME[name].kind.name == "switch":
                raw = "true"
            elif rest:
                raw = rest.pop(0)
            else:
                raise ConfigError(f"{flag} needs a value: {flag} {_example(BY_NAME[name])}")
        found.append(Given(name, raw, f"flag {flag}"))
    return found


def _flatten(table: Mapping[str, Any], prefix: str, path: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in table.items():
        name = prefix + key
        if not isinstance(value, Mapping):
            found.append((name, value))
        elif not any(known.startswith(f"{name}.") for known in _NAMES):
            raise _unknown(f"[{name}]", f"in {path}", [f"[{known.rpartition('.')[0]}]" for known in _NAMES])
        else:
            found += _flatten(value, f"{name}.", path)
    return found


def _from_key(key: str, raw: Any, path: str) -> Given:
    name = ALIASES.get(key, key)
    if name not in BY_NAME:
        raise _unknown(key, f"in {path}", _NAMES)
    if BY_NAME[name].secret:
        raise ConfigError(
            f"`{name}` in {path}: a secret does not stand among the settings; put it into a file of mode 0600 and "
            f"say {name}_file, or use the environment ({BY_NAME[name].environment})"
        )
    return Given(name, raw, path)


def _refuse_secret(flag: str) -> None:
    for setting in SETTINGS:
        if setting.secret and setting.flag == flag:
            raise ConfigError(
                f"{flag}: flags are seen in process lists; use the environment ({setting.environment}) or "
                f"{setting.flag}-file with a file of mode 0600"
            )


def _unknown(name: str, where: str, known: list[str]) -> ConfigError:
    nearest = difflib.get_close_matches(name, known, 1, 0.5)
    hint = f"did you mean `{nearest[0]}`?" if nearest else "`sandpost config show` lists all settings"
    return ConfigError(f"unknown setting `{name}` {where}: {hint}")


def _example(setting: Setting) -> str:
    return setting.kind.show(setting.default) or setting.kind.name.upper()
