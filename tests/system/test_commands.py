"""The command line against the running platform: each command takes effect, says so, and shows no key to anybody."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.http import request
from support.platform import SANDPOST, Platform, free_port, platform
from support.waiting import until

HELLO = 'return function (cb) { cb(null, "Hello, world!") }'
COUNT = "let n = 0; return function (cb) { cb(null, ++n) }"
Result = subprocess.CompletedProcess[str]


class Watcher(threading.Thread):
    """Reads the command lines of all processes all the time, for what must not be seen there."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[bytes] = set()
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.05):
            for pid in filter(str.isdigit, os.listdir("/proc")):
                try:
                    self.seen.add(Path(f"/proc/{pid}/cmdline").read_bytes())
                except OSError:
                    continue

    def end(self) -> None:
        self._ended.set()
        self.join(10)


class Desk:
    """Where an operator sits: runs commands, and keeps all that they print and every key that was ever shown."""

    def __init__(self, running: Platform) -> None:
        self.running = running
        self.printed: list[str] = []
        self.keys = [running.key]

    def __call__(self, *arguments: str, code: int = 0, stdin: str = "", **environment: str) -> Result:
        """Run `sandpost ARGUMENTS`; it must end with `code`."""
        done = subprocess.run(
            [SANDPOST, *arguments],
            env={**self.running.environment(), **environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        # What makes a key shows it, this once.
        if arguments[:2] != ("key", "create"):
            self.printed += [done.stdout, done.stderr]
        return done

    def json(self, *arguments: str) -> object:
        """Run a command with --json; return what it printed."""
        return json.loads(self(*arguments, "--json").stdout)

    def key(self, *arguments: str) -> str:
        """Make a key."""
        key = self("key", "create", *arguments).stdout.strip()
        self.keys.append(key)
        return key


@pytest.fixture(scope="module")
def metrics_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def desk(metrics_port: int) -> Iterator[Desk]:
    """An installation and its operator. When all is done, no key is in anything that was printed, written or listed."""
    with platform(pool_size="2", metrics_listen=f"127.0.0.1:{metrics_port}") as running:
        watcher = Watcher()
        watcher.start()
        made = Desk(running)
        yield made
        watcher.end()
        texts = {f"process list: {line[:200]!r}": line for line in watcher.seen}
        for folder in (running.state_dir, Path(running.host.run_dir)):
            texts |= {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        texts |= {f"a command: {text[:200]}": text.encode() for text in made.printed}
        texts["serve"] = running.output().encode()
        assert len(texts) > 30
        assert any(b"sandpost controller" in line.replace(b"\0", b" ") for line in watcher.seen)
        for key in made.keys:
            shown = [name for name, text in texts.items() if key.encode() in text]
            assert not shown, shown


def status(desk: Desk, tenant: str, key: str) -> int:
    return request(desk.running.port, "POST", f"/{tenant}?key={key}", COUNT).status


# --- run --------------------------------------------------------------------------------------------------


def test_run_prints_what_the_program_answers(desk: Desk, tmp_path: Path) -> None:
    program = tmp_path / "program.js"
    program.write_text("return function (context, cb) { cb(null, {hello: context.data.name}) }")
    done = desk("run", str(program), "--tenant", "runner", "--data", "name=Anna", SANDPOST_KEY=desk.running.key)
    assert done.stdout == '{"hello":"Anna"}'
    done = desk("run", "-", "-t", "runner", stdin=HELLO, SANDPOST_KEY=desk.running.key)
    assert done.stdout == '"Hello, world!"'
    secret = tmp_path / "key"
    secret.write_text(desk.running.key + "\n")
    secret.chmod(0o600)
    done = desk("run", "-", "-t", "runner", "--json", "--key-file", str(secret), stdin=HELLO)
    assert json.loads(done.stdout)["body"] == '"Hello, world!"'


def test_run_tells_whose_fault_a_failure_is(desk: Desk, tmp_path: Path) -> None:
    key = desk.running.key
    done = desk(
        "run", "-", "-t", "runner", stdin="return function (cb) { throw new Error('no') }", code=5, SANDPOST_KEY=key
    )
    assert json.loads(done.stdout)["message"] == "no"
    done = desk("run", "-", "-t", "runner", stdin="return 5", code=5, SANDPOST_KEY=key)
    assert json.loads(done.stdout)["reason"] == "no_function"
    done = desk("run", "-", "-t", "runner", stdin=HELLO, code=4, SANDPOST_KEY="sp_00000000_nobody")
    assert "sandpost key create" in done.stderr
    assert done.stdout == ""
    done = desk("run", "-", "-t", "runner", "--content-type", "text/x-cobol", stdin=HELLO, code=4, SANDPOST_KEY=key)
    assert done.stdout == ""
    assert done.stderr.startswith("sandpost: ")
    done = desk("run", "-", "-t", "runner", stdin=HELLO, code=2)
    assert "SANDPOST_KEY" in done.stderr
    open_to_all = tmp_path / "key"
    open_to_all.write_text(key)
    open_to_all.chmod(0o644)
    done = desk("run", "-", "-t", "runner", "--key-file", str(open_to_all), stdin=HELLO, code=2)
    assert f"chmod 600 {open_to_all}" in done.stderr


# --- keys -------------------------------------------------------------------------------------------------


def test_a_key_is_good_within_a_second_and_no_more_a_second_after_it_is_revoked(desk: Desk) -> None:
    desk("tenant", "set", "keyed")
    key = desk.key("--tenant", "keyed", "--label", "for the test")
    time.sleep(1)
    assert {status(desk, "keyed", key) for _ in range(20)} == {200}
    listed = desk("key", "ls", "--tenant", "keyed").stdout
    assert "for the test" in listed
    key_id = key.split("_")[1]
    assert key_id in listed
    assert "revoked" in desk("key", "revoke", key_id).stdout
    time.sleep(1)
    assert {status(desk, "keyed", key) for _ in range(20)} == {403}
    assert key_id not in desk("key", "ls").stdout
    assert "sandpost key ls" in desk("key", "revoke", key_id, code=4).stderr


def test_an_operators_key_that_was_made_is_good_everywhere(desk: Desk) -> None:
    key = desk.key()
    time.sleep(1)
    assert status(desk, "anyone", key) == 200
    url = f"http://127.0.0.1:{desk.running.port}"
    assert "listens on" in desk("--url", url, "status", SANDPOST_KEY=key).stdout
    desk("key", "revoke", key.split("_")[1])
    time.sleep(1)
    assert status(desk, "anyone", key) == 403
    assert "sandpost key create" in desk("--url", url, "status", code=4, SANDPOST_KEY=key).stderr


def test_a_whole_key_in_the_place_of_its_id_is_not_repeated(desk: Desk) -> None:
    # The key's end is left out here: what is typed is in the process list, as the command then says.
    done = desk("key", "revoke", "sp_12345678_thewholekey", code=2)
    assert "thewholekey" not in done.stderr
    assert "by its id" in done.stderr


# --- tenants ----------------------------------------------------------------------------------------------


def test_a_tenant_is_suspended_resumed_and_removed(desk: Desk) -> None:
    desk("tenant", "set", "lifecycle", "--memory", "64MiB", "--deadline", "5s")
    key = desk.key("--tenant", "lifecycle")
    time.sleep(1)
    assert status(desk, "lifecycle", key) == 200
    shown = desk("tenant", "show", "lifecycle").stdout
    assert "64MiB" in shown or "64 MiB" in shown
    assert "lifecycle" in desk("tenant", "ls").stdout
    assert "lifecycle" in desk("ps").stdout

    assert "suspended" in desk("tenant", "suspend", "lifecycle").stdout
    time.sleep(1)
    assert {status(desk, "lifecycle", key) for _ in range(20)} == {403}
    until(lambda: "lifecycle" not in desk("ps").stdout, "its sandbox has ended", 5)

    assert "active" in desk("tenant", "resume", "lifecycle").stdout
    time.sleep(1)
    assert desk.running.call("lifecycle", COUNT).json == 1, "it is served again, by a new sandbox"

    assert "removed" in desk("tenant", "rm", "lifecycle").stdout
    time.sleep(1)
    assert {status(desk, "lifecycle", key) for _ in range(20)} == {403}
    until(lambda: "lifecycle" not in desk("ps").stdout, "its sandbox has ended", 5)
    assert "sandpost tenant set lifecycle" in desk("tenant", "show", "lifecycle", code=4).stderr


def test_what_cannot_be_set_is_told_and_changes_nothing(desk: Desk) -> None:
    desk("tenant", "set", "firm", "--calls", "7")
    for arguments, words in (
        (["--memory", "5x"], "128MiB"),
        (["--memory", "1KiB"], "32MiB"),
        (["--deadline", "5"], "30s"),
        (["--calls", "0"], "calls"),
        (["--memory", "64MiB", "--memory-guaranteed", "128MiB"], "memory_guaranteed"),
    ):
        assert words in desk("tenant", "set", "firm", *arguments, code=4).stderr, arguments
    assert "a-z" in desk("tenant", "set", "Firm", code=4).stderr
    tenant = desk.json("tenant", "show", "firm")
    assert isinstance(tenant, dict)
    assert tenant["limits"]["calls"] == 7
    assert tenant["own"] == ["calls"]


# --- looking ----------------------------------------------------------------------------------------------


def test_ps_and_usage_count_what_a_tenant_does(desk: Desk) -> None:
    for _ in range(5):
        assert desk.running.call("counted", COUNT).status == 200
    [one] = json.loads(desk("ps", "--tenant", "counted", "--json").stdout)
    assert (one["tenant"], one["phase"], one["runtime"]) == ("counted", "assigned", "node")
    assert one["memory"] > 1 << 20

    def total() -> int:
        calls: int = json.loads(desk("usage", "counted", "--json").stdout)["total"]["calls"]
        return calls

    until(lambda: total() == 5, "usage of five calls is told", 15)
    assert "total" in desk("usage", "counted").stdout
    assert "used nothing" in desk("usage", "never-seen").stdout


def test_status_doctor_and_config_say_what_is(desk: Desk) -> None:
    said = desk("status").stdout
    assert f"127.0.0.1:{desk.running.port}" in said
    assert "problems    none" in said
    said = desk("doctor").stdout
    assert "is running" in said
    assert "this installation's" in said
    lines = desk("config", "show").stdout.splitlines()
    [pool] = [line for line in lines if line.startswith("pool_size ")]
    assert "environment, SANDPOST_POOL_SIZE" in pool
    [admin] = [line for line in lines if line.startswith("admin_key ")]
    assert "environment, SANDPOST_ADMIN_KEY" in admin


def test_a_missing_part_is_named_by_status(desk: Desk) -> None:
    [controller] = desk.running.pids("controller")
    os.kill(controller, 9)
    # It is back at once; what matters is that no answer is a traceback or a hang.
    for _ in range(5):
        done = desk.running.command("status")
        assert done.returncode in {0, 1}
        assert "Traceback" not in done.stderr
    until(lambda: desk.running.command("status").returncode == 0, "all is well again", 10)


def test_metrics_name_no_tenant(desk: Desk, metrics_port: int) -> None:
    assert desk.running.call("very-special-name", COUNT).status == 200
    desk("tenant", "set", "very-special-name")

    def text() -> str:
        return request(metrics_port, "GET", "/metrics").body.decode()

    until(lambda: "_bucket{" in text(), "latencies are told", 5)
    time.sleep(1.5)
    seen = text()
    assert "very-special-name" not in seen
    for name in ("sandpost_", "# TYPE"):
        assert name in seen
    assert request(metrics_port, "GET", "/elsewhere").status == 404


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["statsu"], "Did you mean `status`?"),
        (["tenant", "list"], "There are: ls,"),
        (["tenant", "set", "a", "--memroy", "1GiB"], "--memory"),
        (["run"], "Missing argument 'FILE'"),
        (["run", "/nowhere.js", "-t", "a"], "No such file"),
        (["usage"], "Missing argument 'TENANT'"),
        (["--url", "127.0.0.1:1", "status"], "write it as http://"),
        (["--config", "/nowhere.toml", "config", "show"], "make it, or name none"),
    ],
)
def test_a_mistyped_command_is_told_the_right_one(desk: Desk, arguments: list[str], words: str) -> None:
    assert words in desk(*arguments, code=2).stderr


def test_another_state_folder_is_not_running(desk: Desk, tmp_path: Path) -> None:
    for command in (["status"], ["ps"], ["stop"], ["restart"]):
        done = desk("--state-dir", str(tmp_path), *command, code=3)
        assert "scripts/serve" in done.stderr
    assert desk.running.call("anyone", HELLO).status == 200


def test_a_second_serve_says_that_it_runs(desk: Desk) -> None:
    done = desk("serve", code=3)
    assert "sandpost stop" in done.stderr
    assert desk.running.call("anyone", HELLO).status == 200
