"""A collector's place taken: a process of the collector's user that writes to the local bus what a test says."""

import asyncio
import json
import os
import subprocess
import sys
import time
from typing import Any, Self

from sandpost.bus.contract import Batch
from sandpost.bus.local import LocalWriter
from sandpost.model.host import Host


def record(number: int, **fields: Any) -> dict[str, Any]:
    """Return a record as the collector makes them, which says its number."""
    return {
        "name": "sandpost",
        "hostname": "here",
        "pid": 7,
        "level": 30,
        "time": "2026-01-01T00:00:00.000Z",
        "msg": f"line {number}",
        "v": 0,
        "container": "acme",
        "sandbox": True,
        "n": number,
        **fields,
    }


class Feed:
    """Writes below the host's folder of logs."""

    def __init__(self, host: Host) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, host.logs_dir, str(host.users.collector), str(host.users.gid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def put(self, stream: str, records: list[dict[str, Any]], at: float | None = None) -> None:
        """Write a batch, and wait until it is kept."""
        self._end += 1
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        told = {"stream": stream, "end": self._end, "at": time.time() if at is None else at, "records": records}
        self._process.stdin.write(json.dumps(told).encode() + b"\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == b"kept\n"

    def numbers(self, stream: str, *numbers: int, **fields: Any) -> None:
        """Write a batch of numbered records."""
        self.put(stream, [record(number, **fields) for number in numbers])

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()


async def _serve(folder: str) -> None:
    writer = LocalWriter(folder)
    await writer.open()
    while told := await asyncio.to_thread(sys.stdin.buffer.readline):
        what = json.loads(told)
        lines = b"".join(
            json.dumps(one, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" for one in what["records"]
        )
        writer.append(
            [
                Batch(
                    stream=what["stream"],
                    source="feed",
                    end=what["end"],
                    lines=lines,
                    count=len(what["records"]),
                    time=what["at"],
                )
            ]
        )
        while (await writer.kept()).get("feed") != what["end"]:
            pass
        print("kept", flush=True)
    await writer.close()


if __name__ == "__main__":
    path, uid, gid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    asyncio.run(_serve(path))
