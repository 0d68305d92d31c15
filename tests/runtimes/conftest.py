"""Fixtures that start the real runtime with the Node of the image."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.runtime import Runtime, StartRuntime

IMAGES = Path("/var/lib/sandpost/image")


@pytest.fixture(scope="session")
def node_binary() -> str:
    """The Node of the newest built image; SANDPOST_TEST_NODE names another."""
    chosen = os.environ.get("SANDPOST_TEST_NODE")
    if chosen:
        return chosen
    built = sorted(IMAGES.glob("*/rootfs/usr/local/bin/node"), key=lambda path: path.stat().st_mtime)
    if not built:
        pytest.fail(f"no image with Node below {IMAGES}: run scripts/install")
    return str(built[-1])


@pytest.fixture
def start_runtime(node_binary: str, tmp_path: Path) -> Iterator[StartRuntime]:
    """Start runtimes with further environment; they are stopped at the end."""
    started: list[Runtime] = []

    def start(env: dict[str, str] | None = None, *, frames: bool = True) -> Runtime:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        runtime = Runtime(node_binary, folder, env, frames=frames)
        started.append(runtime)
        return runtime

    yield start
    for runtime in started:
        runtime.stop()


@pytest.fixture
def runtime(start_runtime: StartRuntime) -> Runtime:
    """A runtime with its defaults."""
    return start_runtime()
