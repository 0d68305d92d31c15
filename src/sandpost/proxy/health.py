"""What `/health` says: whether this worker can serve, and which component is missing if it cannot."""

import socket
import time
from typing import TYPE_CHECKING

import msgspec

from sandpost.logs import figures
from sandpost.model.figures import STALE

if TYPE_CHECKING:
    from sandpost.proxy.worker import Worker

CONTROLLER_GRACE = 3.0
"""Seconds that the controller may be away: it is restarted meanwhile, and tenants with a sandbox are served."""


def report(worker: "Worker", *, live: bool) -> tuple[int, bytes]:
    """Return status and body: 200 if all can be served, 503 if a component is missing."""
    if live:
        return 200, msgspec.json.encode({"status": "ok"})
    parts = {
        "proxy": "stopping" if worker.retiring else "ok",
        "controller": "ok" if worker.link.table_known else "away",
        "store": "ok" if worker.access.loaded else "not read yet",
        "api": "ok" if listens(worker.host.api_socket) else "away",
        "logs": logs(worker.host.metrics_dir),
    }
    fine = (
        (worker.link.table_known or worker.link.away_for() < CONTROLLER_GRACE)
        and worker.access.loaded
        and parts["api"] == "ok"
    )
    body = {"status": "ok" if fine else "degraded", "components": parts, "sandboxes": len(worker.routes.sandboxes)}
    return (200 if fine else 503), msgspec.json.encode(body)


def logs(metrics_dir: str) -> str:
    """Return how the log bus is, as the collector said last: calls are served whatever it is."""
    left = figures.read(metrics_dir, "collector")
    if left is None or time.time() - left.at > STALE:
        return "away"
    return "cannot be written" if left.problem else "ok"


def listens(path: str) -> bool:
    """Whether somebody accepts at a unix socket; never waits."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        try:
            sock.connect(path)
        except BlockingIOError:
            # The queue is full: there is somebody, and busy.
            return True
        except OSError:
            return False
    return True
