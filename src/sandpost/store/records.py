"""A tenant as it is stored: what the operator set and nothing else, so that changed defaults reach the rest. Pure."""

from typing import Any

import msgspec

from sandpost.model.limits import EngineName, Isolation, Limits, Tenant, TenantState

LIMIT_FIELDS = frozenset(Limits.__struct_fields__)


class TenantRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A registered tenant. `limits` holds the fields that were set for it: bytes, seconds, counts."""

    name: str
    state: TenantState = "active"
    isolation: Isolation = "per_tenant"
    limits: dict[str, Any] = {}
    created_at: float = 0.0
    egress: str = "public"
    engine: EngineName | None = None

    def tenant(self, defaults: Limits) -> Tenant:
        """Return the tenant with its limits complete."""
        return Tenant(
            name=self.name,
            state=self.state,
            isolation=self.isolation,
            limits=merge(defaults, self.limits),
            egress=self.egress,
            registered=True,
            engine=self.engine,
        )


def merge(defaults: Limits, own: dict[str, Any]) -> Limits:
    """Return `defaults` with the fields of `own` over them; fields that this release does not know are passed by."""
    if not own:
        return defaults
    return msgspec.structs.replace(defaults, **{name: own[name] for name in own.keys() & LIMIT_FIELDS})
