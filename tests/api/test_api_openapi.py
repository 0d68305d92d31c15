"""The OpenAPI document is true: every documented route is called, and what it answers is what the document says."""

import time
from typing import Any

import pytest

from sandpost.api.app import ROUTES
from sandpost.model.messages import SandboxInfo
from support.installation import Installation, ScriptedController, usage, wait_for
from support.schema import check

SANDBOX = SandboxInfo(sandbox_id="0123456789ab", phase="assigned", tenant="doc", started_at=1.0, assigned_at=2.0)
POOLED = SandboxInfo(sandbox_id="0123456789ac", phase="pooled", started_at=1.5)


def checked(document: dict[str, Any], method: str, pattern: str, answer: Any) -> Any:
    """Return the answer's JSON after checking it against the document."""
    responses = document["paths"][pattern][method.lower()]["responses"]
    status = str(answer.status_code)
    assert status in responses, f"{method} {pattern} answered {status}, which is not documented: {answer.text}"
    content = responses[status].get("content")
    if content is None:
        assert answer.content == b""
        return None
    assert answer.headers["content-type"] == "application/json"
    schema = content["application/json"]["schema"]
    components = document["components"]["schemas"]
    check(answer.json(), schema, components)
    return answer.json()


def test_every_documented_route_answers_as_documented(api: Installation, controller: ScriptedController) -> None:
    document = api.call("GET", "/api/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    seen = set()

    def call(method: str, pattern: str, body: Any = None, expect: int = 200, **names: str) -> Any:
        operation = document["paths"][pattern][method.lower()]
        if body is not None:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            check(body, schema, document["components"]["schemas"])
        answer = api.call(method, pattern.format(**names), body)
        assert answer.status_code == expect, answer.text
        seen.add((method, pattern))
        return checked(document, method, pattern, answer)

    tenant = "/api/tenants/{tenant}"
    call("PUT", tenant, {"limits": {"memory": "64MiB", "deadline": 5, "cpu": 0.5}}, 201, tenant="doc")
    call("PUT", tenant, {"state": "active", "isolation": "per_request", "limits": {"cpu": None}}, tenant="doc")
    call("GET", tenant, tenant="doc")
    call("GET", "/api/tenants")
    made = call("POST", tenant + "/keys", {"label": "a"}, 201, tenant="doc")
    assert [key["id"] for key in call("GET", tenant + "/keys", tenant="doc")["keys"]] == [made["id"]]
    call("DELETE", tenant + "/keys/{id}", None, 204, tenant="doc", id=made["id"])
    operators = call("POST", "/api/keys", {}, 201)
    call("GET", "/api/keys")
    call("DELETE", "/api/keys/{id}", None, 204, id=operators["id"])
    controller.send(usage("doc-1", tenant="doc", hour=int(time.time() // 3600), calls=3, ends={"idle": 1}))
    wait_for(lambda: not controller.taken.empty())
    assert len(call("GET", tenant + "/usage", tenant="doc")["hours"]) == 1
    controller.sandboxes = [SANDBOX, POOLED]
    assert len(call("GET", tenant + "/sandboxes", tenant="doc")["sandboxes"]) == 1
    assert len(call("GET", "/api/sandboxes")["sandboxes"]) == 2
    call("GET", "/api/status")
    call("DELETE", tenant, None, 204, tenant="doc")

    documented = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert seen == documented
    assert documented == {(route.method, route.path) for route in ROUTES}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_errors_are_as_documented_on_every_route(api: Installation, route: Any) -> None:
    document = api.call("GET", "/api/openapi.json").json()
    good = route.path.format(tenant="nobody", id="none")
    answers = [
        api.call(route.method, good, key="sp_wrong_key"),
        api.call(route.method, good + "?what=1"),
        api.call(route.method, good),
    ]
    if "{tenant}" in route.path:
        answers.append(api.call(route.method, route.path.format(tenant="Bad", id="none")))
        assert answers[-1].json()["reason"] == "invalid_name"
    if route.takes is not None:
        answers.append(api.call(route.method, good, b'{"x": 1}'))
        answers.append(api.call(route.method, good, b" " * (1 << 20) + b" "))
        assert (answers[-1].status_code, answers[-1].json()["message"]) == (413, "Request body size exceeds 1048576")
    assert [answer.status_code for answer in answers[:2]] == [403, 400]
    for answer in answers:
        checked(document, route.method, route.path, answer)
    # What the well-formed one may have made.
    api.call("DELETE", "/api/tenants/nobody")


def test_the_document_needs_no_key_and_tells_no_secret(api: Installation) -> None:
    answer = api.call("GET", "/api/openapi.json", headers={"x-forwarded-for": "192.0.2.1"})
    assert answer.status_code == 200
    assert api.root not in answer.text
