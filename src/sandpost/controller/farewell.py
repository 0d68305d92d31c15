"""Which sandboxes are asked to end before they are killed, so that their programs can do what they do at their end."""

import asyncio

from sandpost.controller.processes import Watch
from sandpost.controller.record import Record
from sandpost.model.ends import PLANNED
from sandpost.model.runtimes import RUNTIMES


def due(record: Record, word: str) -> float:
    """Return the seconds that a sandbox has for its own end, when it ends for `word`; 0: it is killed at once. Pure."""
    if record.tenant is None or record.exclusive or word not in PLANNED:
        return 0.0
    runtime = RUNTIMES.get(record.runtime)
    return runtime.farewell if runtime is not None else 0.0


async def take(watch: Watch, patience: float) -> None:
    """Ask it to end and wait until it has, for so long at most; then, or when this is cancelled, let go of it."""
    ended = asyncio.Event()
    try:
        watch.ask(ended.set)
        async with asyncio.timeout(patience):
            await ended.wait()
    except TimeoutError:
        pass
    finally:
        watch.close()
