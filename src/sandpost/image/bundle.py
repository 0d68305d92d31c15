"""Puts a runtime's modules into one file. Pure: text in, text out.

Node finds, reads and compiles seventeen small files in 5 ms of CPU, one file of the same text in 1 ms; every sandbox
boots, so every sandbox would pay for it.
"""

import re
from collections.abc import Mapping

from sandpost.model.errors import HostUnfit

_REQUIRE = re.compile(r"\brequire\('\./([^']+)'\)")
_STRICT = "'use strict';\n"


def bundle(files: Mapping[str, str], main: str) -> tuple[str, frozenset[str]]:
    """Return `main` together with what it requires by `require('./NAME')`, and the names of what went into it.

    Each module is run once, before those that require it, as Node would. A `main` that requires nothing stays as it
    is. Raises `HostUnfit` for a module that is missing or that requires itself by way of others.
    """
    order: list[str] = []
    _visit(files, main, order, ())
    if order == [main]:
        return files[main], frozenset(order)
    parts = [f"{_STRICT}\nconst $modules = {{ __proto__: null }};\n"]
    for name in order[:-1]:
        body = f"{_linked(files[name])}\nreturn module.exports;"
        parts.append(f"\n$modules['{name}'] = ((module) => {{\n{body}\n}})({{ exports: {{}} }});\n")
    parts.append(f"\n{_linked(files[main])}")
    return "".join(parts), frozenset(order)


def _linked(text: str) -> str:
    return _REQUIRE.sub(r"$modules['\1']", text)


def _visit(files: Mapping[str, str], name: str, order: list[str], above: tuple[str, ...]) -> None:
    if name in above:
        raise HostUnfit(f"the runtime's modules require one another in a circle: {' -> '.join((*above, name))}")
    if name in order:
        return
    if name not in files:
        raise HostUnfit(f"{above[-1]} requires {name}, which is not there: this installation is incomplete")
    for wanted in _REQUIRE.findall(files[name]):
        _visit(files, wanted, order, (*above, name))
    order.append(name)
