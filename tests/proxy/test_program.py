"""What a body says as a program: its language by content type and first line, and the id that follows."""

import hashlib
import re
import time

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from sandpost.model import choices
from sandpost.model.errors import InvalidCode, SandpostError, UnsupportedLanguage
from sandpost.model.languages import JAVASCRIPT, LANGUAGES, NAMES, Language, by_name
from sandpost.model.names import is_module_set
from sandpost.proxy.program import Program, examine, kept, language_of, pragma

CODE = b"return cb => cb(null, 1)"


def language(name: str) -> Language:
    found = by_name(name)
    assert found is not None
    return found


TYPESCRIPT = language("typescript")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b"// sandpost: language=typescript", "typescript"),
        (b"//sandpost:language=typescript", "typescript"),
        (b"//#sandpost language=typescript", "typescript"),
        (b"// # sandpost language=TypeScript", "typescript"),
        (b"# sandpost: language=ts", "typescript"),
        (b"/* sandpost: language=typescript */ return 1", "typescript"),
        (b"-- sandpost: Language=js", "javascript"),
        (b" \t// sandpost: language=typescript   ", "typescript"),
        (b"// sandpost: language=typescript language=typescript", "typescript"),
        (b"// sandpost:", "javascript"),
        (b"# Sandpost: language=python", "python"),
        (b"# sandpost : language=python", "python"),
        (b"//#SANDPOST language=typescript", "typescript"),
        (b"/*sandpost\t:language=typescript*/", "typescript"),
        (b"// sandboxed language=typescript", "javascript"),
        (b"/* sandpost */ language = 1;", "javascript"),
        (b"// sandpost runs this, language=typescript", "javascript"),
        (b"// see sandpost: language=typescript", "javascript"),
        (b"\n// sandpost: language=typescript", "javascript"),
        (b"'sandpost: language=typescript'", "javascript"),
    ],
)
def test_the_first_line_says_the_language(line: bytes, found: str) -> None:
    program = examine(line + b"\n" + CODE, None)
    assert program.language is language(found)
    assert program.id == hashlib.sha256(program.code).hexdigest()


@pytest.mark.parametrize(
    ("line", "error", "words"),
    [
        (
            b"// sandpost: langauge=typescript",
            InvalidCode,
            "`langauge` (did you mean `language`?): there is language, modules",
        ),
        (b"// sandpost: color=blue", InvalidCode, "the key `color`: there is language, modules"),
        (b"//#sandpost lang=typescript", InvalidCode, "the key `lang`"),
        (b"// sandpost: typescript", InvalidCode, "`typescript`: write `sandpost: key=value`"),
        (b"// sandpost: language = typescript", InvalidCode, "`language`: write"),
        (b"// sandpost: language=typescript,modules=x", UnsupportedLanguage, "runs `typescript,modules=x`"),
        (b"// sandpost: language=javascript language=typescript", InvalidCode, "`language` twice"),
        (b"// sandpost: language=typescrpit", UnsupportedLanguage, "`typescrpit` (did you mean `typescript`?)"),
        (b"// sandpost: language=ruby", UnsupportedLanguage, "no runtime here runs `ruby`: send javascript"),
        (
            "// sandpost: language=typ\u0435script".encode(),
            UnsupportedLanguage,
            "`typ\\u0435script` (did you mean `typescript`?)",
        ),
        ("// sandpost: l\u0430nguage=typescript".encode(), InvalidCode, "`l\\u0430nguage=typescript`: write"),
        (b"// sandpost: language=" + b"x" * 900, UnsupportedLanguage, "runs `" + "x" * 40 + "`"),
    ],
)
def test_a_pragma_that_says_what_there_is_not(line: bytes, error: type[SandpostError], words: str) -> None:
    with pytest.raises(error) as raised:
        examine(line + b"\n" + CODE, None)
    assert words in raised.value.message
    if error is UnsupportedLanguage:
        assert raised.value.details["languages"] == list(NAMES)


def misspelt(word: str, edits: list[tuple[str, int, str]]) -> str:
    """Return `word` with letters put in, left out, replaced, or changed about with the next one."""
    for kind, place, letter in edits:
        at = place % len(word)
        behind = {"in": letter + word[at:], "out": word[at + 1 :], "other": letter + word[at + 1 :]}
        word = word[:at] + behind.get(kind, word[at + 1 : at + 2] + word[at : at + 1] + word[at + 2 :])
    return word


@given(
    st.sampled_from(["//", "// ", "# ", "#", "/* ", "-- ", "//#", "// @"]),
    st.lists(
        st.tuples(
            st.sampled_from(["in", "out", "other", "about"]),
            st.integers(0, 9),
            st.sampled_from("abcdefghijklmnopqrstuvwxyz_0\u0430"),
        ),
        min_size=1,
        max_size=2,
    ),
    st.sampled_from([": ", ":", " : ", " ", "; ", ":: ", ": and "]),
    st.sampled_from(["language=python", "LANGUAGE=python", "language = python", "modules=lodash@4.17.21"]),
)
@example("// ", [], " ", "language = python")
@example("# ", [], "; ", "language=python")
def test_what_is_almost_a_pragma_is_told(
    comment: str, edits: list[tuple[str, int, str]], between: str, pair: str
) -> None:
    word = misspelt("sandpost", edits)
    assume(edits == [] or (word.strip("_") == word and word != "sandpost"))
    with pytest.raises(InvalidCode) as raised:
        examine(f"{comment}{word}{between}{pair}\n".encode() + CODE, None)
    assert f"which is almost a pragma: write `sandpost: {pair[:8].lower().strip(' =')}" in raised.value.message
    assert raised.value.message.isprintable()


def test_a_name_in_two_words_is_almost_a_pragma_too() -> None:
    for line in (b"# sand-post: language=python", b"# Sand Post: language=python"):
        with pytest.raises(InvalidCode, match="almost a pragma"):
            examine(line + b"\n" + CODE, None)


@given(
    st.sampled_from(["//", "// ", "# ", "#!", "/* ", "-- ", "//#"]),
    st.lists(
        st.sampled_from(
            ["/usr/bin/env python", "sandbox", "sandbox:", "eslint-disable", "vim: set", "see sandpost:", "the", "a,", "-*- coding:",
             "sandpaper", "postman:", "Sandpost runs", "in which", "language", "modules", "=", "x"]
        ),
        max_size=4,
    ),
    st.sampled_from(["language=python", "modules=lodash", "syntax=on", ""]),
)  # fmt: skip
def test_ordinary_comments_stay_comments(comment: str, words: list[str], pair: str) -> None:
    code = f"{comment}{' '.join([*words, pair])}\n".encode() + CODE
    assert examine(code, None) == Program(hashlib.sha256(code).hexdigest(), JAVASCRIPT, code)


def test_the_first_line_is_read_in_no_time_whatever_it_holds() -> None:
    for line in (
        b"// sandpots: ",
        b"//" + b" " * 8,
        b"# sandpost language ",
        b"# abcdefghij: language ",
        b"# abcdefghij:" + b"language " * 300,
    ):
        began = time.process_time()
        for _ in range(20):
            pragma(line + b":language " * 100_000)
        assert time.process_time() - began < 0.2


@pytest.mark.parametrize("typed", LANGUAGES, ids=lambda language: language.name)
@pytest.mark.parametrize("written", LANGUAGES, ids=lambda language: language.name)
def test_content_type_and_pragma_agree_or_are_told(typed: Language, written: Language) -> None:
    code = f"// sandpost: language={written.name}\n".encode() + CODE
    if typed is written:
        assert examine(code, typed) == Program(hashlib.sha256(code).hexdigest(), typed, code)
        return
    with pytest.raises(InvalidCode) as raised:
        examine(code, typed)
    assert f"the content type says {typed.name}, the pragma in the first line {written.name}" in raised.value.message


def test_the_same_bytes_in_two_languages_are_two_programs() -> None:
    ids = {examine(CODE, typed).id for typed in (None, *LANGUAGES)}
    assert len(ids) == len(LANGUAGES)
    assert (
        examine(CODE, None) == examine(CODE, JAVASCRIPT) == Program(hashlib.sha256(CODE).hexdigest(), JAVASCRIPT, CODE)
    )
    assert examine(CODE, TYPESCRIPT).id == hashlib.sha256(b"typescript\0" + CODE).hexdigest()
    for typed in LANGUAGES:
        program = examine(CODE, typed)
        assert kept(program.id, program.language, program.code) == program
        assert kept(program.id, program.language, program.code + b" ") is None


def test_a_content_type_of_a_language_that_does_not_run() -> None:
    assert language_of("application/x-www-form-urlencoded") is None
    assert language_of("text/typescript; charset=utf-8") is TYPESCRIPT
    with pytest.raises(UnsupportedLanguage) as raised:
        language_of("text/x-ruby")
    assert raised.value.status == 415
    assert raised.value.details["languages"] == list(NAMES)
    assert "application/typescript" in raised.value.message


@given(st.binary(max_size=200), st.sampled_from([None, *LANGUAGES]))
def test_any_bytes_are_a_program_or_a_refusal_of_ours(code: bytes, typed: Language | None) -> None:
    for body in (code, b"// sandpost: " + code, b"//#sandpost " + code):
        found: Program | SandpostError
        try:
            found = examine(body, typed)
        except SandpostError as refused:
            found = refused
        if isinstance(found, Program):
            assert (found.code, kept(found.id, found.language, body)) == (body, found)
        else:
            assert found.status in {400, 415}
            assert found.message.isprintable()


@pytest.mark.parametrize(
    ("line", "modules", "own_set"),
    [
        (b"// sandpost: modules=lodash@4.17.21,async@3.2.6", "async@3.2.6,lodash@4.17.21", ""),
        (b"//#sandpost modules=lodash", "lodash", ""),
        (b"// sandpost: modules=lodash@^4||>=5.x,async@latest", "async@latest,lodash@^4||>=5.x", ""),
        (b"/* sandpost: modules=@scope/x@1.2.3-rc.1,socket.io language=ts */", "@scope/x@1.2.3-rc.1,socket.io", ""),
        (b"# sandpost: language=python modules=httpx==0.28.1", "httpx==0.28.1", "httpx==0.28.1"),
        (b"# sandpost: language=py modules=Typing_Extensions,attrs==24.1", "attrs==24.1,typing-extensions", None),
        (b"# sandpost: language=python", "", ""),
    ],
)
def test_the_first_line_chooses_modules(line: bytes, modules: str, own_set: str | None) -> None:
    program = examine(line + b"\n" + CODE, None)
    assert program.modules == modules
    assert program.own_set == (modules if own_set is None else own_set)
    assert is_module_set(program.own_set)
    assert program.id == hashlib.sha256(program.code).hexdigest()
    assert kept(program.id, program.language, program.code) == program


def test_modules_belong_to_the_language_that_the_content_type_says() -> None:
    code = b"# sandpost: modules=httpx==0.28.1\n" + CODE
    assert examine(code, language("python")).modules == "httpx==0.28.1"
    with pytest.raises(InvalidCode):
        examine(code, language("javascript"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("// sandpost: modules=lodash@", "`lodash@`: `` is not one exact version; `GET /api/modules` lists those that are installed; write"),
        ("// sandpost: modules=lodash@^4/fp", "`^4/fp` is not one exact version"),
        ("// sandpost: modules=lodash@" + "4" * 65, "is not one exact version"),
        ("// sandpost: modules=lodash==4.17.21", "npm allows no such name; write `modules=lodash@4.17.21,async`"),
        ("// sandpost: modules=lodash/fp", "npm allows no such name"),
        ("// sandpost: modules=..", "npm allows no such name"),
        ("// sandpost: modules=/etc/passwd", "npm allows no such name"),
        ("// sandpost: modules=l\u043edash", "`l\\u043edash`: npm allows no such name"),
        ("// sandpost: modules=lodash,,async", "has no name: write"),
        ("// sandpost: modules=,", "has no name: write"),
        ("// sandpost: modules=lodash@4.17.21,lodash@4.17.20", "chooses `lodash` twice"),
        ("// sandpost: modules=a modules=b", "`modules` twice"),
        ("// sandpost: modules=", "`modules=`: write"),
        ("// sandpost: modules=" + ",".join(f"a{n}" for n in range(33)), "chooses 33 modules: 32 at most"),
        ("// sandpost: modules=" + ",".join(f"a{'x' * 60}{n:02}" for n in range(32)), "has more than 2048 bytes"),
        ("// sandpost: modules=" + ",".join(f"a{'x' * 46}{n:02}" for n in range(32)), "have 1599 letters: 1536 at most"),
        ("# sandpost: language=python modules=httpx>=0.28", "`>=0.28` is not one exact version"),
        ("# sandpost: language=python modules=httpx@0.28.1", "`@0.28.1` is not one exact version"),
        ("# sandpost: language=python modules=httpx==0.28.*", "`0.28.*` is not one exact version"),
        ("# sandpost: language=python modules=httpx[http2]==0.28.1", "is not one exact version"),
        ("# sandpost: language=python modules=-x", "PyPI allows no such name; write `modules=httpx==0.28.1,attrs`"),
        ("# sandpost: language=python modules=a_b,A-b", "chooses `a-b` twice"),
    ],
)  # fmt: skip
def test_modules_that_cannot_be_chosen_are_told(line: str, words: str) -> None:
    with pytest.raises(InvalidCode) as raised:
        examine(f"{line}\n".encode() + CODE, None)
    assert words in raised.value.message


@given(st.text(max_size=200))
@example("~")
def test_whatever_is_chosen_is_one_text_that_chooses_the_same(text: str) -> None:
    for registry in ("npm", "pypi"):
        try:
            found = choices.chosen(text, registry)
        except InvalidCode:
            continue
        # A set that sandboxes are chosen by may be one anywhere; Node's stands in a header line.
        assert is_module_set(found) or (registry == "npm" and re.fullmatch(r"[!-~]{1,1536}", found))
        assert choices.chosen(found, registry) == found
