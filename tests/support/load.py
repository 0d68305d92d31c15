"""A client under load that counts every answer: how many were good, what else came, and how long each took."""

import http.client
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Self


@dataclass
class Tally:
    """What a load saw. `outcomes` counts `200` and every other status or exception by name."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    doubled: int = 0

    @property
    def bad(self) -> dict[str, int]:
        """Everything that was not a 200."""
        return {name: count for name, count in self.outcomes.items() if name != "200"}


class Load:
    """Threads that call one target again and again until told to stop.

    `keep_alive` uses one connection a thread and reconnects when the server closes it after an answer, as HTTP
    clients do. With it off each call opens a connection of its own.
    """

    def __init__(
        self, port: int, target: str, body: bytes, *, threads: int = 4, keep_alive: bool = True, pause: float = 0.002
    ) -> None:
        self.tally = Tally()
        self._port, self._target, self._body = port, target, body
        self._keep_alive, self._pause = keep_alive, pause
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _run(self) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
                connection.request("POST", self._target, self._body)
                response = connection.getresponse()
                response.read()
                outcome = str(response.status)
                if not self._keep_alive or response.will_close:
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                outcome = type(error).__name__
                if connection is not None:
                    connection.close()
                connection = None
            took = time.monotonic() - began
            with self._lock:
                self.tally.outcomes[outcome] += 1
                self.tally.slowest = max(self.tally.slowest, took)
            self._stop.wait(self._pause)
        if connection is not None:
            connection.close()
