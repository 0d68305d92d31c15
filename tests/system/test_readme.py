"""README.md, line by line: what it says to type is typed, and what it says comes back is compared."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandpost.model.host import Host, load
from support.lab import Place, lab
from support.machine import traces
from support.platform import Platform, free_port, platform

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
URL = "http://127.0.0.1:8721"
KEY = "YOUR_KEY"
COMES_BACK = "#=>"
MARK = "--- behind a line of README.md ---"


@dataclass
class Line:
    """What is typed, and what comes back according to README.md, where it says so; `..` stands for anything."""

    typed: str
    expected: str | None

    def check(self, seen: str) -> None:
        if self.expected is not None:
            pattern = re.escape(self.expected.rstrip("\n")).replace(r"\.\.", ".*")
            assert re.fullmatch(pattern, seen.rstrip("\n")), f"{self.typed}\ngave\n{seen}\nnot\n{self.expected}"


def blocks(heading: str) -> list[str]:
    """Return the shell blocks of one section."""
    [section] = [part for part in README.split("\n## ") if part.startswith(heading)]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


def lines(block: str) -> list[Line]:
    """Split a block into what is typed, each with what comes back."""
    found: list[Line] = []
    typed: list[str] = []
    for text in block.splitlines():
        if text.startswith(COMES_BACK):
            if typed:
                found.append(Line("\n".join(typed), ""))
                typed = []
            found[-1].expected = f"{found[-1].expected}{text.removeprefix(COMES_BACK).removeprefix(' ')}\n"
        else:
            typed.append(text)
    if typed:
        found.append(Line("\n".join(typed), None))
    return found


def follow(
    script: list[Line],
    port: int,
    key: str,
    folder: Path,
    environment: dict[str, str],
    place: Place | None = None,
    within: float = 120,
) -> None:
    """Type all of it into one shell in `folder`, in a place of a lab or on this machine's own network, and compare.

    `within`: seconds for all of it.
    """
    typed = "".join(f"{line.typed}\nprintf '%s' '{MARK}'\n" for line in script)
    command = ["bash", "-euo", "pipefail", "-c", typed.replace(URL, f"http://127.0.0.1:{port}").replace(KEY, key)]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=within, check=False
        )

    done = run() if place is None else place.run(run)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    seen = done.stdout.split(MARK)[:-1]
    for line, came in zip(script, seen, strict=True):
        line.check(came)


@pytest.fixture(scope="module")
def quick() -> Iterator[Platform]:
    """A platform on which a blocked loop is found sooner than by default, in a lab: `selftest` tries addresses."""
    with lab() as laboratory, platform(laboratory.host, pool_size="2", limits_blocked_after="2s") as running:
        yield running


def test_the_examples_give_what_they_say(quick: Platform) -> None:
    [block] = blocks("A page of examples")
    script = lines(block)
    assert sum(line.expected is not None for line in script) >= 8
    follow(script, quick.port, quick.key, ROOT, quick.environment(), quick.place)


@pytest.mark.long
# The selftest is among them, which takes minutes where others use the machine.
@pytest.mark.timeout(400)
def test_every_command_that_is_named_works(quick: Platform) -> None:
    [block] = blocks("Running it")
    follow(lines(block), quick.port, quick.key, ROOT, quick.environment(), quick.place, within=360)


def test_every_file_that_is_named_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) >= 5
    for name in [*links, *re.findall(r"`(scripts/\w+)", README)]:
        assert (ROOT / name).exists(), name


def test_it_is_a_page_and_a_bit() -> None:
    assert len(README.splitlines()) < 130


# --- a fresh clone ----------------------------------------------------------------------------------------


class Clone:
    """A clone of this repository with nothing installed, and what is typed in it."""

    def __init__(self, top: Path) -> None:
        self.folder = top / "sandpost"
        self.state = top / "state"
        self.port = free_port()
        self._said = top / "said"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(self.folder)], check=True, timeout=60)
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("SANDPOST_", "VIRTUAL_ENV"))}
        self.environment = {
            **clean, "SANDPOST_STATE_DIR": str(self.state), "SANDPOST_LISTEN": f"127.0.0.1:{self.port}",
        }  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    def serve(self, command: str, timeout: float) -> str:
        """Type `command`; return the curl line that it prints."""
        with self._said.open("wb") as said:
            self.process = subprocess.Popen(
                command.split(),
                cwd=self.folder,
                env=self.environment,
                stdout=said,
                stderr=said,
                stdin=subprocess.DEVNULL,
            )
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for line in self.said().splitlines():
                if line.strip().startswith("curl ") and line.endswith('"'):
                    return line.strip()
            assert self.process.poll() in {None, 0}, self.said()
            time.sleep(0.05)
        raise AssertionError(f"no line to type within {timeout} s:\n{self.said()}")

    def said(self) -> str:
        return self._said.read_text(errors="replace")

    def stop(self, number: signal.Signals) -> None:
        """Stop it as README.md says; nothing of it is left."""
        assert self.process is not None
        host = self.host()
        self.process.send_signal(number)
        assert self.process.wait(60) == 0, self.said()
        self.process = None
        assert not (left := traces(host)), left

    def host(self) -> Host:
        for path in Path("/run/sandpost").glob("?/host.json"):
            if (host := load(str(path))).state_dir == str(self.state):
                return host
        raise AssertionError("it has no host file")

    def sandpost(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.folder / ".venv/bin/sandpost"), *arguments],
            env=self.environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip


@pytest.fixture
def clone() -> Iterator[Clone]:
    top = Path(tempfile.mkdtemp(prefix="sandpost-readme-"))
    top.chmod(0o755)
    made = Clone(top)
    try:
        yield made
    finally:
        if (made.folder / ".venv/bin/sandpost").exists():
            made.sandpost("stop")
        if made.process is not None:
            made.process.kill()
            made.process.wait(10)
        shutil.rmtree(top)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_newcomer_follows_it_in_a_fresh_clone(clone: Clone) -> None:
    first, second = blocks("Two lines")
    [serve] = lines(first)
    [hello] = lines(second)
    assert serve.typed.strip() == "scripts/serve"

    printed = clone.serve(serve.typed, 300)
    key = printed.partition("key=")[2].rstrip('"')
    assert key.startswith("sp_")
    # The line that is printed is the one of README.md, with this machine's port and key.
    assert hello.typed.replace(URL, f"http://127.0.0.1:{clone.port}").replace(KEY, key).strip() == printed
    follow([Line(printed, hello.expected)], clone.port, key, clone.folder, clone.environment)
    for heading in ("A page of examples", "Running it"):
        [block] = blocks(heading)
        # It attacks addresses, which is for a lab alone (`test_every_command_that_is_named_works`).
        block = re.sub(r"(?m)^sandpost selftest .*\n", "", block)
        follow(lines(block), clone.port, key, clone.folder, clone.environment)
    clone.stop(signal.SIGTERM)

    began = time.monotonic()
    again = clone.serve(serve.typed, 60)
    assert time.monotonic() - began < 5
    assert again == printed.replace(key, KEY)
    assert key not in clone.said()
    follow([Line(printed, hello.expected)], clone.port, key, clone.folder, clone.environment)
    clone.stop(signal.SIGINT)

    clone.serve(f"{serve.typed.strip()} --detach", 60)
    assert clone.process is not None
    assert clone.process.wait(30) == 0
    host = clone.host()
    assert clone.sandpost("stop").returncode == 0
    assert not (left := traces(host)), left
    # What was installed and built is ignored by git: the clone is as it came.
    changed = subprocess.run(
        ["git", "status", "--porcelain"], cwd=clone.folder, capture_output=True, text=True, timeout=30, check=True
    )
    assert changed.stdout == ""
