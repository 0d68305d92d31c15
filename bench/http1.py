"""What parsing and rendering cost, in microseconds, beside h11 (and httptools where it is installed).

    python bench/http1.py [--json]

Run it on a machine that does nothing else; the least of many short rounds is shown. `varied` takes a new value of one
field with every head, as tracing headers do, so that remembered lines help only with the others; `cold` remembers none.
"""

import argparse
import importlib.util
import itertools
import json
import timeit
from collections.abc import Callable
from typing import Any

import h11

from sandpost.proxy.http1 import request as request_module
from sandpost.proxy.http1.body import Body, BodyReader, Kind
from sandpost.proxy.http1.render import answer_framing, http_date, render_request, render_response
from sandpost.proxy.http1.request import parse_request
from sandpost.proxy.http1.response import parse_response
from sandpost.proxy.http1.target import split_query, split_target

CODE = b"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
WRK = b"GET /acme?webtask_code=%b&key=k HTTP/1.1\r\nHost: 127.0.0.1:8721\r\n\r\n" % CODE
CURL = (
    b"POST /acme?webtask_code=%b&key=k HTTP/1.1\r\nHost: 127.0.0.1:8721\r\nUser-Agent: curl/7.88.1\r\n"
    b"Accept: */*\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n" % CODE
)
BROWSER = (
    b"GET /acme/a/b?webtask_code=%b&key=k&q=1 HTTP/1.1\r\nHost: sandpost.example:8721\r\nConnection: keep-alive\r\n"
    b'sec-ch-ua: "Chromium";v="130", "Not?A_Brand";v="99"\r\nsec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: "Linux"\r\n'
    b"Upgrade-Insecure-Requests: 1\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML,"
    b" like Gecko) Chrome/130.0.0.0 Safari/537.36\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
    b"Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-User: ?1\r\nSec-Fetch-Dest: document\r\n"
    b"Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en-US,en;q=0.9\r\n"
    b"Cookie: a=0123456789abcdef; b=fedcba9876543210\r\n\r\n" % CODE
)
NODE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n"
    b"Date: Mon, 23 Nov 2026 23:00:00 GMT\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\n"
)
DATE = http_date(1_795_474_800)
OURS = [(b"x-sandpost-req-id", b"0123456789abcdef"), (b"x-sandpost-code", CODE)]
LIMIT = 16_384
DROPPED = frozenset({b"authorization"})


def microseconds(function: Callable[[], object], rounds: int = 150) -> float:
    """Return the least mean time of one call over many rounds of some 2 ms, short enough to fall between neighbours."""
    function()
    number = max(1, int(0.002 / min(timeit.repeat(function, number=1, repeat=20))))
    return min(timeit.repeat(function, number=number, repeat=rounds)) / number * 1e6


def _parse_request(data: bytes) -> Callable[[], object]:
    return lambda: parse_request(data, LIMIT)


def _render_request(data: bytes) -> Callable[[], object]:
    head = parse_request(data, LIMIT)
    assert head is not None
    return lambda: render_request(head.method, head.path, head.headers, body=head.body, extra=OURS)


def _render_response() -> bytes:
    head = parse_response(NODE, LIMIT, "GET")
    assert head is not None
    return render_response(head.status, head.headers, framing=answer_framing(head.body, 1), date=DATE, extra=OURS[1:])


def _whole(data: bytes, sent: bytes) -> Callable[[], object]:
    """Everything that the proxy does with the bytes of one call, both ways."""

    def exchange() -> tuple[bytes, bytes]:
        head = parse_request(data, LIMIT)
        assert head is not None
        split_target(head.path)
        query = split_query(head.query)
        BodyReader(head.body).feed(sent)
        towards = render_request(
            head.method,
            head.path + b"?" + query.rest,
            head.headers,
            body=head.body,
            extra=OURS,
            drop=(b"authorization",),
        )
        answer = parse_response(NODE, LIMIT, head.method)
        assert answer is not None
        BodyReader(answer.body).feed(b'"Hello, world!"')
        framing = answer_framing(answer.body, head.minor)
        back = render_response(
            answer.status,
            answer.headers,
            framing=framing,
            minor=head.minor,
            keep_alive=head.keep_alive,
            method=head.method,
            date=DATE,
            extra=OURS[1:],
        )
        return towards, back

    return exchange


def _varied() -> Callable[[], object]:
    heads = [CURL[:-2] + b"traceparent: 00-%032x-%016x-01\r\n\r\n" % (n, n) for n in range(5000)]
    turn = itertools.cycle(heads)
    return lambda: parse_request(next(turn), LIMIT)


def _cold(data: bytes) -> Callable[[], object]:
    known = request_module._fields._known  # noqa: SLF001 - emptied on purpose

    def parse() -> object:
        known.clear()
        return parse_request(data, LIMIT)

    return parse


def _h11_request(data: bytes) -> Callable[[], object]:
    def parse() -> object:
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(data)
        return connection.next_event()

    return parse


def _h11_response() -> object:
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
    connection.receive_data(NODE)
    return connection.next_event()


def _httptools_request(data: bytes) -> Callable[[], object]:
    import httptools  # type: ignore[import-untyped]

    class Sink:
        """Keeps the fields, as any user must."""

        def __init__(self) -> None:
            self.headers: list[tuple[bytes, bytes]] = []

        def on_url(self, url: bytes) -> None:
            self.url = url

        def on_header(self, name: bytes, value: bytes) -> None:
            self.headers.append((name.lower(), value))

    def parse() -> object:
        sink = Sink()
        httptools.HttpRequestParser(sink).feed_data(data)
        return sink

    return parse


def _chunks(size: int) -> Callable[[], object]:
    one = b"%x\r\n%b\r\n" % (size, b"x" * size)
    data = one * (65_536 // len(one))
    return lambda: BodyReader(Body(Kind.CHUNKED)).feed(data)


def measure() -> list[dict[str, Any]]:
    """Return a row a case: what, microseconds, and the times h11 takes for the same where it has it."""
    rows: list[dict[str, Any]] = []

    def row(what: str, function: Callable[[], object], others: dict[str, Callable[[], object]]) -> None:
        ours = microseconds(function)
        seen = {name: microseconds(other) for name, other in others.items()}
        rows.append({"what": what, "us": ours, **{f"{name}_times": value / ours for name, value in seen.items()}})

    tools = importlib.util.find_spec("httptools") is not None
    for name, data in (("wrk", WRK), ("curl", CURL), ("browser", BROWSER)):
        others = {"h11": _h11_request(data)} | ({"httptools": _httptools_request(data)} if tools else {})
        row(f"parse request, {name}", _parse_request(data), others)
        row(f"parse request, {name}, cold", _cold(data), {})
        row(f"render request, {name}", _render_request(data), {})
    row("parse request, curl, varied", _varied(), {})
    row("parse response", lambda: parse_response(NODE, LIMIT, "GET"), {"h11": _h11_response})
    row("parse and render response", _render_response, {})
    row("one call, wrk: all of it, both ways", _whole(WRK, b""), {})
    row("one call, curl: all of it, both ways", _whole(CURL, b"x" * 12), {})
    for size in (1, 1024, 16_384):
        row(f"64 KiB in chunks of {size}", _chunks(size), {})
    return rows


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--json", action="store_true")
    rows = measure()
    if arguments.parse_args().json:
        print(json.dumps(rows, indent=2))
        return
    for each in rows:
        others = "  ".join(f"{name[:-6]} x{each[name]:.1f}" for name in each if name.endswith("_times"))
        print(f"{each['what']:40} {each['us']:9.2f} us  {others}")


if __name__ == "__main__":
    main()
