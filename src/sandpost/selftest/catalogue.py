"""Finds the cases: a module each in `cases`, whose `CASE` it is and whose docstring says what and why."""

import importlib
import pkgutil
from dataclasses import dataclass

from sandpost.selftest import cases
from sandpost.selftest.case import PARTS, Case


@dataclass(frozen=True, slots=True)
class Named:
    """A case with its module's name and docstring."""

    name: str
    case: Case
    text: str


def catalogue() -> list[Named]:
    """Return all cases, by part and name."""
    found = []
    for module in pkgutil.iter_modules(cases.__path__):
        loaded = importlib.import_module(f"{cases.__name__}.{module.name}")
        found.append(Named(module.name, loaded.CASE, loaded.__doc__ or ""))
    return sorted(found, key=lambda one: (PARTS.index(one.case.part), one.name))
