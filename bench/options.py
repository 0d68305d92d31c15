"""How a run of the benchmark was asked for."""

import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """`quick`: smaller counts, to see that all works; its figures are no measurement."""

    quick: bool = False

    def pick(self, full: int, quick: int) -> int:
        """Return the count of this run."""
        return quick if self.quick else full

    def say(self, text: str) -> None:
        """Tell how far it is, on stderr."""
        print(f"    {text}", file=sys.stderr, flush=True)
