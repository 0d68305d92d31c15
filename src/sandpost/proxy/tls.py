"""TLS towards clients, from the files that the settings name, within the bounds that hold for every connection."""

import asyncio
import ssl
from typing import TYPE_CHECKING, cast

# Not among uvloop's documented names, but `create_server` makes this very object and tells nobody of a connection
# before its handshake is over: neither a count nor a bound could hold.
from uvloop.loop import SSLProtocol  # type: ignore[attr-defined]

from sandpost.model.errors import ConfigError
from sandpost.model.host import Host

if TYPE_CHECKING:
    from sandpost.proxy.client import Client

READ = 16 * 1024
"""Bytes of a read, about those of a record: the buffer that uvloop has for each connection is 256 KiB, of which the
part that was never written to costs nothing."""


def context(host: Host) -> ssl.SSLContext | None:
    """Return the server's context, None if TLS is not configured; `ConfigError` if the files are no good."""
    if not host.tls_cert:
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    try:
        made.load_cert_chain(host.tls_cert, host.tls_key or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"listen.tls_cert {host.tls_cert} and listen.tls_key cannot be used ({error}): "
            "they must be PEM, belong together and be readable for the proxy's user"
        ) from None
    return made


class Door(asyncio.BufferedProtocol):
    """Stands between a connection and its TLS: counts it before the handshake, and bounds what is read at once.

    `client` hears `knock` when the connection is there, `connection_made` after the handshake, and `connection_lost`
    in any case.
    """

    __slots__ = ("_client", "_tls")

    def __init__(self, client: "Client", secured: ssl.SSLContext, host: Host) -> None:
        self._client = client
        self._tls = SSLProtocol(
            asyncio.get_running_loop(),
            client,
            secured,
            None,
            server_side=True,
            ssl_handshake_timeout=host.head_timeout,
            ssl_shutdown_timeout=host.body_timeout,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        raw = cast("asyncio.Transport", transport)
        raw.set_write_buffer_limits(0)
        if self._client.knock(raw):
            self._tls.connection_made(raw)
        else:
            # It could be told why only after a handshake, which is what costs most.
            raw.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._tls.connection_lost(error)
        if self._client.transport is None:
            # The handshake did not come to its end, so that nobody else tells.
            self._client.connection_lost(error)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next read goes."""
        room: memoryview = self._tls.get_buffer(sizehint)
        return room[:READ]

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on what was read."""
        self._tls.buffer_updated(nbytes)

    def eof_received(self) -> None:
        self._tls.eof_received()

    def pause_writing(self) -> None:
        self._tls.pause_writing()

    def resume_writing(self) -> None:
        self._tls.resume_writing()
