"""One opened engine a module, driver and OCI runtime; every test must leave the host as it found it.

With the runtime that an installation takes by default each test runs always, with another one by `scripts/test --all`.
"""

import asyncio
from collections.abc import Iterator

import pytest

from support.engine_bed import ENGINES, RUNTIMES, Bed, claimed_host, traces, until

DRIVERS = [
    pytest.param((engine, runtime), id=f"{engine}-{runtime}", marks=[pytest.mark.long] if number else [])
    for engine in sorted(ENGINES)
    for number, runtime in enumerate(RUNTIMES)
]


@pytest.fixture(scope="module", params=DRIVERS)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """An engine with what all sandboxes share."""
    driver, runtime = request.param
    with claimed_host(runtime_command=runtime) as host:
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
