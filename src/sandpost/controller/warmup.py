"""The one call that a sandbox answers before it is given to anybody. The answer is compared, never parsed."""

import asyncio
import contextlib
import socket
from collections.abc import Callable

from sandpost.model.errors import SEE_OUTPUT, EngineError
from sandpost.model.wire import ANSWER

REQUEST = b"GET / HTTP/1.1\r\nhost: sandbox\r\nx-sandpost-op: warm\r\n\r\n"
PATIENCE = 10.0
_RETRY = 0.002
_BOOT = 0.5
"""Seconds after which a runtime that has said nothing is asked."""


async def warm(
    host: str,
    port: int,
    *,
    ready: int | None = None,
    wanted: Callable[[], bool] = lambda: True,
    patience: float = PATIENCE,
) -> None:
    """Wait until the runtime at an address listens, and have it answer once; `EngineError` if it does not.

    `ready` is the read end of the pipe on which a runtime says that it listens: the first try waits for that, but
    not for long. `wanted` is asked before each try; when it says no, the wait ends as a failure.
    """
    try:
        async with asyncio.timeout(patience):
            if ready is not None:
                await _told(ready)
            sock = await _connect(host, port, wanted)
            with sock:
                await _exchange(sock)
    except TimeoutError:
        raise EngineError(
            f"the runtime did not answer its warm-up call within {patience:g} s: is the host overloaded,"
            " or does its firewall drop what goes to sandboxes (`sandpost doctor`)?"
        ) from None
    except OSError as error:
        raise EngineError(f"the runtime broke off its warm-up call ({error}): {SEE_OUTPUT}") from error


async def _told(ready: int) -> None:
    """Wait until there is something to read, or all who could write are gone, or a boot should be over."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    loop.add_reader(ready, told.set)
    try:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(told.wait(), _BOOT)
    finally:
        loop.remove_reader(ready)


async def _connect(host: str, port: int, wanted: Callable[[], bool]) -> socket.socket:
    loop = asyncio.get_running_loop()
    while wanted():
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            await loop.sock_connect(sock, (host, port))
        except (ConnectionRefusedError, ConnectionResetError):
            sock.close()
            await asyncio.sleep(_RETRY)
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise EngineError(f"the sandbox ended before its runtime listened: {SEE_OUTPUT}")


async def _exchange(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, REQUEST)
    got = b""
    while len(got) < len(ANSWER):
        part = await loop.sock_recv(sock, len(ANSWER) - len(got))
        if not part:
            raise EngineError(f"the runtime closed its warm-up call: {SEE_OUTPUT}")
        got += part
    if got != ANSWER:
        raise EngineError(f"the runtime speaks another wire ({got[:80]!r}): the image and this release do not fit")
