"""One installation of stand-ins a test."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
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
            if made.process.poll() is not None:
                made.start()
            made.stop()
        with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
            assert made.children() == {}, made.output()
        print(made.output()[-8000:])
        made.log.close()
        shutil.rmtree(top)
