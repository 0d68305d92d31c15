"""What a place on the machine means: addresses and ids that never overlap, and a host file that says so."""

from ipaddress import IPv4Network
from itertools import pairwise
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from sandpost.config import host as host_file
from sandpost.config import load
from sandpost.model.host import IDS_PER_SANDBOX, INSTANCES, Host, Kafka
from sandpost.model.host import load as load_host


def make(instance: int, **environ: str) -> Host:
    settings = load({f"SANDPOST_{name}": value for name, value in environ.items()})
    return host_file.make(
        settings, instance=instance, image="0" * 32, runtime_command="/usr/sbin/runc", cgroups=2, cores=4
    )


@given(st.integers(10, 22), st.integers(65536, 0x7E000000))
def test_installations_never_share_an_address_or_an_id(length: int, base: int) -> None:
    block = IPv4Network(f"10.0.0.0/{length}")
    ids: list[tuple[int, int]] = []
    networks = []
    for k in range(INSTANCES):
        host = make(k, NETWORK_BLOCK=str(block), UIDS_BASE=str(base), POOL_SIZE="1")
        own = (host.users.proxy, host.users.api, host.users.collector, host.users.gid)
        assert len(set(own)) == len(own)
        assert max(own) < host.sandbox_uids
        ids.append((min(own), host.slot_uid(host.slots - 1) + IDS_PER_SANDBOX))
        networks.append(IPv4Network(host.sandbox_network))
    for (_, end), (start, _) in pairwise(ids):
        assert end <= start
    assert ids[0][0] >= base
    assert ids[-1][1] < 1 << 31
    assert len(set(networks)) == INSTANCES
    assert all(network.subnet_of(block) for network in networks)
    assert sum(network.num_addresses for network in networks) == block.num_addresses


def test_the_host_file_says_what_the_settings_say(tmp_path: Path) -> None:
    host = make(13, LISTEN="[::1]:8000", LIMITS_DEADLINE="5s", WORKERS="3", LIMITS_PROGRAMS="7")
    assert (host.listen_host, host.listen_port, host.workers) == ("::1", 8000, 3)
    assert host.run_dir == "/run/sandpost/d"
    assert host.interface_prefix == "spd-"
    assert host.defaults.deadline == 5.0
    host = msgspec.structs.replace(host, run_dir=str(tmp_path))
    path = host_file.write(host)
    assert load_host(path) == host
    assert Path(path).stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in tmp_path.iterdir()] == ["host.json"]


def test_the_log_bus_is_local_or_the_kafka_that_is_set_and_its_password_is_not_in_the_host_file() -> None:
    assert make(0).kafka is None
    kept = make(0, LOGS_KEEP="1MiB", LOGS_KEEP_ALL="32MiB", LOGS_KEEP_FOR="2d")
    assert (kept.keep, kept.keep_all, kept.keep_for) == (1 << 20, 32 << 20, 172800)
    assert {"keep", "keep_all", "keep_for"} <= set(host_file.LIVE)
    host = make(
        0, LOGS_BUS="kafka", LOGS_KAFKA_BROKERS="k1:9092,k2:9094", LOGS_KAFKA_PORTS="9093", LOGS_KAFKA_TLS="on",
        LOGS_KAFKA_TLS_CA="/ca.pem", LOGS_KAFKA_SASL="SCRAM-SHA-512", LOGS_KAFKA_USER="me",
        LOGS_KAFKA_PASSWORD_FILE="/etc/password-of-kafka",
    )  # fmt: skip
    assert host.kafka == Kafka(
        brokers=["k1:9092", "k2:9094"], ports=[9092, 9093, 9094], topic="sandpost", create=True, partitions=16,
        replicas=0, compression="lz4", tls=True, tls_ca=True, tls_cert=False, sasl="SCRAM-SHA-512", user="me",
    )  # fmt: skip
    assert b"password-of-kafka" not in msgspec.json.encode(host)


def test_zero_means_as_the_machine_has_cores() -> None:
    host = make(0)
    assert (host.workers, host.parallel_starts) == (4, 5)


def test_no_secret_is_in_the_host_file(tmp_path: Path) -> None:
    host = msgspec.structs.replace(make(0, ADMIN_KEY="a-long-enough-key"), run_dir=str(tmp_path))
    assert "a-long-enough-key" not in Path(host_file.write(host)).read_text()


def test_a_running_installation_takes_up_what_can_change_and_nothing_else() -> None:
    old = make(3)
    new = make(4, LISTEN="127.0.0.1:9", POOL_SIZE="3", LIMITS_MEMORY="64MiB", WORKERS="9", HTTP_MAX_HEAD="16KiB")
    taken = host_file.take_up(old, new)
    assert (taken.pool_size, taken.defaults.memory, taken.max_head) == (3, 64 << 20, 16 << 10)
    for name in ("instance", "listen_port", "workers", "users", "sandbox_network", "run_dir", "image"):
        assert getattr(taken, name) == getattr(old, name)
