"""An ASGI application is told of its end when its sandbox is drained, and what it says then is read by its tenant."""

import time
from collections.abc import Iterator

import pytest

from support import gvisor
from support.lifespan import ends_with
from support.logs import records_of, until_said
from support.platform import Platform, platform
from support.waiting import until

PYTHON = {"Content-Type": "text/x-python"}
APP = ends_with('print("shutting down")', "await asyncio.sleep(0.5)", 'print("shut down")')


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("runc", marks=pytest.mark.engine("runc")),
        pytest.param("runsc", marks=(pytest.mark.engine("runsc"), pytest.mark.long)),
    ],
)
def engine(request: pytest.FixtureRequest) -> str:
    if request.param == "runsc":
        gvisor.runsc()
    return str(request.param)


@pytest.fixture(scope="module")
def running(engine: str) -> Iterator[Platform]:
    with platform(pool_size="1", engine_runtime=engine) as started:
        yield started


def recycled(running: Platform, tenant: str) -> list[str]:
    """The words of the ends that a tenant has read of."""
    return [
        one["end"] for one in records_of(running.host.logs_dir, tenant) if one["msg"] == "webtask container recycled"
    ]


def test_an_application_that_is_drained_by_a_limit_says_its_farewell(running: Platform) -> None:
    running.set_tenant("count", limits={"count": 1})
    assert running.call("count", APP, headers=PYTHON).body == b"served"
    said = until_said(running.host.logs_dir, "count", "shut down", 30)
    assert said["level"] == 30
    # Its exit status is no word of its own.
    assert recycled(running, "count") == ["count"]


def test_an_application_of_a_tenant_that_is_suspended_says_its_farewell(running: Platform) -> None:
    assert running.call("suspended", APP, headers=PYTHON).body == b"served"
    assert running.command("tenant", "suspend", "suspended").returncode == 0
    until_said(running.host.logs_dir, "suspended", "shut down")
    assert recycled(running, "suspended") == ["drained"]
    until(lambda: "suspended" not in {one["tenant"] for one in running.records()}, "its removal")


def test_all_applications_say_their_farewell_when_the_platform_stops(engine: str) -> None:
    tenants = [f"stops-{n}" for n in range(3)]
    with platform(pool_size="1", engine_runtime=engine) as running:
        for tenant in tenants:
            assert running.call(tenant, APP, headers=PYTHON).body == b"served"
        folder = running.host.logs_dir
        began = time.monotonic()
        assert running.stop() == 0
        took = time.monotonic() - began
        for tenant in tenants:
            assert [one["msg"] for one in records_of(folder, tenant)][-2:] == ["shutting down", "shut down"]
    assert took < 15
