"""Every measurement by name, in the order in which they run."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.measures import churn, egress, first, growth, gvisor, memory, programs, warm
from bench.measures.languages import csharp, modules, python, typescript
from bench.measures.logs import calls, collector, flood, history, latency, streams
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
    "languages first": Measure("first answers of Python: from the pool, without, as a second runtime", python.first),
    "languages warm": Measure("warm calls of Python, beside bare Node and bare uvicorn", python.warm),
    "languages idle": Measure("memory of an idle sandbox of Python", python.idle),
    "languages typescript": Measure("TypeScript beside JavaScript", typescript.typescript),
    "languages csharp": Measure("C# by Edge.js: first calls, and warm ones beside JavaScript", csharp.csharp),
    "languages coreclr": Measure("the same on CoreCLR", csharp.coreclr),
    "languages modules": Measure("`require` of an installed module beside a plain folder", modules.modules),
    "growth": Measure("warm calls with 1, 100 and 1,000 tenants alive", growth.growth),
    "logs latency": Measure("a line written inside to a line read, beside `tail -f` and bare Kafka", latency.latency),
    "logs collector": Measure("20,000 lines a second through the collector, beside `cat`", collector.collector),
    "logs streams": Measure("1,000 open streams, beside bare Node", streams.streams),
    "logs calls": Measure("warm calls with records and with lines, beside logs off", calls.calls),
    "logs flood": Measure("tenants that write without end, and a neighbour", flood.flood),
    "logs history": Measure("the first of a tenant's last 10,000 of 10 million records", history.history),
}
