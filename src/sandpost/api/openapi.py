"""The OpenAPI 3.1 document, made from the table of routes and the types. Pure."""

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from sandpost import __version__
from sandpost.api.requests import PAGE, PAGE_MAX
from sandpost.api.route import Route
from sandpost.api.views import Problem

_ANY_ROUTE = (400, 403, 405, 408, 431, 500, 502, 503)
"""Errors of any route, those of a path's other methods (405) and of a proxy in front (408, 431, 502, 503) too."""
_WITH_BODY = (413,)
_QUERY = {"limit": {"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE}}
"""Types of query parameters that are not text."""
_PARAMETERS = {
    "tenant": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,62}$"},
    "id": {"type": "string"},
}


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the document of `routes`, ready for JSON."""
    kinds: list[type[msgspec.Struct]] = [Problem]
    for route in routes:
        kinds += [kind for kind in (route.takes, *route.gives.values()) if kind is not None and kind not in kinds]
    schemas, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    references = dict(zip(kinds, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, references)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Sandpost management",
            "version": __version__,
            "description": "Tenants, their keys, limits and usage; modules of npm and PyPI. Times are seconds since "
            "the epoch, sizes bytes.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"key": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "query", "name": "key"},
            },
        },
    }


def _operation(route: Route, references: dict[type[msgspec.Struct], Any]) -> dict[str, Any]:
    whose = "A key of the operator or of the tenant." if route.tenant_may else "A key of the operator."
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "description": whose,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": _PARAMETERS[name]}
            for name in re.findall(r"{(\w+)}", route.path)
        ]
        + [
            {"name": name, "in": "query", "description": meaning, "schema": _QUERY.get(name, {"type": "string"})}
            for name, meaning in route.query.items()
        ],
        "responses": {},
    }
    if route.takes is not None:
        operation["requestBody"] = {"content": {"application/json": {"schema": references[route.takes]}}}
    for status, kind in route.gives.items():
        response: dict[str, Any] = {"description": HTTPStatus(status).phrase}
        if kind is not None:
            response["content"] = {
                media_type: {"schema": references[kind]} for media_type in route.streams or ("application/json",)
            }
        operation["responses"][str(status)] = response
    for status in sorted({*_ANY_ROUTE, *(_WITH_BODY if route.takes else ()), *route.errors}):
        operation["responses"][str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {"application/json": {"schema": references[Problem]}},
        }
    return operation
