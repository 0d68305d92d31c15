"""What holds for all tests."""

import os
import subprocess
from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import NodeManager

from sandpost.config import DEFAULTS
from sandpost.config.foreign import PREFIX

# Machines here are shared and noisy: how long an example takes says nothing about the code.
settings.register_profile("noisy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("noisy")

_OF_THE_MACHINE = {
    "attacks", "benchmarks", "controller", "engines", "image", "kernel", "network", "supervisor", "system", "walls",
}  # fmt: skip
"""Folders whose tests look at what the whole machine does, or start all of Sandpost: one of them at a time."""
_STAY = "tests_stay_here_"
_TABLE = f"ip {_STAY}{os.getpid()}"
_RULES = """
table %s {
	chain output {
		type filter hook output priority filter + 10; policy accept;
		ip daddr %s oifname != "lo" oifname != "%s*" counter drop
	}
}
"""


def pytest_configure() -> None:
    """Let a run that is broken off end what its tests started: the other process hears of it after 5 s of these."""
    NodeManager.EXIT_TIMEOUT = 20


class _Lanes(LoadScopeScheduling):  # type: ignore[misc]
    """Where two processes share the tests: one has those of the machine, in their order, the other a file at a time."""

    def _split_scope(self, nodeid: str) -> str:
        place = nodeid.partition("::")[0]
        return "machine" if place.split("/")[1] in _OF_THE_MACHINE else place


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Say which tests stay together."""
    return _Lanes(config, log)


@pytest.fixture(scope="session", autouse=True)
def _nothing_leaves() -> Iterator[None]:
    """Keep what is meant for sandboxes on this machine, also where a test has no platform, and so no firewall."""
    if os.geteuid() != 0:
        yield
        return
    _forget_the_killed()
    rules = _RULES % (_TABLE, ip_network(DEFAULTS["network.block"]), PREFIX)
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    try:
        yield
    finally:
        subprocess.run(["nft", "delete", "table", *_TABLE.split()], check=True)


def _forget_the_killed() -> None:
    """Remove the tables of runs that were killed."""
    tables = subprocess.run(["nft", "list", "tables", "ip"], capture_output=True, text=True, check=True).stdout
    for line in tables.splitlines():
        _, _, run = line.partition(f"table ip {_STAY}")
        if run and not os.path.exists(f"/proc/{run}"):
            # Another run, which has just begun, may have removed it.
            subprocess.run(["nft", "delete", "table", "ip", f"{_STAY}{run}"], capture_output=True, check=False)
