"""What one tenant may ask of the resolver: a rate, and what keeps names from carrying data. Pure.

A tunnel writes its data into labels below a zone of its own, one unseen name after another, and reads from the
answers. What leaves is bounded by the bytes of labels that have not been asked lately, below one suffix and below all;
what comes back by the bytes of answers that had to be fetched. A kept answer carries nothing and costs nothing.
"""

from collections import OrderedDict
from dataclasses import dataclass

from sandpost.egress.buckets import Bucket

LONG = 24
"""Bytes of labels before a suffix from which a name counts as long: words and host names are shorter."""
LONG_NAMES, LONG_RATE = 30, 3.0
"""Unseen long names below one suffix: at once, and a second."""
SUFFIX_BYTES, SUFFIX_RATE = 4096, 4096 / 60
"""Bytes of unseen labels below one suffix: at once, and a second."""
ALL_BYTES, ALL_RATE = 16384, 16384 / 60
"""The same below all suffixes."""
ANSWER_BYTES, ANSWER_RATE = 1 << 20, (1 << 20) / 60
"""Bytes of answers fetched: at once, and a second."""
REMEMBERED = 60.0
"""Seconds for which a name that was asked does not count again."""
SLOW = 0.25
"""Seconds that a fetch is delayed once less than half of a bound is left."""
_MOST_SUFFIXES = 512
_MOST_NAMES = 4096
_SECOND_LEVEL = frozenset({"ac", "co", "com", "edu", "go", "gob", "gov", "gv", "mil", "ne", "net", "nom", "or", "org"})


@dataclass(slots=True)
class _Suffix:
    names: Bucket
    size: Bucket


class Budget:
    """One tenant's. `rate` questions a second, twice as many at once."""

    def __init__(self, rate: float, now: float) -> None:
        self._questions = Bucket(2 * rate, rate, now)
        self._refusals = Bucket(20, 20, now)
        self._labels = Bucket(ALL_BYTES, ALL_RATE, now)
        self._answers = Bucket(ANSWER_BYTES, ANSWER_RATE, now)
        self._suffixes: OrderedDict[str, _Suffix] = OrderedDict()
        self._seen: OrderedDict[str, float] = OrderedDict()

    def set_rate(self, rate: float) -> None:
        """Allow `rate` questions a second from now on."""
        self._questions.change(2 * rate, rate)

    def ask(self, now: float) -> bool:
        """Count a question; False if it is one too many."""
        return self._questions.take(1, now)

    def tell(self, now: float) -> bool:
        """Whether one too many is told so: a flood is dropped, since each answer costs as much as a question."""
        return self._refusals.take(1, now)

    def fetch(self, name: str, now: float) -> float | None:
        """Count that `name` is asked upstream; return the seconds to wait before, None if it may not be asked."""
        if self._known(name, now):
            return 0.0
        suffix = suffix_of(name)
        length = len(name) - len(suffix)
        below = self._suffixes.get(suffix)
        if below is None:
            below = _Suffix(Bucket(LONG_NAMES, LONG_RATE, now), Bucket(SUFFIX_BYTES, SUFFIX_RATE, now))
            self._suffixes[suffix] = below
            if len(self._suffixes) > _MOST_SUFFIXES:
                self._suffixes.popitem(last=False)
        self._suffixes.move_to_end(suffix)
        if length > LONG and not below.names.take(1, now):
            return None
        if not below.size.take(length, now) or not self._labels.take(length, now):
            return None
        self._seen[name] = now + REMEMBERED
        if len(self._seen) > _MOST_NAMES:
            self._seen.popitem(last=False)
        left = min(below.names.share(now), below.size.share(now), self._labels.share(now))
        return 0.0 if left >= 0.5 else SLOW

    def receive(self, size: int, now: float) -> bool:
        """Count the bytes of an answer that was fetched; False if they are too many."""
        return self._answers.take(size, now)

    def _known(self, name: str, now: float) -> bool:
        until = self._seen.get(name)
        return until is not None and until > now


def suffix_of(name: str) -> str:
    """Return what somebody registers, of `name`: its last two labels, or three where the second is general (`co.uk`).

    No list of public suffixes: where it would know better (`github.io`), customers of one zone share a bound.
    """
    labels = name.split(".")
    general = len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in _SECOND_LEVEL
    return ".".join(labels[-3:] if general else labels[-2:])
