"""A lab with an installation's firewall in it."""

from collections.abc import Iterator

import pytest

from sandpost.model.host import Host
from sandpost.network import firewall, forwarding
from support.engine_bed import claimed_host
from support.lab import HOST, PUBLIC, Lab, lab
from support.walls import Walls


@pytest.fixture(scope="module")
def laboratory() -> Iterator[tuple[Lab, Host]]:
    """The lab of a module, with the table loaded and answers let in."""
    with lab() as made, claimed_host() as host:
        made.host.run(firewall.ensure, host)
        made.host.ip(f"addr add {host.platform_address}/32 dev lo")
        yield made, host
        made.host.run(forwarding.close_uplinks, host)


@pytest.fixture
def walls(laboratory: tuple[Lab, Host]) -> Iterator[Walls]:
    """The firewall with nobody in it."""
    made, host = laboratory
    one = Walls(made, host)
    try:
        made.host.run(one.writer.begin, {})
        made.host.run(lambda: one.writer.guard(forwarding.open_uplinks(host)))
        assert made.host.command("ip", "route", "get", PUBLIC).split()[6] == HOST
        yield one
    finally:
        one.close()
