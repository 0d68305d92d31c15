"""What a process has in memory, as its kernel tells."""

import re
from pathlib import Path


def own(pid: int, name: str = "Pss_Anon") -> int:
    """Return a row of /proc/PID/smaps_rollup, bytes.

    The one that is read unless another is named leaves mapped files out: a process's share of those grows as others end.
    """
    found = re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None, f"the kernel tells no {name}"
    return int(found[1]) * 1024
