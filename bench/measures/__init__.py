"""Every measurement by name, in the order in which they run."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.measures import churn, egress, first, growth, gvisor, memory, programs, warm
from bench.options import Options
from bench.result import Result


@dataclass(frozen=True)
class Measure:
    """One measurement: what it finds out, and how."""

    about: str
    run: Callable[[Options], Result]


ALL: dict[str, Measure] = {
    "first": Measure("first answer of a new tenant, pool warm", first.warm_pool),
    "empty": Measure("first answer of a new tenant, pool empty", first.empty_pool),
    "sustained": Measure("new tenants answered a second", first.sustained),
    "warm": Measure("warm calls a second beside a bare Node server", warm.throughput),
    "added": Measure("latency added at one connection", warm.added),
    "load": Measure("latency against load, for the plot", warm.load),
    "unseen": Measure("a never-seen program against a known one; thousands of different ones", programs.unseen),
    "idle": Measure("memory of an idle sandbox and of the platform's processes", memory.idle),
    "full": Measure("tenants that fill their memory, and a neighbour", memory.full),
    "churn": Measure("sandboxes made and ended one after another", churn.churn),
    "gvisor": Measure("tenants on runsc beside tenants on runc", gvisor.gvisor),
    "egress": Measure("the gate beside direct connections, the resolver beside an echo", egress.gate_and_resolver),
    "growth": Measure("warm calls with 1, 100 and 1,000 tenants alive", growth.growth),
}
