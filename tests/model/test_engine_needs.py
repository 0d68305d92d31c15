"""What a group on the host is limited to, so that programs may use what their tenant's limits promise."""

import pytest

from sandpost.model.engines import outside
from sandpost.model.limits import EngineName, Limits, MiB

LIMITS = Limits(memory=128 * MiB, pids=64)


@pytest.mark.parametrize(
    ("engine", "sandboxes", "memory", "pids"),
    [
        ("runc", 1, 128, 64),
        # Two runtimes of a tenant: one budget.
        ("runc", 2, 128, 64),
        ("runsc", 1, 128 + 24, 64 * 3 + 64),
        # Each sentry needs its own, and counts processes for itself.
        ("runsc", 2, 128 + 2 * 24, 2 * (64 * 3 + 64)),
    ],
)
def test_a_group_is_given_what_its_sandboxes_need_for_themselves(
    engine: EngineName, sandboxes: int, memory: int, pids: int
) -> None:
    found = outside(LIMITS, engine, sandboxes)
    assert (found.memory, found.pids) == (memory * MiB, pids)
    assert (found.cpu, found.tmp) == (LIMITS.cpu, LIMITS.tmp)
