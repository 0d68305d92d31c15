"""What a tenant may use if nobody said otherwise: the page of settings and tenants' programs rely on it."""

from sandpost.model.limits import Limits, MiB


def test_the_defaults_are_those_that_were_promised() -> None:
    limits = Limits()
    assert (limits.memory, limits.cpu, limits.pids, limits.tmp) == (128 * MiB, 1, 64, 64 * MiB)
    assert (limits.code, limits.body, limits.calls, limits.rate) == (1 * MiB, 100 * MiB, 100, 0)
    assert (limits.deadline, limits.blocked_after, limits.upgrade_idle) == (30, 15, 60)
    assert (limits.memory_guaranteed, limits.programs, limits.output) == (32 * MiB, 256, 1 * MiB)
