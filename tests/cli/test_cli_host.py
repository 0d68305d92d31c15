"""Commands about the machine's own installation: found or not, stopped, restarted, looked at."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from sandpost.ipc.channel import Channel, Listener
from sandpost.kernel.processes import start_time
from sandpost.model.messages import Hello, Restart, Restarted, Stop, Stopped, ToSupervisor
from sandpost.supervisor.family import Known
from support.command import runner
from support.installation import Installation


class ScriptedSupervisor:
    """A supervisor in a thread of its own: says what it was asked, answers as told."""

    def __init__(self, path: str, error: str = "", last: Stopped | None = None, claim: str = "") -> None:
        self.asked: list[str] = []
        self._error = error
        self._last = last
        self._claim = claim
        self._path = path
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,))
        self._thread.start()
        assert started.wait(10)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self, started: threading.Event) -> None:
        async def listen() -> Listener[ToSupervisor]:
            made: Listener[ToSupervisor] = Listener(
                self._path, ToSupervisor, self._on_message, lambda _channel: None, admit=lambda _peer: True
            )
            started.set()
            return made

        async def end(listener: Listener[ToSupervisor]) -> None:
            listener.close()

        listener = self._loop.run_until_complete(listen())
        self._loop.run_forever()
        self._loop.run_until_complete(end(listener))
        self._loop.close()

    def _on_message(self, channel: Channel[ToSupervisor], message: ToSupervisor, _fds: list[int]) -> None:
        self.asked.append(type(message).__name__)
        if isinstance(message, Hello):
            assert message.part == "cli"
        if isinstance(message, Restart):
            pids = {} if self._error else {"controller": 12, "proxy 0": 13}
            self._loop.call_later(0.2, channel.send, Restarted(pids=pids, error=self._error))
        if isinstance(message, Stop):
            self._loop.call_later(0.3, self._end, channel)

    def _end(self, channel: Channel[ToSupervisor]) -> None:
        if self._claim:
            os.unlink(self._claim)
        if self._last is not None:
            channel.send(self._last)
        channel.close()


@pytest.fixture
def made() -> Iterator[Installation]:
    """An installation of which nothing runs."""
    installation = Installation()
    yield installation
    installation.close()


def test_nothing_running_says_how_to_start(made: Installation) -> None:
    sandpost = runner(made)
    for command in (["status"], ["stop"], ["restart"], ["ps"], ["tenant", "ls"]):
        done = sandpost(*command)
        assert done.returncode == 3, done.stderr
        assert "start it with scripts/serve" in done.stderr
    shutil.rmtree(made.host.run_dir)
    assert sandpost("status").returncode == 3
    assert sandpost("status", "--state-dir", "/nowhere").returncode == 3


def test_an_api_that_is_away_is_told_from_a_stop(made: Installation) -> None:
    supervisor = ScriptedSupervisor(made.host.supervisor_socket)
    try:
        done = runner(made)("status")
    finally:
        supervisor.close()
    assert done.returncode == 1
    assert "the api does not answer" in done.stderr


def test_stop_returns_when_all_has_ended(made: Installation) -> None:
    supervisor = ScriptedSupervisor(made.host.supervisor_socket, last=Stopped())
    try:
        began = time.monotonic()
        done = runner(made)("stop")
        assert done.returncode == 0, done.stderr
        assert time.monotonic() - began >= 0.3
        assert made.host.state_dir in done.stdout
        assert supervisor.asked == ["Hello", "Stop"]
    finally:
        supervisor.close()


def test_a_stop_that_left_something_or_ends_without_a_word_is_none(made: Installation) -> None:
    for last, told in ((Stopped(error="/a is still mounted"), "/a is still mounted"), (None, "start it again")):
        supervisor = ScriptedSupervisor(made.host.supervisor_socket, last=last)
        try:
            done = runner(made)("stop")
        finally:
            supervisor.close()
        assert (done.returncode, done.stdout) == (1, "")
        assert told in done.stderr


def test_a_supervisor_that_says_nothing_and_gives_its_place_back_has_stopped(made: Installation) -> None:
    # So did releases before the last word was said.
    supervisor = ScriptedSupervisor(made.host.supervisor_socket, claim=made.host.path("claim"))
    try:
        done = runner(made)("stop")
    finally:
        supervisor.close()
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["stop", "restart"])
def test_another_user_is_told_to_be_root_and_nothing_is_asked(made: Installation, command: str) -> None:
    supervisor = ScriptedSupervisor(made.host.supervisor_socket, last=Stopped())
    try:
        done = runner(made)(command, nobody=True)
        assert supervisor.asked == []
    finally:
        supervisor.close()
    assert (done.returncode, done.stdout) == (1, "")
    assert "only root may" in done.stderr


@pytest.mark.parametrize("command", ["stop", "restart"])
def test_parts_that_outlive_their_supervisor_are_told(made: Installation, command: str) -> None:
    part = subprocess.Popen(["sleep", "60"])
    try:
        known = Known(part="api", index=0, pid=part.pid, start_time=start_time(part.pid), release="1")
        Path(made.host.path("children.json")).write_bytes(msgspec.json.encode([known]))
        done = runner(made)(command)
    finally:
        part.kill()
        part.wait()
    assert (done.returncode, done.stdout) == (1, "")
    assert "was killed, 1 of its parts live" in done.stderr
    assert "adopts" in done.stderr
    assert runner(made)(command).returncode == 3


def test_restart_shows_the_new_processes_or_why_not(made: Installation) -> None:
    supervisor = ScriptedSupervisor(made.host.supervisor_socket)
    try:
        done = runner(made)("restart")
        assert (done.returncode, done.stdout) == (0, "restarted: controller 12, proxy 0 13\n")
        assert json.loads(runner(made)("restart", "--json").stdout)["pids"]["controller"] == 12
    finally:
        supervisor.close()
    supervisor = ScriptedSupervisor(made.host.supervisor_socket, error="a renewal is under way")
    try:
        done = runner(made)("restart")
        assert done.returncode == 1
        assert "a renewal is under way" in done.stderr
    finally:
        supervisor.close()


def test_options_before_serve_are_the_servers(made: Installation, tmp_path: Path) -> None:
    sandpost = runner(made)
    (tmp_path / "settings.toml").write_text("pool_sise = 1\n")
    # Without what is tested, a flag or a port keeps them from starting.
    done = sandpost("--config", str(tmp_path / "settings.toml"), "serve", "--listen", "nowhere")
    assert done.returncode == 2
    assert "unknown setting `pool_sise`" in done.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = sandpost("--state-dir", "/", "serve", "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert done.returncode == 2
    assert "`state_dir` must be a folder of its own" in done.stderr


@pytest.mark.parametrize(
    "option", [["--url", "http://127.0.0.1:1"], ["--key-file", "/nowhere"], ["--cacert", "/nowhere"], ["--json"]]
)
def test_what_serve_does_not_know_is_refused_before_its_name_too(made: Installation, option: list[str]) -> None:
    done = runner(made)(*option, "serve", "--listen", "nowhere")
    assert done.returncode == 2
    assert f"knows no {option[0]}" in done.stderr


@pytest.mark.parametrize("command", [["stop"], ["restart"], ["doctor"], ["config", "show"]])
def test_a_command_for_this_host_alone_refuses_an_address(made: Installation, command: list[str]) -> None:
    supervisor = ScriptedSupervisor(made.host.supervisor_socket, last=Stopped())
    try:
        by_option = runner(made)(*command, "--url", "http://127.0.0.1:1")
        by_environment = runner(made)(*command, SANDPOST_URL="http://127.0.0.1:1")
        assert supervisor.asked == []
    finally:
        supervisor.close()
    assert (by_option.returncode, by_option.stdout) == (2, "")
    assert "leave --url out" in by_option.stderr
    assert (by_environment.returncode, by_environment.stdout) == (2, "")
    assert "unset SANDPOST_URL" in by_environment.stderr


@pytest.mark.parametrize("text", ["limits = [", "pool_sise = 1", "queue = 0", '[limits]\nmemory = "1"'])
def test_a_running_installation_is_stopped_whatever_became_of_its_settings(
    made: Installation, tmp_path: Path, text: str
) -> None:
    (tmp_path / "settings.toml").write_text(text)
    supervisor = ScriptedSupervisor(made.host.supervisor_socket, last=Stopped())
    try:
        done = runner(made)("stop", "--config", str(tmp_path / "settings.toml"), SANDPOST_NO_SUCH_SETTING="1")
    finally:
        supervisor.close()
    assert (done.returncode, supervisor.asked) == (0, ["Hello", "Stop"]), done.stderr


def test_an_installation_is_found_by_what_the_settings_file_says(made: Installation, tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    supervisor = ScriptedSupervisor(made.host.supervisor_socket, last=Stopped())

    def stop(text: str, *arguments: str, code: int) -> str:
        settings.write_text(text)
        done = subprocess.run(
            [sys.executable, "-m", "sandpost", "stop", "--config", settings, *arguments],
            env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stderr

    run_dir = os.path.dirname(made.host.run_dir)
    try:
        # Nobody but the file says which, and what it says cannot be read.
        assert "--state-dir says which" in stop("state_dir = [", code=2)
        assert "--state-dir says which" in stop("state_dir = 5", code=2)
        # Named, but not where one looks without the file.
        assert "is not TOML" in stop("run_dir = [", "--state-dir", made.host.state_dir, code=2)
        assert supervisor.asked == []
        stop(f'state_dir = "{made.host.state_dir}"\nrun_dir = "{run_dir}"\npool_sise = 1', code=0)
    finally:
        supervisor.close()


def test_another_user_with_a_key_needs_no_secret_of_the_settings(made: Installation, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("a-very-secret-admin-key")
    (tmp_path / "key").chmod(0o600)
    done = runner(made)(
        "status", nobody=True, SANDPOST_ADMIN_KEY_FILE=str(tmp_path / "key"), SANDPOST_KEY="sp_00000000_itsfortesting"
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "127.0.0.1:1 cannot be reached" in done.stderr


def test_config_show_names_every_setting_with_its_origin(made: Installation) -> None:
    sandpost = runner(made)
    shown = sandpost("config", "show", SANDPOST_LIMITS_DEADLINE="5s", SANDPOST_ADMIN_KEY="a-very-secret-admin-key")
    assert shown.returncode == 0, shown.stderr
    assert "environment, SANDPOST_LIMITS_DEADLINE" in shown.stdout
    assert "very-secret" not in shown.stdout
    rows = {row["name"]: row for row in json.loads(sandpost("config", "show", "--json").stdout)}
    assert rows["state_dir"]["value"] == made.host.state_dir
    assert rows["limits.memory"] == {**rows["limits.memory"], "value": "128MiB", "origin": "default", "live": True}
    wrong = sandpost("config", "show", SANDPOST_LIMITS_DEADLIN="5s")
    assert wrong.returncode == 2
    assert "SANDPOST_LIMITS_DEADLINE" in wrong.stderr


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        ("too-short", 0o600, "at least 16"),
        ("with a space in the midst", 0o600, "no space"),
        ("", 0o600, "holds no secret"),
        ("a-long-enough-key", 0o640, "chmod 600"),
        (None, 0, "cannot read"),
    ],
)
def test_config_show_refuses_a_key_as_serve_does(
    made: Installation, tmp_path: Path, text: str | None, mode: int, words: str
) -> None:
    sandpost, path = runner(made), tmp_path / "key"
    # A machine without runc: `serve` ends, if it does not end before.
    environment = {"SANDPOST_OCI_RUNTIME": "/nowhere/runc", "SANDPOST_ADMIN_KEY_FILE": str(path)}
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    shown, served = sandpost("config", "show", **environment), sandpost("serve", **environment)
    assert (shown.returncode, served.returncode) == (2, 2)
    assert words in shown.stderr
    assert str(path) in shown.stderr
    assert shown.stderr == served.stderr
    if text and mode == 0o600:
        del environment["SANDPOST_ADMIN_KEY_FILE"]
        environment["SANDPOST_ADMIN_KEY"] = text
        shown, served = sandpost("config", "show", **environment), sandpost("serve", **environment)
        assert (shown.returncode, served.returncode) == (2, 2)
        assert words in shown.stderr
        assert "SANDPOST_ADMIN_KEY" in shown.stderr
        assert text not in shown.stderr
        assert shown.stderr == served.stderr


def test_config_show_refuses_an_empty_oci_runtime_as_serve_does(made: Installation) -> None:
    shown = runner(made)("config", "show", SANDPOST_OCI_RUNTIME="")
    assert shown.returncode == 2
    assert "`oci.runtime` is empty" in shown.stderr
    assert runner(made)("serve", SANDPOST_OCI_RUNTIME="").stderr == shown.stderr


def test_who_only_looks_does_not_need_the_keys_file(made: Installation) -> None:
    path = Path(made.root, "key")
    path.write_text("too-short")
    path.chmod(0o600)
    environment = {"SANDPOST_ADMIN_KEY_FILE": str(path), "SANDPOST_QUEUE": "7"}

    def admin_key() -> dict[str, str]:
        done = runner(made)("config", "show", "--json", nobody=True, **environment)
        assert done.returncode == 0, done.stderr
        rows = {row["name"]: row for row in json.loads(done.stdout)}
        assert rows["queue"]["value"] == "7"
        assert rows["admin_key_file"]["value"] == str(path)
        found: dict[str, str] = rows["admin_key"]
        return found

    assert (admin_key()["value"], admin_key()["origin"]) == ("[unreadable]", f"file {path}")
    assert runner(made)("doctor", nobody=True, **environment).returncode == 1, "another user, and no wrong setting"
    # Not even then is it opened: what is in it is no key.
    path.chmod(0o644)
    assert admin_key()["value"] == "[hidden]"


def test_doctor_says_what_is_there(made: Installation) -> None:
    done = runner(made)("doctor", "--json")
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert findings["root"]["level"] == "ok"
    assert done.returncode == (1 if any(one["level"] == "fatal" for one in findings.values()) else 0)
    assert "is not running" in runner(made)("doctor").stdout


def test_doctor_and_serve_say_the_same_of_a_state_folder_that_is_no_good(made: Installation) -> None:
    def doctor() -> dict[str, str]:
        done = runner(made)("doctor", "--json")
        return {one["name"]: one["message"] for one in json.loads(done.stdout) if one["level"] == "fatal"}

    def refused() -> str:
        done = runner(made)("serve", "--listen", "127.0.0.1:1")
        assert done.returncode == 1
        return done.stderr.removeprefix("sandpost: ").strip()

    state = made.host.state_dir
    assert "state" not in doctor()
    os.chown(state, 1000, 1000)
    assert "belongs to user 1000" in doctor()["state"]
    assert doctor()["state"] in refused()
    os.chown(state, 0, 0)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0711,ro,size=128M", "tmpfs", state], check=True, timeout=10)
    try:
        assert "read-only file system" in doctor()["state"]
        assert doctor()["state"] in refused()
    finally:
        subprocess.run(["umount", state], check=True, timeout=10)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed_and_completes(made: Installation, shell: str) -> None:
    sandpost = runner(made)
    script = sandpost("completion", shell)
    assert script.returncode == 0
    assert "_SANDPOST_COMPLETE" in script.stdout
    words = {"COMP_WORDS": "sandpost tenant su", "COMP_CWORD": "2" if shell != "fish" else "su"}
    completed = sandpost(_SANDPOST_COMPLETE=f"{shell}_complete", **words)
    assert "suspend" in completed.stdout


def test_help_names_every_command_and_the_exit_codes(made: Installation) -> None:
    shown = runner(made)("--help")
    assert shown.returncode == 0
    for command in (
        "serve",
        "run",
        "status",
        "ps",
        "usage",
        "tenant",
        "key",
        "config",
        "doctor",
        "restart",
        "stop",
        "completion",
    ):
        assert f"\n  {command}" in shown.stdout
    assert "Exit codes" in shown.stdout
    assert runner(made)("--version").stdout.startswith("sandpost, version ")


def test_help_starts_fast_and_imports_nothing_big(made: Installation) -> None:
    names = "'httpx', 'rich', 'starlette', 'uvicorn', 'sqlite3', 'asyncio', 'ssl'"
    code = f"import sys; from sandpost.cli.main import main; main(['tenant', 'set', '--help']); sys.exit(repr([n for n in [{names}] if n in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr.strip() == "[]"


def test_a_user_who_is_not_root_needs_a_key(made: Installation) -> None:
    import sandpost.client
    import sandpost.config.sources
    from sandpost.cli import place
    from sandpost.cli.options import Options
    from sandpost.model.errors import ConfigError

    assert sandpost.client
    assert sandpost.config.sources
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = "no error"
        try:
            os.environ["SANDPOST_RUN_DIR"] = os.path.dirname(made.host.run_dir)
            os.setuid(65534)
            place.management(Options(state_dir=made.host.state_dir))
        except ConfigError as error:
            said = error.message
        except BaseException as error:
            said = repr(error)
        os.write(write_end, said.encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(pid, 0)
    assert "SANDPOST_KEY" in said
