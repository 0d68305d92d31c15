"""The command line against the real api."""

from collections.abc import Iterator

import pytest

from support.command import Run, runner
from support.installation import Installation, ScriptedController, installation


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[Installation, ScriptedController]]:
    """One api with a controller for a module's tests, which use tenants of their own."""
    with installation() as made:
        controller = made.controller()
        controller.wait_connected()
        yield made, controller


@pytest.fixture
def sandpost(place: tuple[Installation, ScriptedController]) -> Run:
    """Return a function that runs `sandpost ARGUMENTS` on the installation."""
    return runner(place[0])
