"""HTTPS from .NET: who is trusted, and who is not."""

import http.server
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.running import image_root

from sandpost.image import recipe
from support.kafka import authority
from support.runtime import CSHARP, StartRuntime

PROGRAM = """#r "System.Net.Http.dll"
using System.Net.Http;
async (dynamic context) => await new HttpClient().GetStringAsync("https://localhost:%d/")
"""


class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def certified(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A server on this machine's loopback, and the certificate of its authority."""
    folder = tmp_path / "authority"
    folder.mkdir()
    certificate, both = authority(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1], certificate
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("trusted", [True, False])
def test_a_server_is_trusted_by_its_authority_alone(
    start_edge: StartRuntime, clr: str, tmp_path: Path, certified: tuple[int, Path], trusted: bool
) -> None:
    port, certificate = certified
    # As the image has the others.
    if trusted and clr == "coreclr":
        place = tmp_path / "0" / "upper" / "etc/ssl/certs"
        place.mkdir(parents=True)
        shutil.copyfile(certificate, place / "ca-certificates.crt")
    elif trusted:
        place = tmp_path / "0" / "upper" / recipe.MONO_AUTHORITIES
        place.mkdir(parents=True)
        asked = ["openssl", "x509", "-in", str(certificate), "-noout", "-subject_hash"]
        name = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
        shutil.copyfile(certificate, place / f"{name}.0")
    answer = start_edge().call(PROGRAM % port, kind=CSHARP)
    if trusted:
        assert (answer.status, answer.json) == (200, "hello")
    else:
        assert answer.status == 400
        assert ("CERTIFICATE_VERIFY_FAILED" if clr == "mono" else "UntrustedRoot") in answer.json["stack"]


def test_all_that_others_trust_are_trusted_by_net() -> None:
    bundle = Path(image_root(), "etc/ssl/certs/ca-certificates.crt").read_text()
    found = sorted(Path(image_root(), recipe.MONO_AUTHORITIES).iterdir())
    assert {path.read_text().strip() for path in found} == {
        f"-----BEGIN CERTIFICATE-----{one}".strip() for one in bundle.split("-----BEGIN CERTIFICATE-----")[1:]
    }
    for path in found[:3]:
        asked = ["openssl", "x509", "-in", str(path), "-noout", "-subject_hash"]
        said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
        assert path.name.partition(".")[0] == said
