"""Who may call as whom: the store's view of keys and tenants, kept fresh."""

import asyncio
from collections.abc import Callable

from sandpost.auth.keys import check_call, key_digest
from sandpost.logs.setup import get_logger
from sandpost.model.errors import NoCredentials, SandpostError, Suspended, Unavailable
from sandpost.model.host import Host
from sandpost.model.limits import Tenant
from sandpost.store import Reader, open_reader

log = get_logger()

REFRESH = 0.2
"""Seconds between looks at the store: a revoked key is refused, a suspended tenant stopped, within a second."""
_LOOK_AGAIN = 0.002
"""Seconds between looks that calls without a good key can bring about."""


class Access:
    """Verdicts about keys. `epoch` grows whenever an earlier verdict may be wrong now.

    `on_removed(name)` is called when tenant `name` was removed from the store, `on_changed()` a moment after anything
    was changed there.
    """

    def __init__(
        self,
        host: Host,
        on_removed: Callable[[str], None],
        on_changed: Callable[[], None],
        reader: Reader | None = None,
    ) -> None:
        self._defaults = host.defaults
        self._reader = open_reader(host) if reader is None else reader
        self._loop = asyncio.get_running_loop()
        self.epoch = 0
        self._problem = ""
        self._on_removed = on_removed
        self._on_changed = on_changed
        self._looked_at = self._loop.time()
        self._timer = self._loop.call_later(REFRESH, self._refresh)

    def close(self) -> None:
        """Stop looking at the store."""
        self._timer.cancel()
        self._reader.close()

    @property
    def loaded(self) -> bool:
        """Whether keys can be judged."""
        return self._reader.loaded

    def rebase(self, host: Host) -> None:
        """Take up new defaults."""
        self._defaults = host.defaults
        self._reader.rebase(host.defaults)
        self.epoch += 1

    def judge(self, name: str, key: bytes | None) -> Tenant:
        """Return the tenant `name` if `key` may run code as it, or raise why not."""
        if key is None:
            raise NoCredentials("rejecting request without Authorization header or key URL query parameter")
        if not self._reader.loaded:
            raise Unavailable(
                "the store has not been read yet, so no key can be checked: try again; if it stays so, "
                "`sandpost status` says which part is missing",
                retry_after=1,
            )
        try:
            return self._verdict(name, key)
        except SandpostError:
            # A key that was made, or a tenant that was resumed, a moment ago: whoever was told so may call at once.
            if self._loop.time() - self._looked_at < _LOOK_AGAIN:
                raise
            self._look()
            return self._verdict(name, key)

    def withdrawn(self, name: str, key: bytes) -> SandpostError | None:
        """Return why `key`, which was good, may run code as `name` no longer; None if it may.

        Of a tenant that is suspended the sandboxes end, which says it better.
        """
        try:
            self._verdict(name, key)
        except Suspended:
            return None
        except SandpostError as error:
            return error
        return None

    def _verdict(self, name: str, key: bytes) -> Tenant:
        tenant = self._reader.tenant(name)
        check_call(self._reader.key(key_digest(key)), name, tenant)
        return Tenant(name=name, limits=self._defaults) if tenant is None else tenant

    def _refresh(self) -> None:
        self._timer = self._loop.call_later(REFRESH, self._refresh)
        self._look()

    def _look(self) -> None:
        self._looked_at = self._loop.time()
        was_loaded = self._reader.loaded
        if self._reader.refresh() or self._reader.loaded != was_loaded:
            self.epoch += 1
            # Not now: it may be a call that looks.
            self._loop.call_soon(self._on_changed)
        for name in self._reader.take_removed():
            self._on_removed(name)
        problem = self._reader.problem
        if problem and problem != self._problem:
            log.warning("the store cannot be read; what is known stays in force", problem=problem)
        self._problem = problem
