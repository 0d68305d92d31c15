"""The words for the end of a sandbox. Each end has exactly one, found from evidence outside."""

from typing import Literal, get_args

FatalEnd = Literal["memory", "blocked", "exit", "crash", "cpu"]
OrdinaryEnd = Literal["idle", "age", "count", "done", "evicted", "drained", "platform"]
End = Literal[
    "memory", "blocked", "exit", "crash", "cpu",
    "idle", "age", "count", "done", "evicted", "drained", "platform",
]  # fmt: skip

FATAL: frozenset[str] = frozenset(get_args(FatalEnd))
"""Ends that the tenant's own code caused; they count towards holding the tenant back."""
ALL: tuple[str, ...] = get_args(End)


PLANNED: frozenset[str] = frozenset({"idle", "age", "count", "drained"})
"""Ends that nothing hurries: programs may do before what they do at their end. An `evicted` sandbox's memory is wanted
now, and the next call of a tenant may wait for one that is `done`."""
NAMED: frozenset[str] = frozenset({"exit", "crash"})
"""Ends of which the runtime can say beforehand which call is guilty."""
LIMITS: dict[str, str] = {"memory": "memory", "cpu": "cpu_seconds"}
"""Ends that meet one limit of the tenant's, and its name in `Limits`."""


def is_fatal(word: End) -> bool:
    """Whether the tenant's code caused this end."""
    return word in FATAL
