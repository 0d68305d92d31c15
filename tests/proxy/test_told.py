"""What a tenant reads of his calls: two records each up to a rate, beyond it a sum a second."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandpost.logs.journal import Journal
from sandpost.model.names import SYSTEM
from sandpost.proxy.told import Told
from support.heard import Heard


class Bed:
    """One worker's, with a rate that a test may change."""

    def __init__(self, folder: Path) -> None:
        path = str(folder / "records.sock")
        self.heard = Heard(path)
        self.journal = Journal(path)
        self.rate = 2
        self.told = Told(self.journal, 1, lambda: self.rate)

    def call(
        self, tenant: str, req_id: str, status: int = 200, seconds: float = 0.0124, reason: str = "", trace_id: str = ""
    ) -> None:
        apart = self.told.begin(tenant, req_id, trace_id)
        self.told.end(
            tenant, req_id, status, seconds, trace_id=trace_id, sandbox_id="0123456789ab", reason=reason, apart=apart
        )

    def texts(self, stream: str) -> list[str]:
        self.journal.flush()
        return self.heard.texts(stream)


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    made = Bed(tmp_path)
    yield made
    made.journal.close()
    made.heard.close()


def test_a_call_is_told_at_its_begin_and_at_its_end(bed: Bed) -> None:
    bed.call("acme", "abcd000000000001")
    bed.call("acme", "abcd000000000002", 500, 1.5, "memory")
    assert bed.texts("acme") == [
        "new webtask request abcd000000000001",
        "finished webtask request abcd000000000001 with HTTP 200 in 12ms",
        "new webtask request abcd000000000002",
        "finished webtask request abcd000000000002 with HTTP 500 in 1500ms",
    ]
    new, ended, _, failed = bed.heard.of("acme")
    assert (new["container"], new["req_id"], new["level"], new["v"]) == ("acme", "abcd000000000001", 30, 0)
    assert "sandbox" not in new
    assert (ended["status"], ended["duration_ms"], ended["sandbox_id"]) == (200, 12.4, "0123456789ab")
    assert "reason" not in ended
    assert failed["reason"] == "memory"


def test_a_traced_call_names_its_trace_at_its_begin_and_its_end(bed: Bed) -> None:
    bed.call("acme", "abcd000000000001", trace_id="ab" * 16)
    bed.told.refused("acme", "abcd000000000002", 413, "body_too_large", "cd" * 16)
    bed.texts("acme")
    bed.told.second()
    bed.call("acme", "abcd000000000003")
    bed.texts("acme")
    assert [record.get("trace_id") for record in bed.heard.of("acme")][:3] == ["ab" * 16, "ab" * 16, "cd" * 16]
    assert "trace_id" not in bed.heard.of("acme")[-1]


def test_beyond_the_rate_calls_are_summed_each_second(bed: Bed) -> None:
    for number in range(2):
        bed.call("acme", f"{number:016x}")
    for number in range(1204):
        bed.call("acme", f"{number:016x}", 500 if number % 100 == 0 else 200, number / 1e5)
    bed.call("other", "f" * 16)
    bed.told.second()
    assert bed.texts("acme")[4:] == [
        "1,204 webtask requests in the last second: 1,191 with HTTP 200, 13 with HTTP 500; 0 to 12ms"
    ]
    assert bed.heard.of("acme")[-1]["requests"] == 1204
    assert len(bed.texts("other")) == 2
    # The next second has its own.
    bed.call("acme", "e" * 16)
    bed.told.second()
    assert bed.texts("acme")[5:] == [
        f"new webtask request {'e' * 16}", f"finished webtask request {'e' * 16} with HTTP 200 in 12ms"
    ]  # fmt: skip


def test_a_call_that_began_within_the_rate_ends_with_a_record_however_late(bed: Bed) -> None:
    apart = bed.told.begin("acme", "a" * 16, "")
    for number in range(5):
        bed.call("acme", f"{number:016x}")
    bed.told.second()
    bed.told.end("acme", "a" * 16, 0, 3600.0, trace_id="", sandbox_id="", reason="", apart=apart)
    assert bed.texts("acme")[-1] == f"finished webtask request {'a' * 16} without a complete answer in 3600000ms"


def test_with_a_rate_of_nothing_nothing_is_written(bed: Bed) -> None:
    bed.rate = 0
    bed.call("acme", "a" * 16)
    bed.told.refused("acme", "b" * 16, 429, "rate")
    bed.told.refused("", "c" * 16, 403, "forbidden")
    bed.told.second()
    assert bed.texts("acme") == []
    assert bed.texts(SYSTEM) == []


def test_who_brings_no_key_writes_into_no_tenants_stream_and_at_a_rate(bed: Bed) -> None:
    for number in range(50):
        bed.told.refused("", f"{number:016x}", 403, "forbidden")
    bed.told.second()
    first, second, both = bed.texts(SYSTEM)
    assert first == f"finished webtask request {0:016x} with HTTP 403 in 0ms"
    assert second.endswith("with HTTP 403 in 0ms")
    assert both == "48 webtask requests in the last second: 48 with HTTP 403; 0 to 0ms"
    record = bed.heard.of(SYSTEM)[0]
    assert (record["component"], record["worker"], record["reason"]) == ("proxy", 1, "forbidden")
    assert "container" not in record


def test_tenants_that_call_nothing_are_forgotten(bed: Bed) -> None:
    for number in range(100):
        bed.call(f"t{number}", f"{number:016x}")
    for _ in range(100):
        bed.told.second()
    assert not bed.told._streams


def test_every_record_is_json_with_bunyans_fields(bed: Bed) -> None:
    bed.call("a-b_c", "a" * 16, 504, 0.0, "deadline")
    bed.journal.flush()
    for record in bed.heard.of("a-b_c"):
        assert {"name", "hostname", "pid", "level", "time", "msg", "v"} <= record.keys(), json.dumps(record)
