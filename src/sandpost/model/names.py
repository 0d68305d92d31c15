"""The names of things, and what may be one. Nothing here normalises: a name is valid as it came or refused."""

import re
import secrets

from sandpost.model.errors import InvalidName, shown

RESERVED = frozenset({"api", "logs", "health", "metrics"})
"""First path segments that are the platform's own and therefore never tenants."""

BUILDER = "sandpost-modules"
"""The tenant in whose sandboxes the platform installs modules (`sandpost.modules`); nobody else sets it up."""

SYSTEM = ".system"
"""The stream of the platform's own records. No tenant's name begins with a dot."""

LONGEST_SET = 1536
"""Bytes of the text of a set of modules."""

_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)
_SANDBOX_ID = re.compile(r"[0-9a-f]{12}", re.ASCII)
_CODE_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SET = re.compile(r"[A-Za-z0-9@~][A-Za-z0-9@/._~+!=,-]*", re.ASCII)


def tenant_name(text: str) -> str:
    """Return `text` if it can name a tenant, else raise `InvalidName` (400) that says what may."""
    if _TENANT.fullmatch(text) is None:
        raise InvalidName(
            f"`{shown(text)}` cannot name a tenant: use 1 to 63 of a-z, 0-9, `_` and `-`, beginning with a letter or "
            "digit"
        )
    if text in RESERVED:
        raise InvalidName(f"`{text}` is reserved for the platform: choose another name for the tenant")
    return text


def settable_tenant(text: str) -> str:
    """Return `text` if it names a tenant that people set up, else raise `InvalidName`."""
    if tenant_name(text) == BUILDER:
        raise InvalidName(f"`{text}` is the platform's own tenant, in which it installs modules: choose another name")
    return text


def is_sandbox_id(text: str) -> bool:
    """Whether `text` has the form of `new_sandbox_id`'s results."""
    return _SANDBOX_ID.fullmatch(text) is not None


def is_code_hash(text: str) -> bool:
    """Whether `text` is a SHA-256 in lower-case hexadecimal."""
    return _CODE_HASH.fullmatch(text) is not None


def is_module_set(text: str) -> bool:
    """Whether `text` may be a set's (`model.choices`), empty for none: who does not read it may pass that on."""
    return not text or (len(text) <= LONGEST_SET and _SET.fullmatch(text) is not None)


def new_sandbox_id() -> str:
    """Make a sandbox id: 12 random hexadecimal digits, meaningless to whoever sees it inside."""
    return secrets.token_hex(6)
