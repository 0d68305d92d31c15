"""What a request for a stream of records asks for. Pure but for the clock, which is handed in."""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass

from sandpost.api import requests
from sandpost.api.callers import pairs
from sandpost.api.logs.filters import EVERYTHING, Wanted, level
from sandpost.bus.contract import Start
from sandpost.model.bounds import nearest
from sandpost.model.errors import InvalidValue

MAX_TAIL = 1_000_000
MAX_RECORDS = 1_000_000_000
MAX_TIMEOUT = 86_400_000
"""Milliseconds."""
MAX_OFFSET = (1 << 53) - 1
_AHEAD = 60.0
"""Seconds that a caller's clock may be before ours."""

PARAMETERS: Mapping[str, str] = {
    "max": "End after so many records.",
    "timeout": "End after so many milliseconds without a record.",
    "offset": "Begin at this record: history, then what comes.",
    "tail": "Begin with the last so many records, with `since` of those.",
    "since": "Begin at this time: `10m` or `2h` ago, a date, a time in ISO 8601, or epoch seconds.",
    "follow": "`false`: end when all that was there has been told; `true` if left out.",
    "level": "Records of at least this level: `trace`, `debug`, `info`, `warn`, `error`, `fatal`, or a number.",
    "f.msg": "Records whose message has a match of this regular expression (RE2); behind `!` those whose has none; "
    "`!!` stands for a `!`.",
    "f.{property}": "Records of which this field is exactly this. A name with dots is a field of that name, else the "
    "way into the record.",
}
_FIELD = "f."
_NUMBER = re.compile(r"\d{1,16}", re.ASCII)


class Form(enum.Enum):
    """How records are written."""

    LINES = "application/x-ndjson"
    EVENTS = "text/event-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked for. `most`: records; None: any number. `timeout`: seconds; None: for ever."""

    start: Start
    wanted: Wanted = EVERYTHING
    form: Form = Form.LINES
    most: int | None = None
    timeout: float | None = None
    follow: bool = True
    gzip: bool = False


def read(query: bytes, headers: Mapping[str, str], now: float) -> Asked:
    """Return what query and headers (names in lower case) ask for; `InvalidValue` says what is wrong with them."""
    given, fields = _parameters(query)
    last = headers.get("last-event-id", "").strip()
    return Asked(
        start=_start(given, last, now),
        wanted=Wanted(level(given.get("level", "0")), given.get("f.msg", ""), tuple(fields)),
        form=Form.EVENTS if _accepts(headers.get("accept", ""), "text/event-stream") else Form.LINES,
        most=_number(given, "max", 1, MAX_RECORDS),
        timeout=None if (most := _number(given, "timeout", 1, MAX_TIMEOUT)) is None else most / 1000,
        follow=_flag(given, "follow"),
        gzip=_accepts(headers.get("accept-encoding", ""), "gzip"),
    )


def _parameters(query: bytes) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Return the parameters, and apart from them the fields to be compared."""
    given: dict[str, str] = {}
    fields: dict[str, str] = {}
    for name, value in pairs(query):
        if name == "key":
            continue
        is_field = name.startswith(_FIELD) and name != "f.msg"
        if not is_field and (name not in PARAMETERS or name == "f.{property}"):
            raise InvalidValue(f"there is no parameter `{name[:80]}` here{nearest(name, PARAMETERS)}")
        if name in given or name in fields:
            raise InvalidValue(f"parameter `{name[:80]}` is there twice")
        if not value and not is_field:
            raise InvalidValue(f"parameter `{name}` is empty: give it a value or leave it out")
        (fields if is_field else given)[name] = value
    return given, [(name.removeprefix(_FIELD), value) for name, value in fields.items()]


def _start(given: Mapping[str, str], last: str, now: float) -> Start:
    other = next((name for name in ("tail", "since") if name in given), None)
    if "offset" in given and other is not None:
        raise InvalidValue(f"a stream begins at one place: leave out `offset` or `{other}`")
    offset = _number(given, "offset", 0, MAX_OFFSET)
    tail = _number(given, "tail", 0, MAX_TAIL)
    since = None
    if "since" in given:
        since = requests.moment(given["since"], now)
        if since > now + _AHEAD:
            raise InvalidValue(f"`since` is {since - now:.0f} s from now: a stream begins at a time that has been")
    if last:
        # Who connects again does so with the parameters of the first time; it has gone on since.
        return Start(offset=int(_digits("Last-Event-ID", last, 0, MAX_OFFSET)) + 1)
    return Start(offset=offset, tail=tail, since=since)


def _number(given: Mapping[str, str], name: str, least: int, most: int) -> int | None:
    text = given.get(name)
    return None if text is None else _digits(f"`{name}`", text, least, most)


def _digits(name: str, text: str, least: int, most: int) -> int:
    if not _NUMBER.fullmatch(text) or not least <= int(text) <= most:
        raise InvalidValue(f"{name} must be a whole number of {least} to {most}")
    return int(text)


def _flag(given: Mapping[str, str], name: str) -> bool:
    text = given.get(name, "true")
    if text not in {"true", "false", "1", "0"}:
        raise InvalidValue(f"`{name}` must be `true` or `false`")
    return text in {"true", "1"}


def _accepts(header: str, what: str) -> bool:
    """Whether a header of accepted things names `what` (RFC 9110, 12.5); wildcards do not name it."""
    for one in header.lower().split(","):
        name, *parameters = (part.strip() for part in one.split(";"))
        if name == what:
            weights = [text.removeprefix("q=").strip() for text in parameters if text.startswith("q=")]
            return not (weights and re.fullmatch(r"0(\.0{0,3})?", weights[0]))
    return False
