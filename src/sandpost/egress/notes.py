"""What is told to tenants of their refusals: each thing once a second, with how often it happened. Pure."""

from collections import Counter
from collections.abc import Iterator

from sandpost.model.messages import Noted

MOST_EACH = 32
"""Different notes of one sandbox a second; the rest is counted in one more."""
MOST = 4096
"""Notes of all sandboxes that wait, also while the controller is away."""


class Notes:
    """Gathers notes until they are sent."""

    def __init__(self) -> None:
        self._waiting: dict[str, Counter[tuple[str, str]]] = {}
        self._count = 0
        self.dropped = 0

    def add(self, sandbox_id: str, kind: str, text: str) -> None:
        """Take down that this happened to a sandbox."""
        of_one = self._waiting.setdefault(sandbox_id, Counter())
        note = kind, text
        if note not in of_one and (len(of_one) >= MOST_EACH or self._count >= MOST):
            note = "more", "further refusals of other kinds or names"
            if note not in of_one and self._count >= MOST:
                self.dropped += 1
                return
        self._count += note not in of_one
        of_one[note] += 1

    def take(self) -> Iterator[Noted]:
        """Yield and forget all that waits."""
        waiting, self._waiting, self._count = self._waiting, {}, 0
        for sandbox_id, of_one in waiting.items():
            for (kind, text), times in of_one.items():
                yield Noted(sandbox_id=sandbox_id, kind=kind, text=text, times=times)
