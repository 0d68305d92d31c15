"""One installation of stand-ins a test."""

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.stand import Stand


@pytest.fixture
def stand() -> Iterator[Stand]:
    top = Path(tempfile.mkdtemp(prefix="sandpost-supervisor-"))
    top.chmod(0o711)
    made = Stand(top)
    try:
        yield made
    finally:
        if made.process is not None:
            made.stop()
        with contextlib.suppress(FileNotFoundError):
            for pid in made.pids():
                # The test failed half-way: nobody is left to end them.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        print(made.output()[-8000:])
        made.log.close()
        shutil.rmtree(top)
