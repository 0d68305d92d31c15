"""Routes of tenants."""

import time

from sandpost.api import requests
from sandpost.api.route import PAGING, Answer, Asked, Route
from sandpost.api.service import Service
from sandpost.api.views import TenantChange, TenantPut, Tenants, TenantView
from sandpost.logs.setup import get_logger
from sandpost.model.engines import HOW_TO_GET
from sandpost.model.errors import InvalidValue, UnknownTenant
from sandpost.model.limits import EngineName
from sandpost.store import TenantRecord, Writer

log = get_logger()


async def list_tenants(service: Service, asked: Asked) -> Answer:
    """List tenants, or a tenant's key's own."""
    after, limit = requests.page(asked.query)
    own = asked.caller.tenant
    records = await service.store(lambda writer: writer.tenants())
    rest = [record for record in records if record.name > after and own in (None, record.name)]
    views = [TenantView.of(record, service.host.defaults) for record in rest[:limit]]
    return Answer(200, Tenants(tenants=views, next=views[-1].name if len(rest) > limit else None))


async def get_tenant(service: Service, asked: Asked) -> Answer:
    """Show one tenant."""
    name = asked.path["tenant"]
    record = await service.store(lambda writer: writer.tenant(name))
    if record is None:
        raise unknown(name)
    return Answer(200, TenantView.of(record, service.host.defaults))


async def put_tenant(service: Service, asked: Asked) -> Answer:
    """Register a tenant or change it."""
    name, change, defaults = asked.path["tenant"], asked.body, service.host.defaults
    if change.engine and not service.host.command(change.engine):
        raise no_engine(change.engine)

    def work(writer: Writer) -> tuple[bool, TenantRecord]:
        # The store's one thread does both: nobody changes the tenant between reading and writing it.
        known = writer.tenant(name)
        record = requests.changed(known or TenantRecord(name=name, created_at=time.time()), change, defaults)
        writer.put_tenant(record)
        return known is None, record

    is_new, record = await service.store(work)
    log.info(
        "tenant set", tenant=name, state=record.state, isolation=record.isolation, egress=record.egress,
        own=sorted(record.limits),
    )  # fmt: skip
    applied = await service.tell(record)
    await service.tell_engines()
    view = TenantView.of(record, defaults)
    put = TenantPut(**{field: getattr(view, field) for field in view.__struct_fields__}, applied=applied)
    return Answer(201 if is_new else 200, put)


async def delete_tenant(service: Service, asked: Asked) -> Answer:
    """Remove a tenant, its keys and its usage, and end its sandboxes."""
    name = asked.path["tenant"]
    removed = await service.store(lambda writer: writer.remove_tenant(name))
    # Told in any case: whoever repeats a request whose answer was lost still gets the sandboxes ended.
    await service.controller.tell(name, None)
    await service.tell_engines()
    if not removed:
        raise unknown(name)
    log.info("tenant removed", tenant=name)
    return Answer(204)


def no_engine(engine: EngineName) -> InvalidValue:
    """Return the error of an engine that this host has not."""
    return InvalidValue(
        f"`engine` is {engine}, and the host has none that works: {HOW_TO_GET[engine]}, then send SIGHUP to"
        " `sandpost serve`"
    )


def unknown(name: str) -> UnknownTenant:
    """Return the error of a tenant that is not registered."""
    return UnknownTenant(f"tenant `{name}` is not registered: `sandpost tenant set {name}` registers it")


ROUTES = (
    Route(
        method="GET",
        path="/api/tenants",
        name="listTenants",
        summary="List the registered tenants by name; with a tenant's key that one alone.",
        work=list_tenants,
        gives={200: Tenants},
        query=PAGING,
        tenant_may=True,
    ),
    Route(
        method="GET",
        path="/api/tenants/{tenant}",
        name="getTenant",
        summary="Show a tenant with the limits in force.",
        work=get_tenant,
        gives={200: TenantView},
        tenant_may=True,
        errors=(404,),
    ),
    Route(
        method="PUT",
        path="/api/tenants/{tenant}",
        name="putTenant",
        summary="Register a tenant, or set what the body names; what it leaves out stays, null is the default again.",
        work=put_tenant,
        gives={200: TenantPut, 201: TenantPut},
        takes=TenantChange,
    ),
    Route(
        method="DELETE",
        path="/api/tenants/{tenant}",
        name="deleteTenant",
        summary="Remove a tenant: its keys are revoked, its sandboxes end, its usage is forgotten.",
        work=delete_tenant,
        gives={204: None},
        errors=(404,),
    ),
)
