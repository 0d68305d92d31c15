"""What the `kafka` driver is told: which brokers, which topic, how to speak to them."""

import ssl
from dataclasses import dataclass, field
from typing import Literal

from sandpost.model.host import Compression, Mechanism


@dataclass(frozen=True, kw_only=True)
class KafkaSettings:
    """How to reach and use a Kafka, version 3 or 4.

    `servers`: `host:port,..`, one that answers is enough to find the others.
    `topic`: records lie there; `<topic>.index` is beside it. `create`: make them if they are missing, with what
    follows.
    `partitions`: streams are spread over so many; a topic may have more, never fewer, and this number is never changed
    for a topic, since a stream's records would then lie in two places.
    `replicas`: of each partition; 0 is as many as there are brokers, 3 at most. With 3 two of them must have a record
    before it is kept.
    `retention_ms`, `retention_bytes` (of each partition; -1 is no bound): how long the topic keeps what.
    `tls`: speak TLS; `tls_ca` (a PEM file; empty: the system's authorities), `tls_cert` and `tls_key` (if the brokers
    ask for one).
    `sasl`: the mechanism, none if empty; then `user` and `password`.
    `patience`: seconds without an answer after which the bus is said to be away.
    `memory`: bytes of records that a writer takes before they are kept.
    """

    servers: str
    topic: str = "sandpost"
    create: bool = True
    partitions: int = 16
    replicas: int = 0
    retention_ms: int = 7 * 24 * 3600 * 1000
    retention_bytes: int = -1
    compression: Compression = "lz4"
    tls: bool = False
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    sasl: Mechanism | Literal[""] = ""
    user: str = ""
    password: str = field(default="", repr=False)
    patience: float = 10.0
    memory: int = 8 << 20

    @property
    def index_topic(self) -> str:
        """Where the index lies."""
        return f"{self.topic}.index"

    def security(self) -> dict[str, object]:
        """Return aiokafka's arguments for TLS and SASL. Raises `OSError` if a certificate file cannot be read or is
        none."""
        context = None
        if self.tls:
            context = ssl.create_default_context(cafile=self.tls_ca or None)
            if self.tls_cert:
                # An empty passphrase: nobody is there to type one.
                context.load_cert_chain(self.tls_cert, self.tls_key or None, password="")
        protocol = ("SASL_" if self.sasl else "") + ("SSL" if self.tls else "PLAINTEXT")
        return {
            "security_protocol": protocol,
            "ssl_context": context,
            "sasl_mechanism": self.sasl or "PLAIN",
            "sasl_plain_username": self.user or None,
            "sasl_plain_password": self.password or None,
        }
