"""What versions of runc are known to lack. Pure."""

import re
from collections.abc import Mapping
from typing import NamedTuple

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:-rc\.?(\d+))?")
_FINAL = 1 << 16
"""Stands for the number of a candidate in what is none: it comes after all of them."""


class Version(NamedTuple):
    """A version of runc; they compare in the order of their release."""

    major: int
    minor: int
    patch: int
    candidate: int = _FINAL

    def __str__(self) -> str:
        """Write it as runc does."""
        text = f"{self.major}.{self.minor}.{self.patch}"
        return text if self.candidate == _FINAL else f"{text}-rc.{self.candidate}"


_BY_NOVEMBER_2025 = (Version(1, 2, 8), Version(1, 3, 3), Version(1, 4, 0, candidate=3))

FIXED: Mapping[str, tuple[Version, ...]] = {
    # A race for what runc binds over a masked path: writes to files of the host's /proc.
    "CVE-2025-31133": _BY_NOVEMBER_2025,
    # The same with /dev/console.
    "CVE-2025-52565": _BY_NOVEMBER_2025,
    # What runc writes to /proc led elsewhere by mounts that are shared with a hostile container.
    "CVE-2025-52881": _BY_NOVEMBER_2025,
}
"""Holes of runc that matter here, and the first version of each line that has them mended, in order: what comes after
the last is mended, lines that are not named are not. Source: runc's security advisories of 5 November 2025. A
distributor's own mending, which leaves the version as it was, is not seen."""


def parse(text: str) -> Version | None:
    """Return the first version that `text`, such as what `runc --version` prints, names."""
    match = _VERSION.search(text)
    if match is None:
        return None
    major, minor, patch, candidate = match.groups()
    return Version(int(major), int(minor), int(patch), int(candidate) if candidate else _FINAL)


def lacks(version: Version) -> list[str]:
    """Return the holes that `version` still has."""
    return [name for name, fixes in FIXED.items() if not _mended(version, fixes)]


def _mended(version: Version, fixes: tuple[Version, ...]) -> bool:
    return version >= fixes[-1] or any(version[:2] == fix[:2] and version >= fix for fix in fixes)
