"""Names that follow from the recipe, and what is read of the machine's apt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpost.image import recipe
from sandpost.model.errors import HostUnfit

TARGETS = """\
MetaKey: main/binary-amd64/Packages
Origin: Debian
Component: main
Created-By: Packages
Release: bookworm
Repo-URI: http://mirror.example/debian/

MetaKey: main/i18n/Translation-en
Origin: Debian
Component: main
Created-By: Translations
Release: bookworm
Repo-URI: http://mirror.example/debian/

Origin: Debian
Component: main
Created-By: Packages
Release: bookworm-security
Repo-URI: http://mirror.example/security/

Origin: Somebody
Component: main
Created-By: Packages
Release: bookworm
Repo-URI: http://elsewhere.example/

Origin: Debian
Component: main
Created-By: Packages
Release: trixie
Repo-URI: http://mirror.example/debian/
"""

entries = st.lists(
    st.builds(recipe.Entry, st.text(min_size=1), st.just("f"), st.just(0o644), st.integers(0), st.text()),
    unique_by=lambda e: e.path,
)


def test_sources_are_the_machines_own_debian_sources_of_the_suite() -> None:
    assert recipe.sources(TARGETS, "bookworm", "/k.gpg") == (
        "deb [signed-by=/k.gpg] http://mirror.example/debian/ bookworm main\n"
        "deb [signed-by=/k.gpg] http://mirror.example/security/ bookworm-security main\n"
    )


def test_a_machine_without_the_suite_is_told_what_to_do() -> None:
    with pytest.raises(HostUnfit, match="apt-get update"):
        recipe.sources(TARGETS, "sid", "/k.gpg")


def test_versions_come_from_archive_names() -> None:
    names = ["tini_0.19.0-1+b3_amd64.deb", "diffutils_1%3a3.8-4_amd64.deb", "lock", "partial"]
    assert recipe.package_versions(names) == {"diffutils": "1:3.8-4", "tini": "0.19.0-1+b3"}


@given(entries, st.randoms())
def test_a_digest_does_not_depend_on_order(found: list[recipe.Entry], random: object) -> None:
    shuffled = list(found)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert recipe.image_digest("b", {"a": "1", "b": "2"}, found) == recipe.image_digest(
        "b", {"b": "2", "a": "1"}, shuffled
    )


@given(entries, st.integers(0), st.text(min_size=1))
def test_a_digest_changes_with_a_file_a_version_or_the_base(found: list[recipe.Entry], index: int, other: str) -> None:
    before = recipe.image_digest("b", {"a": "1"}, found)
    assert recipe.image_digest("b", {"a": "2"}, found) != before
    assert recipe.image_digest("c", {"a": "1"}, found) != before
    if found:
        entry = found[index % len(found)]
        changed = [e for e in found if e is not entry]
        changed.append(recipe.Entry(entry.path, "f", entry.mode, entry.size, entry.content + other))
        assert recipe.image_digest("b", {"a": "1"}, changed) != before


def test_the_key_changes_with_suite_and_architecture() -> None:
    assert len({recipe.base_key(s, a) for s in ("bookworm", "trixie") for a in ("x86_64", "aarch64")}) == 4
