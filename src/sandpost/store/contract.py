"""What a store must do: durable records, one writer (the api), many readers in other processes.

What fails is a `sandpost.store.errors.StoreError` that says what to do; after it the store holds what it held.
"""

from typing import Protocol

from sandpost.auth.keys import Key
from sandpost.model.limits import EngineName, Limits, Tenant
from sandpost.model.messages import UsageItem
from sandpost.model.modules import ModuleRecord
from sandpost.store.records import TenantRecord


class Reader(Protocol):
    """A view of tenants and keys that is looked up in memory and refreshed from the store.

    Never blocks for longer than a local read; a store that cannot be read leaves the view as it was. Making one
    never fails: `loaded` says whether there is a view at all.
    """

    @property
    def loaded(self) -> bool:
        """Whether the store has been read once. Until then nobody's key can be judged: answer 503."""

    @property
    def problem(self) -> str:
        """Why the last refresh could not read, and what to do; empty if it could."""

    def refresh(self) -> bool:
        """Take up what changed since the last call (called every 200 ms); say whether anything did."""

    def take_removed(self) -> list[str]:
        """Return the tenants that were removed since the last call, as far as this view saw it happen."""

    def rebase(self, defaults: Limits) -> None:
        """Take up new defaults of limits (the host file was read again)."""

    def tenant(self, name: str) -> Tenant | None:
        """Return the registered tenant, with its limits complete; None if it is not registered."""

    def key(self, digest: bytes) -> Key | None:
        """Return the live key with this digest."""

    def close(self) -> None:
        """Let go of the store."""


class Writer(Protocol):
    """The one writer. Every method is durable when it returns, and atomic. Any thread may call; calls take turns."""

    def put_tenant(self, record: TenantRecord) -> None:
        """Register a tenant or replace what is known of it; `created_at` stays that of the first time."""

    def remove_tenant(self, name: str) -> bool:
        """Remove the tenant with its keys and usage; False if it is not registered."""

    def tenants(self) -> list[TenantRecord]:
        """List the registered tenants by name."""

    def tenant(self, name: str) -> TenantRecord | None:
        """Return one registered tenant."""

    def engines(self) -> dict[EngineName, str]:
        """Return the engines that tenants are set to, each with one of those tenants."""

    def engines_alone(self) -> set[EngineName | None]:
        """Return the engines of tenants whose calls each have a sandbox (`per_request`); None: the host's."""

    def add_key(self, key: Key) -> None:
        """Keep a key; `Conflict` if its id or digest exists."""

    def revoke_key(self, key_id: str) -> bool:
        """Forget a key; False if there is none."""

    def keys(self, tenant: str | None = None) -> list[Key]:
        """List all keys, the operator's among them, or one tenant's; oldest first."""

    def key(self, digest: bytes) -> Key | None:
        """Return the live key with this digest."""

    def revision(self) -> int:
        """Return a number that has grown if tenants or keys were changed since, by whomever."""

    def add_usage(self, batch: str, items: list[UsageItem]) -> None:
        """Add a batch of usage; a batch seen within the last day changes nothing."""

    def usage(self, tenant: str, since_hour: int) -> list[UsageItem]:
        """List a tenant's usage by hour from `since_hour` (hours since the epoch)."""

    def put_modules(self, records: list[ModuleRecord]) -> None:
        """Keep modules, each in the place of what was known of its spec; all or none."""

    def remove_modules(self, specs: list[str]) -> None:
        """Forget modules; all or none. One that is not known is none that is missed."""

    def modules(self) -> list[ModuleRecord]:
        """List the modules that are known, by their specs."""

    def close(self) -> None:
        """Let go of the store."""
