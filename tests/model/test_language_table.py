"""The table of languages, and how they are told from content types and pragmas."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpost.model.languages import LANGUAGES, NAMES, Language, by_content_type, by_name


def test_no_name_or_type_belongs_to_two_languages() -> None:
    for names in (
        [*NAMES, *(a for language in LANGUAGES for a in language.aliases)],
        [t for language in LANGUAGES for t in language.types],
    ):
        assert len(names) == len(set(names))


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda language: language.name)
def test_every_language_is_found_by_all_that_says_it(language: Language) -> None:
    for name in (language.name, *language.aliases):
        assert by_name(name) is by_name(name.upper()) is language
    for name in language.types:
        for content_type in (
            f"text/{name}",
            f"application/{name}",
            f"text/x-{name}",
            f"application/x-{name}; charset=utf-8",
        ):
            assert by_content_type(content_type) is by_content_type(content_type.upper()) is language
    assert by_content_type(language.content_type) is language


@pytest.mark.parametrize(
    ("content_type", "name"),
    [
        ("text/x-ruby", "ruby"),
        ("application/PHP", "php"),
        ("text/x-java-source", "java"),
        ("text/x-klingon", "klingon"),
        ("text/tsx", "tsx"),
    ],
)
def test_a_language_that_does_not_run_is_named(content_type: str, name: str) -> None:
    assert by_content_type(content_type) == name


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "application/json",
        "application/x-www-form-urlencoded",
        "text/x-markdown",
        "image/x-typescript",
        "typescript",
        "a/b/c",
    ],
)
def test_other_types_name_none(content_type: str) -> None:
    assert by_content_type(content_type) is None


@given(st.text())
def test_any_text_is_looked_up(text: str) -> None:
    by_content_type(text)
    found = by_name(text)
    assert found is None or text.lower() in {found.name, *found.aliases}
