"""The operator's certificate and key: judged as a pair, then copied for the proxies, all or nothing.

What the proxies' copies are is what every worker that starts from now on needs: a pair that is no good must never
take the place of one that is.
"""

import os

from sandpost.kernel import files
from sandpost.model.errors import ConfigError
from sandpost.model.host import Host
from sandpost.supervisor import layout
from sandpost.supervisor.aside import Aside

_MOST = 1 << 20


def copy(host: Host, cert: str, key: str) -> None:
    """Copy the files `cert` and `key`, which root alone may read, to `paths` for the proxies and nobody else.

    Raises `ConfigError` with what to do, and changes nothing, if they cannot be read or are no pair.
    """
    texts = [_read(path) for path in (cert, key)]
    # In a fork: a supervisor needs no OpenSSL.
    Aside(lambda: _check(cert, key, *texts)).result()
    layout.folder(host.path("tls"), 0o700, host.users.proxy, host.users.gid)
    for text, target in zip(texts, paths(host), strict=True):
        files.replace(target, text, 0o400, (host.users.proxy, host.users.gid))


def paths(host: Host) -> tuple[str, str]:
    """Return where `copy` puts certificate and key."""
    return host.path("tls", "cert.pem"), host.path("tls", "key.pem")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_MOST)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}: check listen.tls_cert and listen.tls_key") from None


def _check(cert: str, key: str, cert_text: bytes, key_text: bytes) -> None:
    import ssl  # noqa: PLC0415  (in a fork, which ends with what it imported)

    held = [os.memfd_create("pem") for _ in range(2)]
    for fd, text in zip(held, (cert_text, key_text), strict=True):
        os.write(fd, text)
    try:
        # An empty passphrase: nobody is there to type one.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            f"/proc/self/fd/{held[0]}", f"/proc/self/fd/{held[1]}", password=""
        )
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"listen.tls_cert {cert} and listen.tls_key {key} cannot be used ({error}): they must be PEM, belong "
            "together, and the key must have no passphrase"
        ) from None
