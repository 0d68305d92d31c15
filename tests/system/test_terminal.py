"""What a person sees who starts the platform on a terminal: words, and nothing meant for machines."""

import os
import pty
import select
import subprocess
import time

from support.machine import traces
from support.platform import SANDPOST, Platform


def read_until(fd: int, wanted: str, within: float = 60) -> str:
    """Read a terminal until it shows `wanted`."""
    seen = ""
    deadline = time.monotonic() + within
    while wanted not in seen:
        left = deadline - time.monotonic()
        assert left > 0, f"`{wanted}` did not come: {seen}"
        if select.select([fd], [], [], left)[0]:
            seen += os.read(fd, 65536).decode()
    return seen


def test_a_terminal_shows_words_and_the_log_goes_to_a_file() -> None:
    made = Platform()
    ours, theirs = pty.openpty()
    try:
        made.process = subprocess.Popen(
            [SANDPOST, "serve"], env=made.environment(), stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True, preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),
        )  # fmt: skip
        os.close(theirs)
        log = made.state_dir / "serve.log"
        seen = read_until(ours, f"Log lines go to {log}.")
        made.wait_ready()
        host = made.host
        assert "Sandpost is ready at http://127.0.0.1:" in seen
        assert "curl -d " in seen
        assert '"msg":"ready"' in log.read_text()
        # Ctrl-C, as typed.
        os.write(ours, b"\x03")
        seen += read_until(ours, "Stopping: calls under way have 30s to end")
        assert made.process.wait(60) == 0
        made.process = None
        assert "{" not in seen.replace("{ cb(null", ""), "a line for machines"
        assert not (left := traces(host)), left
    finally:
        os.close(ours)
        made.__exit__(None, None, None)
