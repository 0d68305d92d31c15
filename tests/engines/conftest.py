"""One opened engine a module and driver; every test must leave the host as it found it."""

import asyncio
from collections.abc import Iterator

import pytest

from support import gvisor
from support.engine_bed import ENGINES, Bed, claimed_host, traces, until


@pytest.fixture(scope="module", params=[("oci", "runc"), ("oci", "runsc")], ids="-".join)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """An engine with what all sandboxes share."""
    driver, runtime = request.param
    if runtime == "runsc":
        gvisor.runsc()
    with claimed_host(engine=runtime) as host:
        engine = ENGINES[driver](host)
        asyncio.run(engine.open())
        yield Bed(host, engine, tmp_path_factory.mktemp("fifos"))
        asyncio.run(engine.close(purge=True))
        left = traces(host)
        assert not left["groups"]
        assert not left["interfaces"]
        assert not left["files"]


@pytest.fixture
def bed(opened: Bed) -> Iterator[Bed]:
    """The engine, for one test."""
    before = traces(opened.host)
    yield opened
    asyncio.run(opened.clear())
    assert until(lambda: traces(opened.host) == before), traces(opened.host)
