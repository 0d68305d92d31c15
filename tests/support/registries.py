"""Real registry servers for tests: verdaccio for npm, pypiserver for PyPI, in a place of a lab (`support.lab`).

Verdaccio and the few real packages that are served come once by npm and pip, outside of any lab, into `.tools`; all else
is made here, good or bad. Neither server knows any other one.
"""

import base64
import contextlib
import gzip
import hashlib
import http.client
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from sandpost.config import DEFAULTS
from sandpost.image import recipe
from sandpost.image.build import ensure
from support.lab import Place

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".tools"
VERDACCIO = Path(__file__).with_name("verdaccio")
NPM_PORT, PYPI_PORT = 4873, 4874
NPM_PACKAGES = ("lodash@4.17.21", "debug@4.4.1", "ms@2.1.3")
PYPI_PACKAGES = (
    "anyio==4.12.1", "certifi==2026.10.18", "h11==0.16.0", "httpcore==1.0.9", "httpx==0.28.1", "idna==3.20",
    "typing_extensions==4.16.0",
)  # fmt: skip
"""Of real packages, with all that they need."""
_FETCH = 300.0
_UP = 30.0
_CONFIG = """\
storage: {folder}/storage
auth: {{htpasswd: {{file: {folder}/htpasswd, max_users: -1}}}}
uplinks: {{}}
packages: {{'**': {{access: $all, publish: $all, unpublish: $all}}}}
listen: {address}:{port}
log: {{type: stdout, format: json, level: error}}
web: {{enable: false}}
max_body_size: 100mb
server: {{keepAliveTimeout: 60}}
"""


@cache
def verdaccio() -> Path:
    """Return the program verdaccio, as `verdaccio/package-lock.json` pins it."""
    sources = [VERDACCIO / name for name in ("package.json", "package-lock.json")]

    def fill(folder: Path) -> None:
        for path in sources:
            shutil.copy(path, folder)
        _npm(folder, "ci", "--ignore-scripts", "--no-audit", "--no-fund")

    made = _once("verdaccio-" + _digest(b"".join(path.read_bytes() for path in sources)), fill)
    return made / "node_modules" / "verdaccio" / "bin" / "verdaccio"


@cache
def real_packages() -> Path:
    """Return a folder of the real packages' archives."""

    def fill(folder: Path) -> None:
        _npm(folder, "pack", *NPM_PACKAGES)
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(folder)]
        subprocess.run([*command, *PYPI_PACKAGES], check=True, timeout=_FETCH)

    return _once("packages-" + _digest("\n".join((*NPM_PACKAGES, *PYPI_PACKAGES)).encode()), fill)


def _once(name: str, fill: Callable[[Path], None]) -> Path:
    """Return the folder `name`, filled by whoever comes first; one that was not filled to its end is none."""
    made = TOOLS / "registries" / name
    made.parent.mkdir(parents=True, exist_ok=True)
    if not made.is_dir():
        part = Path(tempfile.mkdtemp(prefix=".part-", dir=made.parent))
        try:
            fill(part)
            with contextlib.suppress(OSError):
                part.rename(made)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return made


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def _root() -> Path:
    """Return the root of this release's image."""
    return Path(DEFAULTS["image_dir"], ensure(DEFAULTS["image_dir"], print), "rootfs")


def _npm(folder: Path, *arguments: str) -> None:
    npm = _root() / recipe.NPM / "bin/npm-cli.js"
    node = _root() / recipe.NODE
    subprocess.run([node, npm, *arguments], cwd=folder, check=True, timeout=_FETCH, stdout=subprocess.DEVNULL)


# --- the servers --------------------------------------------------------------------------------------------------


class Registry:
    """One server; `start` and `stop` as often as wanted."""

    def __init__(self, place: Place, address: str, port: int, command: Sequence[str | Path]) -> None:
        self.place, self.address, self.port = place, address, port
        self._command = [str(part) for part in command]
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `close`)

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = self.place.start(self._command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        deadline = time.monotonic() + _UP
        while True:
            with contextlib.suppress(OSError):
                self.ask("GET", "/")
                return
            assert self._process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def close(self) -> None:
        """Kill it for good."""
        self.stop()
        self._log.close()

    def said(self) -> str:
        """What it printed."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def ask(self, method: str, path: str, body: Any = None) -> bytes:
        """Make a request, from the place it is in."""

        def work() -> bytes:
            with contextlib.closing(http.client.HTTPConnection(self.address, self.port, timeout=20)) as connection:
                data = None if body is None else json.dumps(body)
                connection.request(method, path, data, {"content-type": "application/json"})
                with connection.getresponse() as answer:
                    read = answer.read()
                    assert method == "GET" or answer.status < 300, read
                    return read

        return self.place.run(work)


class Npm(Registry):
    """A verdaccio without packages."""

    def __init__(self, place: Place, address: str, folder: Path) -> None:
        folder.mkdir()
        config = folder / "config.yaml"
        config.write_text(_CONFIG.format(folder=folder, address=address, port=NPM_PORT))
        super().__init__(place, address, NPM_PORT, [_root() / recipe.NODE, verdaccio(), "--config", config])

    def publish(self, name: str, version: str, archive: bytes, manifest: Mapping[str, Any] | None = None) -> None:
        """Publish an archive, whatever is in it, as npm would."""
        file = f"{name.rpartition('/')[2]}-{version}.tgz"
        integrity = "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode()
        dist = {
            "shasum": hashlib.sha1(archive).hexdigest(),
            "integrity": integrity,
            "tarball": f"http://{self.address}:{self.port}/{name}/-/{file}",
        }
        one = {"name": name, "version": version, "_id": f"{name}@{version}", "dist": dist, **(manifest or {})}
        data = base64.b64encode(archive).decode()
        attachment = {"content_type": "application/octet-stream", "data": data, "length": len(archive)}
        document = {
            "_id": name, "name": name, "dist-tags": {"latest": version}, "versions": {version: one},
            "_attachments": {file: attachment},
        }  # fmt: skip
        self.ask("PUT", f"/{name.replace('/', '%2f')}", document)

    def publish_real(self) -> None:
        """Publish the real packages."""
        for path in sorted(real_packages().glob("*.tgz")):
            archive = path.read_bytes()
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                file = tar.extractfile("package/package.json")
                assert file is not None
                manifest = json.loads(file.read())
            self.publish(manifest["name"], manifest["version"], archive, manifest)


class Pypi(Registry):
    """A pypiserver over the folder `wheels`."""

    def __init__(self, place: Place, address: str, folder: Path) -> None:
        self.wheels = folder
        folder.mkdir()
        command = [sys.executable, "-m", "pypiserver", "run", "-i", address, "-p", str(PYPI_PORT)]
        command += ["-a", ".", "-P", ".", "--disable-fallback", "--hash-algo", "sha256", str(folder)]
        super().__init__(place, address, PYPI_PORT, command)

    def publish_real(self) -> None:
        """Publish the real packages."""
        for path in real_packages().glob("*.whl"):
            shutil.copy(path, self.wheels)

    def publish(self, file: str, archive: bytes) -> None:
        """Publish an archive under its file's name."""
        (self.wheels / file).write_bytes(archive)


# --- packages -----------------------------------------------------------------------------------------------------


def npm_archive(files: Mapping[str, str | bytes], links: Mapping[str, str] | None = None) -> bytes:
    """Return a package's archive of `files` by their paths in it, and symbolic links."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(f"package/{name}")
            info.size, info.mode = len(data), 0o644
            tar.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(f"package/{name}")
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return made.getvalue()


def npm_package(name: str, version: str, **manifest: Any) -> tuple[bytes, dict[str, Any]]:
    """Return a small package that exports its own name, and its manifest."""
    whole = {"name": name, "version": version, "main": "index.js", **manifest}
    return npm_archive({"package.json": json.dumps(whole), "index.js": f"module.exports = {name!r};"}), whole


def zeros(name: str, size: int) -> bytes:
    """Return a package of one file of `size` zeros, whose archive is a thousandth as long."""
    info = tarfile.TarInfo("package/zeros.bin")
    info.size = size
    made = io.BytesIO()
    with gzip.GzipFile(fileobj=made, mode="wb", compresslevel=1) as file:
        manifest = tarfile.TarInfo("package/package.json")
        text = json.dumps({"name": name, "version": "1.0.0"}).encode()
        manifest.size = len(text)
        file.write(manifest.tobuf() + text + bytes(512 - len(text)) + info.tobuf())
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
        file.write(bytes(1024))
    return made.getvalue()


def wheel(name: str, version: str, files: Mapping[str, str], requires: Sequence[str] = ()) -> tuple[str, bytes]:
    """Return a wheel's file name and bytes."""
    info = f"{name}-{version}.dist-info"
    head = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"]
    head += [f"Requires-Dist: {one}\n" for one in requires]
    whole = {
        **files,
        f"{info}/METADATA": "".join(head),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    whole[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*whole, f"{info}/RECORD"))
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for path, text in whole.items():
            archive.writestr(path, text)
    return f"{name}-{version}-py3-none-any.whl", made.getvalue()


@contextlib.contextmanager
def running(registry: Registry) -> Iterator[None]:
    """Start a registry, and end it for good."""
    try:
        registry.start()
        yield
    finally:
        registry.close()
