"""One opened engine a module and driver; every test must leave the host as it found it."""

import asyncio
from collections.abc import Iterator

import pytest

from support.engine_bed import ENGINES, Bed, claimed_host, traces, until


@pytest.fixture(scope="module", params=sorted(ENGINES))
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """An engine with what all sandboxes share."""
    with claimed_host() as host:
        engine = ENGINES[request.param](host)
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
