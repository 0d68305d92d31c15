"""A program's result as JSON: what JSON has, and of the rest what has one obvious form.

dataclasses are objects of their fields, sets are lists, enumerations their values; dates, times and UUIDs are text as
their own `isoformat` or `str` say, decimals text too, so that no digit is lost. All else is refused, as is NaN.
"""

from __future__ import annotations

import sys

# The package `json` would load `re` for its decoder, which costs half a boot.
from _json import encode_basestring, encode_basestring_ascii, make_encoder
from math import isfinite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class NotSerializableError(TypeError):
    """No part of JSON."""


def _instance(value: object, module: str, name: str) -> bool:
    """Whether it is an instance of a class of a module that the program, if so, has imported."""
    loaded = sys.modules.get(module)
    known = getattr(loaded, name, None)
    return isinstance(known, type) and isinstance(value, known)


def _form(value: Any) -> object:
    """Return what stands for a value that JSON does not have."""
    kind = type(value)
    if hasattr(kind, "__dataclass_fields__") and (dataclasses := sys.modules.get("dataclasses")) is not None:
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, set | frozenset):
        return list(value)
    if any(_instance(value, "datetime", name) for name in ("date", "time")):
        return value.isoformat()
    if _instance(value, "uuid", "UUID") or _instance(value, "decimal", "Decimal"):
        return str(value)
    if _instance(value, "enum", "Enum"):
        return value.value
    raise NotSerializableError(f"A {kind.__name__} has no JSON form")


def _float(value: float) -> str:
    if not isfinite(value):
        raise NotSerializableError(f"{value!r} has no JSON form")
    return float.__repr__(value)


def dumps(value: object) -> bytes:
    """Return `value` as JSON. Raises `TypeError`, `ValueError`, `RecursionError` and what its own code raises."""
    try:
        return "".join(_encode(value, encode_basestring)).encode()
    except UnicodeEncodeError:
        # Half a surrogate pair: JSON can say it in escapes alone.
        return "".join(_encode(value, encode_basestring_ascii)).encode()


def _encode(value: object, basestring: Any) -> Any:
    if isinstance(value, str):
        return (basestring(value),)
    if type(value) is float:
        return (_float(value),)
    return make_encoder({}, _form, basestring, None, ":", ",", False, False, False)(value, 0)


def is_falsy(value: object) -> bool:
    """Whether it is nothing to answer with: an empty list or object is something."""
    return value is None or value is False or (type(value) in {int, float, str} and not value)
