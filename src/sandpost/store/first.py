"""The operator's first key, made by the supervisor before anything else runs."""

import time

from sandpost.auth.keys import Key, key_digest, new_key
from sandpost.model.errors import ConfigError
from sandpost.store.contract import Writer

ADMIN_ID = "admin"
"""Id of the key that the operator chose by `SANDPOST_ADMIN_KEY`."""


def ensure_operator_key(writer: Writer, admin_key: str | None) -> str | None:
    """Make sure that the operator has a key; return the text of one made here, to be shown once.

    With `admin_key` that one is good from now on (another one chosen before is not), and None is returned. One that
    is a tenant's: `ConfigError`; one that the operator has from elsewhere keeps its id.
    """
    now = time.time()
    if admin_key is None:
        if any(key.tenant is None for key in writer.keys(None)):
            return None
        key_id, text = new_key()
        key = Key(id=key_id, digest=key_digest(text.encode()), tenant=None, label="first", created_at=now)
        writer.add_key(key)
        return text
    digest = key_digest(admin_key.encode())
    known = writer.key(digest)
    if known is not None and known.tenant is not None:
        raise ConfigError(f"SANDPOST_ADMIN_KEY is the key `{known.id}` of tenant `{known.tenant}`: choose another")
    if known is not None and known.id == ADMIN_ID:
        return None
    writer.revoke_key(ADMIN_ID)
    if known is None:
        writer.add_key(Key(id=ADMIN_ID, digest=digest, tenant=None, label="SANDPOST_ADMIN_KEY", created_at=now))
    return None
