"""The modules that a program chooses: as its first line says them, and as the one text that a set of them has. Pure.

A set is `async@3.2.6,lodash` for npm or `attrs,httpx==0.28.1` for PyPI: names in order, each once, a version where one
was said. Without one the newest that is installed is meant. What may be a range of npm (`lodash@^4`) is in it too, as
it is written: Node's runtime knows which versions there are, and refuses it with them.
"""

import re
from collections.abc import Callable, Mapping

from sandpost.model.errors import InvalidCode, InvalidName, InvalidValue, shown
from sandpost.model.modules import Registry
from sandpost.model.names import LONGEST_SET
from sandpost.model.specs import npm_name, npm_version, pypi_name, pypi_version

MOST = 32
"""Modules that one program may choose."""
_BETWEEN: Mapping[Registry, str] = {"npm": "@", "pypi": "=="}
_NAME: Mapping[Registry, Callable[[str], str]] = {"npm": npm_name, "pypi": pypi_name}
_VERSION: Mapping[Registry, Callable[[str], str]] = {"npm": npm_version, "pypi": pypi_version}
_EXAMPLE: Mapping[Registry, str] = {"npm": "lodash@4.17.21,async", "pypi": "httpx==0.28.1,attrs"}
_CALLED: Mapping[Registry, str] = {"npm": "npm", "pypi": "PyPI"}
_RANGE = re.compile(r"[A-Za-z0-9.^~<>=*|+-]{1,64}", re.ASCII)
_AFTER_NAME = re.compile(r"[=<>~!^*@; \[]")


def chosen(text: str, registry: Registry) -> str:
    """Return the set that `text`, the value of `modules=`, names; `InvalidCode` that says what to write."""
    items = text.split(",")
    if len(items) > MOST:
        raise InvalidCode(f"the first line chooses {len(items)} modules: {MOST} at most")
    found: dict[str, str] = {}
    for item in items:
        name, version = _parse(item, registry)
        if name in found:
            raise InvalidCode(
                f"the first line chooses `{name}` twice: name one version, and others where they are used"
            )
        found[name] = f"{name}{_BETWEEN[registry]}{version}" if version else name
    one = ",".join(found[name] for name in sorted(found))
    if len(one) > LONGEST_SET:
        raise InvalidCode(f"the modules that the first line chooses have {len(one)} letters: {LONGEST_SET} at most")
    return one


def _parse(item: str, registry: Registry) -> tuple[str, str]:
    if not item:
        raise InvalidCode(f"`modules` in the first line has no name: {_write(registry)}")
    if registry == "npm":
        at = item.find("@", 1)
        name, said, version = (item[:at], True, item[at + 1 :]) if at > 0 else (item, False, "")
    else:
        after = _AFTER_NAME.search(item)
        name, said = (item[: after.start()], True) if after else (item, False)
        version = item[after.start() :].removeprefix("==") if after else ""
    try:
        name = _NAME[registry](name)
        return name, _VERSION[registry](version) if said else ""
    except InvalidName:
        why = f"{_CALLED[registry]} allows no such name"
    except InvalidValue:
        if registry == "npm" and _RANGE.fullmatch(version):
            return name, version
        why = f"`{shown(version)}` is not one exact version; `GET /api/modules` lists those that are installed"
    raise InvalidCode(f"`modules` in the first line has `{shown(item)}`: {why}; {_write(registry)}")


def _write(registry: Registry) -> str:
    return f"write `modules={_EXAMPLE[registry]}`"
