"""docs/runtime.md says what the runtime does."""

import re
from pathlib import Path

from support.runtime import FRAME, SOURCE, Runtime

DOC = (Path(__file__).parents[2] / "docs" / "runtime.md").read_text()
FAILURES = (SOURCE / "failures.js").read_text()


def test_every_reason_of_the_runtime_is_in_the_table_with_its_status_and_source() -> None:
    table = DOC[DOC.index("## Answers that the runtime writes") : DOC.index("## What a program gets")]
    found = re.findall(r"status: (\d+), reason: '(\w+)', source: '(\w*)'", FAILURES)
    assert len(found) >= 11
    for status, reason, source in found:
        row = next(line for line in table.splitlines() if f"`{reason}`" in line)
        assert status in row
        assert (source or "none") in row


def test_the_sentences_of_the_table_are_those_of_the_runtime() -> None:
    for sentence in re.findall(r'`(?:error|message): "([^"]+?)(?: \.\.)?"`', DOC):
        assert sentence.removesuffix(":") in FAILURES.replace("'\n    + '", "")


def test_settings_and_flags_are_described() -> None:
    settings = (SOURCE / "settings.js").read_text()
    for name in set(re.findall(r"SANDPOST_\w+", settings)):
        assert f"`{name}`" in DOC
    for flag in re.findall(r'"(--[^"]+)"', (SOURCE / "flags.json").read_text()):
        assert f"`{flag}`" in DOC


def test_the_frame_layout_is_the_one_that_is_tested() -> None:
    assert f"`{FRAME.format}`, {FRAME.size} bytes" in DOC


def test_the_example_of_an_upgrade_runs(runtime: Runtime) -> None:
    match = re.search(r"```javascript\n(.*?)```", DOC, re.DOTALL)
    assert match is not None
    code = match[1]
    assert runtime.call(code).status == 426
    headers = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    with runtime.begin(code, headers=headers) as connection:
        received = b""
        while not received.endswith(b"hi"):
            chunk = connection.sock.recv(1000)
            assert chunk, received
            received += chunk
        # The accept value is RFC 6455's own example.
        assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in received
        connection.sock.sendall(b"\x81\x80\x00\x00\x00\x00")
        assert runtime.records()[0].text == "frame of 6 bytes"
