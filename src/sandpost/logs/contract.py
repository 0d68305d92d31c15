"""What keeps records. The drivers are siblings of this module."""

from typing import Protocol


class Sink(Protocol):
    """Takes the records of all tenants. Bounded in everything; never raises for a disk or a peer that fails."""

    def append(self, tenant: str, lines: bytes, count: int) -> None:
        """Take `count` whole encoded records of `tenant`, each with its line end. Does not wait for the disk."""

    def flush(self) -> dict[str, int]:
        """Write what was taken; return how many records of which tenants could not be kept."""

    def close(self) -> None:
        """Let go of all resources, after a last `flush`."""
