"""The builder's life: a registered tenant with a key while something is installed, nothing at all otherwise."""

import time
from typing import TYPE_CHECKING

from sandpost.api.modules.builder import tenant_of
from sandpost.auth.keys import Key, key_digest, new_key
from sandpost.model.names import BUILDER
from sandpost.store import Writer

if TYPE_CHECKING:
    from sandpost.api.service import Service


class Tenancy:
    """The builder as a tenant of this host. One task."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._key = ""

    async def begin(self) -> str:
        """Make sure that the builder is set up as the settings say now; return a key that is good for it alone."""
        record = tenant_of(self._service.host.modules, time.time())
        known, (key_id, text) = self._key, new_key()

        def work(writer: Writer) -> str:
            writer.put_tenant(record)
            # The operator may have revoked it, as any key.
            if known and writer.key(key_digest(known.encode())) is not None:
                return known
            digest = key_digest(text.encode())
            writer.add_key(Key(id=key_id, digest=digest, tenant=BUILDER, created_at=record.created_at))
            return text

        self._key = await self._service.store(work)
        await self._service.tell(record)
        return self._key

    async def end(self, *, anyway: bool = False) -> None:
        """Remove the builder with its key and its sandboxes; `anyway`: also one that a former process left."""
        if not self._key and not anyway:
            return
        removed = await self._service.store(lambda writer: writer.remove_tenant(BUILDER))
        self._key = ""
        if removed:
            await self._service.controller.tell(BUILDER, None)
