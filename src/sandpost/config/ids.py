"""How the block of user ids is dealt to installations, and whose ids lie in it already. Pure.

Users and groups have the same numbers here: what is said of one kind holds for the other.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network

from sandpost.model.host import IDS_PER_SANDBOX, INSTANCES

OWN_IDS = 64
"""Ids at the beginning of an instance's sixteenth that its processes use themselves."""
LEAST, LAST = 65536, 0x7FF00000
"""Where the block may begin: below are a machine's own."""
END = 1 << 31
"""Programs that keep an id in a signed word do not go further."""
OURS = "sandpost"
"""Who stands in /etc/subuid for a block that its operator keeps free for us."""


@dataclass(frozen=True, slots=True)
class Ids:
    """Ids from `first` on; `whose` says of them whose they are."""

    first: int
    count: int
    whose: str = ""

    @property
    def end(self) -> int:
        """The first id behind them."""
        return self.first + self.count

    def __str__(self) -> str:
        return f"{self.first} to {self.end - 1}" if self.count > 1 else str(self.first)


def ids_each(block: IPv4Network) -> int:
    """Return how many user ids each instance has: its own and its sandboxes', rounded up to a power of two."""
    needed = OWN_IDS + block.num_addresses // INSTANCES // 2 * IDS_PER_SANDBOX
    return 1 << (needed - 1).bit_length()


def subordinate(text: str, path: str) -> Iterator[Ids]:
    """Yield what /etc/subuid or /etc/subgid (subuid(5)) give to others than us; what is no such line is left out."""
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        first, _, count = rest.partition(":")
        if name and name != OURS and first.isdecimal() and count.isdecimal() and int(count):
            yield Ids(int(first), int(count), f"stand in {path} for `{ascii(name)[1:-1]}`")


def mapped(text: str) -> list[Ids]:
    """Return the ids that exist here, as /proc/self/uid_map (user_namespaces(7)) has them."""
    fields = (line.split() for line in text.splitlines())
    return [Ids(int(first), int(count)) for first, _, count in fields]


def both(some: Iterable[Ids], others: Sequence[Ids]) -> list[Ids]:
    """Return the ids that are among `some` and among `others`."""
    pairs = ((max(one.first, other.first), min(one.end, other.end)) for one in some for other in others)
    return [Ids(first, end - first) for first, end in pairs if first < end]


def overlap(block: Ids, taken: Iterable[Ids]) -> Ids | None:
    """Return the first of `taken` that lies in `block`, in part at least."""
    return next((one for one in taken if one.first < block.end and block.first < one.end), None)


def lacks(block: Ids, there: Iterable[Ids]) -> bool:
    """Whether some id of `block` is not `there`."""
    at = block.first
    for one in sorted(there, key=lambda one: one.first):
        if one.first <= at < one.end:
            at = one.end
    return at < block.end


def free(count: int, taken: Iterable[Ids], there: Iterable[Ids]) -> int | None:
    """Return where a block of `count` ids can begin, as high as can be: what is dealt to users is dealt from below."""
    taken, there = list(taken), list(there)
    last = min(LAST, END - count)
    found = [last, *(one.end - count for one in there), *(one.first - count for one in taken)]
    for first in sorted((one for one in found if LEAST <= one <= last), reverse=True):
        block = Ids(first, count)
        if not lacks(block, there) and overlap(block, taken) is None:
            return first
    return None
