"""Waits for what other processes do."""

import time
from collections.abc import Callable


def until(met: Callable[[], object], what: str, within: float = 10) -> None:
    """Wait until `met` is true; fail with `what` after `within` seconds."""
    deadline = time.monotonic() + within
    while not met():
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(0.01)
