"""A broker whose name means another address after a while is found there, by a writer that never stops."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.kafka import Cluster
from support.waiting import until

NAME = "kafka.test"
WRITER = """
import asyncio, sys
from sandpost.model.errors import BusError
from support.kafka_bed import batch, settings, writer

async def main():
    async with writer(settings(sys.argv[1], patience=60.0)) as bus:
        for number in range(10_000):
            bus.append([batch(number, 1)])
            while (await bus.kept()).get("s1") != number + 1:
                pass
            print(number, flush=True)
            await asyncio.sleep(0.05)

asyncio.run(main())
"""
"""Says each number that is kept."""


@pytest.mark.long
def test_a_broker_that_moves_to_another_address_under_its_name_is_found_there(tmp_path: Path) -> None:
    hosts, kept = tmp_path / "hosts", tmp_path / "kept"
    hosts.write_text(f"127.0.0.1 localhost {NAME}\n")
    cluster = Cluster(tmp_path)
    (broker,) = cluster.brokers
    broker.change(f"CLIENT://localhost:{broker.port}", f"CLIENT://{NAME}:{broker.port}")
    # Mounts of its own: no other process of this machine has these names.
    inside = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", inside, "sh", str(hosts), sys.executable, "-c", WRITER]
    with cluster, kept.open("wb") as out:
        process = subprocess.Popen([*command, f"{NAME}:{broker.port}"], stdout=out, cwd=Path(__file__).parents[1])
        try:

            def count() -> int:
                assert process.poll() is None
                return len(kept.read_bytes().splitlines())

            until(lambda: count() > 5, "numbers are kept", within=40)
            broker.stop()
            broker.change(f"CLIENT://127.0.0.1:{broker.port}", f"CLIENT://127.0.0.2:{broker.port}")
            # In place, as the file is mounted.
            hosts.write_text(f"127.0.0.1 localhost\n127.0.0.2 {NAME}\n")
            broker.start(wait=False)
            before = count()
            until(lambda: count() > before + 5, "numbers are kept at the other address", within=60)
        finally:
            process.kill()
            process.wait(10)
    assert kept.read_text().split() == [str(number) for number in range(len(kept.read_text().split()))]
