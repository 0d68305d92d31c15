"""What stands on a local log bus, for tests of whoever writes there."""

import json
import time
from pathlib import Path
from typing import Any

from sandpost.bus.local_now import read_now


def records_of(folder: str | Path, stream: str) -> list[dict[str, Any]]:
    """Return all records of a stream below `folder`, oldest first; fails on a line that is none."""
    return [json.loads(record.line) for record in read_now(str(folder), stream)]


def until_said(folder: str | Path, stream: str, text: str, seconds: float = 10) -> dict[str, Any]:
    """Wait until a record of a stream has `text` in its message, and return it."""
    deadline = time.monotonic() + seconds
    while True:
        records = records_of(folder, stream)
        for record in records:
            if text in record["msg"]:
                return record
        assert time.monotonic() < deadline, records[-50:]
        time.sleep(0.05)
