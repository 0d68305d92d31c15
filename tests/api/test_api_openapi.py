"""The OpenAPI document is true: every documented route is called, and what it answers is what the document says."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandpost.api.app import ROUTES, Application
from sandpost.api.counts import Counts
from sandpost.api.openapi import document
from sandpost.api.route import Route
from sandpost.api.service import Service
from sandpost.auth.keys import Key, key_digest
from sandpost.model.errors import BodyTooLarge, DeadlinePassed, MethodNotAllowed, SandpostError, Unavailable
from sandpost.model.messages import SandboxInfo
from sandpost.store import StoreFull, TenantRecord, open_writer
from sandpost.walls import modules
from support.installation import KEY, Installation, ScriptedController, usage, wait_for
from support.proxy import Answer, Rig, run
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
    media_type = answer.headers["content-type"]
    assert media_type in content
    schema = content[media_type]["schema"]
    components = document["components"]["schemas"]
    if media_type != "application/json":
        for line in answer.text.splitlines():
            check(json.loads(line), schema, components)
        return answer.text
    check(answer.json(), schema, components)
    return answer.json()


def test_every_documented_route_answers_as_documented(api: Installation, controller: ScriptedController) -> None:
    document = api.call("GET", "/api/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    seen = set()

    def call(method: str, pattern: str, body: Any = None, expect: int = 200, query: str = "", **names: str) -> Any:
        operation = document["paths"][pattern][method.lower()]
        if body is not None:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            check(body, schema, document["components"]["schemas"])
        answer = api.call(method, pattern.format(**names) + query + ENDS * pattern.count("/logs/"), body)
        assert answer.status_code == expect, answer.text
        seen.add((method, pattern))
        return checked(document, method, pattern, answer)

    tenant = "/api/tenants/{tenant}"
    call("PUT", tenant, {"limits": {"memory": "64MiB", "deadline": 5, "cpu": 0.5}}, 201, tenant="doc")
    call(
        "PUT",
        tenant,
        {"state": "active", "isolation": "per_request", "egress": "none", "limits": {"cpu": None}},
        tenant="doc",
    )
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
    for pattern in ("/logs/tenant/{tenant}", "/api/logs/tenant/{tenant}"):
        assert '"end":"timeout"' in call("GET", pattern, tenant="doc")
    call("GET", "/logs/system")
    call("DELETE", tenant, None, 204, tenant="doc")
    [queued] = call("POST", "/api/modules", {"modules": [MODULE], "scripts": True}, 202)["modules"]
    assert (queued["spec"], queued["state"]) == (MODULE, "queued")
    assert [one["spec"] for one in call("GET", "/api/modules")["modules"]] == [MODULE]
    [whole] = call("GET", "/api/modules", query=f"?spec={MODULE}")["modules"]
    assert whole["integrity"] == {}
    assert call("POST", "/api/modules/gc", {"keep": 1, "older_than": "90d"})["modules"] == []
    call("DELETE", "/api/modules", None, 204, query=f"?spec={MODULE}")

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
        api.call(route.method, good + ENDS * bool(route.streams)),
    ]
    if "{tenant}" in route.path:
        answers.append(api.call(route.method, route.path.format(tenant="Bad", id="none")))
        assert answers[-1].json()["reason"] == "invalid_name"
    if route.takes is not None:
        answers.append(api.call(route.method, good, b'{"x": 1}'))
        answers.append(api.call(route.method, good, b" " * (1 << 20) + b" "))
        assert (answers[-1].status_code, answers[-1].json()["message"]) == (413, "Request body size exceeds 1048576")
        assert answers[-1].json()["limit"] == 1048576
    assert [answer.status_code for answer in answers[:2]] == [403, 400]
    for answer in answers:
        checked(document, route.method, route.path, answer)
    # What the well-formed one may have made.
    api.call("DELETE", "/api/tenants/nobody")


MODULE = "npm:doc@1.0.0"
NEEDED = {"removeModule": f"?spec={MODULE}"}
"""Queries without which routes ask for what is there of nothing."""
ENDS = "?timeout=1"
"""Of a stream, which would have no end without."""
FRONT = {408, 431, 502, 503}
"""What a proxy may answer instead of the api, whatever the route."""


class Inside:
    """The application in this process, over a real store, so that its parts can be made to fail."""

    def __init__(self, installation: Installation) -> None:
        self.service = Service(installation.host, open_writer(installation.host))
        self._asgi = Application(self.service, Counts()).asgi

    async def _called(self, scope: Any, receive: Any, send: Any) -> None:
        await self._asgi({**scope, "state": {}}, receive, send)

    async def ask(self, method: str, path: str, body: Any = None, key: str = KEY) -> httpx.Response:
        """Ask as the operator, or with another key."""
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self._called), base_url="http://api") as client:
            return await client.request(method, path, content=body, headers={"authorization": f"Bearer {key}"})

    async def until_it_works(self) -> None:
        """Wait until the modules can be changed."""
        async with asyncio.timeout(10):
            while (await self.ask("DELETE", f"/api/modules?spec={MODULE}")).status_code == 503:  # noqa: ASYNC110 - as any client
                await asyncio.sleep(0.01)

    async def errors(self, route: Route, patch: pytest.MonkeyPatch) -> list[httpx.Response]:
        """Provoke every error that the route can answer with; return the answers."""
        path = route.path.format(tenant="known", id="none")
        body = None if route.takes is None else b"{}"
        answers = [
            await self.ask(route.method, path + "?what=1", body),
            await self.ask(route.method, path, body, key="sp_wrong_key"),
            await self.ask("PATCH", path, body),
            await self.ask(
                route.method, route.path.format(tenant="nobody", id="none") + ENDS * bool(route.streams), body
            ),
        ]
        if route.name in NEEDED:
            answers.append(await self.ask(route.method, path + NEEDED[route.name], body))
        if route.streams:
            with patch.context() as context:
                context.setattr("sandpost.api.logs.streams.MAX_OF_ONE", 0)
                answers.append(await self.ask(route.method, path))
        if route.takes is not None:
            answers.append(await self.ask(route.method, path, _stalling()))
            answers.append(await self.ask(route.method, path, b" " * (1 << 20) + b" "))
        with patch.context() as context:
            context.setattr("sandpost.api.keys.new_key", lambda: ("operator", "sp_operator_secret"))
            answers.append(await self.ask(route.method, path + ENDS * bool(route.streams), body))
        for error in (StoreFull("there is no room"), RuntimeError("a bug")):
            with patch.context() as context:
                context.setattr(self.service, "store", _failing(error))
                answers.append(await self.ask(route.method, path, body))
        return [answer for answer in answers if answer.is_error]


async def _stalling() -> AsyncIterator[bytes]:
    yield b"{"
    await asyncio.sleep(60)


def _failing(error: Exception) -> Callable[[Any], Awaitable[None]]:
    async def fail(_work: Any) -> None:
        raise error

    return fail


@pytest.fixture
def inside() -> Iterator[Installation]:
    """An installation of which nothing runs, with an operator's key and a tenant."""
    made = Installation(body_timeout=0.1)
    modules.ensure(made.host)
    Path(made.host.state("store")).mkdir()
    writer = open_writer(made.host)
    writer.add_key(Key(id="operator", digest=key_digest(KEY.encode()), tenant=None, created_at=0))
    writer.put_tenant(TenantRecord(name="known"))
    writer.close()
    yield made
    made.close()


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_the_errors_that_a_route_can_answer_are_documented_and_no_others(
    inside: Installation, monkeypatch: pytest.MonkeyPatch, route: Route
) -> None:
    async def provoke() -> list[httpx.Response]:
        made = Inside(inside)
        try:
            await made.until_it_works()
            return await made.errors(route, monkeypatch)
        finally:
            await made.service.close()

    described = document(ROUTES)
    answers = asyncio.run(provoke())
    for answer in answers:
        checked(described, route.method, route.path, answer)
    documented = described["paths"][route.path][route.method.lower()]["responses"]
    assert {answer.status_code for answer in answers} | FRONT == {int(status) for status in documented if status >= "4"}


def test_what_a_proxy_answers_instead_of_the_api_is_documented_on_every_route() -> None:
    async def provoke() -> list[Answer]:
        async with Rig(head_timeout=1) as rig:
            answers = [await rig.call("/api/tenants", b"", "GET")]
            for head in (b"GET /api/tenants HTTP/1.1\r\nX: " + b"x" * 40_000, b"GET /api/tenants HTTP/1.1\r\n"):
                connection = await rig.connect()
                await connection.send(head)
                answers.append(await connection.answer())
            server = await asyncio.start_unix_server(lambda _, writer: writer.transport.abort(), rig.host.api_socket)
            answers.append(await rig.call("/api/tenants", b"", "GET"))
            server.close()
            return answers

    described = document(ROUTES)
    answers = run(provoke())
    assert {answer.status for answer in answers} == FRONT
    for route in ROUTES:
        responses = described["paths"][route.path][route.method.lower()]["responses"]
        for answer in answers:
            schema = responses[str(answer.status)]["content"]["application/json"]["schema"]
            check(answer.json, schema, described["components"]["schemas"])


@pytest.mark.parametrize(
    "error",
    [
        BodyTooLarge("too long", limit=1 << 20, setting="limits.code"),
        DeadlinePassed("too late", limit=2.5, setting="limits.deadline"),
        MethodNotAllowed("not so", allow=["GET", "HEAD"]),
        Unavailable("not now", component="api"),
    ],
    ids=lambda error: error.reason,
)
def test_what_errors_carry_besides_is_typed_as_it_is_sent(error: SandpostError) -> None:
    schemas = document(ROUTES)["components"]["schemas"]
    check(error.to_dict("r"), schemas["Problem"], schemas)
    wrong = {name: 5 if isinstance(value, str) else "5" for name, value in error.details.items()}
    for name, value in wrong.items():
        with pytest.raises(AssertionError, match="is no"):
            check(error.to_dict("r") | {name: value}, schemas["Problem"], schemas)


def test_the_entries_of_a_page_are_a_number_within_bounds(api: Installation) -> None:
    described = document(ROUTES)
    [limit] = [one for one in described["paths"]["/api/keys"]["get"]["parameters"] if one["name"] == "limit"]
    assert limit["schema"] == {"type": "integer", "minimum": 1, "maximum": 10000, "default": 1000}
    for text, status in (("1", 200), ("10000", 200), ("0", 400), ("10001", 400), ("x", 400)):
        assert api.call("GET", f"/api/keys?limit={text}").status_code == status


def test_the_document_needs_no_key_and_tells_no_secret(api: Installation) -> None:
    answer = api.call("GET", "/api/openapi.json", headers={"x-forwarded-for": "192.0.2.1"})
    assert answer.status_code == 200
    assert api.root not in answer.text
