"""Checks values against the part of JSON Schema 2020-12 that our document uses; a keyword that is new here fails."""

import re
from typing import Any

_NOTES = {"title", "description", "default"}


def check(value: Any, schema: dict[str, Any], components: dict[str, Any], where: str = "$") -> None:
    """Raise AssertionError unless `value` is as `schema` says. Objects may have no members that are not named."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/components/schemas/")
        check(value, components[name], components, where)
        return
    for keyword, says in schema.items():
        if keyword in _NOTES:
            continue
        if keyword == "type":
            assert _is(value, says), f"{where}: {value!r} is no {says}"
        elif keyword == "enum":
            assert value in says, f"{where}: {value!r} is not among {says}"
        elif keyword == "anyOf":
            _any_of(value, says, components, where)
        elif keyword == "required":
            assert set(says) <= value.keys(), f"{where}: lacks {set(says) - value.keys()}"
        elif keyword == "properties":
            extra = value.keys() - says.keys()
            assert not extra, f"{where}: undocumented {extra}"
            for name, inner in value.items():
                check(inner, says[name], components, f"{where}.{name}")
        elif keyword == "items":
            for position, inner in enumerate(value):
                check(inner, says, components, f"{where}[{position}]")
        elif keyword == "additionalProperties":
            if isinstance(says, dict):
                for name, inner in value.items():
                    check(inner, says, components, f"{where}.{name}")
        elif keyword == "propertyNames":
            for name in value:
                check(name, says, components, f"{where}.{name}")
        elif keyword in {"minItems", "minimum"}:
            assert (len(value) if keyword == "minItems" else value) >= says, f"{where}: below {says}"
        elif keyword in {"maxItems", "maximum"}:
            assert (len(value) if keyword == "maxItems" else value) <= says, f"{where}: above {says}"
        elif keyword == "maxLength":
            assert len(value) <= says, f"{where}: too long"
        elif keyword == "pattern":
            assert re.search(says, value), f"{where}: {value!r} does not match {says}"
        else:
            raise AssertionError(f"{where}: the schema's keyword `{keyword}` is not known to this check")


def _any_of(value: Any, choices: list[dict[str, Any]], components: dict[str, Any], where: str) -> None:
    reasons = []
    for choice in choices:
        try:
            check(value, choice, components, where)
        except AssertionError as error:
            reasons.append(str(error))
        else:
            return
    raise AssertionError(f"{where}: none of the choices fits: {reasons}")


def _is(value: Any, kind: str) -> bool:
    kinds: dict[str, Any] = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    if kind in ("integer", "number"):
        return isinstance(value, int if kind == "integer" else int | float) and not isinstance(value, bool)
    return isinstance(value, kinds[kind])
