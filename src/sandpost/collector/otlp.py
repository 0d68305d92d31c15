"""Records on their way to a receiver of OTLP/HTTP, in a thread of their own.

What the log bus was given goes out too, in its order. A receiver that is away or slow costs nobody time.
"""

import logging
import os
import threading
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime

import requests
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExportResult

from sandpost.bus.contract import Batch
from sandpost.collector.backlog import Backlog
from sandpost.collector.otlp_records import Translator
from sandpost.logs.setup import get_logger
from sandpost.model import otlp
from sandpost.model.host import Host, Otlp
from sandpost.model.names import SYSTEM

MOST = 8 << 20
"""Bytes of records that wait for the receiver."""
_A_REQUEST = 512
"""Records in a request, about."""
_GATHER = 1.0
"""Seconds for which few records wait for more."""
_TIMEOUT = 10.0
_PAUSE = 2.0
_LONGEST_PAUSE = 60.0
"""Seconds that a receiver may ask for."""
_LATER = frozenset({0, 408, 429, 500, 502, 503, 504})
"""Answers (0: none) after which the same records are tried again; others would be the same again."""
_LAST = 1.0
"""Seconds for what waits when the collector ends."""

log = get_logger()


class Outgoing:
    """Owns one thread, from `start` to `close`."""

    def __init__(self, host: Host, settings: Otlp, hostname: str) -> None:
        self.sent = 0
        self.problem = ""
        """Why records are not taken now; empty if they are."""
        self._tenants = settings.tenants
        self._endpoint = settings.endpoint
        self._translator = Translator(hostname, host.tag)
        self._exporter = self._made(host, settings)
        # Of the last answer: its status, records that it did not take all the same, seconds that it asks for.
        self._status = 0
        self._rejected = 0
        self._asked = _PAUSE
        self._refused = 0
        self._backlog = Backlog(MOST)
        self._thread = threading.Thread(target=self._run, name="otlp", daemon=True)

    @property
    def lost(self) -> int:
        """Records that did not get out and never will."""
        return self._refused + self._backlog.lost

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def take(self, batches: Sequence[Batch]) -> None:
        """Take what the bus was given; never waits."""
        self._backlog.add([batch for batch in batches if self._tenants or batch.stream == SYSTEM])

    def close(self) -> None:
        """Send what waits, for a second; let go."""
        self._backlog.close()
        self._thread.join(_LAST)
        # Ends a request's pauses and tries.
        self._exporter.shutdown()  # type: ignore[no-untyped-call]
        self._thread.join(_LAST)

    def _made(self, host: Host, settings: Otlp) -> OTLPLogExporter:
        # Of its own words (a line each try, at whatever level) ours take the place.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        logging.getLogger("urllib3").setLevel(logging.CRITICAL)
        session = requests.Session()
        # No proxies, keys or authorities by the environment or by files in a home.
        session.trust_env = False
        session.hooks["response"].append(self._answered)
        return OTLPLogExporter(
            endpoint=settings.endpoint,
            certificate_file=os.path.join(host.otlp_dir, "ca.pem") if settings.ca else None,
            headers=_headers(host) if settings.headers else {},
            timeout=_TIMEOUT,
            compression=Compression.Gzip,
            session=session,
        )

    def _answered(self, response: requests.Response, *_: object, **__: object) -> None:
        # An answer that breaks off is none.
        body = response.content
        self._status = response.status_code
        self._rejected = _rejected(body) if self._status == 200 else 0
        self._asked = _pause(response.headers.get("retry-after", ""))

    def _run(self) -> None:
        while (found := self._backlog.take(_A_REQUEST, _GATHER))[1]:
            lines, count = found
            records = list(self._translator.records(lines))
            self._refused += count - len(records)
            if records:
                self._send(records)

    def _send(self, records: list[ReadableLogRecord]) -> None:
        """Send until it is taken, or is refused for good, or keeps too many behind it waiting."""
        while True:
            self._status, self._rejected, self._asked = 0, 0, _PAUSE
            taken = self._exporter.export(records) is LogRecordExportResult.SUCCESS
            # It takes a redirection, which it does not follow, for a success.
            if taken and 200 <= self._status < 300:
                rejected = min(self._rejected, len(records))
                self.sent += len(records) - rejected
                self._refused += rejected
                self._say(f"{self._endpoint} takes some records and rejects others" if rejected else "")
                return
            self._say(
                f"{self._endpoint} answers {self._status}" if self._status else f"{self._endpoint} does not answer"
            )
            if self._status not in _LATER or self._backlog.crowded or self._backlog.closed:
                self._refused += len(records)
                return
            self._backlog.pause(self._asked)

    def _say(self, problem: str) -> None:
        if problem and not self.problem:
            log.warning("records do not get out", problem=problem)
        elif self.problem and not problem:
            log.info("records get out again", lost=self.lost)
        self.problem = problem


def _headers(host: Host) -> dict[str, str]:
    with open(os.path.join(host.otlp_dir, "headers"), encoding="utf-8") as file:
        return otlp.headers(file.read())


def _rejected(body: bytes) -> int:
    """Return how many records a good answer says were not taken."""
    try:
        return max(0, int(ExportLogsServiceResponse.FromString(body).partial_success.rejected_log_records))
    except DecodeError:
        # Whoever says something else than the protocol has it does not say that.
        return 0


def _pause(text: str) -> float:
    """Return the seconds to wait by a `Retry-After`, which is a number of them or a date; empty if there is none."""
    try:
        seconds = float(text) if text.isdecimal() else parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        seconds = 0.0
    return max(_PAUSE, min(seconds, _LONGEST_PAUSE))
