"""The Prometheus listener: `/metrics` on a port of its own, without credentials and without names of tenants."""

import asyncio
import socket
from collections.abc import Callable

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from sandpost.api.metrics import Figured, Source, read
from sandpost.api.server import Server
from sandpost.config.kinds import split_address
from sandpost.logs.setup import get_logger
from sandpost.model.figures import Figures

log = get_logger()

BIND_RETRY = 5.0


def application(folder: str, own: Callable[[], Figures]) -> Starlette:
    """Return the ASGI application that renders `folder` and the api's `own` figures."""

    def render(accept: str) -> Response:
        sources, unreadable = read(folder)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Figured([*sources, Source(own(), up=True)], unreadable))
        encode, content_type = choose_encoder(accept)
        return Response(encode(registry), media_type=None, headers={"content-type": content_type})

    async def metrics(request: Request) -> Response:
        return await asyncio.to_thread(render, request.headers.get("accept", ""))

    async def nothing(_request: Request, _error: Exception) -> Response:
        return PlainTextResponse("there is nothing here but /metrics\n", 404)

    return Starlette(routes=[Route("/metrics", metrics)], exception_handlers={404: nothing})


async def serve(address: str, folder: str, own: Callable[[], Figures]) -> None:
    """Serve until cancelled. A port that is in use costs the metrics, not the api; it is tried again."""
    while True:
        try:
            sock = _bind(*split_address(address))
        except OSError as error:
            log.warning(
                "metrics cannot be served: free the address or set another", address=address, problem=str(error)
            )
            await asyncio.sleep(BIND_RETRY)
            continue
        server = Server(application(folder, own))
        try:
            await server.serve(sockets=[sock])
        finally:
            sock.close()


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # During a restart the old and the new api both serve for a moment; the kernel shares with our own user only.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
        sock.listen(64)
    except BaseException:
        sock.close()
        raise
    return sock
