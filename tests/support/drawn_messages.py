"""Draws messages of any kind from their types (`msgspec.inspect`)."""

import math
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

UNIONS = ("ToController", "FromController", "ToSupervisor", "FromSupervisor")


def drawn(kind: Any) -> st.SearchStrategy[Any]:
    """Return what draws values of `kind`, a type that msgspec takes."""
    return _of(inspect.type_info(kind))


def _of(kind: inspect.Type) -> st.SearchStrategy[Any]:
    match kind:
        case inspect.StructType():
            fields = {field.name: _of(field.type) for field in kind.fields}
            return st.builds(kind.cls, **fields)
        case inspect.UnionType():
            return st.one_of(*map(_of, kind.types))
        case inspect.ListType():
            return st.lists(_of(kind.item_type), max_size=3)
        case inspect.DictType():
            return st.dictionaries(_of(kind.key_type), _of(kind.value_type), max_size=3)
        case inspect.LiteralType():
            return st.sampled_from(kind.values)
        case inspect.StrType():
            return st.text(max_size=20)
        case inspect.IntType():
            return st.integers(-(2**63), 2**63 - 1)
        case inspect.FloatType():
            return st.floats(allow_nan=False, min_value=-math.inf)
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.BytesType():
            return st.binary(max_size=20)
        case inspect.TupleType():
            return st.tuples(*map(_of, kind.item_types))
        case inspect.VarTupleType():
            return st.lists(_of(kind.item_type), max_size=3).map(tuple)
        case _:
            raise msgspec.ValidationError(f"nobody draws {kind}")
