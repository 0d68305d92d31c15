"""Threads for what blocks, all of them there from the beginning."""

import threading
from concurrent.futures import ThreadPoolExecutor

from sandpost.kernel import pids
from sandpost.model.errors import HostUnfit


def started(count: int, name: str) -> ThreadPoolExecutor:
    """Return an executor whose `count` threads have started; `HostUnfit` if the kernel has none to give.

    One that starts them when there is work fails when there can be no more processes: and does that work later on,
    when whoever handed it in has given it up.
    """
    made = ThreadPoolExecutor(count, name)
    everyone = threading.Barrier(count)
    try:
        for _ in range(count):
            made.submit(everyone.wait)
    except RuntimeError as error:
        everyone.abort()
        made.shutdown()
        raise HostUnfit(f"no thread can be started: {pids.refused()}") from error
    return made
