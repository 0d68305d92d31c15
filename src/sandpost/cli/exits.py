"""Exit codes of the command line, and what each failure gets."""

from sandpost.model.errors import CallerError, ConfigError, SandpostError

OK = 0
FAILED = 1
"""The platform failed, or cannot be reached."""
USAGE = 2
"""The command line or a setting is wrong."""
NOT_RUNNING = 3
"""No installation of this state folder runs (`serve`: it runs already)."""
REFUSED = 4
"""The platform refused: key, name, limit, unknown tenant."""
PROGRAM = 5
"""`run`: the program failed, or answered with a status of 400 or more; `module add`: a module failed."""
INTERRUPTED = 130

HELP = """
\b
Exit codes: 0 done, 1 the platform failed or cannot be reached, 2 wrong usage or setting,
3 not running (serve: running already), 4 refused (key, name, limit, unknown tenant),
5 the program that was run, or a module that was added, failed, 130 interrupted.
"""


class NotRunning(SandpostError):  # noqa: N818 - it says what is wrong, like the platform's own errors
    """No installation of this state folder runs on this machine."""

    reason = "not_running"


class CannotReach(SandpostError):  # noqa: N818 - the same
    """Something that should answer does not, or may not be asked by this user."""

    reason = "unreachable"


class NotEnded(SandpostError):  # noqa: N818 - the same
    """A stop left something behind, or nobody says that it did not."""

    reason = "not_ended"


def of_fault(fault: str) -> int:
    """Return the exit code of an error that the platform answered with."""
    return {"caller": REFUSED, "code": PROGRAM}.get(fault, FAILED)


def of_error(error: SandpostError) -> int:
    """Return the exit code of an error that was found here."""
    if isinstance(error, NotRunning):
        return NOT_RUNNING
    if isinstance(error, ConfigError):
        return USAGE
    return REFUSED if isinstance(error, CallerError) else FAILED
