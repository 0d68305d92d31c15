"""The operator's first key."""

from collections.abc import Iterator

import pytest

from sandpost.auth.keys import Key, key_digest
from sandpost.model.errors import ConfigError
from sandpost.store import TenantRecord
from sandpost.store.first import ensure_operator_key
from sandpost.store.sqlite import SqliteWriter

CHOSEN = "correct-horse-battery"


@pytest.fixture
def writer(store_path: str) -> Iterator[SqliteWriter]:
    writer = SqliteWriter(store_path)
    yield writer
    writer.close()


def test_the_first_key_is_told_once_and_works(writer: SqliteWriter) -> None:
    text = ensure_operator_key(writer, None)
    assert text is not None
    key = writer.key(key_digest(text.encode()))
    assert key is not None
    assert key.tenant is None
    assert text.startswith(f"sp_{key.id}_")
    assert ensure_operator_key(writer, None) is None
    assert len(writer.keys()) == 1


def test_a_tenants_key_is_not_the_operators(writer: SqliteWriter) -> None:
    writer.put_tenant(TenantRecord(name="acme"))
    writer.add_key(Key(id="k", digest=key_digest(b"k"), tenant="acme", created_at=1.0))
    assert ensure_operator_key(writer, None) is not None


def test_a_chosen_key_is_kept_and_another_one_takes_its_place(writer: SqliteWriter) -> None:
    assert ensure_operator_key(writer, CHOSEN) is None
    assert ensure_operator_key(writer, CHOSEN) is None
    assert [key.id for key in writer.keys(None)] == ["admin"]
    assert ensure_operator_key(writer, CHOSEN + "2") is None
    assert writer.key(key_digest(CHOSEN.encode())) is None
    assert writer.key(key_digest((CHOSEN + "2").encode())) is not None
    assert ensure_operator_key(writer, None) is None, "there is an operator's key already"


def test_a_key_that_the_operator_made_can_be_chosen_and_takes_the_place_too(writer: SqliteWriter) -> None:
    ensure_operator_key(writer, CHOSEN)
    writer.add_key(Key(id="made", digest=key_digest(b"made-by-the-api"), tenant=None, created_at=1.0))
    assert ensure_operator_key(writer, "made-by-the-api") is None
    assert writer.key(key_digest(CHOSEN.encode())) is None
    assert [key.id for key in writer.keys(None)] == ["made"]


def test_a_tenants_key_cannot_become_the_operators(writer: SqliteWriter) -> None:
    writer.put_tenant(TenantRecord(name="acme"))
    writer.add_key(Key(id="k", digest=key_digest(CHOSEN.encode()), tenant="acme", created_at=1.0))
    with pytest.raises(ConfigError, match="choose another"):
        ensure_operator_key(writer, CHOSEN)
