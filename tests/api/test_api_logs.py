"""Streams of records, read from the real api with real `curl` and by hand; a feed stands in the collector's place."""

import contextlib
import gzip
import json
import os
import signal
import socket
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from support.feed import Feed, record
from support.installation import Installation, installation, wait_for

EVENTS = {"accept": "text/event-stream"}


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[Installation, Feed]]:
    installed = Installation()
    with contextlib.ExitStack() as stack:
        stack.callback(installed.close)
        feed = stack.enter_context(Feed(installed.host))
        installed.start()
        yield installed, feed


@pytest.fixture
def api(made: tuple[Installation, Feed]) -> Installation:
    return made[0]


@pytest.fixture
def feed(made: tuple[Installation, Feed]) -> Feed:
    return made[1]


def parsed(text: str | bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def numbers(records: list[dict[str, Any]]) -> list[int]:
    return [one["n"] for one in records if "n" in one]


class Reader:
    """One open stream on the api's socket: its head, then its bytes as they come, chunks taken apart."""

    def __init__(self, api: Installation, target: str, *headers: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(api.host.api_socket)
        head = "".join(f"{line}\r\n" for line in ("host: api", *headers))
        self.sock.sendall(f"GET {target} HTTP/1.1\r\n{head}\r\n".encode())
        self.file = self.sock.makefile("rb")
        self.status = int(self.file.readline().split()[1])
        self.headers = dict(line.decode().strip().lower().split(": ", 1) for line in iter(self.file.readline, b"\r\n"))

    def chunk(self) -> bytes:
        """The next chunk; empty at the stream's end."""
        size = int(self.file.readline() or b"0", 16)
        data = self.file.read(size)
        self.file.readline()
        return data

    def rest(self) -> bytes:
        """All until the end."""
        return b"".join(iter(self.chunk, b""))

    def close(self) -> None:
        self.file.close()
        self.sock.close()


@contextlib.contextmanager
def reading(api: Installation, target: str, *headers: str) -> Iterator[Reader]:
    reader = Reader(api, target, *headers)
    try:
        yield reader
    finally:
        reader.close()


# --- where a stream begins and ends ---------------------------------------------------------------------------


def test_a_stream_begins_now_and_each_record_comes_as_it_was_with_its_offset(api: Installation, feed: Feed) -> None:
    feed.numbers("now", 0)
    with reading(api, "/logs/tenant/now") as reader:
        assert reader.headers["content-type"] == "application/x-ndjson"
        assert reader.headers["x-sandpost-log-end"] == "1"
        feed.numbers("now", 1)
        line = reader.chunk()
        assert line.endswith(b'"n":1,"offset":1}\n')
        assert json.loads(line) == {**record(1), "offset": 1}
        feed.numbers("now", 2, 3)
        assert numbers(parsed(reader.chunk())) == [2, 3]


def test_history_joins_what_comes_without_gap_or_double(api: Installation, feed: Feed) -> None:
    stop = threading.Event()
    written = 0

    def write() -> None:
        nonlocal written
        while not stop.is_set():
            feed.numbers("joined", *range(written, written + 37))
            written += 37

    writer = threading.Thread(target=write)
    writer.start()
    try:
        wait_for(lambda: written > 3000)
        for query in ("offset=0", "tail=1000", "offset=1234"):
            with reading(api, f"/logs/tenant/joined?{query}&max=4000") as reader:
                seen = parsed(reader.rest())
            assert len(seen) == 4000
            assert numbers(seen) == list(range(seen[0]["n"], seen[0]["n"] + 4000))
            assert [one["offset"] for one in seen] == numbers(seen)
    finally:
        stop.set()
        writer.join()


def test_max_ends_after_so_many_records_and_not_a_line_more(api: Installation, feed: Feed) -> None:
    feed.numbers("most", *range(10))
    answer = api.call("GET", "/logs/tenant/most?offset=2&max=3")
    assert numbers(parsed(answer.text)) == [2, 3, 4]
    assert len(parsed(answer.text)) == 3


def test_timeout_ends_a_silent_stream_and_its_last_record_says_so(api: Installation) -> None:
    (last,) = parsed(api.call("GET", "/logs/tenant/silent?timeout=200").text)
    assert (last["end"], last["container"], last["level"]) == ("timeout", "silent", 30)
    assert "offset" not in last


def test_follow_false_ends_where_the_stream_ended_when_it_was_opened(api: Installation, feed: Feed) -> None:
    feed.numbers("told", *range(5))
    for query, expected in (("offset=0", range(5)), ("tail=2", range(3, 5)), ("offset=9", ()), ("", ())):
        seen = parsed(api.call("GET", f"/logs/tenant/told?follow=false&{query}").text)
        assert numbers(seen) == list(expected)
        assert seen[-1]["end"] == "told"
    assert parsed(api.call("GET", "/logs/tenant/told-nothing?follow=false&tail=9").text)[0]["end"] == "told"


def test_since_leaves_out_what_its_first_batch_has_from_before(api: Installation, feed: Feed) -> None:
    now = time.time()

    def at(ago: float) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(now - ago))

    feed.put("since", [record(0, time=at(7200))], now - 7200)
    feed.put("since", [record(1, time=at(3600)), record(2, time=at(300)), record(3, time=at(240))], now - 240)
    seen = parsed(api.call("GET", "/logs/tenant/since?since=10m&follow=false").text)
    assert numbers(seen) == [2, 3]
    assert numbers(parsed(api.call("GET", "/logs/tenant/since?since=1d&follow=false").text)) == [0, 1, 2, 3]
    for tail, expected in ((1, [3]), (2, [2, 3]), (3, [2, 3]), (100, [2, 3])):
        seen = parsed(api.call("GET", f"/logs/tenant/since?since=10m&tail={tail}&follow=false").text)
        assert numbers(seen) == expected


def test_an_offset_behind_the_end_says_from_where_it_goes_on(api: Installation, feed: Feed) -> None:
    feed.numbers("behind", 0, 1)
    with reading(api, "/logs/tenant/behind?offset=500") as reader:
        said = json.loads(reader.chunk())
        assert said["next"] == 2
        assert "500" in said["msg"]
        feed.numbers("behind", 2)
        assert numbers(parsed(reader.chunk())) == [2]


def test_what_is_not_kept_any_more_is_told_where_it_was(api: Installation, feed: Feed) -> None:
    feed.numbers("lost", *range(4))
    folder = os.path.join(api.host.logs_dir, "lost")
    (segment,) = (name for name in os.listdir(folder) if name.endswith(".seg"))
    with open(os.path.join(folder, segment), "r+b") as file:
        # In the first batch, whose lines no longer are what was written.
        file.seek(100)
        file.write(b"\xff\xff\xff")
    feed.numbers("lost", 4)
    seen = parsed(api.call("GET", "/logs/tenant/lost?offset=0&follow=false").text)
    assert (seen[0]["missing"], seen[0]["offset"], seen[0]["level"]) == (4, 3, 40)
    assert "damaged" in seen[0]["msg"]
    assert numbers(seen) == [4]


def test_a_tenant_that_never_existed_is_an_empty_stream_that_waits(api: Installation, feed: Feed) -> None:
    with reading(api, "/logs/tenant/to-come") as reader:
        assert reader.status == 200
        assert reader.headers["x-sandpost-log-end"] == "0"
        feed.numbers("to-come", 0)
        assert numbers(parsed(reader.chunk())) == [0]


def test_the_platforms_own_records_are_a_stream_of_their_own(api: Installation, feed: Feed) -> None:
    feed.numbers(".system", 5)
    assert numbers(parsed(api.call("GET", "/logs/system?tail=1&max=1").text)) == [5]


def test_the_webtask_formats_path_is_the_same_stream(api: Installation, feed: Feed) -> None:
    feed.numbers("alias", 1)
    assert numbers(parsed(api.call("GET", "/api/logs/tenant/alias?tail=1&max=1").text)) == [1]


# --- what passes ----------------------------------------------------------------------------------------------


def test_filters_choose_records_by_level_message_and_fields(api: Installation, feed: Feed) -> None:
    feed.put(
        "filtered",
        [
            record(0, level=20, msg="GET /a"),
            record(1, level=40, msg="PUT /b", req_id="r1", app={"user": {"id": 7}}),
            record(2, level=50, msg="boom\nat x", req_id="r1", **{"app.user.id": "seven"}),
            record(3, level=30, msg="!loud"),
        ],
    )

    def passing(*query: tuple[str, str]) -> list[int]:
        curl = ["curl", "-sSN", "--get", "--unix-socket", api.host.api_socket, "http://api/logs/tenant/filtered"]
        for pair in (("offset", "0"), ("follow", "false"), *query):
            curl += ["--data-urlencode", "=".join(pair)]
        return numbers(parsed(subprocess.run(curl, capture_output=True, check=True, timeout=20).stdout))

    assert passing(("level", "warn")) == [1, 2]
    assert passing(("level", "35"), ("f.req_id", "r1"), ("f.msg", "^PUT")) == [1]
    assert passing(("f.msg", "[/!]")) == [0, 1, 3]
    assert passing(("f.msg", "!/")) == [2, 3]
    assert passing(("f.msg", "!!loud")) == [3]
    assert passing(("f.level", "50")) == [2]
    assert passing(("f.sandbox", "true"), ("f.offset", "3")) == [3]
    assert passing(("f.app.user.id", "7")) == [1]
    assert passing(("f.app.user.id", "seven")) == [2]
    assert passing(("f.nothing", "x")) == []


def test_readers_of_one_piece_get_each_what_they_asked_for(api: Installation, feed: Feed) -> None:
    queries = {"": [0, 1, 2], "&level=error": [1], "&f.msg=!line+1": [0, 2]}
    readers = {query: Reader(api, f"/logs/tenant/shared?timeout=1500{query}") for query in queries}
    events = Reader(api, "/logs/tenant/shared?timeout=1500", "accept: text/event-stream")
    try:
        feed.put("shared", [record(0), record(1, level=50), record(2)])
        for query, reader in readers.items():
            assert numbers(parsed(reader.rest())) == queries[query]
        assert events.rest().count(b"\n\n") == 4
    finally:
        for reader in (*readers.values(), events):
            reader.close()


def test_a_filter_that_lets_nothing_pass_reads_all_history_before_it_is_silence(api: Installation, feed: Feed) -> None:
    for begin in range(0, 20_000, 1000):
        feed.numbers("needle", *range(begin, begin + 1000))
    feed.numbers("needle", 20_000, msg="needle")
    seen = parsed(api.call("GET", "/logs/tenant/needle?offset=0&timeout=1&f.msg=needle").text)
    assert numbers(seen) == [20_000]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("what=1", "no parameter"),
        ("f.%7Bproperty%7D", "f."),
        ("max=0", "max"),
        ("max=-1", "max"),
        ("max=1e3", "max"),
        ("timeout=99999999999999999999", "timeout"),
        ("timeout=0", "timeout"),
        ("offset=-5", "offset"),
        ("offset=9007199254740992", "offset"),
        ("tail=1000001", "tail"),
        ("tail=%D9%A1", "tail"),
        ("offset=1&tail=1", "one place"),
        ("offset=1&since=1h", "one place"),
        ("since=yesterday", "yesterday"),
        ("since=2999-01-01", "since"),
        ("level=loud", "level"),
        ("level=1000", "level"),
        ("follow=maybe", "follow"),
        ("f.msg=(", "pattern"),
        ("f.msg=(?=x)", "pattern"),
        ("f.msg=" + "x" * 10_240, "1000 bytes"),
        ("f.msg=!", "pattern"),
        ("f.msg=", "empty"),
        ("f.=x", "no property"),
        ("f." + "x" * 300 + "=1", "longer"),
        ("max=1&max=2", "twice"),
        ("f.a=1&f.a=2", "twice"),
        ("&".join(f"f.a{n}=1" for n in range(17)), "16"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_with_what_can(api: Installation, query: str, says: str) -> None:
    if query.startswith("f.%7B"):
        # The name of a property is free; this one is merely in no record.
        assert api.call("GET", f"/logs/tenant/refused?follow=false&{query}=1").status_code == 200
        return
    answer = api.call("GET", f"/logs/tenant/refused?{query}")
    assert (answer.status_code, answer.json()["reason"], answer.json()["fault"]) == (400, "invalid_value", "caller")
    assert says in answer.json()["message"]


def test_other_methods_and_names_are_refused_as_everywhere(api: Installation) -> None:
    answer = api.call("POST", "/logs/tenant/acme", b"{}")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert api.call("GET", "/logs/tenant/Bad").json()["reason"] == "invalid_name"
    assert api.call("GET", "/logs/tenant/.system").json()["reason"] == "invalid_name"
    head = api.call("HEAD", "/logs/tenant/acme?tail=3")
    assert (head.status_code, head.content) == (200, b"")


# --- forms ----------------------------------------------------------------------------------------------------


def test_events_are_whole_frames_with_ids_and_no_event_line(api: Installation, feed: Feed) -> None:
    feed.numbers("events", 0, 1)
    with reading(api, "/logs/tenant/events?offset=0", "accept: text/event-stream") as reader:
        assert reader.headers["content-type"] == "text/event-stream; charset=utf-8"
        chunk = reader.chunk()
        assert chunk.endswith(b"\n\n")
        assert b"\r" not in chunk
        frames = chunk.split(b"\n\n")[:-1]
        assert [frame.split(b"\n")[0] for frame in frames] == [b"id: 0", b"id: 1"]
        assert [json.loads(frame.split(b"\ndata: ")[1])["n"] for frame in frames] == [0, 1]
        assert b"event" not in b"".join(frame.partition(b"{")[0] for frame in frames)


def test_an_event_reader_that_comes_again_goes_on_behind_its_last_event(api: Installation, feed: Feed) -> None:
    feed.numbers("again", *range(6))
    answer = api.call("GET", "/logs/tenant/again?tail=1&follow=false", headers={**EVENTS, "last-event-id": "2"})
    assert [line for line in answer.text.splitlines() if line.startswith("id")] == ["id: 3", "id: 4", "id: 5"]
    assert answer.text.endswith(": end told: all that was there has been told\n\n")
    bad = api.call("GET", "/logs/tenant/again", headers={**EVENTS, "last-event-id": "x"})
    assert "Last-Event-ID" in bad.json()["message"]


def test_a_silent_event_stream_is_pinged(api: Installation) -> None:
    with reading(api, "/logs/tenant/pinged", "accept: text/event-stream") as reader:
        reader.sock.settimeout(15)
        assert reader.chunk() == b"event: ping\ndata: \n\n"


def test_gzip_is_flushed_for_each_piece_and_whole_at_the_end(api: Installation, feed: Feed) -> None:
    with reading(api, "/logs/tenant/packed?max=3", "accept-encoding: br, gzip") as reader:
        assert reader.headers["content-encoding"] == "gzip"
        unpack = zlib.decompressobj(31)
        whole = b""
        for number in range(3):
            feed.numbers("packed", number)
            chunk = reader.chunk()
            whole += chunk
            assert numbers(parsed(unpack.decompress(chunk))) == [number]
        whole += reader.rest()
        assert numbers(parsed(gzip.decompress(whole))) == [0, 1, 2]
    with reading(api, "/logs/tenant/packed?max=1&offset=0", "accept-encoding: gzip;q=0") as reader:
        assert "content-encoding" not in reader.headers


# --- who may read, and for how long -----------------------------------------------------------------------------


def test_keys_open_what_is_theirs_and_nothing_else(api: Installation) -> None:
    for tenant in ("keyed", "other"):
        api.call("PUT", f"/api/tenants/{tenant}", {})
    key = api.call("POST", "/api/tenants/keyed/keys", {}).json()["key"]
    operator = api.call("POST", "/api/keys", {}).json()["key"]
    short = "?timeout=1"
    assert api.call("GET", f"/logs/tenant/keyed{short}", key=key).status_code == 200
    assert api.call("GET", f"/logs/tenant/keyed{short}&key={key}", headers={"x-forwarded-for": "1"}).status_code == 200
    assert api.call("GET", f"/logs/system{short}", key=operator).status_code == 200
    assert api.call("GET", f"/logs/tenant/never-registered{short}", key=operator).status_code == 200
    for path in (f"/logs/tenant/other{short}", f"/logs/system{short}", f"/api/logs/tenant/other{short}"):
        answer = api.call("GET", path, key=key)
        assert (answer.status_code, answer.json()["reason"]) == (403, "not_authorized")
    assert api.call("GET", "/logs/tenant/keyed", key="sp_wrong").json()["reason"] == "wrong_key"
    assert (
        api.call("GET", "/logs/tenant/keyed", headers={"x-forwarded-for": "1.2.3.4"}).json()["reason"]
        == "no_credentials"
    )


def test_a_stream_ends_and_says_so_when_its_key_is_revoked(api: Installation, feed: Feed) -> None:
    api.call("PUT", "/api/tenants/revoked", {})
    keys = [api.call("POST", "/api/tenants/revoked/keys", {}).json() for _ in range(2)]
    with (
        reading(api, "/logs/tenant/revoked", f"authorization: Bearer {keys[0]['key']}") as gone,
        reading(api, "/logs/tenant/revoked", f"authorization: Bearer {keys[1]['key']}") as stays,
    ):
        api.call("DELETE", f"/api/keys/{keys[0]['id']}")
        (last,) = parsed(gone.rest())
        assert (last["end"], last["level"]) == ("revoked", 40)
        feed.numbers("revoked", 1)
        assert numbers(parsed(stays.chunk())) == [1]
        api.call("DELETE", "/api/tenants/revoked")
        assert parsed(stays.rest())[-1]["end"] == "revoked"


def test_a_stream_ends_with_the_api_and_says_so_and_the_next_goes_on() -> None:
    with contextlib.ExitStack() as stack:
        installed = Installation()
        stack.callback(installed.close)
        feed = stack.enter_context(Feed(installed.host))
        installed.start()
        feed.numbers("restart", 0)
        with reading(installed, "/logs/tenant/restart?offset=0") as reader:
            assert numbers(parsed(reader.chunk())) == [0]
            assert installed.api is not None
            installed.api.send_signal(signal.SIGTERM)
            (last,) = parsed(reader.rest())
            assert last["end"] == "restart"
        assert installed.api.wait(10) == 0
        feed.numbers("restart", 1)
        installed.start()
        assert numbers(parsed(installed.call("GET", "/logs/tenant/restart?offset=1&max=1").text)) == [1]


def test_without_a_bus_a_stream_is_refused_and_says_what_is_missing() -> None:
    with installation() as installed:
        os.rmdir(installed.host.logs_dir)
        answer = installed.call("GET", "/logs/tenant/acme")
        assert (answer.status_code, answer.json()["reason"]) == (503, "bus")
        assert "collector" in answer.json()["message"]


# --- many, and slow ones ----------------------------------------------------------------------------------------


def test_a_reader_that_rests_delays_nobody_and_then_gets_all(api: Installation, feed: Feed) -> None:
    with reading(api, "/logs/tenant/slow?offset=0&max=20000") as slow:
        pad = "x" * 500
        for begin in range(0, 20_000, 500):
            feed.numbers("slow", *range(begin, begin + 500), pad=pad)
        with reading(api, "/logs/tenant/slow?offset=0&max=20000") as quick:
            assert numbers(parsed(quick.rest())) == list(range(20_000))
        assert numbers(parsed(slow.rest())) == list(range(20_000))


def test_readers_that_have_gone_leave_nothing_open(api: Installation) -> None:
    assert api.api is not None
    folder = f"/proc/{api.api.pid}/fd"
    readers = [Reader(api, "/logs/tenant/gone") for _ in range(50)]
    # Counted with them: what readers before left open a moment longer is gone by then, too.
    before = len(os.listdir(folder))
    for reader in readers:
        reader.close()
    wait_for(lambda: len(os.listdir(folder)) <= before - 50 + 2)


def test_a_thousand_streams_each_get_every_record(api: Installation, feed: Feed) -> None:
    readers = [Reader(api, f"/logs/tenant/many-{number % 50}") for number in range(1000)]
    try:
        assert {reader.status for reader in readers} == {200}
        for number in range(5):
            for tenant in range(50):
                feed.numbers(f"many-{tenant}", number)
        for reader in readers:
            seen: list[int] = []
            while len(seen) < 5:
                seen += numbers(parsed(reader.chunk()))
            assert seen == [0, 1, 2, 3, 4]
    finally:
        for reader in readers:
            reader.close()


def test_one_tenants_streams_leave_room_for_others(api: Installation) -> None:
    readers = []
    try:
        for _ in range(1024):
            readers.append(Reader(api, "/logs/tenant/greedy"))  # noqa: PERF401  (closed also if one fails)
        answer = api.call("GET", "/logs/tenant/greedy?timeout=1")
        assert (answer.status_code, answer.json()["reason"]) == (429, "too_many_calls")
        assert int(answer.headers["retry-after"]) > 0
        assert api.call("GET", "/logs/tenant/modest?timeout=1").status_code == 200
        assert api.call("GET", "/api/status").status_code == 200
    finally:
        for reader in readers:
            reader.close()
