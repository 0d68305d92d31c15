"""What the collector counts."""

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """Totals since the start."""

    bytes_read: int = 0
    kept: int = 0
    over_rate: int = 0
    unwritten: int = 0
    unassigned: int = 0
    forged: int = 0
    platform: int = 0
    strange: int = 0
