"""What a store must do: durable records, one writer (the api), many readers in other processes."""

from typing import Protocol

from sandpost.auth.keys import Key
from sandpost.model.limits import Tenant
from sandpost.model.messages import UsageItem


class Reader(Protocol):
    """A view of tenants and keys that is looked up in memory and refreshed from the store.

    Never blocks for longer than a local read; a store that cannot be read leaves the view as it was.
    """

    def refresh(self) -> bool:
        """Take up what changed since the last call (called every 200 ms); say whether anything did."""

    def tenant(self, name: str) -> Tenant | None:
        """Return the registered tenant, with its limits complete; None if it is not registered."""

    def key(self, digest: bytes) -> Key | None:
        """Return the live key with this digest."""

    def close(self) -> None:
        """Let go of the store."""


class Writer(Protocol):
    """The one writer. Every method is durable when it returns and atomic."""

    def put_tenant(self, tenant: Tenant) -> None:
        """Register a tenant or replace what is known of it."""

    def remove_tenant(self, name: str) -> bool:
        """Remove the tenant with its keys and usage; False if there is none."""

    def tenants(self) -> list[Tenant]:
        """List the registered tenants by name."""

    def tenant(self, name: str) -> Tenant | None:
        """Return one registered tenant."""

    def add_key(self, key: Key) -> None:
        """Keep a key; `Conflict` if its id or digest exists."""

    def revoke_key(self, key_id: str) -> bool:
        """Forget a key; False if there is none."""

    def keys(self, tenant: str | None = None) -> list[Key]:
        """List the keys, or one tenant's."""

    def key(self, digest: bytes) -> Key | None:
        """Return the live key with this digest."""

    def add_usage(self, batch: str, items: list[UsageItem]) -> None:
        """Add a batch of usage; a batch seen within the last day changes nothing."""

    def usage(self, tenant: str, since_hour: int) -> list[UsageItem]:
        """List a tenant's usage by hour from `since_hour` (hours since the epoch)."""

    def close(self) -> None:
        """Let go of the store."""
