"""Which addresses the resolver has told a tenant for which names: what the gate lets pass. Pure."""

from collections import OrderedDict
from collections.abc import Iterable

HOLD = 60.0
"""Seconds beyond an answer's lifetime: between looking a name up and connecting a program may take its time."""
MOST = 4096
"""Pairs of one tenant."""


class Learned:
    """One tenant's pairs of name and address."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until: OrderedDict[tuple[str, str], float] = OrderedDict()

    def learn(self, name: str, addresses: Iterable[str], ttl: float, now: float) -> None:
        """Take down that `name` has these addresses for `ttl` seconds; the pair told longest ago goes first."""
        for address in addresses:
            pair = name, address
            self._until[pair] = max(self._until.get(pair, 0.0), now + ttl + HOLD)
            self._until.move_to_end(pair)
        while len(self._until) > MOST:
            self._until.popitem(last=False)

    def knows(self, name: str, address: str, now: float) -> bool:
        """Whether `address` was told for `name`, and still counts."""
        return self._until.get((name, address), 0.0) > now

    def __len__(self) -> int:
        return len(self._until)
