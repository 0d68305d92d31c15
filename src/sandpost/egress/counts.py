"""The figures of egress, as the metrics listener shows them."""

import os
import time
from collections import Counter

from sandpost.model.figures import Figures, Histogram, Sample, counter, gauge

_BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Counts:
    """What is counted since the start."""

    def __init__(self) -> None:
        self.questions = 0
        self.kept = 0
        self.fetched = Histogram(_BOUNDS)
        self.refused: Counter[str] = Counter()
        """Questions not answered, by kind (`Why.kind`)."""
        self.connections = 0
        self.gate_refused: Counter[str] = Counter()
        self.bytes_out = 0
        self.bytes_in = 0

    def figures(
        self, *, sandboxes: int, open_connections: int, kept_bytes: int, resolvers: dict[str, int], notes_dropped: int
    ) -> Figures:
        """Return them with what is there now. `resolvers`: failures of each of this host's resolvers."""
        samples: list[Sample] = [
            counter("sandpost_questions_total", "Questions for names by sandboxes.", self.questions),
            counter("sandpost_questions_kept_total", "Questions answered from what was kept.", self.kept),
            self.fetched.sample("sandpost_question_seconds", "Time of questions that were asked upstream."),
            *(
                counter("sandpost_questions_refused_total", "Questions not answered, by reason.", n, reason=reason)
                for reason, n in sorted(self.refused.items())
            ),
            *(
                counter("sandpost_resolver_failures_total", "Failures of a resolver of the host.", n, resolver=shown)
                for shown, n in resolvers.items()
            ),
            counter("sandpost_gate_connections_total", "Connections that the gate let pass.", self.connections),
            *(
                counter("sandpost_gate_refused_total", "Connections that the gate refused, by reason.", n, reason=kind)
                for kind, n in sorted(self.gate_refused.items())
            ),
            counter("sandpost_gate_bytes_out_total", "Bytes through the gate, from sandboxes.", self.bytes_out),
            counter("sandpost_gate_bytes_in_total", "Bytes through the gate, to sandboxes.", self.bytes_in),
            gauge("sandpost_gate_connections", "Connections through the gate.", open_connections),
            gauge("sandpost_ways", "Sandboxes that egress knows.", sandboxes),
            gauge("sandpost_answers_kept_bytes", "Bytes of answers that are kept.", kept_bytes),
            counter("sandpost_notes_dropped_total", "Notes for tenants' logs that were too many.", notes_dropped),
        ]
        return Figures(part="egress", index=0, pid=os.getpid(), at=time.time(), samples=samples)
