"""Installations for tests of the api."""

from collections.abc import Iterator

import pytest

from support.installation import Installation, ScriptedController, installation


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Installation, ScriptedController]]:
    """One api with a controller for a module's tests, which use tenants of their own."""
    with installation() as made:
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
