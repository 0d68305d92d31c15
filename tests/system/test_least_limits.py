"""The least that a limit may be is enough for a runtime; what is less is refused with that least."""

from collections.abc import Iterator

import pytest

from sandpost.model.bounds import BOUNDS, format_limit
from support.gvisor import runsc
from support.platform import Platform, platform

PROGRAM = "return (cb) => cb(null, require('fs').readdirSync('/tmp').length + 1)"
OWN = {"code": 4096, "stored_code": 4096, "deadline": 30, "rate": 0, "count": 0}
"""Of these the least is no matter of the runtime's: a program's size, a call's own time, how many calls."""


@pytest.fixture(scope="module")
def running() -> Iterator[Platform]:
    runsc()
    with platform(pool_size="1") as made:
        yield made


@pytest.mark.parametrize("engine", ["runc", "runsc"])
def test_a_tenant_with_the_least_of_everything_is_served(running: Platform, engine: str) -> None:
    least = {name: OWN.get(name, bound.least) for name, bound in BOUNDS.items()}
    running.set_tenant(f"least-{engine}", limits=least, engine=engine)
    for _ in range(3):
        answer = running.call(f"least-{engine}", PROGRAM)
        assert (answer.status, answer.json) == (200, 1), answer.body


@pytest.mark.parametrize("name", [name for name, bound in BOUNDS.items() if bound.least > 0])
def test_less_is_refused_with_the_least(running: Platform, name: str) -> None:
    bound = BOUNDS[name]
    for less in {bound.least / 2 if bound.kind in {"share", "duration"} else bound.least - 1, -1}:
        if less == 0 and bound.off:
            continue
        answer = running.api("PUT", "/api/tenants/less", {"limits": {name: less}})
        assert (answer.status, answer.json["reason"]) == (400, "invalid_value"), answer.body
        assert f"limits.{name}" in answer.json["message"]
        assert f"choose {format_limit(name, bound.least)} to" in answer.json["message"]
    assert running.api("GET", "/api/tenants/less").status == 404
