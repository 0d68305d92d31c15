"""`sandpost tenant`, `key`, `status`, `ps`, `usage` as an operator meets them."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sandpost.client import Client, Unreachable
from sandpost.model.messages import SandboxInfo
from support.command import Run
from support.installation import Installation, ScriptedController, usage


def test_a_tenants_way_from_set_to_rm(sandpost: Run) -> None:
    made = sandpost("tenant", "set", "acme", "--memory", "256MiB", "--deadline", "60s", "--per-request-at-once", "3")
    assert (made.returncode, made.stdout) == (0, "tenant acme registered\n"), made.stderr
    assert sandpost("tenant", "set", "acme", "--memory", "default", "--cpu", "2").stdout == "tenant acme changed\n"
    listed = sandpost("tenant", "ls")
    assert "acme  active  per_tenant  cpu=2 deadline=1m per_request_at_once=3" in listed.stdout
    shown = sandpost("tenant", "show", "acme").stdout
    assert any(line.split() == ["memory", "128MiB", "host"] for line in shown.splitlines()), shown
    assert any(line.split() == ["deadline", "1m", "tenant"] for line in shown.splitlines()), shown
    assert sandpost("tenant", "set", "acme", "--egress", "allow:api.example.com:443").returncode == 0
    shown = sandpost("tenant", "show", "acme").stdout
    assert any(line.split() == ["egress", "allow:api.example.com:443"] for line in shown.splitlines()), shown
    assert sandpost("tenant", "suspend", "acme").stdout == "tenant acme is suspended\n"
    assert json.loads(sandpost("tenant", "show", "acme", "--json").stdout)["state"] == "suspended"
    assert json.loads(sandpost("tenant", "resume", "acme", "--json").stdout)["state"] == "active"
    assert sandpost("tenant", "rm", "acme").stdout == "tenant acme removed\n"
    gone = sandpost("tenant", "show", "acme")
    assert (gone.returncode, gone.stdout) == (4, "")
    assert gone.stderr == "sandpost: tenant `acme` is not registered: `sandpost tenant set acme` registers it\n"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["tenant", "set", "Acme"], 4, "cannot name a tenant"),
        (["tenant", "set", "acme", "--memory", "1MiB"], 4, "choose 32MiB to 1TiB"),
        (["tenant", "set", "acme", "--memroy", "1MiB"], 2, "--memory"),
        (["tenant", "set", "acme", "--deadline", "5"], 4, "such as 30s"),
        (["tenant", "set", "acme", "--egress", "open"], 4, "write `public`, `none` or `allow:`"),
        (["tenant", "sett"], 2, "No such command"),
        (["usage", "acme", "--since", "yesterday"], 4, "2026-05-01"),
        (["key", "revoke", "none"], 4, "sandpost key ls"),
        (["key", "create", "--tenant", "ghost"], 4, "is not registered"),
        (["key", "revoke", "sp_12345678_secret"], 2, "by its id"),
        (["status", "--url", "127.0.0.1:1"], 2, "is not a URL"),
        (["status", "--url", "http://127.0.0.1:1"], 2, "SANDPOST_KEY"),
        (["nonsense"], 2, "No such command"),
        (["run", "/nowhere", "--tenant", "t"], 2, "No such file"),
    ],
)
def test_what_is_wrong_is_told_in_a_line_or_two(sandpost: Run, arguments: list[str], code: int, told: str) -> None:
    done = sandpost(*arguments)
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= (4 if code == 2 else 2)


@pytest.mark.parametrize("name", ["old#new", "old/keys/00", "old?x=1", "old%20", "..", "", "api"])
def test_a_name_that_is_none_reaches_no_route(sandpost: Run, name: str) -> None:
    sandpost("tenant", "set", "old")
    done = sandpost("tenant", "rm", name)
    assert (done.returncode, done.stdout) == (4, "")
    assert "cannot name a tenant" in done.stderr or "is reserved" in done.stderr
    assert sandpost("tenant", "show", "old").returncode == 0


@pytest.mark.parametrize(
    "command",
    ["tenant show", "tenant set", "tenant suspend", "usage", "ps --tenant", "key ls --tenant", "key create --tenant"],
)
def test_every_command_refuses_a_name_that_is_none(sandpost: Run, command: str) -> None:
    done = sandpost(*command.split(), "old#new")
    assert (done.returncode, done.stdout) == (4, "")
    assert "cannot name a tenant" in done.stderr


@pytest.mark.parametrize("key_id", ["", "..", "0/1", "0#1", "?"])
def test_an_id_that_is_none_reaches_no_route(sandpost: Run, key_id: str) -> None:
    done = sandpost("key", "revoke", key_id)
    assert (done.returncode, done.stdout) == (4, "")
    assert "is no key's id: `sandpost key ls`" in done.stderr


@pytest.mark.parametrize(("command", "state"), [("suspend", "suspended"), ("resume", "active")])
def test_a_tenant_that_was_not_registered_is_told(sandpost: Run, command: str, state: str) -> None:
    name = f"mistyped-{command}"
    said = sandpost("tenant", command, name).stdout.splitlines()
    assert said == [
        f"tenant {name} was not registered and now is: `sandpost tenant rm {name}` if another was meant",
        f"tenant {name} is {state}",
    ]
    assert sandpost("tenant", command, name).stdout == f"tenant {name} is {state}\n"
    assert json.loads(sandpost("tenant", command, name, "--json").stdout)["registered_now"] is False
    sandpost("tenant", "rm", name)
    assert json.loads(sandpost("tenant", command, name, "--json").stdout)["registered_now"] is True


def test_errors_are_json_where_json_was_asked_for(sandpost: Run) -> None:
    done = sandpost("--json", "tenant", "show", "ghost")
    assert done.returncode == 4
    assert json.loads(done.stderr)["error"]["reason"] == "unknown_tenant"
    assert json.loads(done.stderr)["error"]["exit_code"] == 4


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("tenant set t1 --idel 3m --json", "--idle"),
        ("bogus --json", "There are: completion"),
        ("--json tenant", "Missing command"),
        ("run --json", "FILE"),
        ("run /nowhere -t a --json", "No such file"),
    ],
)
def test_wrong_usage_is_json_where_json_was_asked_for(sandpost: Run, arguments: str, told: str) -> None:
    done = sandpost(*arguments.split())
    assert (done.returncode, done.stdout) == (2, "")
    error = json.loads(done.stderr)["error"]
    assert (error["reason"], error["exit_code"]) == ("usage", 2)
    assert told in error["message"]


def test_a_key_is_shown_once_and_works_by_url_and_key(
    sandpost: Run, place: tuple[Installation, ScriptedController]
) -> None:
    sandpost("tenant", "set", "keyed")
    made = sandpost("key", "create", "--tenant", "keyed", "--label", "for \x1b[31mtests")
    key = made.stdout.strip()
    key_id = key.split("_")[1]
    assert made.returncode == 0
    assert key.startswith("sp_")
    listed = sandpost("key", "ls", "--tenant", "keyed").stdout
    assert key_id in listed
    assert key not in listed
    assert "\x1b" not in listed, "a label is no command to the terminal"
    # With the key one sees what the key may see, also as root on the host.
    assert sandpost("tenant", "show", "keyed", SANDPOST_KEY=key).returncode == 0
    assert sandpost("status", SANDPOST_KEY=key).returncode == 4
    assert sandpost("key", "revoke", key_id).returncode == 0
    assert sandpost("tenant", "show", "keyed", SANDPOST_KEY=key).returncode == 4


@pytest.mark.parametrize("wrong", ["sp_12345678_\rsecret", "sp_12345678_secr\x01et", "sp_12345678_secrét"])
def test_a_key_that_no_header_carries_is_not_shown(sandpost: Run, tmp_path: Path, wrong: str) -> None:
    file = tmp_path / "key"
    file.write_text(wrong)
    file.chmod(0o600)
    for done in (sandpost("status", SANDPOST_KEY=wrong), sandpost("status", "--key-file", str(file))):
        assert (done.returncode, done.stdout) == (2, "")
        assert "copy it anew" in done.stderr
        assert "sp_1" not in done.stderr


def test_the_blanks_around_a_key_are_not_its(sandpost: Run) -> None:
    key = sandpost("key", "create").stdout.strip()
    assert sandpost("tenant", "ls", SANDPOST_KEY=f" {key}\r\n").returncode == 0


def test_a_client_does_not_show_a_key_that_cannot_be_sent(place: tuple[Installation, ScriptedController]) -> None:
    with Client(socket=place[0].host.api_socket, key="sp_1\r") as client, pytest.raises(Unreachable) as told:
        client.status()
    assert "sp_1" not in str(told.value)


def test_a_key_file_must_be_ones_own(sandpost: Run, tmp_path: Path) -> None:
    key = json.loads(sandpost("key", "create", "--json").stdout)["key"]
    file = tmp_path / "key"
    file.write_text(key + "\n")
    file.chmod(0o644)
    refused = sandpost("key", "ls", "--key-file", str(file))
    assert refused.returncode == 2
    assert "chmod 600" in refused.stderr
    file.chmod(0o600)
    assert sandpost("key", "ls", "--key-file", str(file)).returncode == 0
    file.write_text("sp_wrong_key_wrong_key")
    assert sandpost("key", "ls", "--key-file", str(file)).returncode == 4


def test_status_shows_the_figures_and_problems(sandpost: Run, place: tuple[Installation, ScriptedController]) -> None:
    well = sandpost("status")
    assert well.returncode == 0
    assert "3 of 4 ready" in well.stdout
    assert "idle 2, memory 1" in well.stdout
    assert json.loads(sandpost("status", "--json").stdout)["controller"]["pool"] == 3
    place[1].silent = True
    try:
        ill = sandpost("status")
    finally:
        place[1].silent = False
    assert ill.returncode == 1
    assert "controller" in ill.stdout


def test_ps_lists_sandboxes(sandpost: Run, place: tuple[Installation, ScriptedController]) -> None:
    assert sandpost("ps").stdout == "no sandbox is running\n"
    now = time.time()
    place[1].sandboxes = [
        SandboxInfo(
            sandbox_id="0123456789ab",
            phase="assigned",
            tenant="acme",
            started_at=now - 600,
            assigned_at=now - 500,
            last_call_at=now - 300,
            calls=12,
            memory=20 << 20,
            cpu_seconds=1.5,
            pids=9,
        ),
        SandboxInfo(sandbox_id="0123456789ac", phase="pooled", started_at=now - 60),
    ]
    lines = sandpost("ps").stdout.splitlines()
    assert lines[0].split()[:3] == ["SANDBOX", "PHASE", "TENANT"]
    assert lines[1].split() == [
        "0123456789ab", "assigned", "acme", "runc", "node", "10m", "5m", "12", "0", "20", "MiB", "1.50s", "9",
    ]  # fmt: skip
    assert lines[2].split()[:3] == ["0123456789ac", "pooled", "-"]
    assert [one["sandbox_id"] for one in json.loads(sandpost("ps", "--json", "--tenant", "acme").stdout)] == [
        "0123456789ab"
    ]
    place[1].sandboxes = []


def test_usage_is_shown_by_hour_with_its_sum(sandpost: Run, place: tuple[Installation, ScriptedController]) -> None:
    assert "used nothing since" in sandpost("usage", "user").stdout
    hour = int(time.time() // 3600)
    for n in (1, 0):
        place[1].send(usage(f"cli-{n}", tenant="user", hour=hour - n, calls=2, cpu_seconds=0.5, ends={"idle": 1}))
    assert {place[1].taken.get(timeout=10) for _ in range(2)} == {"cli-0", "cli-1"}
    lines = sandpost("usage", "user", "--since", "7d").stdout.splitlines()
    assert len(lines) == 4
    assert lines[-1].split()[:3] == ["total", "4", "1.00s"]
    assert json.loads(sandpost("usage", "user", "--json").stdout)["total"]["calls"] == 4


@pytest.mark.parametrize(
    ("since", "told"),
    [
        ("2026-11-25", "2026-11-25 00:00:00"),
        ("2026-11-25T08:00", "2026-11-25 08:00:00"),
        ("2026-11-24T15:00:00Z", "2026-11-25 00:00:00"),
        ("1795532400", "2026-11-25 00:00:00"),
    ],
)
def test_usage_takes_dates_in_the_zone_in_which_it_shows_hours(sandpost: Run, since: str, told: str) -> None:
    # Nine hours ahead of UTC.
    assert f"used nothing since {told} (" in sandpost("usage", "nobody", "--since", since, TZ="JST-9").stdout
    view = json.loads(sandpost("usage", "nobody", "--since", since, "--json", TZ="JST-9").stdout)
    assert view["since"] == 1795532400 + (8 * 3600 if "08:00" in since else 0)


def test_an_output_that_nobody_reads_is_no_error() -> None:
    command = f"{sys.executable} -m sandpost config show | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
