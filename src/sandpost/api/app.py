"""The management application: finds the route, checks caller, names, query and body, and shapes every answer."""

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as Path

from sandpost.api import keys, live, requests, tenants
from sandpost.api.callers import Caller, digest_of, identify, sent_key
from sandpost.api.counts import Counts
from sandpost.api.logs import routes as logs
from sandpost.api.logs.streams import MAX_STREAMS
from sandpost.api.modules import routes as modules
from sandpost.api.openapi import document
from sandpost.api.refused import Refused
from sandpost.api.route import Asked, Route
from sandpost.api.service import Service
from sandpost.logs.setup import get_logger
from sandpost.model.errors import (
    BodyTooLarge,
    MethodNotAllowed,
    NotFound,
    RequestTimeout,
    SandpostError,
    Unavailable,
)
from sandpost.model.names import settable_tenant, tenant_name

log = get_logger()

ROUTES: tuple[Route, ...] = (*tenants.ROUTES, *keys.ROUTES, *live.ROUTES, *logs.ROUTES, *modules.ROUTES)
REQ_ID = "x-sandpost-req"
"""Header in which a proxy gives the call's id, and in which every answer carries it."""
PEER_UID = "peer_uid"
"""Key of the connected process's uid in a request's state; the server puts it there."""
_CALLER = "caller"
"""Key of who asks in a request's state, once that is known."""
MAX_AT_ONCE = 256
"""Requests at once; beyond it 503."""

_REQ_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_JSON = "application/json"
Handler = Callable[[Request], Awaitable[Response]]
_METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH"})


class Application:
    """The ASGI application `asgi` over `service`; what it answers is counted in `counts`."""

    def __init__(self, service: Service, counts: Counts) -> None:
        self._service = service
        self._counts = counts
        self._refused = Refused()
        self._managing = _Gate(MAX_AT_ONCE, "management requests")
        # All who read may come again at once, behind a restart; most of them do not try twice.
        self._opening = _Gate(MAX_STREAMS, "requests for streams")
        self._openapi = msgspec.json.encode(document(ROUTES))
        by_path: dict[str, dict[str, Route]] = {}
        for route in ROUTES:
            by_path.setdefault(route.path, {})[route.method] = route
        paths = [
            Path(
                path, self._endpoint(path, self._managed(methods), streams=any(one.streams for one in methods.values()))
            )
            for path, methods in by_path.items()
        ]
        paths.append(Path("/api/openapi.json", self._endpoint("/api/openapi.json", self._describe)))
        # Last: whatever is left, so that Starlette has no answer of its own to give.
        paths.append(Path("/{rest:path}", self._endpoint("other", self._nothing_here)))
        for path in paths:
            # Methods are our own business: Starlette would answer others in plain text.
            path.methods = None
        self.asgi = Starlette(routes=paths)
        self.asgi.router.redirect_slashes = False

    def _endpoint(
        self, path: str, handle: Handler, *, streams: bool = False
    ) -> Callable[[Request], Awaitable[Response]]:
        gate = self._opening if streams else self._managing

        async def endpoint(request: Request) -> Response:
            began = time.perf_counter()
            given = request.headers.get(REQ_ID, "")
            req_id = given if _REQ_ID.fullmatch(given) else secrets.token_hex(8)
            method = request.method if request.method in _METHODS else "OTHER"
            try:
                with gate:
                    response = await handle(request)
            except SandpostError as error:
                response = _refuse(error, req_id)
                caller = request.scope["state"].get(_CALLER)
                self._refused.tell(error, caller, method=method, route=path, req_id=req_id)
            except ClientDisconnect:
                response = Response(status_code=400)
            except Exception:
                log.exception("a management request failed", req_id=req_id, route=path)
                response = _refuse(
                    SandpostError("the api failed at this request: its log says why under this req_id"), req_id
                )
            response.headers[REQ_ID] = req_id
            response.headers["cache-control"] = "no-store"
            self._counts.add(method, path, response.status_code, time.perf_counter() - began)
            return response

        return endpoint

    def _managed(self, methods: dict[str, Route]) -> Handler:
        async def handle(request: Request) -> Response:
            caller, digest = await self._caller(request)
            request.scope["state"][_CALLER] = caller
            route = methods.get("GET" if request.method == "HEAD" else request.method)
            if route is None:
                raise _wrong_method(request, methods)
            path = dict(request.path_params)
            if "tenant" in path:
                caller.may_see(tenant_name(path["tenant"]))
                if route.method != "GET":
                    settable_tenant(path["tenant"])
            if not route.tenant_may:
                caller.must_be_operator()
            raw_query = request.scope["query_string"]
            query = {} if route.streams else requests.query(raw_query, route.query)
            body = None
            if route.takes is not None:
                body = requests.body(await self._read(request), route.takes)
            asked = Asked(
                caller=caller,
                path=path,
                query=query,
                body=body,
                raw_query=raw_query,
                headers=request.headers,
                digest=digest,
            )
            answer = await route.work(self._service, asked)
            if answer.stream is not None:
                return answer.stream
            if answer.body is None:
                return Response(status_code=answer.status)
            return Response(msgspec.json.encode(answer.body), answer.status, media_type=_JSON)

        return handle

    async def _caller(self, request: Request) -> tuple[Caller, bytes | None]:
        """Return who asks, and the digest of the key that says so."""
        sent = sent_key(request.headers.get("authorization"), request.scope["query_string"])
        known = digest = None
        if sent is not None:
            digest = digest_of(sent)
            known = await self._service.store(lambda writer: writer.key(digest))
        return identify(sent, known, is_local_root=self._is_local_root(request)), digest

    def _is_local_root(self, request: Request) -> bool:
        """Whether root itself connected. What comes through a proxy never counts, whoever the proxy runs as."""
        peer_uid = request.scope["state"].get(PEER_UID)
        return peer_uid == 0 and self._service.host.users.proxy != 0 and "x-forwarded-for" not in request.headers

    async def _read(self, request: Request) -> bytes:
        length = request.headers.get("content-length", "0")
        too_large = BodyTooLarge(f"Request body size exceeds {requests.MAX_BODY}", limit=requests.MAX_BODY)
        if not length.isdecimal() or int(length) > requests.MAX_BODY:
            raise too_large
        parts, size = [], 0
        timeout = self._service.host.body_timeout
        try:
            async with asyncio.timeout(timeout):
                async for part in request.stream():
                    size += len(part)
                    if size > requests.MAX_BODY:
                        raise too_large
                    parts.append(part)
        except TimeoutError as error:
            raise RequestTimeout(f"the body did not come within {timeout:g} s: send it at once") from error
        return b"".join(parts)

    async def _describe(self, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            raise _wrong_method(request, {"GET": None})
        return Response(self._openapi, media_type=_JSON)

    async def _nothing_here(self, _request: Request) -> Response:
        raise NotFound("there is nothing at this path: /api/openapi.json lists the management routes")


class _Gate:
    """Counts requests that are worked on; one beyond `most` is refused."""

    def __init__(self, most: int, what: str) -> None:
        self._most = most
        self._what = what
        self._inside = 0

    def __enter__(self) -> None:
        if self._inside >= self._most:
            raise Unavailable(f"over {self._most} {self._what} at once: try again", retry_after=1)
        self._inside += 1

    def __exit__(self, *_: object) -> None:
        self._inside -= 1


def _wrong_method(request: Request, methods: Mapping[str, object]) -> MethodNotAllowed:
    allowed = sorted({*methods, *({"HEAD"} if "GET" in methods else ())})
    return MethodNotAllowed(f"{request.method[:20]} is not for this path: it takes {', '.join(allowed)}", allow=allowed)


def _refuse(error: SandpostError, req_id: str) -> Response:
    headers = {}
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = ", ".join(error.details["allow"])
    return Response(msgspec.json.encode(error.to_dict(req_id)), error.status, headers, media_type=_JSON)
