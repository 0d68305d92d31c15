"""A certificate and its key reach the proxies as a pair that works, or not at all."""

import contextlib
import os
import shlex
import shutil
import socket
import ssl
import stat
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import msgspec
import pytest

from sandpost.config import host as host_file
from sandpost.config import load
from sandpost.model.errors import ConfigError
from sandpost.model.host import Host
from sandpost.supervisor import certificate


@pytest.fixture
def top() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="sandpost-tls-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def host(top: Path) -> Host:
    made = host_file.make(load({}), instance=13, image="", runtime_command="", cgroups=1, cores=2)
    (top / "run").mkdir()
    return msgspec.structs.replace(made, run_dir=str(top / "run"))


def pair(folder: Path, name: str, *more: str) -> tuple[str, str]:
    """Make a certificate that signs itself; return it and its key."""
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2",
         "-subj", f"/CN={name}", "-keyout", key, "-out", cert, *(more or ("-nodes",))],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    return str(cert), str(key)


def copies(host: Host) -> list[str]:
    return [Path(path).read_text() for path in certificate.paths(host)]


def test_a_pair_is_copied_for_the_proxies_alone_and_replaced(top: Path, host: Host) -> None:
    for name in ("one", "two"):
        cert, key = pair(top, name)
        certificate.copy(host, cert, key)
        assert copies(host) == [Path(cert).read_text(), Path(key).read_text()]
        for path in certificate.paths(host):
            found = os.lstat(path)
            assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (
                0o400, host.users.proxy, host.users.gid,
            )  # fmt: skip


@pytest.mark.parametrize("fault", ["no-certificate", "no-key", "another-key", "passphrase", "absent", "folder"])
def test_a_pair_that_is_no_good_is_told_and_the_former_copies_stay(top: Path, host: Host, fault: str) -> None:
    cert, key = pair(top, "good")
    certificate.copy(host, cert, key)
    before = copies(host)
    bad_cert, bad_key = pair(top, "bad", *(("-passout", "pass:secret") if fault == "passphrase" else ()))
    if fault == "no-certificate":
        Path(bad_cert).write_text("no certificate at all\n")
    elif fault == "no-key":
        Path(bad_key).write_bytes(b"")
    elif fault == "another-key":
        bad_key = key
    elif fault == "absent":
        os.unlink(bad_key)
    elif fault == "folder":
        os.unlink(bad_cert)
        os.mkdir(bad_cert)
    with pytest.raises(ConfigError) as told:
        certificate.copy(host, bad_cert, bad_key)
    assert "listen.tls_cert" in told.value.message
    assert bad_cert in told.value.message or bad_key in told.value.message
    assert copies(host) == before


class Front:
    """A listener that speaks TLS with a pair, and answers whatever it is asked."""

    def __init__(self, cert: str, key: str) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        self._sock = context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True)
        self.port: int = self._sock.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        # One call: a client that does not believe breaks off.
        with contextlib.suppress(OSError), self._sock.accept()[0] as sock:
            sock.recv(65536)
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nwell")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Wakes `accept`, if nobody came.
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join(10)
        self._sock.close()


def ask(host: Host, cert: str, key: str) -> tuple[str, str]:
    """Serve with a pair; return curl's options for it, and what curl then gets."""
    with Front(cert, key) as front:
        listening = msgspec.structs.replace(host, listen_port=front.port, tls_cert=cert, tls_key=key)
        options, name = certificate.curl(listening, cert, "127.0.0.1")
        command = ["curl", "-sS", "--max-time", "10", *shlex.split(options), f"https://{name}:{front.port}/"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return options.replace(str(front.port), "PORT"), done.stdout or done.stderr


@pytest.mark.parametrize(
    ("subject", "names", "elsewhere"),
    [
        ("/CN=x", "IP:127.0.0.1", ""),
        ("/CN=x", "DNS:*.sandpost.example,DNS:other.example", "www.sandpost.example"),
        ("/CN=sandpost.example", "", "sandpost.example"),
    ],
)
def test_curl_is_told_what_it_needs_to_believe_a_certificate(
    top: Path, host: Host, monkeypatch: pytest.MonkeyPatch, subject: str, names: str, elsewhere: str
) -> None:
    for variable in ("CURL_CA_BUNDLE", "SSL_CERT_DIR"):
        monkeypatch.delenv(variable, raising=False)
    folder = top / "with a space"
    folder.mkdir()
    more = ("-nodes", "-subj", subject, *(("-addext", f"subjectAltName={names}") if names else ()))
    cert, key = pair(folder, "self", *more)
    towards = f"--connect-to {elsewhere}:PORT:127.0.0.1:PORT" if elsewhere else ""
    assert ask(host, cert, key) == (f"--cacert '{cert}' {towards}".strip(), "well")
    # Where the machine trusts it, the name alone may be missing.
    monkeypatch.setenv("SSL_CERT_FILE", cert)
    assert ask(host, cert, key) == (towards, "well")
