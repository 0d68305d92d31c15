"""Routes of keys. A key's text is in one answer only: that of its making."""

import time

from sandpost.api import requests
from sandpost.api.route import PAGING, Answer, Asked, Route
from sandpost.api.service import Service
from sandpost.api.tenants import unknown
from sandpost.api.views import Keys, KeyView, MadeKey, NewKey
from sandpost.auth.keys import Key, key_digest, new_key
from sandpost.logs.setup import get_logger
from sandpost.model.errors import NotFound
from sandpost.store import Writer

log = get_logger()


async def list_keys(service: Service, asked: Asked) -> Answer:
    """List all keys, or one tenant's."""
    after, limit = requests.page(asked.query)
    tenant = asked.path.get("tenant")

    def work(writer: Writer) -> list[Key]:
        if tenant is not None and writer.tenant(tenant) is None:
            raise unknown(tenant)
        return writer.keys(tenant)

    rest = sorted((key for key in await service.store(work) if key.id > after), key=lambda key: key.id)
    views = [KeyView.of(key) for key in rest[:limit]]
    return Answer(200, Keys(keys=views, next=views[-1].id if len(rest) > limit else None))


async def make_key(service: Service, asked: Asked) -> Answer:
    """Make a key of the operator, or of a tenant."""
    tenant = asked.path.get("tenant")
    key_id, text = new_key()
    key = Key(
        id=key_id, digest=key_digest(text.encode()), tenant=tenant, label=asked.body.label, created_at=time.time()
    )

    def work(writer: Writer) -> None:
        if tenant is not None and writer.tenant(tenant) is None:
            raise unknown(tenant)
        writer.add_key(key)

    await service.store(work)
    log.info("key made", key_id=key_id, tenant=tenant)
    return Answer(201, MadeKey(id=key_id, tenant=tenant, label=key.label, created_at=key.created_at, key=text))


async def revoke_key(service: Service, asked: Asked) -> Answer:
    """Revoke any key, or one of a tenant."""
    tenant, key_id = asked.path.get("tenant"), asked.path["id"]

    def work(writer: Writer) -> bool:
        if tenant is not None and all(key.id != key_id for key in writer.keys(tenant)):
            return False
        return writer.revoke_key(key_id)

    if not await service.store(work):
        of = "" if tenant is None else f" of tenant `{tenant}`"
        raise NotFound(f"there is no key `{key_id[:80]}`{of}: `sandpost key ls` lists them")
    log.info("key revoked", key_id=key_id, tenant=tenant)
    return Answer(204)


ROUTES = (
    Route(
        method="GET",
        path="/api/tenants/{tenant}/keys",
        name="listTenantKeys",
        summary="List a tenant's keys, without their secrets.",
        work=list_keys,
        gives={200: Keys},
        query=PAGING,
        tenant_may=True,
        errors=(404,),
    ),
    Route(
        method="POST",
        path="/api/tenants/{tenant}/keys",
        name="makeTenantKey",
        summary="Make a key of a tenant; its text is in this answer and nowhere else.",
        work=make_key,
        gives={201: MadeKey},
        takes=NewKey,
        errors=(404, 409),
    ),
    Route(
        method="DELETE",
        path="/api/tenants/{tenant}/keys/{id}",
        name="revokeTenantKey",
        summary="Revoke a tenant's key; within a second it is good for nothing.",
        work=revoke_key,
        gives={204: None},
        errors=(404,),
    ),
    Route(
        method="GET",
        path="/api/keys",
        name="listKeys",
        summary="List all keys, those of the operator (tenant null) among them.",
        work=list_keys,
        gives={200: Keys},
        query=PAGING,
    ),
    Route(
        method="POST",
        path="/api/keys",
        name="makeKey",
        summary="Make a key of the operator; its text is in this answer and nowhere else.",
        work=make_key,
        gives={201: MadeKey},
        takes=NewKey,
        errors=(409,),
    ),
    Route(
        method="DELETE",
        path="/api/keys/{id}",
        name="revokeKey",
        summary="Revoke any key; within a second it is good for nothing.",
        work=revoke_key,
        gives={204: None},
        errors=(404,),
    ),
)
