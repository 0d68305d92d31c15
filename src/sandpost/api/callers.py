"""Who asks: the operator by key or as root on this machine's socket, or a tenant by its key. Pure."""

from dataclasses import dataclass
from urllib.parse import parse_qsl

from sandpost.auth.keys import Key, key_digest
from sandpost.model.errors import InvalidValue, NoCredentials, NotAuthorized, WrongKey

_MAX_KEY = 512
_MAX_PAIRS = 50


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom a request speaks for. `tenant` None: the operator."""

    tenant: str | None

    def must_be_operator(self) -> None:
        """Raise unless this is the operator."""
        if self.tenant is not None:
            raise NotAuthorized("this needs the operator's key: a tenant's key only looks at its own tenant")

    def may_see(self, tenant: str) -> None:
        """Raise unless this is the operator or the tenant itself."""
        if self.tenant is not None and self.tenant != tenant:
            raise NotAuthorized(f"not authorized to perform operation on tenant `{tenant}`")


def sent_key(authorization: str | None, query: bytes) -> bytes | None:
    """Return the key of the `Authorization` header, else of `?key=`; None if there is neither."""
    if authorization is not None:
        scheme, _, text = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise WrongKey("the Authorization header is not `Bearer KEY`")
        return text.strip().encode("latin-1")
    for name, value in pairs(query):
        if name == "key":
            return value.encode()
    return None


def pairs(query: bytes) -> list[tuple[str, str]]:
    """Return the query's parameters in their order; `InvalidValue` if there are more than any route takes."""
    try:
        return parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MAX_PAIRS)
    except ValueError:
        raise InvalidValue(f"the query has more than {_MAX_PAIRS} parameters") from None


def digest_of(key: bytes) -> bytes:
    """Return what to look `key` up by; one that is too long for any of ours has the digest of nothing."""
    return key_digest(key) if len(key) <= _MAX_KEY else b""


def identify(sent: bytes | None, known: Key | None, *, is_local_root: bool) -> Caller:
    """Return who sent the key `sent`, of which the store says `known`; without one only root here is anybody."""
    if sent is None:
        if is_local_root:
            return Caller(tenant=None)
        raise NoCredentials("rejecting request without Authorization header or key URL query parameter")
    if known is None:
        raise WrongKey("the key is not known here or was revoked: make one with `sandpost key create`")
    return Caller(tenant=known.tenant)
