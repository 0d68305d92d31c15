"""The talk's demonstration: a developer sees with `curl`, in real time, what runs on the platform prints."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.followed import NUMBERED, followed, followed_numbers, kill, records, texts
from support.load import Load
from support.platform import Platform, platform
from support.waiting import until

HI = 'return function (cb) { console.log("hi", {n: 1}); cb(null, 1) }'
NAMED = "return function (context, cb) { console.log('line ' + context.data.n); cb(null, 1) }"


@contextlib.contextmanager
def curl(running: Platform, path: str, *arguments: str) -> Iterator[Any]:
    """Read a stream with real curl, as the operator; yields its lines."""
    url = f"http://127.0.0.1:{running.port}{path}{'&' if '?' in path else '?'}key={running.key}"
    process = running.there(lambda: subprocess.Popen(["curl", "-sSN", *arguments, url], stdout=subprocess.PIPE))
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_talks_demonstration_as_it_is_typed(running: Platform, tmp_path: Path) -> None:
    # In one terminal, from now on.
    head = tmp_path / "head"
    with curl(running, "/logs/tenant/typed", "-D", str(head)) as lines:
        until(lambda: head.exists() and head.read_bytes().startswith(b"HTTP/1.1 200"), "the stream is open")
        # In the other one: curl calls a program a form.
        url = f"http://127.0.0.1:{running.port}/typed?key={running.key}"
        answer = running.there(lambda: subprocess.run(["curl", "-sS", "-d", HI, url], capture_output=True, check=True))
        assert answer.stdout == b"1"
        record: dict[str, Any] = {}
        while not record.get("sandbox"):
            record = json.loads(lines.readline())
        assert record.keys() == {
            "name", "hostname", "pid", "level", "time", "msg", "v", "container", "req_id", "sandbox", "sandbox_id", "offset"
        }  # fmt: skip
        assert (record["name"], record["pid"], record["level"], record["v"]) == ("sandpost", 1, 30, 0)
        assert (record["msg"], record["container"], record["sandbox"]) == ("hi { n: 1 }", "typed", True)


def test_the_talks_demonstration(running: Platform) -> None:
    with curl(running, "/logs/tenant/demo?offset=0&f.sandbox=true") as lines:
        answer = running.call("demo", HI)
        assert answer.json == 1
        raw = lines.readline()
        record = json.loads(raw)
        assert re.search(rb',"offset":\d+}\n$', raw)
        assert (record["name"], record["level"], record["msg"], record["v"]) == ("sandpost", 30, "hi { n: 1 }", 0)
        assert (record["container"], record["sandbox"]) == ("demo", True)
        assert {"hostname", "pid", "time", "req_id", "sandbox_id", "offset"} <= record.keys()
        # As it comes, call after call.
        for number in range(10):
            running.call("demo", NAMED, f"n={number}")
            seen = json.loads(lines.readline())
            assert seen["msg"] == f"line {number}"
            assert seen["offset"] > record["offset"]
            record = seen


def test_a_developer_sees_beside_what_he_prints_what_becomes_of_his_calls(running: Platform) -> None:
    with curl(running, "/logs/tenant/seen?offset=0&max=4") as lines:
        running.call("seen", HI)
        records = [json.loads(line) for line in lines]
    (req_id,) = {record["req_id"] for record in records}
    assert sorted(record["msg"].partition(req_id)[0] for record in records) == [
        "finished webtask request ", "hi { n: 1 }", "new webtask request ", "webtask container assigned"
    ]  # fmt: skip


def test_what_one_asks_for_is_what_passes_at_the_listener(running: Platform) -> None:
    for number in range(6):
        running.call("asked", NAMED, f"n={number}")
    with curl(running, "/logs/tenant/asked?offset=0&f.sandbox=true&max=6") as lines:
        assert [json.loads(line)["msg"] for line in lines] == [f"line {number}" for number in range(6)]
    with curl(running, "/logs/tenant/asked?offset=0&follow=false&f.sandbox=true&f.msg=!line+%5B0-4%5D") as lines:
        assert [json.loads(line).get("end", "line") for line in lines] == ["line", "told"]
    told = running.command("logs", "asked", "-n", "100", "--grep", "^line [45]")
    assert [json.loads(line)["msg"] for line in told.stdout.splitlines()] == ["line 4", "line 5"], told.stderr


def test_over_deaths_under_load_no_call_is_lost_and_every_line_is_followed_once(tmp_path: Path) -> None:
    with platform(pool_size="1", workers="2") as running, followed(running, "counted", tmp_path) as seen:
        assert running.call("counted", NUMBERED).status == 200
        # It follows from here on.
        until(lambda: followed_numbers(seen) == [0], "the first line", within=20)
        with Load(running.port, f"/counted?key={running.key}", NUMBERED, threads=3, pause=0.005) as load:
            for victims in (["collector"], ["api"], ["collector", "api"], ["controller", "collector"]):
                kill(running, *victims)
                count = len(followed_numbers(seen))
                until(lambda count=count: len(followed_numbers(seen)) > count, "lines go on", within=30)  # type: ignore[misc]
        assert load.tally.bad == {}
        calls = 1 + load.tally.outcomes["200"]
        until(lambda: len(followed_numbers(seen)) >= calls, "all lines", within=30)
        assert followed_numbers(seen) == list(range(calls))
        kept = texts(running, "tenant/counted", "&f.sandbox=true")
        assert kept == [f"n {number}" for number in range(calls)]


CHILD = """return function (cb) {
    const { spawn } = require('child_process');
    const grow = 'console.log("a child speaks"); const all = []; for (;;) all.push(new Array(1e5).fill(1.5))';
    spawn(process.execPath, ['--max-old-space-size=8', '-e', grow], { stdio: 'inherit' })
        .on('exit', (code, signal) => cb(null, signal || code));
}"""


def test_what_children_print_and_what_v8_says_as_it_ends_is_in_the_log(running: Platform) -> None:
    answer = running.call("crashing", CHILD)
    assert answer.json in {"SIGABRT", 134}, answer.body

    def said() -> list[dict[str, Any]]:
        return records(running, "tenant/crashing", "&f.sandbox=true")

    until(lambda: any("JavaScript heap out of memory" in record["msg"] for record in said()), "V8's last words")
    (spoken,) = (record for record in said() if record["msg"] == "a child speaks")
    (fatal,) = (record for record in said() if "JavaScript heap out of memory" in record["msg"])
    assert fatal["msg"].startswith("FATAL ERROR: ")
    assert (spoken["level"], fatal["level"]) == (30, 50)
    # Of which call a child speaks nobody can know.
    assert "req_id" not in spoken
    assert "req_id" not in fatal


# As bunyan 1.8.15 writes: a child logger, an error by its serializer, `src: true`.
OF_BUNYAN = [
    r'{"name":"shop","component":"cart","hostname":"box","pid":4242,"level":30,"msg":"added 2 items","time":"2026-01-02T03:04:05.678Z","v":0}',
    r'{"name":"shop","hostname":"box","pid":4242,"level":50,"err":{"message":"no stock","name":"TypeError","stack":"TypeError: no stock\n    at sell (/tmp/shop.js:3:9)","code":"E_STOCK"},"msg":"no stock","time":"2026-01-02T03:04:05.679Z","v":0}',
    r'{"name":"shop","hostname":"box","pid":4242,"level":20,"msg":"looked up","time":"2026-01-02T03:04:05.680Z","src":{"file":"/tmp/shop.js","line":7,"func":"find"},"v":0}',
    r'{"name":"shop","hostname":"box","pid":4242,"level":35,"req_id":"mine","msg":"","time":"2026-01-02T03:04:05.681Z","v":0}',
]


def test_records_of_bunyan_itself_keep_what_is_theirs(running: Platform) -> None:
    lines = json.dumps("".join(line + "\n" for line in OF_BUNYAN))
    assert (
        running.call("shop", f"return function (cb) {{ process.stdout.write({lines}, () => cb(null, 1)) }}").json == 1
    )
    until(lambda: len(texts(running, "tenant/shop", "&f.sandbox=true")) == 4, "its records")
    found = records(running, "tenant/shop", "&f.sandbox=true")
    for line, record in zip(OF_BUNYAN, found, strict=True):
        own = json.loads(line)
        assert (record["pid"], record["container"], record["hostname"]) == (1, "shop", socket.gethostname())
        assert record["time"] > "2026-01-02T03:04:06"
        assert "req_id" not in record
        for name in ("hostname", "pid", "time", "v", "req_id"):
            assert record.get(f"app.{name}") == own.pop(name, None)
        assert {name: record[name] for name in own} == own


FORGING = """return function (cb) {
    const fs = require('fs'), crypto = require('crypto');
    const frame = (level, flags, id, text, size) => {
        const bytes = Buffer.alloc(8 + id.length + text.length);
        bytes.set([0xf5, 1, level, flags, size >> 8, size & 255, id.length, 0]);
        bytes.write(id, 8, 'latin1');
        bytes.write(text, 8 + id.length, 'latin1');
        return bytes;
    };
    const random = (below) => crypto.randomInt(below);
    const kinds = [
        () => crypto.randomBytes(1 + random(4096)),
        () => frame(random(256), random(256), '', 'level and flags', 15),
        () => frame(30, 1, 'a'.repeat(random(64)), 'more', 4),
        () => frame(30, 0, '', 'says more than there is', random(65536)),
        () => frame(50, 2, '", "container": "calm', 'a notice of mine', 16),
        () => frame(30, 0, '\\u0000\\n{', 'x'.repeat(random(4000)), random(4000)),
        () => Buffer.from([0xf5]),
    ];
    let left = 3e6;
    const go = () => {
        for (let n = 0; n < 50 && left > 0; n++) {
            const bytes = kinds[random(kinds.length)]();
            try { left -= fs.writeSync(3, bytes); } catch (error) { if (error.code !== 'EAGAIN') return cb(error); break; }
        }
        if (left > 0) return setTimeout(go, 1);
        cb(null, 'all');
    };
    go();
}"""


def test_whatever_a_program_writes_in_the_runtimes_place_stays_in_its_stream(running: Platform) -> None:
    (collector,) = running.pids("collector")
    assert running.call("calm", HI).json == 1
    assert running.call("forging", FORGING).json == "all"
    assert running.call("calm", HI).json == 1
    until(lambda: texts(running, "tenant/calm", "&f.sandbox=true") == ["hi { n: 1 }"] * 2, "the neighbour's lines")
    # What it says as it should is read again, once the rate lets it through.
    after = "return function (cb) { console.log('as one should'); cb(null, 1) }"

    def heard() -> bool:
        running.call("forging", after)
        return "as one should" in texts(running, "tenant/forging", "&f.sandbox=true")

    until(heard, "a line of its own", within=30)
    for record in records(running, "tenant/forging"):
        assert record["container"] == "forging"
        if record.get("sandbox"):
            assert (record["name"], record["pid"], record["hostname"]) == ("sandpost", 1, socket.gethostname())
    assert running.pids("collector") == [collector]


def test_a_follower_outlives_a_killed_api_and_a_killed_collector() -> None:
    with platform() as running:
        environment = running.environment()
        command = [running.program, "logs", "followed", "-f", "--grep", "^line"]
        process = running.there(
            lambda: subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            seen = []
            for number in range(12):
                running.call("followed", NAMED, f"n={number}")
                seen.append(json.loads(process.stdout.readline())["msg"])
                if number in (3, 7):
                    (victim,) = running.pids("api" if number == 3 else "collector")
                    os.kill(victim, signal.SIGKILL)
            assert seen == [f"line {number}" for number in range(12)]
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            process.stderr.close()
