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
    source: str | None = "webtask"
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
        if self.server.source is not None:
            self.send_header("x-wt-response-source", self.server.source)
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
    # Its first line says its language.
    assert "content-type" not in proxy.seen["headers"]
    assert proxy.seen["body"] == Path(program).read_bytes()


def test_a_type_that_is_named_goes_with_it(here: Run, proxy: Proxy, program: str) -> None:
    assert here("run", program, "-t", "acme", "--content-type", "text/x-python", SANDPOST_KEY=KEY).returncode == 0
    assert proxy.seen["headers"]["content-type"] == "text/x-python"


def test_a_program_comes_from_stdin_to_a_url(here: Run, proxy: Proxy) -> None:
    url = f"http://127.0.0.1:{proxy.server_port}/"
    done = here("run", "-", "--tenant", "acme", "--url", url, "--json", stdin="return 1", SANDPOST_KEY=KEY)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["body"] == '"Hello"'
    assert json.loads(done.stdout)["status"] == 200
    assert proxy.seen["body"] == b"return 1"


@pytest.mark.parametrize(
    ("status", "reason", "fault", "code"),
    [
        (500, "memory", "code", 5),
        (403, "wrong_key", "caller", 4),
        (429, "too_many_calls", "caller", 4),
        (503, "no_room", "platform", 1),
    ],
)
def test_an_error_of_the_platform_is_a_sentence_and_its_exit_code_says_whose_fault_it_was(
    here: Run, proxy: Proxy, program: str, status: int, reason: str, fault: str, code: int
) -> None:
    problem = {
        "code": status,
        "reason": reason,
        "fault": fault,
        "retryable": False,
        "message": "Do \x1bthat.",
        "req_id": "r",
    }
    proxy.status, proxy.source, proxy.body = status, "proxy", json.dumps(problem).encode()
    done = here("run", program, "--tenant", "acme", SANDPOST_KEY=KEY)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "sandpost: Do ?that.\n")
    done = here("run", program, "--tenant", "acme", "--json", SANDPOST_KEY=KEY)
    assert (done.returncode, done.stdout) == (code, "")
    assert json.loads(done.stderr)["error"] == {"reason": reason, "message": "Do \x1bthat.", "exit_code": code}


@pytest.mark.parametrize("source", ["webtask", "compiler"])
def test_an_answer_of_the_program_is_shown_whatever_it_says(here: Run, proxy: Proxy, program: str, source: str) -> None:
    # Also one that looks like the platform's.
    problem = {"code": 403, "reason": "wrong_key", "fault": "caller", "retryable": False, "message": "m", "req_id": "r"}
    proxy.status, proxy.source, proxy.body = 403, source, json.dumps(problem).encode()
    done = here("run", program, "--tenant", "acme", SANDPOST_KEY=KEY)
    assert (done.returncode, done.stdout, done.stderr) == (5, proxy.body.decode(), "")


def test_an_error_of_something_else_is_neither(here: Run, proxy: Proxy, program: str) -> None:
    proxy.status, proxy.source, proxy.body = 404, None, b"<h1>not found</h1>"
    done = here("run", program, "--tenant", "acme", SANDPOST_KEY=KEY)
    assert (done.returncode, done.stdout) == (1, "")
    assert "check the URL" in done.stderr


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
