import json

from hypothesis import given
from hypothesis import strategies as st

from sandpost.logs import bunyan, records
from sandpost.logs.said import Said

SCRIBE = records.Scribe(hostname="h", tenant="acme", sandbox_id="0123456789ab")


def line(text: bytes, level: int = 30, req_id: str | None = None, *, raw: bool = False) -> bytes:
    return SCRIBE.line(Said(level, req_id, text, 1), bunyan.timestamp(1_700_000_000.125), raw=raw)


def test_user_record_has_bunyans_fields_and_says_that_it_is_the_users() -> None:
    assert json.loads(line(b"hi\x1b[0m", 50, "r%1")) == {
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
        "req_id": "r%1",
    }
    assert "req_id" not in json.loads(line(b"hi"))


def test_a_record_of_a_traced_call_names_its_trace() -> None:
    said = Said(30, "r1", b"hi", 1, trace_id="ab" * 16)
    record = json.loads(SCRIBE.line(said, bunyan.timestamp(0.0), raw=False))
    assert (record["req_id"], record["trace_id"]) == ("r1", "ab" * 16)
    assert "trace_id" not in json.loads(line(b"hi", req_id="r1"))


def test_a_programs_own_record_keeps_its_fields_beside_ours() -> None:
    said = {
        "name": "shop", "hostname": "evil", "pid": 7, "level": 40, "msg": "hi", "time": "2001-01-01T00:00:00.000Z", "v": 1,
        "container": "other", "sandbox": False, "sandbox_id": "x", "req_id": "forged", "offset": 1, "trace_id": "t",
        "cart": {"items": [1, None, 2.5]}, "app": "mine", "app.pid": "both",
    }  # fmt: skip
    text = json.dumps(said).encode()
    assert json.loads(line(text, raw=True)) == {
        "name": "shop", "hostname": "h", "pid": 1, "level": 40, "time": "2023-11-14T22:13:20.125Z", "msg": "hi", "v": 0,
        "container": "acme", "sandbox": True, "sandbox_id": "0123456789ab",
        "app.hostname": "evil", "app.pid": 7, "app.time": "2001-01-01T00:00:00.000Z", "app.v": 1,
        "app.container": "other", "app.sandbox": False, "app.sandbox_id": "x", "app.req_id": "forged", "app.offset": 1,
        "app.trace_id": "t", "cart": {"items": [1, None, 2.5]}, "app": "mine", "app.app.pid": "both",
    }  # fmt: skip
    assert json.loads(line(text))["msg"] == text.decode()


@given(st.binary(max_size=300))
def test_record_is_one_line_and_its_fields_cannot_be_forged(text: bytes) -> None:
    made = line(text, raw=True)
    assert made.count(b"\n") == 1
    assert made.endswith(b"}\n")
    record = json.loads(made)
    assert (record["container"], record["sandbox"], record["level"]) == ("acme", True, 30)


def test_forged_record_is_text() -> None:
    forged = b'{"name":"sandpost","container":"other","sandbox":false,"msg":"platform says","level":60,"v":0}'
    assert json.loads(line(forged, raw=True))["msg"] == forged.decode()
