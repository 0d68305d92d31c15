"""One opened engine a module, driver and OCI runtime; every test must leave the host as it found it.

With the runtime that an installation takes by default each test runs always, with another one by `scripts/test --all`.
"""

import asyncio
from collections.abc import Iterator

import pytest

from support import gvisor
from support.engine_bed import ENGINES, RUNTIMES, Bed, claimed_host, traces, until

DRIVERS = [
    *(
        pytest.param((engine, {"runtime_command": runtime}), id=f"{engine}-{runtime}", marks=[pytest.mark.long] * late)
        for engine in sorted(ENGINES)
        for late, runtime in enumerate(RUNTIMES)
    ),
    pytest.param(("oci", {"engine": "runsc"}), id="oci-runsc"),
]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests of what one engine alone gives (`pytest.mark.engine`) with the other."""
    left = []
    for item in items:
        wanted = item.get_closest_marker("engine")
        params = getattr(getattr(item, "callspec", None), "params", {})
        if wanted is not None and "opened" in params:
            engine = params["opened"][1].get("engine", "runc")
            left += [item] if engine != wanted.args[0] else []
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in left]


@pytest.fixture(scope="module", params=DRIVERS)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """An engine with what all sandboxes share."""
    driver, changes = request.param
    if changes.get("engine") == "runsc":
        gvisor.runsc()
    with claimed_host(**changes) as host:
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
