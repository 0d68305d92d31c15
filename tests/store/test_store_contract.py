"""What every writer of the store does, and what every reader then sees. A further driver joins `DRIVERS`."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from sandpost.auth.keys import Key, key_digest
from sandpost.model.errors import Conflict
from sandpost.model.limits import Limits
from sandpost.model.messages import UsageItem
from sandpost.model.modules import ModuleRecord
from sandpost.store import Reader, StoreError, TenantRecord, Writer
from sandpost.store.reader import SqliteReader
from sandpost.store.sqlite import SqliteWriter

DEFAULTS = Limits(memory=64 << 20, deadline=7.0)
HOUR = int(time.time() // 3600)


@dataclass
class Driver:
    writer: Callable[[str], Writer]
    reader: Callable[[str], Reader]


DRIVERS = {"sqlite": Driver(SqliteWriter, lambda path: SqliteReader(path, DEFAULTS))}


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> Driver:
    return DRIVERS[request.param]


@pytest.fixture
def writer(driver: Driver, store_path: str) -> Iterator[Writer]:
    writer = driver.writer(store_path)
    yield writer
    writer.close()


@pytest.fixture
def reader(driver: Driver, writer: Writer, store_path: str) -> Iterator[Reader]:
    reader = driver.reader(store_path)
    assert reader.loaded, reader.problem
    yield reader
    reader.close()


def key(key_id: str, tenant: str | None = None) -> Key:
    return Key(id=key_id, digest=key_digest(key_id.encode()), tenant=tenant, label=f"of {key_id}", created_at=5.5)


def test_a_tenant_keeps_what_was_set_for_it_and_its_first_date(writer: Writer) -> None:
    writer.put_tenant(TenantRecord(name="acme", limits={"memory": 1 << 30}, created_at=10.0))
    writer.put_tenant(
        TenantRecord(
            name="acme", state="suspended", isolation="per_request", limits={"cpu": 0.5}, created_at=99.0, egress="none",
            engine="runsc",
        )
    )  # fmt: skip
    expected = TenantRecord(
        name="acme",
        state="suspended",
        isolation="per_request",
        limits={"cpu": 0.5},
        created_at=10.0,
        egress="none",
        engine="runsc",
    )
    assert writer.tenant("acme") == expected
    assert writer.tenant("other") is None


def test_a_readers_tenant_has_its_egress_policy_public_unless_it_was_set(writer: Writer, reader: Reader) -> None:
    writer.put_tenant(TenantRecord(name="open"))
    writer.put_tenant(TenantRecord(name="listed", egress="allow:api.example.com"))
    reader.refresh()
    found = {name: reader.tenant(name) for name in ("open", "listed")}
    assert {name: one.egress for name, one in found.items() if one is not None} == {
        "open": "public",
        "listed": "allow:api.example.com",
    }


def test_engines_are_named_that_tenants_are_set_to_and_readers_see_them(writer: Writer, reader: Reader) -> None:
    assert writer.engines() == {}
    writer.put_tenant(TenantRecord(name="b", engine="runsc"))
    writer.put_tenant(TenantRecord(name="a", engine="runsc"))
    writer.put_tenant(TenantRecord(name="c"))
    assert writer.engines() == {"runsc": "a"}
    assert reader.refresh()
    engines = [getattr(reader.tenant(name), "engine", "") for name in ("a", "c")]
    assert engines == ["runsc", None]
    writer.put_tenant(TenantRecord(name="a"))
    writer.remove_tenant("b")
    assert writer.engines() == {}


def test_engines_are_named_of_tenants_whose_calls_each_have_a_sandbox(writer: Writer) -> None:
    assert writer.engines_alone() == set()
    writer.put_tenant(TenantRecord(name="a", engine="runsc"))
    writer.put_tenant(TenantRecord(name="b", engine="runsc", isolation="per_request"))
    writer.put_tenant(TenantRecord(name="c", isolation="per_request"))
    assert writer.engines_alone() == {"runsc", None}
    writer.remove_tenant("c")
    assert writer.engines_alone() == {"runsc"}


def test_tenants_are_listed_by_name(writer: Writer) -> None:
    for name in ("b", "a-1", "a"):
        writer.put_tenant(TenantRecord(name=name))
    assert [record.name for record in writer.tenants()] == ["a", "a-1", "b"]


def test_limits_that_were_not_set_follow_the_defaults(writer: Writer, reader: Reader) -> None:
    writer.put_tenant(TenantRecord(name="acme", limits={"deadline": 7.0}))
    assert reader.refresh()
    tenant = reader.tenant("acme")
    assert tenant is not None
    assert tenant.registered
    assert (tenant.limits.memory, tenant.limits.deadline) == (64 << 20, 7.0)
    reader.rebase(Limits(memory=1 << 20, deadline=3.0))
    tenant = reader.tenant("acme")
    assert tenant is not None
    assert (tenant.limits.memory, tenant.limits.deadline) == (1 << 20, 7.0)


def test_a_limit_of_a_later_release_is_passed_by(writer: Writer, reader: Reader) -> None:
    writer.put_tenant(TenantRecord(name="acme", limits={"telepathy": 3, "pids": 9}))
    reader.refresh()
    tenant = reader.tenant("acme")
    assert tenant is not None
    assert tenant.limits == Limits(memory=64 << 20, deadline=7.0, pids=9)


def test_a_reader_sees_keys_come_and_go(writer: Writer, reader: Reader) -> None:
    writer.put_tenant(TenantRecord(name="acme"))
    writer.add_key(key("k1", "acme"))
    writer.add_key(key("op"))
    assert reader.key(key("k1").digest) is None
    assert reader.refresh()
    assert reader.key(key("k1").digest) == key("k1", "acme")
    assert reader.key(key("op").digest) == key("op")
    assert not reader.refresh()
    assert writer.revoke_key("k1")
    assert reader.refresh()
    assert reader.key(key("k1").digest) is None
    assert reader.key(key("op").digest) is not None


def test_a_key_made_again_under_its_old_id_is_seen(writer: Writer, reader: Reader) -> None:
    writer.add_key(key("admin"))
    reader.refresh()
    writer.revoke_key("admin")
    fresh = Key(id="admin", digest=key_digest(b"another"), tenant=None, created_at=6.0)
    writer.add_key(fresh)
    assert reader.refresh()
    assert reader.key(fresh.digest) == fresh
    assert reader.key(key("admin").digest) is None


def test_removing_a_tenant_takes_its_keys_and_usage_and_nobody_elses(writer: Writer, reader: Reader) -> None:
    for name in ("acme", "other"):
        writer.put_tenant(TenantRecord(name=name))
        writer.add_key(key(f"k-{name}", name))
        writer.add_usage(f"b-{name}", [UsageItem(tenant=name, hour=HOUR, calls=1, ends={"idle": 1})])
    reader.refresh()
    assert writer.remove_tenant("acme")
    assert not writer.remove_tenant("acme")
    assert reader.refresh()
    assert reader.tenant("acme") is None
    assert reader.key(key("k-acme").digest) is None
    assert writer.usage("acme", 0) == []
    assert reader.tenant("other") is not None
    assert reader.key(key("k-other").digest) is not None
    assert writer.usage("other", 0) == [UsageItem(tenant="other", hour=HOUR, calls=1, ends={"idle": 1})]
    writer.put_tenant(TenantRecord(name="acme"))
    writer.add_usage("b-again", [UsageItem(tenant="acme", hour=HOUR, calls=5)])
    assert writer.usage("acme", 0) == [UsageItem(tenant="acme", hour=HOUR, calls=5)], "a namesake inherits no ends"
    assert reader.refresh()
    assert reader.tenant("acme") is not None


def test_an_id_or_digest_that_exists_is_a_conflict_and_changes_nothing(writer: Writer) -> None:
    writer.add_key(key("k1"))
    with pytest.raises(Conflict, match="`k1`"):
        writer.add_key(Key(id="k1", digest=key_digest(b"x"), tenant=None, created_at=1.0))
    with pytest.raises(Conflict, match="`k1`"):
        writer.add_key(Key(id="k2", digest=key("k1").digest, tenant=None, created_at=1.0))
    assert writer.keys() == [key("k1")]


def test_a_key_needs_its_tenant(writer: Writer) -> None:
    with pytest.raises(Conflict, match="sandpost tenant set ghost"):
        writer.add_key(key("k1", "ghost"))
    assert writer.keys() == []


def test_the_revision_grows_with_every_change_of_tenants_and_keys(
    driver: Driver, writer: Writer, store_path: str
) -> None:
    other = driver.writer(store_path)
    steps: list[Callable[[], object]] = [
        lambda: writer.put_tenant(TenantRecord(name="acme")),
        lambda: other.add_key(key("one", "acme")),
        lambda: other.revoke_key("one"),
        lambda: writer.add_key(key("two", "acme")),
        lambda: other.remove_tenant("acme"),
    ]
    for step in steps:
        before = writer.revision()
        assert writer.revision() == before
        step()
        assert writer.revision() > before
    other.close()


def test_keys_are_listed_for_one_tenant_or_all(writer: Writer) -> None:
    writer.put_tenant(TenantRecord(name="acme"))
    writer.add_key(key("op"))
    writer.add_key(key("k1", "acme"))
    assert writer.keys("acme") == [key("k1", "acme")]
    assert {one.id for one in writer.keys(None)} == {"op", "k1"}
    assert writer.key(key("op").digest) == key("op")
    assert writer.key(b"\0" * 32) is None
    assert not writer.revoke_key("ghost")


def test_usage_adds_up_by_hour_and_a_batch_counts_once(writer: Writer) -> None:
    item = UsageItem(
        tenant="acme",
        hour=HOUR,
        calls=2,
        cpu_seconds=0.5,
        memory_seconds=100.0,
        bytes_in=3,
        bytes_out=4,
        ends={"idle": 1, "memory": 2},
    )
    writer.add_usage("one", [item, UsageItem(tenant="acme", hour=HOUR - 1, calls=7)])
    writer.add_usage("one", [item])
    writer.add_usage("two", [item])
    assert writer.usage("acme", HOUR - 1) == [
        UsageItem(tenant="acme", hour=HOUR - 1, calls=7),
        UsageItem(
            tenant="acme",
            hour=HOUR,
            calls=4,
            cpu_seconds=1.0,
            memory_seconds=200.0,
            bytes_in=6,
            bytes_out=8,
            ends={"idle": 2, "memory": 4},
        ),
    ]
    assert [one.hour for one in writer.usage("acme", HOUR)] == [HOUR]
    assert writer.usage("other", 0) == []


def test_everything_is_there_after_opening_again(driver: Driver, store_path: str) -> None:
    first = driver.writer(store_path)
    first.put_tenant(TenantRecord(name="acme", limits={"pids": 3}, created_at=1.5))
    first.add_key(key("k1", "acme"))
    first.add_usage("one", [UsageItem(tenant="acme", hour=HOUR, calls=1)])
    first.close()
    again = driver.writer(store_path)
    try:
        assert again.tenants() == [TenantRecord(name="acme", limits={"pids": 3}, created_at=1.5)]
        assert again.keys() == [key("k1", "acme")]
        again.add_usage("one", [UsageItem(tenant="acme", hour=HOUR, calls=1)])
        assert [one.calls for one in again.usage("acme", 0)] == [1]
    finally:
        again.close()


def test_old_usage_is_dropped(writer: Writer) -> None:
    writer.add_usage("one", [UsageItem(tenant="acme", hour=5, calls=1), UsageItem(tenant="acme", hour=HOUR, calls=2)])
    assert [one.hour for one in writer.usage("acme", 0)] == [HOUR]


def test_modules_are_kept_replaced_and_forgotten(writer: Writer) -> None:
    assert writer.modules() == []
    queued = ModuleRecord(spec="pypi:httpx==0.28.1", reason="it waits", asked_at=5.5)
    done = ModuleRecord(
        spec="npm:@scope/x@1.0.0",
        state="available",
        scripts=True,
        asked_at=1.0,
        done_at=2.5,
        size=1 << 40,
        files=7,
        digest="ab",
        integrity={"@scope/x@1.0.0": "sha512-x"},
    )
    writer.put_modules([queued, done])
    assert writer.modules() == [done, queued]
    failed = ModuleRecord(spec=queued.spec, state="failed", reason="no", asked_at=6.0, done_at=7.0)
    writer.put_modules([failed])
    assert writer.modules() == [done, failed]
    writer.remove_modules([done.spec, "npm:nobody@1.0.0"])
    assert writer.modules() == [failed]


def test_modules_are_put_all_or_none(writer: Writer) -> None:
    good = ModuleRecord(spec="npm:a@1.0.0")
    with pytest.raises(StoreError):
        writer.put_modules([good, ModuleRecord(spec="npm:b@1.0.0", state="nonsense")])  # type: ignore[arg-type]
    assert writer.modules() == []
