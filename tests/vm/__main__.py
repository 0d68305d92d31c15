"""`scripts/test-vm [--all] [--deadline SECONDS] [ARGUMENT..]`: pytest in a virtual machine; README.md says more."""

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sandpost.config import DEFAULTS
from sandpost.image.build import ensure
from vm import disks, machine

DEADLINE = 2400
"""Seconds for the machine, from its switch being pressed to its end."""
SHORT = ("-m", "not long")
"""What pytest is told without `--all`."""
_LAST_WORDS = 90
"""Of these: seconds for what pytest has to say when its time is up."""
_MACHINES = 2
"""Machines at most, one after another, if kernels hang."""
_LIST = Path(__file__).with_name("tests.txt")
_MORE = Path(__file__).with_name("more.txt")


def main(arguments: Sequence[str]) -> int:
    """Run the tests; return pytest's status, 1 if the machine came to no end of its own."""
    parser = argparse.ArgumentParser(prog="scripts/test-vm", description="All other arguments go to pytest.")
    parser.add_argument("--all", action="store_true", help="the tests of more.txt and the long ones too")
    parser.add_argument("--deadline", type=int, default=DEADLINE, help="seconds for the machine (%(default)s)")
    options, chosen = parser.parse_known_args(arguments)
    began = time.monotonic()
    # As a Ctrl-C: whatever is open is closed on the way out.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    image_dir = DEFAULTS["image_dir"]
    image = ensure(image_dir, say)
    system = disks.system()
    say(f"the disks are there after {time.monotonic() - began:.0f} s")
    which = () if options.all else SHORT
    pytest = [*which, *(chosen or listed(everything=options.all))]
    with disks.run(Path(image_dir), image, pytest, options.deadline - _LAST_WORDS) as run:
        status = of_one_that_lives(lambda: machine.boot(system, run, say, options.deadline))
    took = f"after {time.monotonic() - began:.0f} s"
    if status is None:
        say(f"the machine told no end of the tests {took}")
        return 1
    say(f"the tests ended with {status} {took}")
    return status


def of_one_that_lives(boot: Callable[[], int | None]) -> int | None:
    """Return what `boot` does, of a further machine if the kernel of the first one hung; None if all did."""
    for _ in range(_MACHINES):
        try:
            return boot()
        except machine.KernelHung:
            say("the kernel of the emulated machine hung, which says nothing of the tests")
    return None


def say(line: str) -> None:
    """Print a line that is told from those of the tests on the host."""
    print(f"vm: {line}", flush=True)


def listed(*, everything: bool = False) -> list[str]:
    """Return the arguments of pytest in tests.txt, and behind them, where the last `-k` counts, those in more.txt."""
    texts = [path.read_text() for path in ([_LIST, _MORE] if everything else [_LIST])]
    lines = (line.partition("#")[0].strip() for text in texts for line in text.splitlines())
    return [line for line in lines if line]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
