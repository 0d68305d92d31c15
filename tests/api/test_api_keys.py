"""Who may do what, and that a key's text is seen once."""

import os
import subprocess
import sys

import pytest

from sandpost.api.app import ROUTES
from sandpost.api.callers import sent_key
from sandpost.model.errors import WrongKey
from support.installation import USERS, Installation, ScriptedController


@pytest.fixture
def tenant_key(api: Installation) -> str:
    api.call("PUT", "/api/tenants/mine", {})
    api.call("PUT", "/api/tenants/theirs", {})
    key: str = api.call("POST", "/api/tenants/mine/keys", {"label": "test"}).json()["key"]
    return key


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_a_tenants_key_sees_its_own_tenant_and_changes_nothing(
    api: Installation, controller: ScriptedController, tenant_key: str, route: object
) -> None:
    from sandpost.api.route import Route

    assert isinstance(route, Route)
    own = api.call(
        route.method, route.path.format(tenant="mine", id="x") + "?timeout=1" * bool(route.streams), key=tenant_key
    )
    if route.tenant_may:
        assert own.status_code == 200, own.text
    else:
        assert (own.status_code, own.json()["reason"]) == (403, "not_authorized")
    if "{tenant}" in route.path:
        other = api.call(route.method, route.path.format(tenant="theirs", id="x"), key=tenant_key)
        assert (other.status_code, other.json()["reason"]) == (403, "not_authorized")
        nobody = api.call(route.method, route.path.format(tenant="nobody-there", id="x"), key=tenant_key)
        assert other.json()["message"].replace("theirs", "") == nobody.json()["message"].replace("nobody-there", "")


def test_a_tenants_list_is_itself(api: Installation, tenant_key: str) -> None:
    page = api.call("GET", "/api/tenants", key=tenant_key).json()
    assert [tenant["name"] for tenant in page["tenants"]] == ["mine"]


def test_the_operators_key_works_in_header_and_query(api: Installation) -> None:
    made = api.call("POST", "/api/keys", {}).json()
    proxied = {"x-forwarded-for": "192.0.2.1"}
    assert api.call("GET", "/api/keys", headers=proxied, key=made["key"]).status_code == 200
    assert api.call("GET", f"/api/keys?key={made['key']}", headers=proxied).status_code == 200
    assert api.call("DELETE", f"/api/keys/{made['id']}").status_code == 204
    refused = api.call("GET", "/api/keys", headers=proxied, key=made["key"])
    assert (refused.status_code, refused.json()["reason"]) == (403, "wrong_key")


@pytest.mark.parametrize("key", ["", "wrong", "sp_00000000_" + "a" * 32, "x" * 5000])
def test_an_unknown_key_is_refused_even_for_root(api: Installation, key: str) -> None:
    answer = api.call("GET", "/api/status", key=key)
    assert (answer.status_code, answer.json()["reason"]) == (403, "wrong_key")


def test_another_scheme_is_no_key() -> None:
    with pytest.raises(WrongKey, match="Bearer KEY"):
        sent_key("Basic eDp5", b"")
    assert sent_key("bearer k", b"key=other") == b"k"
    assert sent_key(None, b"a=1&key=k%2Bk") == b"k+k"
    assert sent_key(None, b"a=1") is None


def test_without_a_key_only_root_on_the_socket_is_the_operator(api: Installation) -> None:
    assert api.call("GET", "/api/keys").status_code == 200
    proxied = api.call("GET", "/api/keys", headers={"x-forwarded-for": "192.0.2.1"})
    assert (proxied.status_code, proxied.json()["reason"]) == (403, "no_credentials")


ASK = """
import os, socket, sys
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[1]))
sock = socket.socket(socket.AF_UNIX)
try:
    sock.connect(sys.argv[3])
except PermissionError:
    print("cannot connect")
    raise SystemExit
sock.sendall(b"GET /api/keys HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
print(sock.makefile("rb").readline().split()[1].decode())
"""


@pytest.mark.parametrize(
    ("uid", "gid", "seen"),
    [(0, 0, "200"), (USERS.proxy, USERS.gid, "403"), (USERS.api, USERS.gid, "403"), (65534, 65534, "cannot connect")],
)
def test_the_kernel_says_who_is_at_the_other_end(api: Installation, uid: int, gid: int, seen: str) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", ASK, str(uid), str(gid), api.host.api_socket],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stdout.strip() == seen, done.stderr


def test_a_keys_text_is_in_its_own_answer_and_nowhere_else(api: Installation, controller: ScriptedController) -> None:
    api.call("PUT", "/api/tenants/secretive", {})
    made = api.call("POST", "/api/tenants/secretive/keys", {"label": "x"}).json()
    secret = made["key"].split("_")[2]
    others = [
        api.call("GET", "/api/tenants/secretive/keys"),
        api.call("GET", "/api/keys"),
        api.call("GET", f"/api/nowhere?key={made['key']}"),
        api.call("GET", f"/api/tenants/Bad?key={made['key']}", headers={"x-forwarded-for": "1"}),
        api.call("GET", "/api/status", key=made["key"]),
    ]
    for answer in others:
        assert secret not in answer.text
    assert secret not in api.log()
    for folder, _, files in os.walk(api.root):
        for name in files:
            if name.endswith(".sock"):
                continue
            with open(os.path.join(folder, name), "rb") as file:
                assert secret.encode() not in file.read(), name


def test_removing_a_tenant_revokes_its_keys(api: Installation) -> None:
    api.call("PUT", "/api/tenants/brief", {})
    key = api.call("POST", "/api/tenants/brief/keys").json()["key"]
    assert api.call("GET", "/api/tenants/brief", key=key).status_code == 200
    api.call("DELETE", "/api/tenants/brief")
    assert api.call("GET", "/api/tenants/brief", key=key).json()["reason"] == "wrong_key"
    answer = api.call("POST", "/api/tenants/brief/keys")
    assert (answer.status_code, answer.json()["reason"]) == (404, "unknown_tenant")


def test_a_tenants_route_revokes_only_its_own_keys(api: Installation) -> None:
    api.call("PUT", "/api/tenants/mine", {})
    made = api.call("POST", "/api/keys", {"label": "op"}).json()
    assert api.call("DELETE", f"/api/tenants/mine/keys/{made['id']}").status_code == 404
    assert api.call("DELETE", f"/api/keys/{made['id']}").status_code == 204
    assert api.call("DELETE", f"/api/keys/{made['id']}").status_code == 404
    assert api.call("POST", "/api/keys", {"label": "x" * 101}).status_code == 400
