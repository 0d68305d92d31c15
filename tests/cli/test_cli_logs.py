"""`sandpost logs` against the real api: JSON in a pipe, lines on a terminal, on over a restart, clean ends."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sandpost.cli.pretty import Pretty, harmless
from support.feed import Feed, record
from support.installation import Installation

COMMAND = [sys.executable, "-m", "sandpost"]


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[Installation, Feed]]:
    installed = Installation()
    with contextlib.ExitStack() as stack:
        stack.callback(installed.close)
        feed = stack.enter_context(Feed(installed.host))
        installed.start()
        supervisor = installed.controller()
        assert supervisor
        yield installed, feed


def environment(installed: Installation) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("SANDPOST_")}
    return kept | {
        "SANDPOST_STATE_DIR": installed.host.state_dir,
        "SANDPOST_RUN_DIR": os.path.dirname(installed.host.run_dir),
    }


def logs(installed: Installation, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "logs", *arguments],
        env=environment(installed),
        capture_output=True,
        check=False,
        text=True,
        timeout=30,
    )


def started(installed: Installation, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "logs", *arguments],
        env=environment(installed),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def on_a_terminal(installed: Installation, *arguments: str) -> list[str]:
    """Return the lines that a terminal gets."""
    main, terminal = pty.openpty()
    process = subprocess.Popen([*COMMAND, "logs", *arguments], env=environment(installed), stdout=terminal)
    os.close(terminal)
    text = b""
    with contextlib.suppress(OSError):
        while part := os.read(main, 65536):
            text += part
    os.close(main)
    assert process.wait(20) == 0
    return text.decode().split("\r\n")


def numbers(text: str) -> list[int]:
    return [one["n"] for one in map(json.loads, text.splitlines()) if "n" in one]


def test_in_a_pipe_it_is_plain_json_and_ends_where_the_stream_does(made: tuple[Installation, Feed]) -> None:
    installed, feed = made
    feed.numbers("piped", *range(20))
    feed.numbers("piped", 20, level=50, msg="boom")
    assert numbers(logs(installed, "piped").stdout) == list(range(21))
    assert numbers(logs(installed, "piped", "-n", "3").stdout) == [18, 19, 20]
    assert numbers(logs(installed, "piped", "-n", "3", "--since", "1h").stdout) == []
    assert numbers(logs(installed, "piped", "-n", "3", "--since", "2025-12-31").stdout) == [18, 19, 20]
    assert numbers(logs(installed, "piped", "--level", "error").stdout) == [20]
    assert numbers(logs(installed, "piped", "--grep", "bo+m", "--field", "level=50").stdout) == [20]
    assert numbers(logs(installed, "piped", "--grep", "!line").stdout) == [20]
    feed.numbers(".system", 7)
    assert numbers(logs(installed, "--system").stdout) == [7]
    assert logs(installed, "never-was").stdout == ""


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ((), 2, "--system"),
        (("acme", "--system"), 2, "--system"),
        (("acme", "-n", "-1"), 2, "-1"),
        (("acme", "--field", "x"), 2, "NAME=VALUE"),
        (("Acme",), 4, "tenant"),
        (("acme", "--grep", "("), 4, "pattern"),
        (("acme", "--level", "loud"), 4, "level"),
        (("acme", "--since", "yesterday"), 4, "yesterday"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(
    made: tuple[Installation, Feed], arguments: tuple[str, ...], code: int, told: str
) -> None:
    done = logs(made[0], *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_it_follows_over_a_restart_of_the_api_without_gap_or_double() -> None:
    with contextlib.ExitStack() as stack:
        installed = Installation()
        stack.callback(installed.close)
        feed = stack.enter_context(Feed(installed.host))
        installed.start()
        feed.numbers("followed", *range(20))
        process = started(installed, "followed", "-f", "-n", "5")
        stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stderr is not None
        seen = [process.stdout.readline() for _ in range(5)]
        for number in (signal.SIGTERM, signal.SIGKILL):
            begin = len(seen) + 15
            feed.numbers("followed", begin)
            seen.append(process.stdout.readline())
            installed.stop(number)
            feed.numbers("followed", begin + 1, begin + 2)
            installed.start()
            seen += [process.stdout.readline() for _ in range(2)]
        assert numbers("".join(seen)) == list(range(15, 26))
        process.send_signal(signal.SIGINT)
        # Python hears of a signal that comes just before it waits for bytes when some come: with the next ping.
        assert process.wait(25) == 130
        said = process.stderr.read()
        assert "connecting again" in said
        assert "Traceback" not in said
        process.stdout.close()
        process.stderr.close()


def test_it_ends_when_nobody_reads_it_though_nothing_comes(made: tuple[Installation, Feed]) -> None:
    installed, feed = made
    feed.numbers("closed", 1)
    process = started(installed, "closed", "-f")
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        assert numbers(process.stdout.readline()) == [1]
        process.stdout.close()
        assert process.wait(25) == 0
        assert process.stderr.read() == ""
        process.stderr.close()
    finally:
        process.kill()
        process.wait()


def test_on_a_terminal_records_are_lines_and_nothing_in_them_acts(made: tuple[Installation, Feed]) -> None:
    installed, feed = made
    feed.numbers("shown", 1, msg="one\ntwo\x1b[2J\x07\x9b\u202e", level=50, req_id="r-1", **{"na\x1bme": "v\x1b"})
    lines = on_a_terminal(installed, "shown")
    assert "\x1b[0;31mERROR" in lines[0]
    bare = [re.sub("\x1b\\[[0-9;]*m", "", line) for line in lines]
    assert "r-1" in bare[0]
    assert bare[0].endswith("one")
    assert bare[1].strip() == "two?[2J??? n=1 na?me=v?"
    assert bare[1].index("two") == bare[0].index("one")
    assert "\x1b" not in "".join(bare)


def test_json_on_a_terminal_is_what_it_is_in_a_pipe_and_acts_on_nothing(made: tuple[Installation, Feed]) -> None:
    installed, feed = made
    # What JSON itself does not make its writers escape.
    wild = "\x7f\x9b2J\u0085\u202e\u2028\U000e0001 caf\u00e9 \U0001f419"
    feed.put("wild", [record(1, msg=wild, more={wild: [wild]})])
    [line, *rest] = on_a_terminal(installed, "wild", "--json")
    assert line.isprintable()
    assert rest == [""]
    assert json.loads(line) == json.loads(logs(installed, "wild").stdout)
    assert json.loads(line)["msg"] == wild


@pytest.mark.parametrize("text", ["\x7f", "\x9b", "\u202e", "\U000e0001", "plain", "\t"])
def test_escaped_json_means_the_same(text: str) -> None:
    made = json.dumps({"msg": text, text: [text]}, ensure_ascii=False).encode()
    assert harmless(made).decode().isprintable()
    assert json.loads(harmless(made)) == json.loads(made)


def test_a_level_of_ones_own_is_coloured_where_it_stands() -> None:
    told = b'{"level":1,"time":"2026-01-11T11:11:11.111Z","msg":"x"}'
    coloured = Pretty(colours=True).shown(told)
    assert re.sub("\x1b\\[[0-9;]*m", "", coloured) == Pretty(colours=False).shown(told)
    assert "\x1b[0;0m1    \x1b[0;2m" in coloured


def test_a_record_that_is_none_is_shown_as_it_is_and_acts_on_nothing() -> None:
    pretty = Pretty(colours=False)
    for raw in (b"\x1b[2J", b"[1]", b'{"level":"x","time":7,"msg":{"a":1},"req_id":[]}', b"{}", b'{"level":true}'):
        shown = pretty.shown(raw)
        assert all(letter.isprintable() or letter in "\n\t" for letter in shown)
