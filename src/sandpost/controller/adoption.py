"""What a controller that starts makes of what an earlier one left: decided from its records and what runs."""

from collections.abc import Callable, Iterable

from sandpost.controller.desk import Desk
from sandpost.controller.record import ProxyKey, Record
from sandpost.model.ends import End


def adopt(
    desk: Desk,
    records: Iterable[Record],
    proxies: Iterable[ProxyKey],
    *,
    runs: Callable[[Record], bool],
    answers: Callable[[Record], bool],
    cause: Callable[[Record], tuple[End, str]],
    now: float,
) -> None:
    """Take over every recorded sandbox: keep what is healthy, end the rest; in doubt it ends.

    `proxies` are those of the roster whose processes live. `runs`: the very process of the record lives.
    `answers`: a pooled sandbox has answered its warm-up call again, here and now. `cause`: why one that no longer
    runs has ended. A sandbox that never was
    offered goes back to the pool; one that is assigned keeps its tenant and route.
    """
    living = set(proxies)
    desk.fleet.expect(living)
    for record in sorted(records, key=lambda record: (record.started_at, record.slot)):
        sandbox = desk.fleet.adopt(record, now)
        if sandbox.phase == "gone":
            continue
        if record.phase == "starting":
            desk.end(sandbox, "platform", "platform: its start was cut short", now)
        elif not runs(record):
            desk.end(sandbox, *cause(record), now)
        elif record.phase == "pooled" and not answers(record):
            desk.end(sandbox, "platform", "platform: it did not answer when the controller started", now)
        elif record.exclusive and record.owner not in living:
            desk.end(sandbox, "done", "done: its call ended with the proxy worker", now)
