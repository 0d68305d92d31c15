"""Every error knows its word, its status, whose fault it is, and says what happened."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandpost.model.errors import (
    AlreadyRunning,
    ConfigError,
    EngineError,
    HostUnfit,
    MemoryInUse,
    SandboxEnded,
    SandpostError,
    TooManyCalls,
)
from sandpost.store.errors import StoreError

API_PAGE = Path(__file__).parents[2] / "docs" / "api.md"
ON_THE_HOST = {AlreadyRunning, ConfigError, EngineError, HostUnfit, MemoryInUse}
"""Those that no client gets."""


def all_errors(base: type[SandpostError] = SandpostError) -> Iterator[type[SandpostError]]:
    yield base
    for child in base.__subclasses__():
        yield from all_errors(child)


@pytest.mark.parametrize("error", list(all_errors()), ids=lambda error: error.__name__)
def test_every_error_is_complete(error: type[SandpostError]) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", error.reason)
    assert 400 <= error.status <= 599
    assert error.fault in {"caller", "code", "platform"}
    assert error.__doc__


def to_clients() -> set[type[SandpostError]]:
    """Those that stand in answers; those of the command line are its own."""
    modules = {SandpostError.__module__, StoreError.__module__}
    return {error for error in all_errors() if error.__module__ in modules} - ON_THE_HOST


@pytest.mark.parametrize("error", sorted(to_clients(), key=str), ids=lambda error: error.__name__)
def test_the_page_of_the_api_has_every_word_by_its_status(error: type[SandpostError]) -> None:
    rows = re.findall(r"^\| ([0-9, ]+) \| (.*) \|$", API_PAGE.read_text(), re.MULTILINE)
    assert any(str(error.status) in statuses and f"`{error.reason}`" in reasons for statuses, reasons in rows)


def test_a_body_has_the_number_and_the_word() -> None:
    body = TooManyCalls("100 calls at once are the limit: raise limits.calls", retry_after=1).to_dict("r1")
    assert body == {
        "code": 429,
        "reason": "too_many_calls",
        "fault": "caller",
        "retryable": True,
        "message": "100 calls at once are the limit: raise limits.calls",
        "req_id": "r1",
    }


def test_the_end_of_a_sandbox_is_told_by_its_word() -> None:
    body = SandboxEnded("memory: 128 MiB reached, 3 calls in flight", word="memory", shared=True).to_dict()
    assert (body["code"], body["reason"], body["shared"]) == (500, "memory", True)
    assert "shared" not in SandboxEnded("x", word="exit").to_dict()
