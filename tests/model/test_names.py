"""Names are valid as they came or refused; nothing is normalised."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpost.model.errors import InvalidName
from sandpost.model.names import RESERVED, is_code_hash, is_sandbox_id, new_sandbox_id, tenant_name


@pytest.mark.parametrize("name", ["a", "0", "acme", "a-b_c", "a" * 63, "9lives"])
def test_good_tenant_names(name: str) -> None:
    assert tenant_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "A",
        "-a",
        "_a",
        "a" * 64,
        "a.b",
        "a/b",
        "a%2fb",
        "..",
        ".",
        "a b",
        "a\n",
        "a\x00",
        "\u0430cme",
        "acme\u0301",
        "a\u2028",
        "\uff41",
    ],
)
def test_names_outside_the_alphabet_are_refused(name: str) -> None:
    with pytest.raises(InvalidName, match="cannot name a tenant") as caught:
        tenant_name(name)
    assert caught.value.status == 400
    assert caught.value.message.isascii()


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_reserved_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidName, match="reserved"):
        tenant_name(name)


@given(st.text(max_size=80))
def test_a_valid_name_needs_no_escaping_anywhere(text: str) -> None:
    try:
        name = tenant_name(text)
    except InvalidName:
        return
    assert name == text
    assert name.encode("ascii").islower() or name.strip("0123456789_-") == ""
    assert not set(name) & set("/.%\\ ")


def test_sandbox_ids_are_recognised_and_differ() -> None:
    made = {new_sandbox_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(map(is_sandbox_id, made))
    assert not is_sandbox_id("../../../etc")
    assert not is_sandbox_id("0123456789ab\n")


def test_code_hashes() -> None:
    assert is_code_hash("0" * 64)
    assert not is_code_hash("0" * 63)
    assert not is_code_hash("A" * 64)
    assert not is_code_hash("\u0660" * 64)
