"""Which version of runc has which hole mended."""

import pytest

from sandpost.config import runtime_fixes
from sandpost.config.runtime_fixes import FIXED, Version


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("runc version 1.1.5+ds1\ncommit: 1.1.5+ds1-1+deb12u1\nspec: 1.0.2-dev\ngo: go1.19.8", "1.1.5"),
        ("runc version 1.5.2\nspec: 1.3.0\ngo: go1.26.8\nlibseccomp: 2.5.4", "1.5.2"),
        ("runc version 1.4.0-rc.3+dev", "1.4.0-rc.3"),
        ("runc version 1.0.0-rc93", "1.0.0-rc.93"),
    ],
)
def test_versions_are_read_as_they_are_printed(text: str, version: str) -> None:
    assert str(runtime_fixes.parse(text)) == version


def test_what_names_no_version_has_none() -> None:
    assert runtime_fixes.parse("release-20221107") is None


def test_versions_compare_in_the_order_of_their_release() -> None:
    texts = ["1.0.0-rc93", "1.1.5", "1.2.7", "1.2.8", "1.3.3", "1.4.0-rc.2", "1.4.0-rc.3", "1.4.0", "1.4.1", "1.10.0"]
    versions = [runtime_fixes.parse(text) for text in texts]
    assert versions == sorted(version for version in versions if version)


@pytest.mark.parametrize("version", ["1.1.5", "1.1.15", "1.2.7", "1.3.2", "1.4.0-rc.2"])
def test_what_came_before_the_fixes_lacks_them(version: str) -> None:
    assert runtime_fixes.lacks(runtime_fixes.parse(version) or Version(9, 9, 9)) == list(FIXED)


@pytest.mark.parametrize("version", ["1.2.8", "1.2.9", "1.3.3", "1.4.0-rc.3", "1.4.0", "1.5.2", "2.0.0"])
def test_what_came_after_the_fixes_has_them(version: str) -> None:
    assert runtime_fixes.lacks(runtime_fixes.parse(version) or Version(0, 0, 0)) == []
