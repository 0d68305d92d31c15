"""Descriptors of this process."""

import os
import resource
from collections.abc import Iterable


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors."""
    for fd in fds:
        os.close(fd)


def allow_most() -> None:
    """Allow this process, and what it starts, as many descriptors as it may allow itself (RLIMIT_NOFILE)."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
