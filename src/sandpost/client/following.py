"""Reads a stream of records, and goes on with it over every end that is not one, without gap or double."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from sandpost.api.views import LOG_END
from sandpost.client.errors import ClientError, Refused, Unreachable

if TYPE_CHECKING:
    import httpx

SILENCE = 45.0
"""Seconds without a byte after which a connection is dead: the platform pings every 15 s at most."""
MAX_FRAME = 4 << 20
"""Bytes of one event; none of the platform's is near it."""
_AGAIN = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between tries to connect again; the last one from then on."""
_GOES_ON = frozenset({"", "restart", "bus", "failed"})
"""Ends (none at all is one) behind which there is more."""
_PLACES = ("offset", "tail", "since")

Connect = Callable[[Mapping[str, str]], contextlib.AbstractContextManager["httpx.Response"]]


class Event(NamedTuple):
    """What came in one piece: a record with its offset, the end's word and why, or (all empty) a ping."""

    record: bytes = b""
    offset: int | None = None
    end: str = ""
    why: str = ""


class Following:
    """Iterates over records, JSON without line ends, as they come; an empty one says that nothing did for a while.

    Raises what the client does if the first connection fails, `Refused` if a later one is refused for good, and
    `ClientError` if the platform ended the stream because of the key. `notice` is called with what happened whenever
    the connection is lost.
    """

    def __init__(self, connect: Connect, parameters: Mapping[str, str]) -> None:
        self.notice: Callable[[str], None] = lambda _: None
        self._connect = connect
        self._parameters = parameters
        self._begins_now = not any(name in parameters for name in _PLACES)
        self._next: int | None = None
        self._end = ""

    def __iter__(self) -> Iterator[bytes]:
        tries = 0
        connected = False
        while True:
            lost = "the stream ended without a word"
            try:
                with self._connect(self._asked()) as response:
                    connected = True
                    self._begun(response)
                    for event in events(response.iter_bytes()):
                        tries = 0
                        if event.offset is not None:
                            self._next = event.offset + 1
                        if event.end:
                            self._end, lost = event.end, event.why
                            break
                        yield event.record
            except Unreachable as error:
                if not connected:
                    raise
                lost = str(error)
            except Refused as error:
                if not connected or not error.problem.retryable:
                    raise
                lost = str(error)
            if self._end == "revoked":
                raise ClientError(f"the stream was ended: {lost}")
            if self._end not in _GOES_ON:
                return
            self._end = ""
            if not tries:
                self.notice(lost)
            time.sleep(_AGAIN[min(tries, len(_AGAIN) - 1)])
            tries += 1

    def _asked(self) -> Mapping[str, str]:
        """Return the parameters of the next connection: as at the first, or from where it has come to."""
        if self._next is None:
            return self._parameters
        rest = {name: value for name, value in self._parameters.items() if name not in _PLACES}
        return rest | {"offset": str(self._next)}

    def _begun(self, response: "httpx.Response") -> None:
        """Note where the stream begins, so that it is the same place if it has to begin again before a record came."""
        end = response.headers.get(LOG_END, "")
        if self._next is None and end.isdecimal() and (self._begins_now or end == "0"):
            self._next = int(end)


def events(chunks: Iterator[bytes]) -> Iterator[Event]:
    """Yield the events in `chunks`, each as soon as it is complete. Pure. `ClientError` for what is none."""
    held = b""
    for chunk in chunks:
        *frames, held = (held + chunk).split(b"\n\n")
        if len(held) > MAX_FRAME:
            raise ClientError("the answer is no stream of records: check the URL")
        for frame in frames:
            yield _event(frame)


def _event(frame: bytes) -> Event:
    offset, record = None, b""
    for line in frame.split(b"\n"):
        name, _, value = line.partition(b": ")
        if name == b"id" and value.isdigit():
            offset = int(value)
        elif name == b"data":
            record = value
        elif name == b"" and value.startswith(b"end "):
            word, _, why = value.decode("utf-8", "replace").removeprefix("end ").partition(": ")
            return Event(end=word, why=why)
    return Event(record, offset)
