"""A tenant whose program numbers its lines, somebody who follows them, and parts that are killed meanwhile."""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.platform import Platform
from support.waiting import until

NUMBERED = b"let n = 0; return function (cb) { console.log('n ' + n); cb(null, n++) }"


def records(running: Platform, stream: str, query: str = "") -> list[dict[str, Any]]:
    """Return what is kept of a stream now."""
    answer = running.api("GET", f"/logs/{stream}?offset=0&follow=false{query}")
    assert answer.status == 200, answer.body
    found: list[dict[str, Any]] = [json.loads(line) for line in answer.body.splitlines()]
    assert found.pop()["end"] == "told"
    return found


def texts(running: Platform, stream: str, query: str = "") -> list[str]:
    """Return the texts of what is kept of a stream now."""
    return [record["msg"] for record in records(running, stream, query)]


def kill(running: Platform, *parts: str) -> None:
    """End parts as a crash does, and wait for the next ones."""
    victims = {part: running.pids(part) for part in parts}
    for (victim,) in victims.values():
        os.kill(victim, signal.SIGKILL)
    for part, former in victims.items():
        until(lambda part=part, former=former: running.pids(part) not in ([], former), f"the next {part}")  # type: ignore[misc]


@contextlib.contextmanager
def followed(running: Platform, tenant: str, folder: Path) -> Iterator[Path]:
    """Follow what programs of a tenant print as a user does, into a file."""
    command = [running.program, "logs", tenant, "-f", "--json", "--field", "sandbox=true"]
    with open(folder / "followed", "wb") as out, open(folder / "said", "wb") as said:
        process = subprocess.Popen(command, env=running.environment(), stdout=out, stderr=said)
        try:
            yield folder / "followed"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)


def followed_numbers(path: Path) -> list[int]:
    """Return the numbers that a follower has got, whole lines alone."""
    return [int(json.loads(line)["msg"].split()[1]) for line in path.read_bytes().split(b"\n")[:-1]]
