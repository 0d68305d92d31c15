"""What a line of the table of system calls can say. Pure.

The kernel hands a filter six arguments of 64 bits (seccomp(2)), of which a call may use 32. A rule here only ever
allows: bits that it compares and the call ignores make it refuse what would have been harmless, never the reverse.
Where a library passes a number of 32 bits with its sign spread over 64, the rule compares the lower half alone.
"""

from dataclasses import dataclass
from typing import Literal

U32 = 0xFFFF_FFFF
U64 = 0xFFFF_FFFF_FFFF_FFFF


@dataclass(frozen=True, slots=True)
class Condition:
    """One argument of a call, counted from 0: `argument & mask == value`, or `argument < value` for `below`."""

    argument: int
    value: int
    mask: int = U64
    compare: Literal["equal", "below"] = "equal"

    def holds(self, arguments: tuple[int, ...]) -> bool:
        """Whether a call with these arguments, as the kernel hands them to a filter, meets it."""
        given = arguments[self.argument] & U64
        return given < self.value if self.compare == "below" else given & self.mask == self.value


Way = tuple[Condition, ...]
"""Conditions that must all hold, each on an argument of its own: OCI runtimes take two on one for alternatives."""


@dataclass(frozen=True, slots=True)
class Group:
    """Calls that are allowed whatever their arguments."""

    reason: str
    calls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """A call that is allowed in any of some ways."""

    call: str
    reason: str
    ways: tuple[Way, ...]

    def allows(self, arguments: tuple[int, ...]) -> bool:
        """Whether it may be made with these six arguments."""
        return any(all(condition.holds(arguments) for condition in way) for way in self.ways)


def calls(names: str) -> tuple[str, ...]:
    """Return the calls named in `names`, separated by white space."""
    return tuple(names.split())


def equal(argument: int, value: int) -> Condition:
    """Return the condition that an argument is exactly `value`."""
    return Condition(argument, value)


def masked(argument: int, mask: int, value: int) -> Condition:
    """Return the condition that those bits of an argument that are in `mask` are those of `value`."""
    return Condition(argument, value, mask)


def below(argument: int, value: int) -> Condition:
    """Return the condition that an argument, without a sign, is less than `value`."""
    return Condition(argument, value, compare="below")


def any_of(argument: int, *, mask: int = U64, **named: int) -> tuple[Way, ...]:
    """Return a way for each of the named values of an argument."""
    return tuple((masked(argument, mask, value),) for value in named.values())
