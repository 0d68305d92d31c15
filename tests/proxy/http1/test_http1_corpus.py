"""Every form of malformed head that we know, one file a case."""

from pathlib import Path

import pytest

from support.http1_feeding import LIMIT, bytewise, outcome, requests_within, responses_within

CORPUS = Path(__file__).parent / "corpus"


def _cases(folder: str) -> list[object]:
    rules = dict(line.split(": ", 1) for line in (CORPUS / folder / "rules.txt").read_text().splitlines())
    files = {path.stem: path for path in (CORPUS / folder).glob("*.http")}
    assert set(rules) == set(files)
    return [pytest.param(files[name].read_bytes(), rules[name], id=name) for name in sorted(rules)]


@pytest.mark.parametrize(("data", "rule"), _cases("requests"))
def test_malformed_request_is_refused_by_its_rule_however_it_is_split(data: bytes, rule: str) -> None:
    parse = requests_within(LIMIT)
    whole = outcome(parse, [data])
    assert isinstance(whole, tuple), whole
    assert whole[0] == "MalformedRequest"
    assert rule in whole[1]
    assert outcome(parse, bytewise(data)) == whole
    assert outcome(parse, bytewise(data), tell_seen=False) == whole
    assert outcome(parse, [data + b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"]) == whole
    assert outcome(parse, [data, b"more"]) == whole


@pytest.mark.parametrize(("data", "rule"), _cases("responses"))
def test_broken_response_is_refused_by_its_rule_however_it_is_split(data: bytes, rule: str) -> None:
    parse = responses_within(LIMIT)
    whole = outcome(parse, [data])
    assert isinstance(whole, tuple), whole
    assert whole[0] == "BrokenResponse"
    assert rule in whole[1]
    assert outcome(parse, bytewise(data)) == whole
    assert outcome(parse, bytewise(data), tell_seen=False) == whole
    assert outcome(parse, [data + b"HTTP/1.1 200 OK\r\n\r\n"]) == whole
