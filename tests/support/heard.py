"""What processes of the platform send as their records, heard by a test in the collector's place."""

import json
from collections import defaultdict
from typing import Any

import msgspec

from sandpost.kernel import sockets
from sandpost.model.messages import Records


class Heard:
    """Binds the socket at `path`; nobody needs to read while others write: they keep what the kernel does not."""

    def __init__(self, path: str) -> None:
        self._sock = sockets.receive(path, mode=0o666, gid=-1)
        self._sock.setblocking(False)
        self._records: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)

    def of(self, stream: str) -> list[dict[str, Any]]:
        """Return every record of a stream until now, oldest first; fails on a line that is none."""
        while True:
            try:
                packet = self._sock.recv(1 << 18)
            except BlockingIOError:
                return self._records[stream]
            records = msgspec.msgpack.decode(packet, type=Records)
            lines = records.lines.splitlines()
            assert len(lines) == records.count
            self._records[records.stream] += [json.loads(line) for line in lines]

    def texts(self, stream: str) -> list[str]:
        """Return the messages of a stream until now."""
        return [record["msg"] for record in self.of(stream)]

    def close(self) -> None:
        """Hear no more."""
        self._sock.close()
