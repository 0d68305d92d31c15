"""How a module of npm or PyPI is named, and which of two versions is newer. Pure.

A spec is `npm:lodash@4.17.21`, `npm:@scope/x@1.0.0` or `pypi:httpx==0.28.1`: always one exact version, since what a
range means changes with the day it is asked.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from sandpost.model.errors import InvalidName, InvalidValue, NotFound, shown
from sandpost.model.modules import Registry

_LONGEST_VERSION = 64
_WRITE = "write one such as `npm:lodash@4.17.21`, `npm:@scope/x@1.0.0` or `pypi:httpx==0.28.1`"
# What the registry takes for new packages, and capitals, which old ones have; never a path, an option or a hidden file.
_NPM_PART = r"[A-Za-z0-9~][A-Za-z0-9._~-]*"
_NPM_NAME = re.compile(rf"(?:@{_NPM_PART}/)?{_NPM_PART}", re.ASCII)
_NPM_LONGEST = 214
_NPM_NEVER = frozenset({"node_modules", "favicon.ico"})
_NUMBER = r"(?:0|[1-9]\d{0,14})"
_SEMVER = re.compile(
    rf"(?P<core>{_NUMBER}\.{_NUMBER}\.{_NUMBER})"
    r"(?:-(?P<pre>(?:0|[1-9]\d{0,14}|\d*[A-Za-z-][0-9A-Za-z-]*)(?:\.(?:0|[1-9]\d{0,14}|\d*[A-Za-z-][0-9A-Za-z-]*))*))?",
    re.ASCII,
)
_PYPI_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?", re.ASCII)
_RANGE = re.compile(r"[\^~<>=*|\s]|\bx\b|^v", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Spec:
    """One version of one package. `name` and `version` are in the one form that they have here."""

    registry: Registry
    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.registry}:{self.name}{'@' if self.registry == 'npm' else '=='}{self.version}"

    @property
    def folder(self) -> str:
        """Its folder below `Host.modules_ready`."""
        return f"{self.registry}/{self.name}/{self.version}"


def parse_spec(text: str) -> Spec:
    """Return the spec that `text` means; `InvalidName` or `InvalidValue` that say what to write."""
    registry, colon, rest = text.partition(":")
    if colon and registry == "npm":
        at = rest.rfind("@")
        name, version = (rest[:at], rest[at + 1 :]) if at > 0 else (rest, "")
        return Spec("npm", npm_name(name), npm_version(version, name))
    if colon and registry == "pypi":
        name, equals, version = rest.partition("==")
        if not equals and (found := re.search(r"[<>=!~@\s\[;]", rest)):
            name, version = rest[: found.start()], rest[found.start() :]
        return Spec("pypi", pypi_name(name), pypi_version(version, name))
    raise InvalidName(f"`{shown(text)}` is no module: {_WRITE}")


def unknown(spec: Spec) -> NotFound:
    """Return the error of a module that is neither there nor asked for."""
    return NotFound(f"there is no module `{spec}`: `sandpost module ls` lists them")


def npm_name(name: str) -> str:
    """Return `name` if npm allows it."""
    if _NPM_NAME.fullmatch(name) is None or len(name) > _NPM_LONGEST or name.lower() in _NPM_NEVER:
        raise InvalidName(
            f"`{shown(name)}` is no name of an npm package: letters, digits, `.`, `_`, `~` and `-`, 214 at most, "
            f"with `@scope/` before it if it has one; {_WRITE}"
        )
    return name


def pypi_name(name: str) -> str:
    """Return `name` as PyPI compares names (PEP 503), if it allows it."""
    if _PYPI_NAME.fullmatch(name) is None:
        raise InvalidName(
            f"`{shown(name)}` is no name of a PyPI package: letters, digits, `.`, `_` and `-`, letters or digits "
            f"at both ends; {_WRITE}"
        )
    return canonicalize_name(name)


def npm_version(version: str, name: str = "NAME") -> str:
    """Return `version` if it is one exact version (semver 2.0)."""
    found = _SEMVER.fullmatch(version)
    if found is None or len(version) > _LONGEST_VERSION:
        raise InvalidValue(_no_version(version, f"npm:{shown(name)}@1.2.3"))
    return version


def pypi_version(version: str, name: str = "NAME") -> str:
    """Return `version` as it is spelt canonically (PEP 440), if it is one exact version."""
    try:
        parsed = Version(version) if len(version) <= _LONGEST_VERSION and "*" not in version else None
    except InvalidVersion:
        parsed = None
    if parsed is None:
        raise InvalidValue(_no_version(version, f"pypi:{shown(name)}==1.2.3"))
    return str(parsed)


def _no_version(version: str, example: str) -> str:
    if not version:
        return f"there is no version: write the exact one, like `{example}`"
    kind = "a range" if _RANGE.search(version) else "no version"
    return f"`{shown(version)}` is {kind}: write one exact version, like `{example}`"


def ordered(registry: Registry, versions: Iterable[str]) -> list[str]:
    """Return `versions` from the oldest to the newest, pre-releases before all others."""
    return sorted(versions, key=_npm_order if registry == "npm" else _pypi_order)


def _npm_order(version: str) -> tuple[Any, ...]:
    found = _SEMVER.fullmatch(version)
    assert found is not None, version
    core = tuple(int(part) for part in found["core"].split("."))
    if found["pre"] is None:
        return True, core, ()
    # Numbers come before words, and are compared as numbers (semver 2.0, 11.4).
    parts = ((0, int(part), "") if part.isdigit() else (1, 0, part) for part in found["pre"].split("."))
    return False, core, tuple(parts)


def _pypi_order(version: str) -> tuple[Any, ...]:
    parsed = Version(version)
    return not parsed.is_prerelease, parsed
