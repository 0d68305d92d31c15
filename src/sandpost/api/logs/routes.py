"""Routes of streams of records."""

import time
from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sandpost.api.logs.asking import PARAMETERS, Form, read
from sandpost.api.logs.stream import Stream
from sandpost.api.logs.streams import Streams
from sandpost.api.route import Answer, Asked, Route
from sandpost.api.service import Service
from sandpost.api.views import LOG_END, LogRecord


class StreamAnswer(Response):
    """The answer that a stream is, from its head to its end; it gives the stream back."""

    def __init__(self, streams: Streams, stream: Stream, headers: Mapping[str, str], media_type: str) -> None:
        self.status_code = 200
        self.media_type = media_type
        self.background = None
        self.init_headers(headers)
        self._streams = streams
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                await self._stream.run(receive, send)
        finally:
            self._streams.forget(self._stream)


async def open_stream(service: Service, asked: Asked) -> Answer:
    """Open the stream of a tenant's records, or of the platform's."""
    wanted = read(asked.raw_query, asked.headers, time.time())
    stream = await service.streams.open(asked.path.get("tenant"), wanted, asked.digest)
    # Whatever stands between here and the reader is asked to hold nothing back.
    headers = {LOG_END: str(stream.known), "x-accel-buffering": "no", "vary": "accept, accept-encoding"}
    if wanted.gzip:
        headers["content-encoding"] = "gzip"
    media_type = wanted.form.value if wanted.form is Form.LINES else f"{wanted.form.value}; charset=utf-8"
    return Answer(200, stream=StreamAnswer(service.streams, stream, headers, media_type))


def _route(path: str, name: str, summary: str, *, tenant_may: bool) -> Route:
    return Route(
        method="GET",
        path=path,
        name=name,
        summary=summary,
        work=open_stream,
        gives={200: LogRecord},
        query=PARAMETERS,
        tenant_may=tenant_may,
        errors=(429,),
        streams=tuple(form.value for form in Form),
    )


_TENANT = "Stream a tenant's records: a JSON document a line, or server-sent events by `Accept: text/event-stream`."
_ALIAS = f"{_TENANT} The webtask format's path."
_SYSTEM = "Stream the platform's own records, in the same ways."
ROUTES = (
    _route("/logs/tenant/{tenant}", "streamTenantLogs", _TENANT, tenant_may=True),
    _route("/api/logs/tenant/{tenant}", "streamTenantLogsByApi", _ALIAS, tenant_may=True),
    _route("/logs/system", "streamSystemLogs", _SYSTEM, tenant_may=False),
)
