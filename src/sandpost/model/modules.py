"""Modules of npm and PyPI that programs may use: what is known of each. Pure.

How one is named is `model.specs`, which needs a parser of versions that most processes never load.
"""

from typing import Literal, get_args

import msgspec

Registry = Literal["npm", "pypi"]
REGISTRIES: tuple[Registry, ...] = get_args(Registry)
ModuleState = Literal["queued", "available", "failed"]

FACTS = ".sandpost.json"
"""The file in a version's folder that says what was put there (`Facts`)."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in a version's folder: measured as it was unpacked, but for what the builder said."""

    spec: str
    size: int
    """Bytes of its files."""
    files: int
    digest: str
    """SHA-256 over names, modes and contents of all files, measured here."""
    integrity: dict[str, str]
    """Hashes by which the registry's archives were checked, by `name@version`, as the builder said them."""
    scripts: bool
    """Whether scripts of the package itself were run to build it."""
    done_at: float


class ModuleRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A module as the store knows it. Times are seconds since the epoch."""

    spec: str
    state: ModuleState = "queued"
    reason: str = ""
    """Why it failed, or what it waits for."""
    scripts: bool = False
    asked_at: float = 0.0
    done_at: float | None = None
    size: int = 0
    files: int = 0
    digest: str = ""
    integrity: dict[str, str] = {}
