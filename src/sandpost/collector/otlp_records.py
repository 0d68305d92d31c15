"""Records as OpenTelemetry has them: severity, body, attributes, trace. Pure."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from sandpost.logs import bunyan

_SEVERITIES = (
    (bunyan.FATAL, SeverityNumber.FATAL, "FATAL"),
    (bunyan.ERROR, SeverityNumber.ERROR, "ERROR"),
    (bunyan.WARN, SeverityNumber.WARN, "WARN"),
    (bunyan.INFO, SeverityNumber.INFO, "INFO"),
    (bunyan.DEBUG, SeverityNumber.DEBUG, "DEBUG"),
)
_ELSEWHERE = frozenset({"hostname", "level", "msg", "name", "time", "trace_id", "v"})
"""Fields that have a place of their own in OpenTelemetry's record, or say nothing there."""
_INTEGERS = 1 << 63
_TIMES = 1 << 64
_TRACES = 1 << 128
_SCOPE = InstrumentationScope("sandpost")
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Translator:
    """Makes OpenTelemetry's records of lines of ours. Fields keep their names, but `name`, which is `bunyan.name`."""

    def __init__(self, hostname: str, instance: str) -> None:
        # Not `Resource.create`, which looks at the environment of the process.
        self._resource = Resource({"service.name": "sandpost", "service.instance.id": instance, "host.name": hostname})

    def records(self, lines: bytes) -> Iterator[ReadableLogRecord]:
        """Yield the records of `lines`, each with its line end. What is none of ours is left out."""
        for line in lines.split(b"\n"):
            try:
                record = self._record(_decode(line))
            except (ValueError, KeyError, TypeError, RecursionError):
                # A part that was taken over can say anything in the system's stream.
                continue
            yield ReadableLogRecord(record, self._resource, _SCOPE)

    def _record(self, fields: dict[str, Any]) -> LogRecord:
        level = fields["level"]
        severity, text = next(
            ((number, text) for least, number, text in _SEVERITIES if level >= least), (SeverityNumber.TRACE, "TRACE")
        )
        attributes = {name: _fitting(value) for name, value in fields.items() if name not in _ELSEWHERE}
        if fields["name"] != bunyan.NAME:
            attributes["bunyan.name"] = fields["name"]
        at = _nanoseconds(fields["time"])
        return LogRecord(
            timestamp=at,
            observed_timestamp=at,
            context=_context(fields.get("trace_id")),
            severity_text=text,
            severity_number=severity,
            body=str(fields["msg"]),
            attributes=attributes,
        )


def _fitting(value: Any) -> Any:
    """Return `value` with whole numbers beyond 64 bits, which OpenTelemetry has not, as text."""
    if isinstance(value, list):
        return [_fitting(one) for one in value]
    if isinstance(value, dict):
        return {name: _fitting(one) for name, one in value.items()}
    return str(value) if isinstance(value, int) and not -_INTEGERS <= value < _INTEGERS else value


def _nanoseconds(time: str) -> int:
    since = datetime.fromisoformat(time) - datetime(1970, 1, 1, tzinfo=UTC)
    at = (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000
    # One that cannot be encoded keeps all that go with it from getting out.
    if not 0 <= at < _TIMES:
        raise ValueError("a time that OpenTelemetry does not have")
    return at


def _context(trace_id: str | None) -> Any:
    """Return what says that a record belongs to a trace; no span of it is known."""
    number = int(trace_id, 16) if trace_id else 0
    if not 0 <= number < _TRACES:
        raise ValueError("a trace id that OpenTelemetry does not have")
    span = trace.SpanContext(trace_id=number, span_id=0, is_remote=True)
    return trace.set_span_in_context(trace.NonRecordingSpan(span))
