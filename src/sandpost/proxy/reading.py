"""How a worker reads: a bounded piece at a time, into one place that all of its connections share."""

import asyncio

READ = 32 * 1024
"""Bytes of a read. What a connection may hold follows from it (docs/operation.md); uvloop's own reads are 256 KB."""

# Filled and copied within one callback, so that no connection sees what another one got.
_ROOM = memoryview(bytearray(READ))


class Reading(asyncio.BufferedProtocol):
    """A protocol whose `data_received` gets `READ` bytes at most."""

    __slots__ = ()

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Return where the next read goes."""
        return _ROOM

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on what was read."""
        self.data_received(bytes(_ROOM[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        raise NotImplementedError
