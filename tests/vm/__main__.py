"""`scripts/test-vm [--all] [ARGUMENT..]`: pytest in a virtual machine; see README.md beside this file."""

import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sandpost.config import DEFAULTS
from sandpost.image.build import ensure
from vm import disks, machine

DEADLINE = 1500.0
"""Seconds for the machine, from its switch being pressed to its end."""
_LIST = Path(__file__).with_name("tests.txt")


def main(arguments: Sequence[str]) -> int:
    """Run the tests; return pytest's status, 1 if the machine came to no end of its own."""
    began = time.monotonic()
    # As a Ctrl-C: whatever is open is closed on the way out.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    image_dir = DEFAULTS["image_dir"]
    image = ensure(image_dir, say)
    system = disks.system()
    say(f"the disks are there after {time.monotonic() - began:.0f} s")
    with disks.run(Path(image_dir), image, _for_pytest(arguments)) as run:
        status = machine.boot(system, run, say, DEADLINE)
    took = f"after {time.monotonic() - began:.0f} s"
    if status is None:
        say(f"the machine told no end of the tests {took}")
        return 1
    say(f"the tests ended with {status} {took}")
    return status


def say(line: str) -> None:
    """Print a line that is told from those of the tests on the host."""
    print(f"vm: {line}", flush=True)


def _for_pytest(arguments: Sequence[str]) -> list[str]:
    chosen = list(arguments)
    which = [] if "--all" in chosen else ["-m", "not long"]
    chosen = [argument for argument in chosen if argument != "--all"]
    return [*which, *(chosen or _listed())]


def _listed() -> list[str]:
    lines = (line.partition("#")[0].strip() for line in _LIST.read_text().splitlines())
    return [line for line in lines if line]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
