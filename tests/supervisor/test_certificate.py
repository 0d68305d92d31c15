"""A certificate and its key reach the proxies as a pair that works, or not at all."""

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

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
