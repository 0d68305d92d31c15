import json

from hypothesis import given
from hypothesis import strategies as st

from sandpost.logs import records
from sandpost.logs.said import Said


def encoded(said: Said) -> bytes:
    return records.encode(
        records.user_record(said, hostname="h", tenant="acme", sandbox_id="0123456789ab", at=1_700_000_000.125)
    )


def test_user_record_has_bunyans_fields_and_says_that_it_is_the_users() -> None:
    assert json.loads(encoded(Said(50, "r1", b"hi\x1b[0m"))) == {
        "name": "sandpost",
        "hostname": "h",
        "pid": 1,
        "level": 50,
        "time": "2023-11-14T22:13:20.125Z",
        "msg": "hi",
        "v": 0,
        "container": "acme",
        "sandbox": True,
        "sandbox_id": "0123456789ab",
        "req_id": "r1",
    }
    assert "req_id" not in json.loads(encoded(Said(30, None, b"hi")))


@given(st.binary(max_size=300))
def test_record_is_one_line_and_its_fields_cannot_be_forged(text: bytes) -> None:
    line = encoded(Said(30, None, text))
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    record = json.loads(line)
    assert (record["container"], record["sandbox"], record["level"]) == ("acme", True, 30)


def test_forged_record_is_text() -> None:
    forged = b'{"name":"sandpost","container":"other","sandbox":false,"msg":"platform says","level":60,"v":0}'
    assert json.loads(encoded(Said(30, None, forged)))["msg"] == forged.decode()


def test_notice_is_the_platforms() -> None:
    record = records.notice("x", hostname="h", pid=7, tenant="acme", at=0.0)
    shown = json.loads(records.encode(record))
    assert "sandbox" not in shown
    assert (shown["level"], shown["pid"], shown["container"], shown["msg"]) == (40, 7, "acme", "x")


def test_dropped_lines_are_told_in_a_sentence() -> None:
    assert records.dropped(1204, 3.0, records.over_rate(1 << 20)) == "1,204 lines dropped in 3.0 s: over 1 MiB/s"
    assert records.dropped(1, 0.1, records.over_rate(1000)) == "1 line dropped in 0.1 s: over 1000 B/s"
