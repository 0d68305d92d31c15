"""A controller for a module's tests, with its pool full at the begin of each."""

from collections.abc import Iterator

import pytest

from support.controller_bed import Installation


@pytest.fixture(scope="module")
def shared() -> Iterator[Installation]:
    """A really started controller with a pool of two."""
    with Installation(pool_size=2) as started:
        yield started


@pytest.fixture
def inst(shared: Installation) -> Installation:
    """The same, with a full pool."""
    shared.until(lambda: shared.phases().count("pooled") >= 2, "the pool to be full")
    return shared
