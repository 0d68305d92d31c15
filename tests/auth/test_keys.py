"""How keys look and what each may do."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpost.auth.keys import Key, check_call, key_digest, new_key
from sandpost.model.errors import NotAuthorized, SandpostError, Suspended, UnknownTenant
from sandpost.model.limits import Tenant

ACTIVE = Tenant(name="acme", registered=True)
SUSPENDED = Tenant(name="acme", state="suspended", registered=True)


def key(tenant: str | None) -> Key:
    return Key(id="k", digest=b"\0" * 32, tenant=tenant, created_at=1.0)


def test_a_key_is_long_random_and_names_its_id() -> None:
    made = {new_key() for _ in range(200)}
    assert len({key_id for key_id, _ in made}) == 200
    for key_id, text in made:
        match = re.fullmatch(r"sp_([0-9a-f]{8})_([A-Za-z0-9]{32})", text)
        assert match is not None
        assert match[1] == key_id


def test_a_key_needs_no_escaping_in_a_url_or_a_shell() -> None:
    assert all(re.fullmatch(r"[A-Za-z0-9_]+", new_key()[1]) for _ in range(200))


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_different_texts_have_different_digests(one: bytes, other: bytes) -> None:
    assert len(key_digest(one)) == 32
    assert (key_digest(one) == key_digest(other)) == (one == other)


@pytest.mark.parametrize(
    ("owner", "tenant", "error"),
    [
        (None, None, None),
        (None, ACTIVE, None),
        (None, SUSPENDED, Suspended),
        ("acme", ACTIVE, None),
        ("acme", SUSPENDED, Suspended),
        ("acme", None, UnknownTenant),
        ("other", ACTIVE, NotAuthorized),
        ("other", SUSPENDED, NotAuthorized),
        ("other", None, NotAuthorized),
        ("acm", ACTIVE, NotAuthorized),
    ],
)
def test_who_may_run_code_as_acme(owner: str | None, tenant: Tenant | None, error: type[SandpostError] | None) -> None:
    if error is None:
        check_call(key(owner), "acme", tenant)
        return
    with pytest.raises(error):
        check_call(key(owner), "acme", tenant)


@pytest.mark.parametrize("tenant", [None, ACTIVE, SUSPENDED])
def test_a_stranger_learns_nothing_of_the_tenant(tenant: Tenant | None) -> None:
    messages = set()
    for guess in (None, key("other")):
        with pytest.raises(SandpostError) as caught:
            check_call(guess, "acme", tenant)
        messages.add(caught.value.message)
    assert messages == {
        "the key is not known here or was revoked: make one with `sandpost key create`",
        "not authorized to perform operation on tenant `acme`",
    }
