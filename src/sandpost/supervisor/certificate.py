"""The operator's certificate and key: judged as a pair, then copied for the proxies, all or nothing.

What the proxies' copies are is what every worker that starts from now on needs: a pair that is no good must never
take the place of one that is.
"""

import contextlib
import os
import shlex
from typing import TYPE_CHECKING, Any

from sandpost.kernel import files
from sandpost.model.errors import ConfigError
from sandpost.model.host import Host
from sandpost.supervisor.aside import Aside

if TYPE_CHECKING:
    import ssl

_MOST = 1 << 20


def copy(host: Host, cert: str, key: str) -> None:
    """Copy the files `cert` and `key`, which root alone may read, to `paths` for the proxies and nobody else.

    Raises `ConfigError` with what to do, and changes nothing, if they cannot be read or are no pair.
    """
    texts = [_read(path) for path in (cert, key)]
    # In a fork: a supervisor needs no OpenSSL.
    Aside(lambda: _check(cert, key, *texts)).result()
    files.folder(host.path("tls"), 0o700, host.users.proxy, host.users.gid)
    for text, target in zip(texts, paths(host), strict=True):
        files.replace(target, text, 0o400, (host.users.proxy, host.users.gid))


def paths(host: Host) -> tuple[str, str]:
    """Return where `copy` puts certificate and key."""
    return host.path("tls", "cert.pem"), host.path("tls", "key.pem")


def curl(host: Host, cert: str, address: str) -> tuple[str, str]:
    """Return the options with which `curl` on this machine believes the proxies' certificate, and whom it calls.

    `cert`: the file to trust, as the operator knows it; `address`: where the listener is reached from here, as it
    stands in a URL, and who is called unless the certificate is for another name.
    """
    told = Aside(lambda: "\n".join(_curl(host, cert, address))).result() or "\n"
    options, _, name = told.partition("\n")
    return options, name


def _curl(host: Host, cert: str, address: str) -> tuple[str, str]:
    import ssl  # noqa: PLC0415  (in a fork, which ends with what it imported)

    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(host.tls_cert, host.tls_key)
    # No stricter than curl, which Python's own default is from 3.13 on.
    trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusted.load_default_certs()
    options: list[str] = []
    if (seen := _believed(server, trusted)) is None:
        options += ["--cacert", cert]
        # As curl does: what is named is trusted, whoever signed it.
        trusted.load_verify_locations(host.tls_cert)
        trusted.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        seen = _believed(server, trusted)
    names = [] if seen is None or _believed(server, trusted, address.strip("[]")) else _names(seen)
    if not names:
        return shlex.join(options), address
    # A wildcard stands for any one label.
    name = names[0].replace("*", "www", 1)
    return shlex.join([*options, "--connect-to", f"{name}:{host.listen_port}:{address}:{host.listen_port}"]), name


def _believed(server: "ssl.SSLContext", client: "ssl.SSLContext", name: str = "") -> dict[str, Any] | None:
    """Let `client` meet `server` in memory; return the certificate if it is believed (for `name`), else None."""
    import ssl  # noqa: PLC0415  (in a fork)

    client.check_hostname = bool(name)
    towards, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(back, towards, server_hostname=name or None)
    theirs = server.wrap_bio(towards, back, server_side=True)
    # TLS 1.3 takes two turns, 1.2 three.
    for _ in range(4):
        try:
            ours.do_handshake()
            return ours.getpeercert()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            return None
        with contextlib.suppress(ssl.SSLWantReadError):
            theirs.do_handshake()
    return None


def _names(cert: dict[str, Any]) -> list[str]:
    """Return the names that a certificate (of `getpeercert`) is for; its subject's if it has no other."""
    subject = [value for part in cert["subject"] for kind, value in part if kind == "commonName"]
    return [value for kind, value in cert.get("subjectAltName", ()) if kind == "DNS"] or subject


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
