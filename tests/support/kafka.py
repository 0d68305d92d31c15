"""A real Apache Kafka for tests: one broker or three on loopback ports, in a folder of their own.

    with Cluster(tmp_path) as cluster:
        cluster.address  # what a client is told
        cluster.brokers[0].kill()
        cluster.brokers[0].start()

Each broker is a Java process of some 300 MB, up in about two seconds; it ends with the test's process, however that
ends. `scripts/install --kafka` brings Kafka and Java, once a machine.
"""

import base64
import contextlib
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

ROOT = Path(__file__).parents[2]
LIB = ROOT / ".tools" / "kafka" / "lib"
JAVA = ("java", "-Xmx256m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
UP_WITHIN = 60.0
"""Seconds; two are usual, on a machine whose processors are all in use it is more."""


@cache
def libraries() -> Path:
    """Return the folder of Kafka's jars; where there is none the test fails."""
    done = subprocess.run(
        [ROOT / "scripts" / "install", "--dev", "--kafka"], check=False, capture_output=True, text=True
    )
    if done.returncode != 0 or not LIB.is_dir():
        pytest.fail(f"there is no Kafka, and `scripts/install --kafka` did not bring one: {done.stderr[-2000:]}")
    return LIB


@dataclass(frozen=True)
class Secure:
    """TLS with SASL for clients: `pem` has key and certificate of the brokers; one user, by SCRAM-SHA-512."""

    pem: Path
    user: str
    password: str


def authority(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for localhost that is its own authority; return it, and it with its key for the brokers."""
    key, certificate, both = folder / "key.pem", folder / "cert.pem", folder / "broker.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key, "-out", certificate,
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    both.write_text(key.read_text() + certificate.read_text())
    return certificate, both


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Broker:
    """One process, broker and controller in one."""

    def __init__(self, folder: Path, node: int, port: int, properties: Mapping[str, str]) -> None:
        self.node = node
        self.port = port
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self._properties = folder / "server.properties"
        folder.mkdir()
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))

    def format(self, cluster_id: str, secure: Secure | None) -> None:
        command = [*JAVA, "-cp", f"{libraries()}/*", "kafka.tools.StorageTool", "format"]
        # Together: an id may begin with a dash.
        command += [f"--cluster-id={cluster_id}", "--config", str(self._properties)]
        if secure is not None:
            command += ["--add-scram", f"SCRAM-SHA-512=[name={secure.user},password={secure.password}]"]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=UP_WITHIN)
        assert done.returncode == 0, done.stdout + done.stderr

    def change(self, old: str, new: str) -> None:
        """Write `new` for `old` in its properties; it has them at its next start."""
        text = self._properties.read_text()
        assert old in text
        self._properties.write_text(text.replace(old, new))

    def start(self, *, wait: bool = True) -> None:
        """Start it, again after `kill` or `stop`; its data is what it was."""
        assert self.process is None
        log = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", f"-Dorg.slf4j.simpleLogger.logFile={self.folder}/log")
        # Its libraries unpack native code there, and leave it when they are killed.
        scratch = f"-Djava.io.tmpdir={self.folder}"
        command = ["setpriv", "--pdeathsig", "KILL", "--", *JAVA, scratch, *log]
        command += ["-cp", f"{libraries()}/*", "kafka.Kafka", str(self._properties)]
        with open(self.folder / "out", "ab") as out:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        if wait:
            self.wait_until_up()

    def wait_until_up(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + UP_WITHIN
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"the broker ended: {self.said()}"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        raise AssertionError(f"the broker is not up: {self.said()}")

    def said(self) -> str:
        texts = [(self.folder / name).read_text() for name in ("out", "log") if (self.folder / name).exists()]
        return "\n".join(texts)[-4000:]

    def kill(self) -> None:
        """End it as a crash does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order: it hands on what it leads."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Let it answer nothing, connections stay."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def _end(self, number: int) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(UP_WITHIN)
        finally:
            process.kill()
            process.wait()


class Cluster:
    """Brokers that are up when the block begins; nothing of them is left behind it."""

    def __init__(
        self,
        folder: Path,
        count: int = 1,
        *,
        secure: Secure | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder / f"kafka-{uuid.uuid4().hex[:8]}"
        self.folder.mkdir()
        ports = _free_ports(3 * count)
        nodes = range(1, count + 1)
        self.address = ",".join(f"localhost:{port}" for port in ports[:count])
        voters = ",".join(
            f"{node}@127.0.0.1:{port}" for node, port in zip(nodes, ports[count : 2 * count], strict=True)
        )
        self.inside = ",".join(f"127.0.0.1:{port}" for port in ports[2 * count :])
        """Where brokers speak with one another: no TLS, no password, and whoever comes is `User:ANONYMOUS`."""
        self.brokers = []
        for node, port, control, inside in zip(
            nodes, ports[:count], ports[count : 2 * count], ports[2 * count :], strict=True
        ):
            home = self.folder / str(node)
            settings = {
                "process.roles": "broker,controller",
                "node.id": str(node),
                "controller.quorum.voters": voters,
                "controller.listener.names": "CONTROLLER",
                "listeners": f"CLIENT://127.0.0.1:{port},INSIDE://127.0.0.1:{inside},CONTROLLER://127.0.0.1:{control}",
                "advertised.listeners": f"CLIENT://localhost:{port},INSIDE://127.0.0.1:{inside}",
                "listener.security.protocol.map": "CLIENT:"
                + ("PLAINTEXT" if secure is None else "SASL_SSL")
                + ",INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT",
                "inter.broker.listener.name": "INSIDE",
                "log.dirs": str(home / "data"),
                "auto.create.topics.enable": "false",
                "offsets.topic.replication.factor": "1",
                # A machine that is shared: few threads, little memory, quick to notice who is gone.
                "num.network.threads": "2",
                "num.io.threads": "2",
                "background.threads": "2",
                "log.cleaner.dedupe.buffer.size": str(4 << 20),
                "log.retention.check.interval.ms": "500",
                "log.initial.task.delay.ms": "500",
                "log.segment.delete.delay.ms": "100",
                "broker.session.timeout.ms": "3000",
                "broker.heartbeat.interval.ms": "500",
                "controlled.shutdown.enable": "true",
            }
            if secure is not None:
                settings |= {
                    "listener.name.client.ssl.keystore.type": "PEM",
                    "listener.name.client.ssl.keystore.location": str(secure.pem),
                    "listener.name.client.sasl.enabled.mechanisms": "SCRAM-SHA-512",
                    "listener.name.client.scram-sha-512.sasl.jaas.config": (
                        "org.apache.kafka.common.security.scram.ScramLoginModule required;"
                    ),
                }
            self.brokers.append(Broker(home, node, port, settings | dict(properties or {})))
        self._secure = secure

    def __enter__(self) -> Self:
        try:
            cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            for broker in self.brokers:
                broker.format(cluster_id, self._secure)
            for broker in self.brokers:
                broker.start(wait=False)
            for broker in self.brokers:
                broker.wait_until_up()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        for broker in self.brokers:
            broker.kill()
        shutil.rmtree(self.folder)
