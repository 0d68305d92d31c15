"""`sandpost run`: what it sends to the proxies, and what becomes of the answer. The proxy is a small real HTTP server."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from support.command import Run, runner
from support.installation import Installation

KEY = "sp_00000000_itsfortesting"


class Proxy(ThreadingHTTPServer):
    status = 200
    body = b'"Hello"'
    seen: dict[str, Any]


class Handler(BaseHTTPRequestHandler):
    server: Proxy

    def do_POST(self) -> None:
        parts = urlsplit(self.path)
        self.server.seen = {
            "path": parts.path,
            "query": parse_qs(parts.query),
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": self.rfile.read(int(self.headers["content-length"])),
        }
        self.send_response(self.server.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    server = Proxy(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def here(proxy: Proxy) -> Iterator[Run]:
    """The command line on the host whose proxy this is."""
    made = Installation(listen_port=proxy.server_port)
    yield runner(made)
    made.close()


@pytest.fixture
def program(tmp_path: Path) -> str:
    file = tmp_path / "hello.js"
    file.write_text("return function (cb) { cb(null, 'Hello') }")
    return str(file)


def test_a_program_goes_to_the_local_listener_with_its_data(here: Run, proxy: Proxy, program: str) -> None:
    done = here("run", program, "--tenant", "acme", "--data", "a=1", "-d", "b=x y&z=ü", SANDPOST_KEY=KEY)
    assert (done.returncode, done.stdout) == (0, '"Hello"'), done.stderr
    assert proxy.seen["path"] == "/acme"
    assert proxy.seen["query"] == {"a": ["1"], "b": ["x y&z=ü"]}
    assert proxy.seen["headers"]["authorization"] == f"Bearer {KEY}"
    assert proxy.seen["headers"]["content-type"] == "application/javascript"
    assert proxy.seen["body"] == Path(program).read_bytes()


def test_a_program_comes_from_stdin_to_a_url(here: Run, proxy: Proxy) -> None:
    url = f"http://127.0.0.1:{proxy.server_port}/"
    done = here("run", "-", "--tenant", "acme", "--url", url, "--json", stdin="return 1", SANDPOST_KEY=KEY)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["body"] == '"Hello"'
    assert json.loads(done.stdout)["status"] == 200
    assert proxy.seen["body"] == b"return 1"


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (400, {"error": "Script returned an error."}, 5),
        (500, {"fault": "code", "reason": "memory"}, 5),
        (403, {"fault": "caller", "reason": "wrong_key"}, 4),
        (429, {"fault": "caller", "reason": "too_many_calls"}, 4),
        (503, {"fault": "platform", "reason": "no_room"}, 1),
        (404, "a program's own page", 5),
    ],
)
def test_the_exit_code_says_whose_fault_it_was(
    here: Run, proxy: Proxy, program: str, status: int, body: Any, code: int
) -> None:
    full = (
        {"code": status, "retryable": False, "message": "m", "req_id": "r", **body} if isinstance(body, dict) else body
    )
    proxy.status, proxy.body = status, json.dumps(full).encode()
    done = here("run", program, "--tenant", "acme", SANDPOST_KEY=KEY)
    assert done.returncode == code
    assert done.stdout == proxy.body.decode(), "the answer is shown whatever it says"


def test_without_a_key_nothing_is_sent(here: Run, proxy: Proxy, program: str) -> None:
    done = here("run", program, "--tenant", "acme")
    assert done.returncode == 2
    assert "SANDPOST_KEY" in done.stderr
    assert not hasattr(proxy, "seen")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--tenant", "Acme"], "cannot name a tenant"),
        (["--tenant", "acme", "--data", "x"], "NAME=VALUE"),
        (["--tenant", "acme", "--data", "key=x"], "the platform's"),
        (["--tenant", "acme", "--data", "webtask_code=x"], "the platform's"),
        ([], "--tenant"),
        (["--tenant", "acme", "--key", "x"], "--key"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_sent(
    here: Run, proxy: Proxy, program: str, arguments: list[str], told: str
) -> None:
    done = here("run", program, *arguments, SANDPOST_KEY=KEY)
    assert done.returncode != 0
    assert told in done.stderr
    assert not hasattr(proxy, "seen")


def test_a_name_that_cannot_be_one_is_refused(here: Run, proxy: Proxy, program: str) -> None:
    done = here("run", program, "--tenant", "Acme", SANDPOST_KEY=KEY)
    assert (done.returncode, done.stdout) == (4, "")
    assert not hasattr(proxy, "seen")


def test_a_listener_that_is_away_is_told(here: Run, proxy: Proxy, program: str) -> None:
    done = here("run", program, "--tenant", "acme", "--url", "http://127.0.0.1:1", SANDPOST_KEY=KEY)
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr
    assert KEY not in done.stderr
