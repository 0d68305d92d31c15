"""One opened engine a module and driver; every test must leave the host as it found it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engine_bed import ENGINES, Bed, make_host, traces, until


@pytest.fixture(scope="module", params=sorted(ENGINES))
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """An engine with what all sandboxes share."""
    run_dir = tmp_path_factory.mktemp("run")
    host = make_host(str(run_dir))
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


@pytest.fixture
def run_dir(tmp_path: Path) -> str:
    """A run folder for an engine that a test opens itself."""
    (tmp_path / "run").mkdir()
    return str(tmp_path / "run")
