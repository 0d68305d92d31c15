"""How a run of the benchmark was asked for."""

import sys
from collections.abc import Collection, Sequence
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


def choose(words: Sequence[str], names: Collection[str]) -> list[str]:
    """Return the measurements that these words ask for, each once: all `names`, if there are none.

    A name of two words is a part of a group: the group's word alone asks for all of it, its parts behind it for these
    alone. `ValueError` says which word is none.
    """
    chosen: list[str] = []
    rest = list(words) or list(names)
    while rest:
        word = rest.pop(0)
        if word in names:
            chosen.append(word)
            continue
        group = [name for name in names if name.startswith(f"{word} ")]
        if not group:
            raise ValueError(word)
        parts = []
        while rest and f"{word} {rest[0]}" in group:
            parts.append(f"{word} {rest.pop(0)}")
        chosen += parts or group
    return list(dict.fromkeys(chosen))
