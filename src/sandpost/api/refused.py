"""Records of management requests that were refused, for the operator: so many a second each, beyond that in sums.

What callers wrote (values, paths, keys) is in none of them: reason and status say what was wrong.
"""

import asyncio
from collections import Counter

from sandpost.api.callers import Caller
from sandpost.logs.setup import get_logger
from sandpost.model.errors import SandpostError

log = get_logger()

RATE = 20
"""Records a second; those beyond are in the sum of their second."""


class Refused:
    """Of one process. Lives in one event loop."""

    def __init__(self) -> None:
        self._left = RATE
        self._more: Counter[int] = Counter()
        self._second: asyncio.TimerHandle | None = None

    def tell(self, error: SandpostError, caller: Caller | None, *, method: str, route: str, req_id: str) -> None:
        """Tell of one. `route`: the pattern; `caller`: None if no key was accepted."""
        if self._second is None:
            self._second = asyncio.get_running_loop().call_later(1.0, self._end_of_second)
        if not self._left:
            self._more[error.status] += 1
            return
        self._left -= 1
        whose = {} if caller is None else {"caller": caller.tenant or "the operator"}
        log.info(
            "management request refused",
            method=method, route=route, status=error.status, reason=error.reason, req_id=req_id, **whose,
        )  # fmt: skip

    def _end_of_second(self) -> None:
        self._second = None
        self._left = RATE
        if self._more:
            statuses = {str(status): count for status, count in sorted(self._more.items())}
            log.info("more management requests were refused", requests=self._more.total(), statuses=statuses)
            self._more.clear()
