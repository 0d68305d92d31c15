"""Answers that are kept for their lifetime, each for the tenant that asked alone. Pure; the clock is the caller's.

Not shared: from the time of an answer a tenant could tell whether another one had asked. The price is a question
upstream for each tenant; the host's own resolver, which is asked, keeps answers for all.
"""

from collections import OrderedDict
from dataclasses import dataclass

from dns.rdatatype import RdataType

from sandpost.egress.answer import Answer, aged

EACH, EACH_BYTES = 1024, 512 << 10
"""Answers and bytes of one tenant."""
ALL_BYTES = 64 << 20
"""Bytes of all tenants together."""
_OVERHEAD, _RECORD = 1024, 192
"""Bytes that an answer and each of its records weigh in Python beside what they have on the wire.

Measured with addresses: 1.2 kB with one, 2.0 kB with 8, 9.6 kB with 50.
"""

Key = tuple[str, RdataType]


@dataclass(slots=True)
class _Kept:
    answer: Answer
    made: float
    weight: int


class Shelf:
    """One tenant's answers, the one that was used last at the end."""

    __slots__ = ("kept", "size")

    def __init__(self) -> None:
        self.kept: OrderedDict[Key, _Kept] = OrderedDict()
        self.size = 0


class Cache:
    """All tenants' answers."""

    def __init__(self) -> None:
        self._shelves: OrderedDict[str, Shelf] = OrderedDict()
        self.size = 0
        """Bytes of all answers."""

    def get(self, tenant: str, key: Key, now: float) -> Answer | None:
        """Return the answer with what is left of its lifetime; None if there is none."""
        shelf = self._shelves.get(tenant)
        kept = shelf.kept.get(key) if shelf is not None else None
        if shelf is None or kept is None:
            return None
        age = int(now - kept.made)
        if age >= kept.answer.ttl:
            self._drop(shelf, key)
            return None
        shelf.kept.move_to_end(key)
        self._shelves.move_to_end(tenant)
        return aged(kept.answer, age)

    def put(self, tenant: str, key: Key, answer: Answer, now: float) -> None:
        """Keep an answer; what was unused for longest goes first, the tenant's own before anybody else's."""
        shelf = self._shelves.setdefault(tenant, Shelf())
        self._shelves.move_to_end(tenant)
        self._drop(shelf, key)
        records = sum(map(len, (*answer.records, *answer.authority)))
        kept = _Kept(answer, now, answer.size + len(key[0]) + _OVERHEAD + _RECORD * records)
        shelf.kept[key] = kept
        shelf.size += kept.weight
        self.size += kept.weight
        while len(shelf.kept) > EACH or shelf.size > EACH_BYTES:
            self._drop(shelf, next(iter(shelf.kept)))
        while self.size > ALL_BYTES:
            self.forget(next(iter(self._shelves)))

    def forget(self, tenant: str) -> None:
        """Drop all of a tenant's answers."""
        shelf = self._shelves.pop(tenant, None)
        if shelf is not None:
            self.size -= shelf.size

    def _drop(self, shelf: Shelf, key: Key) -> None:
        kept = shelf.kept.pop(key, None)
        if kept is not None:
            shelf.size -= kept.weight
            self.size -= kept.weight
