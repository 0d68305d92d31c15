"""Keys: how they look, how they are kept, and what each may do. Pure.

A key is shown once, when it is made; the store keeps its SHA-256 alone. 160 random bits need no slow hash.
Looking a digest up in a table tells nothing of the key by its time: whoever could choose digests near to a
stored one would have to invert SHA-256 first.
"""

import hashlib
import secrets

import msgspec

from sandpost.model.errors import NotAuthorized, Suspended, UnknownTenant, WrongKey
from sandpost.model.limits import Tenant

_ALPHABET = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_SECRET_LENGTH = 32
MIN_CHOSEN = 16
"""Letters that a key chosen by the operator (`SANDPOST_ADMIN_KEY`) has at least."""


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key as the store knows it. `tenant` None: the operator's, good for everything."""

    id: str
    digest: bytes
    tenant: str | None
    label: str = ""
    created_at: float


def new_key() -> tuple[str, str]:
    """Make a key; return its public id and its text, `sp_<id>_<secret>`."""
    key_id = secrets.token_hex(4)
    secret = "".join(secrets.choice(_ALPHABET) for _ in range(_SECRET_LENGTH))
    return key_id, f"sp_{key_id}_{secret}"


def key_digest(text: bytes) -> bytes:
    """Return the 32 bytes under which the store knows the key `text`."""
    return hashlib.sha256(text).digest()


def check_call(key: Key | None, name: str, tenant: Tenant | None) -> None:
    """Raise unless `key` may run code as tenant `name`, of whom the store says `tenant`.

    None of the errors tells a stranger whether a tenant exists.
    """
    if key is None:
        raise WrongKey("the key is not known here or was revoked: make one with `sandpost key create`")
    if key.tenant is not None and key.tenant != name:
        raise NotAuthorized(f"not authorized to perform operation on tenant `{name}`")
    if tenant is None:
        if key.tenant is not None:
            raise UnknownTenant(f"tenant `{name}` is not registered: `sandpost tenant set {name}` registers it")
    elif tenant.state == "suspended":
        raise Suspended(f"tenant `{name}` is suspended: `sandpost tenant resume {name}` lets it run again")
