"""Whole-system tests run against a really started platform."""

from collections.abc import Iterator

import pytest

from support.platform import Platform, platform


@pytest.fixture(scope="module")
def running() -> Iterator[Platform]:
    """One platform for a module's tests, which use tenants of their own. Afterwards nothing is left of it."""
    with platform(pool_size="3") as started:
        yield started
