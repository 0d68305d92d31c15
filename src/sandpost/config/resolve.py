"""From what the sources gave to one checked value. Pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sandpost.config.contradictions import contradiction, limits_of
from sandpost.config.given import Given
from sandpost.config.table import BY_NAME, SETTINGS, Setting
from sandpost.model.errors import ConfigError
from sandpost.model.limits import Limits

DEFAULT_ORIGIN = "default"


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting's value (parsed: bytes, seconds, numbers, lists) and where it comes from, by dotted name."""

    values: Mapping[str, Any]
    origins: Mapping[str, str]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @property
    def limits(self) -> Limits:
        """The default limits of tenants."""
        return limits_of(self.values)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of `sandpost config show`."""

    name: str
    value: str
    origin: str
    live: bool
    help: str


def resolve(*sources: Iterable[Given]) -> Settings:
    """Return the settings that `sources`, in rising precedence, and the defaults make.

    Raises `ConfigError` for what is malformed, out of bounds, given twice in one source, or contradicts another.
    """
    values = {setting.name: setting.default for setting in SETTINGS}
    origins = dict.fromkeys(values, DEFAULT_ORIGIN)
    for source in sources:
        seen: dict[str, str] = {}
        for given in source:
            value = parse(given)
            if given.name in seen and value != values[given.name]:
                raise ConfigError(f"`{given.name}` is given twice: {seen[given.name]} and {given.origin}; keep one")
            seen[given.name] = given.origin
            values[given.name] = value
            origins[given.name] = given.origin
    settings = Settings(values, origins)
    if (sentence := contradiction(values, {name for name in origins if origins[name] != DEFAULT_ORIGIN})) is not None:
        raise ConfigError(sentence)
    return settings


def describe(settings: Settings, may_read: Callable[[str], bool] = lambda _: True) -> list[Row]:
    """Return a row for each setting, in the table's order; secrets are not shown.

    `may_read(path)`: whether the file of a secret could be read, where the settings were read without secrets.
    """
    rows = []
    for setting in SETTINGS:
        shown = _secret(settings, setting, may_read) if setting.secret else setting.kind.show(settings[setting.name])
        rows.append(Row(setting.name, shown, settings.origins[setting.name], setting.live, setting.help))
    return rows


def _secret(settings: Settings, setting: Setting, may_read: Callable[[str], bool]) -> str:
    file = settings[f"{setting.name}_file"]
    if not settings[setting.name] and not file:
        return ""
    return "[hidden]" if settings[setting.name] or may_read(file) else "[unreadable]"


def frozen_differences(old: Settings, new: Settings) -> list[str]:
    """Name the settings that differ and that a running installation does not take up."""
    return [s.name for s in SETTINGS if not s.live and not s.secret and old[s.name] != new[s.name]]


def parse(given: Given) -> Any:
    """Return the value that was written; `ConfigError` if it is malformed or out of its setting's bounds."""
    setting = BY_NAME[given.name]
    try:
        value = setting.kind.parse(given.raw)
    except ConfigError as error:
        raise ConfigError(f"`{setting.name}` ({given.origin}): {error.message}") from None
    if isinstance(value, int | float) and not (setting.zero and value == 0):
        show = setting.kind.show
        if setting.low is not None and value < setting.low:
            raise ConfigError(
                f"`{setting.name}` ({given.origin}): {show(value)} is below {_bound(setting, setting.low)}"
            )
        if setting.high is not None and value > setting.high:
            raise ConfigError(
                f"`{setting.name}` ({given.origin}): {show(value)} is above {_bound(setting, setting.high)}"
            )
    return value


def _bound(setting: Setting, bound: float) -> str:
    shown = setting.kind.show(int(bound) if setting.kind.name in {"count", "size"} else bound)
    return f"{shown}, the {'least' if bound == setting.low else 'most'} that works"
