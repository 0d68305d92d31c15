"""Goes on with a stream over every loss, without gap or double; a scripted server stands in the platform's place."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import pytest

from sandpost.client import Client
from sandpost.client import following as module
from sandpost.client.errors import ClientError, Refused, Unreachable

PROBLEM = b'{"code":%d,"reason":"x","fault":"platform","retryable":%s,"message":"m","req_id":"r"}'
Script = list[Callable[[BaseHTTPRequestHandler], None]]


def stream(*frames: bytes, end: bytes = b"0", broken: bool = False) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("x-sandpost-log-end", end.decode())
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        for frame in frames:
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(frame), frame))
        if not broken:
            handler.wfile.write(b"0\r\n\r\n")
        handler.close_connection = True

    return answer


def refusal(status: int, retryable: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        body = PROBLEM % (status, retryable)
        handler.send_response(status)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def event(offset: int) -> bytes:
    return b'id: %d\ndata: {"offset":%d}\n\n' % (offset, offset)


@contextlib.contextmanager
def serving(script: Script) -> Iterator[tuple[Client, list[dict[str, str]]]]:
    asked: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(dict(parse_qsl(urlsplit(self.path).query)))
            script.pop(0)(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with Client(url=f"http://127.0.0.1:{server.server_port}", key="k") as client:
            yield client, asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AGAIN", (0.0,))


def test_it_goes_on_behind_the_last_record_over_every_kind_of_loss() -> None:
    script = [
        stream(event(3), event(4), broken=True),
        refusal(503, b"true"),
        stream(event(5), b": end restart: r\n\n"),
        stream(event(6), b'data: {"msg":"note"}\n\n', b"event: ping\ndata: \n\n"),
        stream(event(9), b": end told: t\n\n"),
    ]
    with serving(script) as (client, asked):
        notices: list[str] = []
        following = client.logs("acme", {"tail": "2", "level": "warn"})
        following.notice = notices.append
        seen = list(following)
    assert [one for one in seen if one.startswith(b'{"offset"')] == [b'{"offset":%d}' % at for at in (3, 4, 5, 6, 9)]
    assert b'{"msg":"note"}' in seen
    assert asked[0] == {"tail": "2", "level": "warn"}
    assert [one.get("offset") for one in asked[1:]] == ["5", "5", "6", "7"]
    assert all(one["level"] == "warn" and "tail" not in one for one in asked[1:])
    assert notices


def test_what_began_now_goes_on_from_there_also_before_its_first_record() -> None:
    script = [stream(end=b"41"), stream(event(41), b": end max: m\n\n")]
    with serving(script) as (client, asked):
        assert list(client.logs(None, {})) == [b'{"offset":41}']
    assert [one.get("offset") for one in asked] == [None, "41"]


def test_what_is_refused_for_good_ends_it() -> None:
    for script, error in (
        ([refusal(403, b"false")], Refused),
        ([stream(event(1)), refusal(403, b"false")], Refused),
        ([stream(event(1), b": end revoked: the key\n\n")], ClientError),
    ):
        with serving(list(script)) as (client, _), pytest.raises(error):
            list(client.logs("acme", {}))


def test_who_never_answered_is_told_at_once() -> None:
    with Client(url="http://127.0.0.1:1", key="k") as client, pytest.raises(Unreachable):
        list(client.logs("acme", {}))


def test_what_is_no_stream_is_not_held_for_ever() -> None:
    with serving([stream(*[b"x" * (1 << 20)] * 5)]) as (client, _), pytest.raises(ClientError, match="no stream"):
        list(client.logs("acme", {}))
