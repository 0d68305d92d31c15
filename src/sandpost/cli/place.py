"""Finds the installation that a command speaks of, and makes a client for it."""

import os
import socket
from typing import TYPE_CHECKING

from sandpost.cli.exits import CannotReach, NotRunning
from sandpost.cli.options import Options
from sandpost.model.errors import ConfigError, SandpostError
from sandpost.model.host import Host, load

if TYPE_CHECKING:
    from sandpost.client import Client
    from sandpost.config import Settings


def settings(options: Options) -> "Settings":
    """Return this machine's settings as the next `serve` would take them.

    For root, who alone may serve, files of secrets are read and judged too; others only look, and need not read them.
    """
    from sandpost.config import load as load_settings  # noqa: PLC0415 - only commands on the host itself need them

    flags = ["--state-dir", options.state_dir] if options.state_dir else []
    return load_settings(os.environ, flags, options.config or None, secrets=os.geteuid() == 0)


def installation(options: Options) -> Host:
    """Return the running installation, or raise `NotRunning`."""
    from sandpost.cli.which import which  # noqa: PLC0415 - the same
    from sandpost.config.claims import find  # noqa: PLC0415 - the same

    meant = which(options)
    instance = find(meant.run_dir, meant.state_dir)
    if instance is not None:
        try:
            return load(os.path.join(meant.run_dir, f"{instance:x}", "host.json"))
        except FileNotFoundError:
            pass
    if meant.doubt:
        raise ConfigError(meant.doubt)
    raise NotRunning(
        f"no installation of {meant.state_dir} is running here: start it with scripts/serve, or name another by "
        "--state-dir or --url"
    )


def management(options: Options) -> "Client":
    """Return a client of the management routes: by URL and key, else by this machine's socket."""
    from sandpost.client import Client  # noqa: PLC0415 - takes longer than the rest of a start

    key, url = options.key(), options.address()
    if url:
        return Client(url=url, key=_needed(key), authorities=options.cacert)
    host = installation(options)
    if os.geteuid() != 0:
        # The socket is root's and the platform's own; everybody else comes in by the front door.
        return _by_listener(host, _needed(key), options)
    _check_listens(host)
    return Client(socket=host.api_socket, key=key)


def front(options: Options) -> "Client":
    """Return a client of runs, which the proxies take: always by URL and key."""
    from sandpost.client import Client  # noqa: PLC0415 - the same

    key, url = _needed(options.key()), options.address()
    if url:
        return Client(url=url, key=key, authorities=options.cacert)
    return _by_listener(installation(options), key, options)


def local_url(host: Host) -> str:
    """Return the URL of the host's listener as this machine reaches it."""
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.listen_host, host.listen_host)
    scheme = "https" if host.tls_cert else "http"
    return f"{scheme}://[{name}]:{host.listen_port}" if ":" in name else f"{scheme}://{name}:{host.listen_port}"


def _by_listener(host: Host, key: str, options: Options) -> "Client":
    from sandpost.client import Client  # noqa: PLC0415 - the same

    # Only root may look into the folder: for others the listener's certificate is a stranger's.
    own = host.tls_cert if host.tls_cert and os.access(host.tls_cert, os.R_OK) else ""
    return Client(url=local_url(host), key=key, certificate=own, authorities=options.cacert)


def _needed(key: str | None) -> str:
    if key is None:
        raise ConfigError(
            "this needs a key: put it into the environment as SANDPOST_KEY, or into a file of mode 0600 and say "
            "--key-file (on the host, root makes one with `sandpost key create`)"
        )
    return key


def answers(host: Host) -> bool:
    """Whether the installation's supervisor listens."""
    return _answers(host.supervisor_socket, socket.SOCK_SEQPACKET)


def _check_listens(host: Host) -> None:
    """Tell a stopped installation from one whose api is away."""
    if _answers(host.api_socket, socket.SOCK_STREAM):
        return
    if answers(host):
        raise CannotReach("the api does not answer, the rest runs: it is started again by itself, try in a second")
    raise absence(host)


def absence(host: Host) -> SandpostError:
    """Return what to say where no supervisor listens: it was stopped, or it was killed and its parts live on."""
    from sandpost.supervisor.family import living  # noqa: PLC0415 - only where something is wrong

    if parts := len(living(host.path("children.json"))):
        return CannotReach(
            f"the supervisor of {host.state_dir} was killed, {parts} of its parts live on with their sandboxes: start "
            "it with scripts/serve, which adopts them; then it can be stopped or restarted"
        )
    return NotRunning(f"the installation of {host.state_dir} is not running: start it with scripts/serve")


def _answers(path: str, kind: int) -> bool:
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.settimeout(2)
        try:
            sock.connect(path)
        except OSError:
            return False
        return True
