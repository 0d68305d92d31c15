"""What a worker's log says of the controller: a warning where it stays away, none at a renewal or a stop."""

import asyncio

import pytest
from structlog.testing import capture_logs

from sandpost.proxy import link
from support.proxy import Rig, eventually, run


@pytest.fixture(autouse=True)
def grace(monkeypatch: pytest.MonkeyPatch) -> float:
    """How long the controller may be away here."""
    monkeypatch.setattr(link, "CONTROLLER_GRACE", 1.5)
    return 1.5


def warnings_of(*, away: float) -> list[str]:
    """Return the warnings of a worker that is stopped `away` seconds after its controller went; 0: before it goes."""

    async def check() -> None:
        async with Rig() as rig:
            if away:
                rig.controller.close()
                await eventually(lambda: not rig.worker.link.table_known)
                await asyncio.sleep(away)
        await asyncio.sleep(1.6)

    with capture_logs() as lines:
        run(check())
    return [str(line["event"]) for line in lines if line["log_level"] != "info"]


def test_a_controller_that_stays_away_is_a_warning(grace: float) -> None:
    assert warnings_of(away=grace + 0.2) == ["the controller is away; tenants that have a sandbox are served"]


def test_a_stop_is_no_warning() -> None:
    assert warnings_of(away=0) == []
    assert warnings_of(away=0.1) == []


def test_a_controller_that_is_renewed_is_no_warning(grace: float) -> None:
    async def check() -> None:
        async with Rig() as rig:
            for _ in range(2):
                rig.controller.close()
                await eventually(lambda: not rig.worker.link.table_known)
                await asyncio.sleep(0.1)
                rig.controller.open()
                await eventually(lambda: rig.worker.link.table_known)
            await asyncio.sleep(grace + 0.2)

    with capture_logs() as lines:
        run(check())
    assert [line["event"] for line in lines if line["log_level"] != "info"] == []
