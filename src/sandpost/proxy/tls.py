"""TLS towards clients, from the files that the settings name."""

import ssl

from sandpost.model.errors import ConfigError
from sandpost.model.host import Host


def context(host: Host) -> ssl.SSLContext | None:
    """Return the server's context, None if TLS is not configured; `ConfigError` if the files are no good."""
    if not host.tls_cert:
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    try:
        made.load_cert_chain(host.tls_cert, host.tls_key or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"listen.tls_cert {host.tls_cert} and listen.tls_key cannot be used ({error}): "
            "they must be PEM, belong together and be readable for the proxy's user"
        ) from None
    return made
