"""Installations for tests of the api."""

from collections.abc import Iterator

import pytest

from sandpost.model.host import Modules
from support.installation import Installation, ScriptedController, installation


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Installation, ScriptedController]]:
    """One api with a controller for a module's tests, which use tenants of their own."""
    # Nobody listens where a builder would be called: what is asked for stays queued.
    with installation(modules=Modules(npm="http://npm.example.com:4873/")) as made:
        controller = made.controller()
        controller.wait_connected()
        yield made, controller


@pytest.fixture
def api(shared: tuple[Installation, ScriptedController], controller: ScriptedController) -> Installation:
    return shared[0]


@pytest.fixture
def controller(shared: tuple[Installation, ScriptedController]) -> ScriptedController:
    shared[1].silent = False
    shared[1].sandboxes = []
    return shared[1]
