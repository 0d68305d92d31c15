"""Reads what comes in a request, strictly: what is unknown or wrong is refused with what is right. Pure."""

import datetime as dt
import re
import time
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from sandpost.api.callers import pairs
from sandpost.api.views import TenantChange
from sandpost.model.bounds import BOUNDS, check_together, nearest, parse_limit
from sandpost.model.egress import parse_egress
from sandpost.model.errors import ConfigError, InvalidValue
from sandpost.model.limits import Limits
from sandpost.model.units import parse_duration
from sandpost.store import TenantRecord

MAX_BODY = 1 << 20
"""Bytes of a request's body."""
PAGE, PAGE_MAX = 1000, 10_000

_EPOCH = re.compile(r"\d{1,12}", re.ASCII)
T = TypeVar("T", bound=msgspec.Struct)


def body(raw: bytes, kind: type[T]) -> T:
    """Return the JSON object `raw` as `kind`; an empty body is an empty object."""
    try:
        value = msgspec.json.decode(raw.strip() or b"{}")
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidValue(f"the body is not JSON: {error}") from error
    except UnicodeDecodeError as error:
        raise InvalidValue("the body is not JSON in UTF-8") from error
    if not isinstance(value, dict):
        raise InvalidValue("the body must be a JSON object")
    _known(value, kind.__struct_fields__, "")
    if kind is TenantChange and isinstance(value.get("limits"), dict):
        _known(value["limits"], BOUNDS, "limits.")
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise InvalidValue(f"the body is not what this route takes: {error}") from error


def query(raw: bytes, known: Mapping[str, str]) -> dict[str, str]:
    """Return the query's parameters, of which only `known` may be there (and `key`, which is not returned)."""
    found: dict[str, str] = {}
    for name, value in pairs(raw):
        if name == "key":
            continue
        if name not in known:
            raise InvalidValue(f"there is no parameter `{name[:80]}` here{nearest(name, known) if known else ''}")
        if name in found:
            raise InvalidValue(f"parameter `{name}` is there twice")
        found[name] = value
    return found


def page(parameters: Mapping[str, str]) -> tuple[str, int]:
    """Return `after` and `limit` of a listing."""
    text = parameters.get("limit", str(PAGE))
    if not _EPOCH.fullmatch(text) or not 1 <= int(text) <= PAGE_MAX:
        raise InvalidValue(f"`limit` must be a number of 1 to {PAGE_MAX}")
    return parameters.get("after", ""), int(text)


def since(text: str, now: float | None = None) -> int:
    """Return the hour (since the epoch) that `since` means: `24h`, `7d`, `2026-05-01`, ISO 8601, or epoch seconds."""
    return int(moment(text, time.time() if now is None else now)) // 3600


def moment(text: str, now: float) -> float:
    """Return the time (seconds since the epoch, 0 or more) that `24h`, `10m` (ago), a date or a time means."""
    if _EPOCH.fullmatch(text):
        return int(text)
    try:
        return max(0.0, now - parse_duration(text))
    except (ConfigError, OverflowError):
        pass
    try:
        when = dt.datetime.fromisoformat(text)
    except ValueError:
        raise InvalidValue(
            f"`{text[:80]}` is no time to begin at: write `24h` or `7d` (ago), `2026-05-01`, "
            "`2026-05-01T12:00:00Z` or seconds since the epoch"
        ) from None
    if when.tzinfo is None:
        when = when.replace(tzinfo=dt.UTC)
    return max(0.0, when.timestamp())


def changed(record: TenantRecord, change: TenantChange, defaults: Limits) -> TenantRecord:
    """Return `record` with `change` applied, checked as a whole against the host's `defaults`."""
    fields: dict[str, Any] = {}
    if change.state is not msgspec.UNSET:
        fields["state"] = change.state
    if change.isolation is not msgspec.UNSET:
        fields["isolation"] = change.isolation
    if change.engine is not msgspec.UNSET:
        fields["engine"] = change.engine
    if change.egress is not msgspec.UNSET:
        fields["egress"] = parse_egress(change.egress).text
    if change.limits is not msgspec.UNSET:
        limits = dict(record.limits)
        for name in BOUNDS:
            value = getattr(change.limits, name)
            if value is None:
                limits.pop(name, None)
            elif value is not msgspec.UNSET:
                limits[name] = parse_limit(name, value)
        fields["limits"] = limits
    fresh = msgspec.structs.replace(record, **fields)
    tenant = fresh.tenant(defaults)
    check_together(tenant.limits, tenant.isolation, fresh.limits)
    return fresh


def _known(value: dict[str, Any], known: Any, where: str) -> None:
    for name in value:
        if name not in known:
            raise InvalidValue(f"there is no field `{where}{name[:80]}`{nearest(name, known)}")
