import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from sandpost.logs.text import safe_text


@given(
    st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
)
def test_nothing_that_acts_on_a_terminal_remains(raw: bytes) -> None:
    text = safe_text(raw)
    text.encode()
    assert not [c for c in text if unicodedata.category(c) == "Cc" and c not in "\t\n"]
    assert not [c for c in text if unicodedata.bidirectional(c) in {"RLO", "LRO", "RLE", "LRE", "RLI", "LRI", "FSI"}]


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "Zs"]), max_size=100))
def test_ordinary_text_is_as_it_was(text: str) -> None:
    assert safe_text(text.encode()) == text


def test_colours_go_and_other_controls_are_shown() -> None:
    assert safe_text(b"\x1b[31;1mred\x1b[0m\tx\ny") == "red\tx\ny"
    assert safe_text(b"\x1b[2Jclear\x07\x7f") == "\u241b[2Jclear\u2407\u2421"
    assert safe_text(b"a\xffb\xe2\x82") == "a\ufffdb\ufffd"
    assert safe_text("\u202egnp.exe\u2028".encode()) == "\ufffdgnp.exe\ufffd"
    assert safe_text("\x9b31m".encode()) == "\ufffd31m"
