"""Which process a pid names."""


def start_time(pid: int) -> int:
    """Return field 22 of /proc/<pid>/stat, which with the pid names a process for ever; 0 if it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The second field is the command in parentheses, which may itself hold anything.
            after = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if after[0] in {b"Z", b"X"} else int(after[19])


def runs(pid: int, began: int) -> bool:
    """Whether the very process lives."""
    return pid > 0 and began > 0 and start_time(pid) == began
