"""Tenant segment and the platform's query parameters."""

import string
from urllib.parse import parse_qsl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandpost.model.errors import InvalidName, MalformedRequest
from sandpost.proxy.http1.target import Query, split_query, split_target


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        (b"/", ("", b"")),
        (b"*", ("", b"")),
        (b"/acme", ("acme", b"")),
        (b"/acme/", ("acme", b"/")),
        (b"/acme//x", ("acme", b"//x")),
        (b"/acme/../other", ("acme", b"/../other")),
        (b"/acme/%2e%2e/%00/a%2Fb\\c", ("acme", b"/%2e%2e/%00/a%2Fb\\c")),
        (b"/Acme", ("Acme", b"")),
        (b"/..acme/x", ("..acme", b"/x")),
        (b"/acme\\..\\other/x", ("acme\\..\\other", b"/x")),
        (b"/acme;x=1/y", ("acme;x=1", b"/y")),
    ],
)
def test_first_segment_is_taken_as_it_stands(path: bytes, parts: tuple[str, bytes]) -> None:
    assert split_target(path) == parts


@pytest.mark.parametrize(
    ("path", "why"),
    [
        (b"/%61cme", "percent-encoded"),
        (b"/acme%2Fother", "percent-encoded"),
        (b"/acme%00", "percent-encoded"),
        (b"/%2e%2e/acme", "percent-encoded"),
        (b"/%", "percent-encoded"),
        (b"//acme", "begins with `//`"),
        (b"//", "begins with `//`"),
        (b"/./acme", "dot segment"),
        (b"/../acme", "dot segment"),
        (b"/..", "dot segment"),
        (b"/.", "dot segment"),
    ],
)
def test_first_segment_that_would_need_normalising_is_refused(path: bytes, why: str) -> None:
    with pytest.raises(InvalidName, match=why):
        split_target(path)


@pytest.mark.parametrize(
    ("query", "taken"),
    [
        (b"", Query(None, None, {}, b"")),
        (b"a=b&c", Query(None, None, {}, b"a=b&c")),
        (b"key=K", Query(b"K", None, {}, b"")),
        (b"key", Query(b"", None, {}, b"")),
        (b"key=", Query(b"", None, {}, b"")),
        (b"key=a=b", Query(b"a=b", None, {}, b"")),
        (b"a=1&key=K&b=2", Query(b"K", None, {}, b"a=1&b=2")),
        (b"key=K&&a&", Query(b"K", None, {}, b"&a&")),
        (b"%6bey=K", Query(b"K", None, {}, b"")),
        (b"%6B%65%79=K", Query(b"K", None, {}, b"")),
        (b"ke%79=a%20b%2", Query(b"a b%2", None, {}, b"")),
        (b"key=a+b", Query(b"a b", None, {}, b"")),
        (b"key=a+b%2B", Query(b"a b+", None, {}, b"")),
        (b"key=%80%zz", Query(b"\x80%zz", None, {}, b"")),
        (b"%256bey=K", Query(None, None, {}, b"%256bey=K")),
        (
            b"Key=K&KEY=K&key[]=K&keys=K&xkey=K&+key=K",
            Query(None, None, {}, b"Key=K&KEY=K&key[]=K&keys=K&xkey=K&+key=K"),
        ),
        (b"a=key=K", Query(None, None, {}, b"a=key=K")),
        (b"a;key=K", Query(None, None, {}, b"a;key=K")),
        (b"webtask_code=ff&a", Query(None, b"ff", {"webtask_code": b"ff"}, b"a")),
        (b"%77ebtask%5Fcode=ff", Query(None, b"ff", {"webtask_code": b"ff"}, b"")),
        (
            b"webtask_=1&webtask_a%20b=2&webtask=3",
            Query(None, None, {"webtask_": b"1", "webtask_a b": b"2"}, b"webtask=3"),
        ),
        (b"webtask_key=1", Query(None, None, {"webtask_key": b"1"}, b"")),
        (b"%zz=1&a=%zz&b=%C3%A4+", Query(None, None, {}, b"%zz=1&a=%zz&b=%C3%A4+")),
    ],
)
def test_query_is_taken_apart(query: bytes, taken: Query) -> None:
    assert split_query(query) == taken


@pytest.mark.parametrize(
    "query",
    [b"key=a&key=b", b"key=a&key=a", b"key&%6bey=a", b"webtask_code=a&webtask_cod%65=b", b"webtask_x&a&webtask_x"],
)
def test_parameter_of_ours_that_comes_twice_is_refused_as_ambiguous(query: bytes) -> None:
    with pytest.raises(MalformedRequest, match="more than once"):
        split_query(query)


def test_refusal_does_not_repeat_values_or_raw_bytes() -> None:
    with pytest.raises(MalformedRequest) as refusal:
        split_query(b"webtask_%1b[0m=secret&webtask_%1b[0m=secret")
    assert "\x1b" not in refusal.value.message
    assert "secret" not in refusal.value.message


def _encoded(text: str, mask: list[bool]) -> bytes:
    return b"".join(
        b"%%%02x" % ord(letter) if masked else letter.encode() for letter, masked in zip(text, mask, strict=True)
    )


_names = st.sampled_from(["key", "webtask_code", "webtask_x", "a", "ke", "keyy", "Key", "webtask", "", "data"])
_pairs = st.lists(
    st.tuples(
        _names.flatmap(
            lambda name: st.lists(st.booleans(), min_size=len(name), max_size=len(name)).map(
                lambda mask: (name, _encoded(name, mask))
            )
        ),
        st.text(string.ascii_letters + "%+=", max_size=6).map(str.encode),
    ),
    max_size=6,
)


@given(_pairs)
@settings(max_examples=300)
def test_however_names_are_encoded_ours_go_and_the_others_stay_byte_for_byte(
    pairs: list[tuple[tuple[str, bytes], bytes]],
) -> None:
    query = b"&".join(encoded + b"=" + value for (_, encoded), value in pairs)
    ours = [name for (name, _), _ in pairs if name == "key" or name.startswith("webtask_")]
    if len(set(ours)) < len(ours):
        with pytest.raises(MalformedRequest):
            split_query(query)
        return
    taken = split_query(query)
    assert taken.rest == b"&".join(
        encoded + b"=" + value for (name, encoded), value in pairs if name != "key" and not name.startswith("webtask_")
    )
    # What a program's own reader of query strings finds: ours before, none of ours after.
    before, after = _read(query), _read(taken.rest)
    assert {name: value for name, value in before.items() if name.startswith("webtask_")} == taken.webtask
    assert before.get("key") == taken.key
    assert not any(name == "key" or name.startswith("webtask_") for name in after)


def _read(query: bytes) -> dict[str, bytes]:
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    return {name: value.encode("latin-1") for name, value in pairs}
