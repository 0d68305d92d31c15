"""What the firewall's table costs beside 1,000 sandboxes: opening a way, a look at it all, repairing what was altered.

    python -m bench.firewall [--json]

The real writer in the tests' lab, a network namespace without a way out; nothing runs in the sandboxes. As root.
Medians are shown. `whole again` is from somebody's change to the table as it should be, as the controller sees to it.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench.result import median

# The lab is the tests' own.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from sandpost.controller import ways
from sandpost.model.egress import parse_egress
from sandpost.model.host import Host
from sandpost.model.limits import Limits
from sandpost.network import firewall
from support.engine_bed import claimed_host
from support.lab import lab

_SANDBOXES = 1000
_ROUNDS = 20
_POLICIES = ("public", "public", "public", "allow:api.example.com,203.0.113.0/24:443,198.51.100.7")
"""Every fourth tenant has a list."""
_CHANGES = {
    "table deleted": ["delete", "table", "inet", "T"],
    "chain flushed": ["flush", "chain", "inet", "T", "outward"],
    "ways flushed": ["flush", "map", "inet", "T", "tenants"],
}


def measure() -> dict[str, float]:
    """Return all figures, in seconds."""
    with lab() as made, claimed_host() as host:
        made.host.run(firewall.ensure, host)
        return made.host.run(_measure, host)


def _measure(host: Host) -> dict[str, float]:
    writer = firewall.Writer(host)
    try:
        writer.begin({})
        for slot in range(_SANDBOXES):
            writer.open(slot, _way(slot))
        found = {"open": _open(writer), "look": _timed(lambda: _look(writer)), "repair": _timed(writer.repair)}
        for name, command in _CHANGES.items():
            found[f"whole again, {name}"] = median([_whole_again(host, writer, command) for _ in range(_ROUNDS)])
        return found
    finally:
        writer.close()
        firewall.remove(host)


def _way(slot: int) -> firewall.Way:
    return firewall.Way(f"tenant-{slot}", parse_egress(_POLICIES[slot % len(_POLICIES)]), Limits())


def _open(writer: firewall.Writer) -> float:
    seconds = []
    for slot in range(_SANDBOXES, 2 * _SANDBOXES):
        way, began = _way(slot), time.perf_counter()
        writer.open(slot, way)
        seconds.append(time.perf_counter() - began)
        writer.shut(slot)
    return median(seconds)


def _look(writer: firewall.Writer) -> list[str]:
    judge = writer.look()
    return judge()


def _timed(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return median(seconds)


def _whole_again(host: Host, writer: firewall.Writer, command: list[str]) -> float:
    writer.altered()
    subprocess.run(["nft", *(host.nft_table if word == "T" else word for word in command)], check=True)
    began = time.perf_counter()
    if not writer.altered():
        raise RuntimeError("nobody was told")
    time.sleep(ways.SOON)
    if not _look(writer):
        raise RuntimeError("nothing was seen")
    writer.repair()
    took = time.perf_counter() - began
    if wrong := _look(writer):
        raise RuntimeError(f"not whole: {wrong}")
    return took


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What the firewall's table costs beside 1,000 sandboxes.")
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    found = measure()
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for name, seconds in found.items():
        print(f"{name:28} {seconds * 1e3:8.2f} ms")


if __name__ == "__main__":
    main()
