"""What stands on a local log bus, for tests of whoever writes there."""

import json
from pathlib import Path
from typing import Any

from sandpost.bus.local_now import read_now


def records_of(folder: str | Path, stream: str) -> list[dict[str, Any]]:
    """Return all records of a stream below `folder`, oldest first; fails on a line that is none."""
    return [json.loads(record.line) for record in read_now(str(folder), stream)]
