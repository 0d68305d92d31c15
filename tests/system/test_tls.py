"""TLS on a really started platform, with a certificate of its own making."""

import functools
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.command import as_nobody
from support.http import exchange
from support.machine import traces
from support.platform import SANDPOST, Platform

TRUSTED = "trusted.pem"
HELLO = 'return function (cb) { cb(null, "Hello, world!") }'


def certificate(folder: Path, serial: int) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1 that signs itself; return it and its key, each replaced in one step."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    new_cert, new_key = folder / "new-cert.pem", folder / "new-key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=sandpost test", "-addext", "subjectAltName=IP:127.0.0.1", "-set_serial", str(serial),
         "-keyout", str(new_key), "-out", str(new_cert)],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    new_key.chmod(0o600)
    # What the tests' clients trust: every one that was made.
    with (folder / TRUSTED).open("a") as trusted:
        trusted.write(new_cert.read_text())
    new_cert.rename(cert)
    new_key.rename(key)
    return cert, key


class Secure(Platform):
    """A platform whose listener speaks TLS."""

    def wait_ready(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self.process is not None
            assert self.process.poll() is None, self.output()
            try:
                if b" 200 " in self.ask("GET", "/health").partition(b"\r\n")[0]:
                    return
            except OSError:
                time.sleep(0.05)
        raise AssertionError(f"not ready:\n{self.output()}")

    @property
    def trusted(self) -> Path:
        """The file of certificates that its clients trust."""
        return Path(self.settings["listen_tls_cert"]).with_name(TRUSTED)

    def connect(self, **versions: ssl.TLSVersion) -> ssl.SSLSocket:
        """Connect as a client that trusts this one certificate, and checks the name."""
        context = ssl.create_default_context(cafile=self.trusted)
        for name, version in versions.items():
            setattr(context, name, version)
        return context.wrap_socket(socket.create_connection(("127.0.0.1", self.port), 10), server_hostname="127.0.0.1")

    def serial(self) -> int:
        """Serial number of the certificate that the listener shows."""
        with self.connect() as sock:
            found = sock.getpeercert()
        assert found is not None
        return int(str(found["serialNumber"]), 16)

    def ask(self, method: str, target: str, body: str = "") -> bytes:
        """Make one request; return the whole answer."""
        with self.connect() as sock:
            head = f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
            sock.sendall(head.encode() + body.encode())
            parts = []
            while part := sock.recv(65536):
                parts.append(part)
            return b"".join(parts)

    def hello(self) -> None:
        """Make a call that must be served."""
        assert self.ask("POST", f"/acme?key={self.key}", HELLO).endswith(b'"Hello, world!"')


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    """A platform behind TLS. Afterwards nothing is left of it."""
    cert, key = certificate(tmp_path_factory.mktemp("tls"), 1001)
    with Secure(pool_size="1", listen_tls_cert=str(cert), listen_tls_key=str(key)) as running:
        host = running.host
        yield running
    assert not (left := traces(host)), left


def test_a_call_over_tls_is_served_and_curl_believes_it(secure: Secure) -> None:
    secure.hello()
    url = f"https://127.0.0.1:{secure.port}/acme?key={secure.key}"
    command = ["curl", "-sS", "--cacert", str(secure.trusted), "-d", HELLO, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == '"Hello, world!"'
    # And one that does not know it does not.
    done = subprocess.run(["curl", "-sS", "-d", HELLO, url], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 60


def test_the_first_line_that_serve_prints_works(secure: Secure) -> None:
    deadline = time.monotonic() + 20
    # The listener may answer a moment before it is said.
    while not (lines := [line for line in secure.output().splitlines() if line.strip().startswith("curl ")]):
        assert time.monotonic() < deadline, secure.output()
        time.sleep(0.05)
    [line] = lines
    assert f'"https://127.0.0.1:{secure.port}/acme?key=' in line
    done = subprocess.run(
        ["sh", "-c", line.replace("YOUR_KEY", secure.key)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout == '"Hello, world!"', done.stderr


def test_the_command_line_finds_its_way_through_tls(secure: Secure) -> None:
    environment = {**secure.environment(), "SANDPOST_KEY": secure.key}
    for command in (["run", "-", "-t", "acme"], ["status"]):
        done = subprocess.run(
            [SANDPOST, *command], env=environment, input=HELLO, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr


def test_another_user_of_the_host_is_told_how_to_trust_the_listener(secure: Secure) -> None:
    environment = {**secure.environment(), "SANDPOST_KEY": secure.key}
    trusted = secure.state_dir.with_suffix(".pem")

    def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [SANDPOST, *arguments], env=environment, input=HELLO, capture_output=True, text=True, timeout=60,
            check=False, preexec_fn=functools.partial(as_nobody, str(trusted)),
        )  # fmt: skip

    try:
        trusted.write_bytes(secure.trusted.read_bytes())
        for arguments in (("status",), ("run", "-", "-t", "acme")):
            done = command(*arguments)
            assert (done.returncode, done.stdout) == (1, "")
            assert "not trusted here" in done.stderr
            assert "--cacert FILE" in done.stderr
            done = command(*arguments, "--cacert", str(trusted))
            assert done.returncode == 0, done.stderr
        # Believed for the names that they carry alone.
        done = command("status", "--cacert", str(trusted), "--url", f"https://localhost:{secure.port}")
        assert (done.returncode, done.stdout) == (1, "")
        trusted.write_text("no certificate")
        assert command("status", "--cacert", str(trusted)).returncode == 2
    finally:
        trusted.unlink()


def test_what_does_not_speak_tls_gets_nothing_and_harms_nobody(secure: Secure) -> None:
    plain = f"POST /acme?key={secure.key} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(HELLO)}\r\n\r\n{HELLO}"
    for data in (plain.encode(), b"\0" * 100, b"\x16\x03\x01\xff\xff" + b"x" * 1000):
        try:
            seen = exchange(secure.port, data)
        except ConnectionResetError:
            seen = b""
        assert b"HTTP/1.1 200" not in seen
        secure.hello()


def test_old_versions_are_refused(secure: Secure) -> None:
    with secure.connect() as sock:
        assert sock.version() == "TLSv1.3"
    with secure.connect(maximum_version=ssl.TLSVersion.TLSv1_2) as sock:
        assert sock.version() == "TLSv1.2"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with (
        pytest.raises((ssl.SSLError, ConnectionResetError)),
        socket.create_connection(("127.0.0.1", secure.port), 10) as raw,
    ):
        context.wrap_socket(raw, server_hostname="127.0.0.1")


def test_a_slow_handshake_keeps_nobody_waiting(secure: Secure) -> None:
    slow = [socket.create_connection(("127.0.0.1", secure.port), 10) for _ in range(50)]
    try:
        began = time.monotonic()
        secure.hello()
        assert time.monotonic() - began < 5
    finally:
        for sock in slow:
            sock.close()


def test_a_new_certificate_is_taken_up_by_sighup_and_a_bad_one_is_not(secure: Secure) -> None:
    folder = Path(secure.settings["listen_tls_cert"]).parent
    before = secure.serial()
    certificate(folder, before + 1)
    assert secure.process is not None
    os.kill(secure.process.pid, signal.SIGHUP)
    deadline = time.monotonic() + 5
    while secure.serial() != before + 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    secure.hello()
    good = (folder / "cert.pem").read_text()
    (folder / "cert.pem").write_text("no certificate at all\n")
    os.kill(secure.process.pid, signal.SIGHUP)
    time.sleep(1)
    assert secure.serial() == before + 1
    secure.hello()
    assert "listen.tls_cert" in secure.output()
    # Nor does whoever starts from now on get it.
    for pid in (former := secure.pids("proxy")):
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while len(set(secure.pids("proxy")) - set(former)) < len(former):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    secure.wait_ready()
    assert secure.serial() == before + 1
    secure.hello()
    (folder / "cert.pem").write_text(good)
