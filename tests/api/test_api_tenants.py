"""Tenants through the api's real socket."""

import os
import subprocess
import time
from typing import Any

import pytest

from sandpost.logs import figures
from sandpost.model.figures import Figures
from sandpost.model.messages import TenantChanged, TenantRemoved
from support.installation import Installation, ScriptedController, wait_for

MiB = 1 << 20


def test_a_put_sets_what_it_names_and_keeps_the_rest(api: Installation) -> None:
    first = api.call("PUT", "/api/tenants/keep", {"limits": {"memory": "64MiB", "deadline": "5s"}})
    assert (first.status_code, first.json()["own"]) == (201, ["deadline", "memory"])
    second = api.call("PUT", "/api/tenants/keep", {"state": "suspended"})
    assert second.status_code == 200
    seen = api.call("GET", "/api/tenants/keep").json()
    assert (seen["state"], seen["limits"]["memory"], seen["limits"]["deadline"]) == ("suspended", 64 * MiB, 5.0)
    third = api.call("PUT", "/api/tenants/keep", {"limits": {"memory": None, "pids": 32}}).json()
    assert (third["own"], third["limits"]["memory"], third["state"]) == (["deadline", "pids"], 128 * MiB, "suspended")
    assert third["created_at"] == first.json()["created_at"]


def test_an_egress_policy_is_set_shown_and_told_to_the_controller(
    api: Installation, controller: ScriptedController
) -> None:
    policy = "allow:api.example.com:443,*.example.org,203.0.113.0/24"
    made = api.call("PUT", "/api/tenants/listed", {"egress": policy, "limits": {"connections": 8, "bandwidth_out": 0}})
    assert (made.status_code, made.json()["egress"], made.json()["applied"]) == (201, policy, True)
    told = controller.told[-1]
    assert isinstance(told, TenantChanged)
    assert (told.tenant.egress, told.tenant.limits.connections, told.tenant.limits.bandwidth_out) == (policy, 8, 0)
    api.call("PUT", "/api/tenants/listed", {"limits": {"pids": 32}})
    assert api.call("GET", "/api/tenants/listed").json()["egress"] == policy


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"limitz": {}}, "did you mean `limits`"),
        ({"limits": {"blocked_after": 600, "deadline": 1}}, "above limits.deadline"),
        ({"limits": {"memroy": 1}}, "did you mean `memory`"),
        ({"limits": {"memory": "64MB"}}, "such as 128MiB"),
        ({"limits": {"memory": "1MiB"}}, "choose 32MiB to 1TiB"),
        ({"limits": {"deadline": "2h"}}, "choose 1s to 1h"),
        ({"limits": {"deadline": "5"}}, "such as 30s"),
        ({"limits": {"pids": True}}, "limits"),
        ({"limits": {"pids": [1]}}, "limits"),
        ({"limits": [1]}, "limits"),
        ({"limits": {"memory_guaranteed": "1GiB"}}, "above limits.memory"),
        ({"isolation": "per_request", "limits": {"memory": "48MiB"}}, "per_request_at_once"),
        ({"isolation": "per_planet"}, "isolation"),
        ({"engine": "docker"}, "engine"),
        ({"engine": "runsc"}, "scripts/install --gvisor"),
        ({"egress": "everything"}, "write `public`, `none` or `allow:`"),
        ({"egress": "allow:10.0.0.5:443"}, "private"),
        ({"egress": "allow:api.example.com:0"}, "no port from 1 to 65535"),
        ({"egress": "allow:localhost"}, "no domain, address or block"),
        ({"egress": "allow:" + ",".join(["a.example.com"] * 257)}, "256 entries"),
        ({"egress": "allow:" + "a" * 20_000}, "egress"),
        ({"egress": None}, "egress"),
        ({"limits": {"bandwidth_in": "100B"}}, "choose 1KiB"),
        ({"state": "asleep"}, "state"),
        ({"state": None}, "state"),
        ([], "JSON object"),
        (b"{", "not JSON"),
        (b'{"state": "active"} x', "not JSON"),
        (b"\xff\xfe{\x00}\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"limits": {"deadline": NaN}}', "not JSON"),
        (b'{"limits": {"deadline": 1e400}}', "out of range"),
    ],
)
def test_a_wrong_put_is_told_and_changes_nothing(api: Installation, body: Any, told: str) -> None:
    answer = api.call("PUT", "/api/tenants/wrong", body)
    assert answer.status_code == 400, answer.text
    assert told in answer.json()["message"]
    assert answer.json()["fault"] == "caller"
    assert api.call("GET", "/api/tenants/wrong").status_code == 404


def test_a_tenants_engine_is_set_told_and_put_back(api: Installation, controller: ScriptedController) -> None:
    assert api.call("PUT", "/api/tenants/set", {}).json()["engine"] is None
    assert api.call("PUT", "/api/tenants/set", {"engine": "runc"}).json()["engine"] == "runc"
    told = controller.told[-1]
    assert isinstance(told, TenantChanged)
    assert told.tenant.engine == "runc"
    wait_for(lambda: controller.engines[-1:] == [["runc"]])
    assert api.call("PUT", "/api/tenants/set", {"state": "active"}).json()["engine"] == "runc"
    assert api.call("PUT", "/api/tenants/set", {"engine": None}).json()["engine"] is None
    wait_for(lambda: controller.engines[-1:] == [[]])


@pytest.mark.parametrize("name", ["A", "-a", "a" * 64, "%00", "a%20b", "api", "logs", "health", "metrics", "ä", "a.b"])
def test_a_name_outside_the_alphabet_is_refused(api: Installation, name: str) -> None:
    answer = api.call("PUT", f"/api/tenants/{name}", {})
    assert (answer.status_code, answer.json()["reason"]) == (400, "invalid_name")


@pytest.mark.parametrize(
    "path", ["/api/tenants/a%2Fb", "/api/tenants/a/", "/api//tenants", "/api/tenants/", "/api", "/"]
)
def test_odd_paths_lead_nowhere(api: Installation, path: str) -> None:
    answer = api.call("GET", path)
    assert (answer.status_code, answer.json()["reason"]) == (404, "not_found")


def test_the_controller_is_told_and_asked_to_end_what_runs(api: Installation, controller: ScriptedController) -> None:
    assert api.call("PUT", "/api/tenants/told", {"state": "suspended"}).json()["applied"] is True
    changed = controller.told[-1]
    assert isinstance(changed, TenantChanged)
    assert (changed.tenant.name, changed.tenant.state, changed.tenant.registered) == ("told", "suspended", True)
    assert api.call("DELETE", "/api/tenants/told").status_code == 204
    removed = controller.told[-1]
    assert isinstance(removed, TenantRemoved)
    assert removed.name == "told"
    again = api.call("DELETE", "/api/tenants/told")
    assert (again.status_code, again.json()["reason"]) == (404, "unknown_tenant")


def test_a_controller_that_does_not_answer_delays_and_does_not_refuse(
    api: Installation, controller: ScriptedController
) -> None:
    controller.silent = True
    answer = api.call("PUT", "/api/tenants/mute", {"state": "suspended"})
    assert (answer.status_code, answer.json()["applied"]) == (201, False)
    assert api.call("GET", "/api/sandboxes").json()["reason"] == "unavailable"
    status = api.call("GET", "/api/status")
    assert status.status_code == 200
    assert status.json()["controller"] is None
    assert "controller" in status.json()["problems"][0]


def test_parts_that_are_away_are_problems(api: Installation, controller: ScriptedController) -> None:
    assert controller.hellos
    folder = api.host.metrics_dir
    ended = subprocess.Popen(["true"])
    ended.wait(10)

    def leave(part: str, pid: int, age: float) -> None:
        figures.write(folder, Figures(part=part, index=0, pid=pid, at=time.time() - age, samples=[]))

    def problems() -> list[str]:
        return [each.partition(":")[0] for each in api.call("GET", "/api/status").json()["problems"]]

    for part in ("supervisor", "collector", "egress"):
        leave(part, os.getpid(), 1)
    assert problems() == []
    # One that is being renewed is no problem yet.
    leave("supervisor", ended.pid, 1)
    assert problems() == []
    leave("supervisor", ended.pid, 5)
    leave("collector", os.getpid(), 15)
    leave("egress", ended.pid, 5)
    assert problems() == ["collector", "egress", "supervisor"]
    for part in ("supervisor", "collector", "egress"):
        leave(part, os.getpid(), 0)
    controller.proxies = 0
    try:
        assert problems() == ["proxy"]
    finally:
        controller.proxies = api.host.workers


def test_a_log_bus_that_keeps_nothing_is_a_problem_and_what_is_said_of_it_acts_on_no_terminal(
    api: Installation, controller: ScriptedController
) -> None:
    assert controller.hellos

    def problems(problem: str) -> list[str]:
        made = Figures(part="collector", index=0, pid=os.getpid(), at=time.time(), samples=[], problem=problem)
        figures.write(api.host.metrics_dir, made)
        answer = api.call("GET", "/api/status")
        assert answer.status_code == 200
        return [one for one in answer.json()["problems"] if one.startswith("logs: ")]

    (said,) = problems("kafka1:9092 does not answer\x1b]0;x\x07" + "x" * 5000)
    assert "kafka1:9092 does not answer" in said
    assert "logs.spool" in said
    assert said.isprintable()
    assert len(said) < 1500
    assert problems("") == []


def test_more_parameters_than_any_route_takes_are_refused(api: Installation) -> None:
    for key in ("", "&key=wrong"):
        many = "&".join(f"a{n}=1" for n in range(60))
        answer = api.call("GET", f"/api/status?{many}{key}")
        assert (answer.status_code, answer.json()["reason"]) == (400, "invalid_value")


def test_tenants_come_in_pages(api: Installation) -> None:
    for n in range(5):
        api.call("PUT", f"/api/tenants/page-{n}", {})
    names: list[str] = []
    after, pages = "page-", 0
    while after is not None and pages < 20:
        page = api.call("GET", f"/api/tenants?limit=2&after={after}").json()
        names += [tenant["name"] for tenant in page["tenants"]]
        after, pages = page["next"], pages + 1
    assert [name for name in names if name.startswith("page-")] == [f"page-{n}" for n in range(5)]
    assert api.call("GET", "/api/tenants?limit=0").status_code == 400
    assert api.call("GET", "/api/tenants?limit=many").status_code == 400
    assert "did you mean `limit`" in api.call("GET", "/api/tenants?limits=1").json()["message"]
    assert api.call("GET", "/api/tenants?limit=1&limit=2").status_code == 400


def test_concurrent_puts_lose_nothing(api: Installation) -> None:
    import threading

    limits = {"pids": 32, "calls": 7, "rate": 3, "files": 100, "programs": 9, "tmp_inodes": 99, "cpu": 2, "idle": 5}
    threads = [
        threading.Thread(target=api.call, args=("PUT", "/api/tenants/race", {"limits": {name: value}}))
        for name, value in limits.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    seen = api.call("GET", "/api/tenants/race").json()
    assert seen["own"] == sorted(limits)
    assert {name: seen["limits"][name] for name in limits} == limits


def test_a_tenant_set_while_the_controller_was_away_is_told_when_it_is_back() -> None:
    from support.installation import installation

    with installation() as made:
        assert made.call("PUT", "/api/tenants/late", {"state": "suspended"}).json()["applied"] is False
        made.call("PUT", "/api/tenants/late", {"state": "active"})
        made.call("PUT", "/api/tenants/gone", {})
        made.call("DELETE", "/api/tenants/gone")
        controller = made.controller()
        wait_for(lambda: len(controller.told) >= 2)
        told = {
            message.tenant.name if isinstance(message, TenantChanged) else message.name: message
            for message in controller.told
        }
        assert isinstance(told["gone"], TenantRemoved)
        late = told["late"]
        assert isinstance(late, TenantChanged)
        assert late.tenant.state == "active"


def test_a_restarted_api_tells_the_controller_what_is_set_of_those_that_run() -> None:
    from sandpost.model.messages import SandboxInfo
    from support.installation import installation

    with installation() as made:
        made.call("PUT", "/api/tenants/runs", {"state": "suspended"})
        made.call("PUT", "/api/tenants/idle", {})
        made.stop()
        controller = made.controller()
        controller.sandboxes = [SandboxInfo(sandbox_id="0" * 12, phase="assigned", tenant="runs", started_at=1.0)]
        made.start()
        wait_for(lambda: bool(controller.told))
        told = controller.told[0]
        assert isinstance(told, TenantChanged)
        assert (told.tenant.name, told.tenant.state) == ("runs", "suspended")
