"""What a worker counts: plain integers on the way of a call, samples for the metrics listener once a second."""

import os
import time
from collections import Counter

from sandpost.model.figures import Figures, Histogram, Sample, counter, gauge

_BOUNDS = (
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0,
)  # fmt: skip


class Counts:
    """Everything that one worker counts since it started."""

    def __init__(self) -> None:
        self.started_at = time.time()
        # Calls.
        self.statuses = [0] * 600
        self.call_seconds = Histogram(_BOUNDS)
        self.first_seconds = Histogram(_BOUNDS)
        self.route_seconds = Histogram(_BOUNDS)
        self.reasons: Counter[str] = Counter()
        self.in_flight = 0
        self.broken_off = 0
        self.clients_gone = 0
        self.loads = 0
        # Connections.
        self.connections = 0
        self.accepted = 0
        self.refused_connections = 0
        self.tunnels = 0
        self.handed_over = 0
        self.taken_over = 0
        self.streams_cut = 0
        # Sandboxes.
        self.ends: Counter[str] = Counter()
        self.suspects: Counter[str] = Counter()
        self.upstream_opened = 0
        self.bytes_in = 0
        self.bytes_out = 0

    def samples(self, *, sandboxes: int, upstreams: int) -> list[Sample]:
        """Return all as samples; `sandboxes` and `upstreams` are present numbers of routes and connections."""
        made = [
            counter("sandpost_calls_total", "Answers to calls, by status.", count, status=str(status))
            for status, count in enumerate(self.statuses)
            if count
        ]
        made += [
            counter("sandpost_refusals_total", "Answers that the proxy itself wrote, by reason.", count, reason=reason)
            for reason, count in sorted(self.reasons.items())
        ]
        made += [
            counter("sandpost_ends_seen_total", "Ends of sandboxes that this worker had routes to.", count, word=word)
            for word, count in sorted(self.ends.items())
        ]
        made += [
            counter("sandpost_suspects_total", "Sandboxes reported to the controller.", count, kind=kind)
            for kind, count in sorted(self.suspects.items())
        ]
        made += [
            self.call_seconds.sample("sandpost_call_seconds", "From a call's head to the end of its answer."),
            self.first_seconds.sample(
                "sandpost_first_call_seconds", "The same, of calls that had to wait for a sandbox."
            ),
            self.route_seconds.sample("sandpost_route_seconds", "Waits for the controller's answer."),
            gauge("sandpost_calls_in_flight", "Calls under way.", self.in_flight),
            gauge("sandpost_client_connections", "Connections of clients.", self.connections),
            gauge("sandpost_sandbox_connections", "Connections to sandboxes.", upstreams),
            gauge("sandpost_routes", "Sandboxes that this worker knows.", sandboxes),
            gauge("sandpost_tunnels", "Upgraded connections.", self.tunnels),
            counter("sandpost_connections_total", "Connections accepted.", self.accepted),
            counter("sandpost_connections_refused_total", "Connections beyond the limit.", self.refused_connections),
            counter("sandpost_connections_handed_over_total", "Idle connections given away.", self.handed_over),
            counter("sandpost_connections_taken_over_total", "Idle connections taken.", self.taken_over),
            counter("sandpost_streams_cut_total", "Exchanges cut by a drain's timeout.", self.streams_cut),
            counter("sandpost_answers_broken_off_total", "Answers that ended before their end.", self.broken_off),
            counter("sandpost_clients_gone_total", "Clients that left before their answer.", self.clients_gone),
            counter("sandpost_loads_total", "Programs sent to sandboxes.", self.loads),
            counter("sandpost_sandbox_connects_total", "Connections opened to sandboxes.", self.upstream_opened),
            counter("sandpost_bytes_in_total", "Bytes of programs and bodies of calls.", self.bytes_in),
            counter("sandpost_bytes_out_total", "Bytes of bodies of answers from sandboxes.", self.bytes_out),
        ]
        return made

    def figures(self, index: int, *, sandboxes: int, upstreams: int) -> Figures:
        """Return what the metrics listener reads of this worker."""
        return Figures(
            part="proxy",
            index=index,
            pid=os.getpid(),
            at=time.time(),
            samples=self.samples(sandboxes=sandboxes, upstreams=upstreams),
        )
