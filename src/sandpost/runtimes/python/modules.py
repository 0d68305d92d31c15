"""The modules of PyPI that the programs of this process have: one set, taken with the first load.

A version is a folder `pypi/<name>/<version>` of the platform's store, complete since it is there. They are found by
listing, and nothing is looked for that is not listed: on gVisor a name that was looked for in vain stays missing for
this sandbox.
"""

from __future__ import annotations

import sys
from os import listdir

from . import settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_STORE = f"{settings.MODULES}/pypi"
_TOLD = 10


class OtherModulesError(Exception):
    """The process has another set; the message says which."""


class NotInstalledError(ImportError):
    """A module that was chosen is not there; the message says what to do."""


class _Set:
    """What was taken."""

    text: str | None = None


def take(text: str) -> None:
    """Be of the set `text`, `NAME[==VERSION],..`, empty for none, from now on.

    Raises `OtherModulesError` once another one was taken, and `NotInstalledError`; then nothing has changed.
    """
    if _Set.text == text:
        return
    if _Set.text is not None:
        has = f"modules={_Set.text}" if _Set.text else "no modules"
        raise OtherModulesError(f"This sandbox runs programs with {has}, and no others.")
    sys.path.extend([_folder(item) for item in text.split(",")] if text else ())
    _Set.text = text


def hint(error: BaseException) -> str:
    """Return what to do about an import that found nothing; "" for other errors."""
    missing = getattr(error, "name", None) if type(error) is ModuleNotFoundError else None
    if type(missing) is not str or not missing.isidentifier():
        return ""
    name = missing.lower().replace("_", "-")
    versions = _versions(name)
    if versions:
        return f": choose it in the first line, `modules={name}=={versions[0]}`"
    return f": if PyPI calls it so, it is not installed: `sandpost module add pypi:{name}==VERSION`"


def _folder(item: str) -> str:
    name, _, version = item.partition("==")
    versions = _versions(name)
    if not versions or (version and version not in versions):
        there = f"of {name} there is {_told(versions)}" if versions else f"{name} is not installed"
        raise NotInstalledError(f"{there}: `sandpost module add pypi:{name}=={version or 'VERSION'}`")
    return f"{_STORE}/{name}/{version or versions[0]}"


def _versions(name: str) -> list[str]:
    """Return the versions that are there, the newest first."""
    if name not in _list(_STORE):
        return []
    # What is being made or removed begins with a dot.
    found = [version for version in _list(f"{_STORE}/{name}") if version[0] != "."]
    return found if len(found) < 2 else sorted(found, key=_order, reverse=True)


def _list(folder: str) -> list[str]:
    try:
        return listdir(folder)
    except OSError:
        return []


def _told(versions: list[str]) -> str:
    text = ", ".join(versions[:_TOLD])
    return f"{text} and {len(versions) - _TOLD} more" if len(versions) > _TOLD else text


def _order(version: str) -> tuple[Any, ...]:
    """Return by what versions are compared (PEP 440, in their normal form): pre-releases before all others."""
    import re

    found = re.fullmatch(
        r"(?:(\d+)!)?(\d+(?:\.\d+)*)(?:(a|b|rc)(\d+))?(?:\.post(\d+))?(?:\.dev(\d+))?(?:\+([a-z0-9.]+))?", version
    )
    if found is None:
        return (False,)
    epoch, numbers, letter, pre, post, dev, local = found.groups()
    release = [int(number) for number in numbers.split(".")]
    while release and not release[-1]:
        release.pop()
    stage: tuple[Any, ...] = (1,) if letter is None else (0, letter, int(pre))
    if letter is None and post is None and dev is not None:
        # A development release comes before all pre-releases of its version.
        stage = (-1,)
    key = (
        int(epoch or 0), release, stage, -1 if post is None else int(post),
        float("inf") if dev is None else int(dev), [(part.isdigit(), int(part) if part.isdigit() else 0, part)
        for part in (local or "").split(".")],
    )  # fmt: skip
    return (letter is None and dev is None, *key)
