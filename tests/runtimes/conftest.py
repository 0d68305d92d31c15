"""Fixtures that start the real runtimes, with the Node of the image and a Python of this machine."""

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from bench.running import image_root, node_binary

from support.runtime import Kind, Runtime, StartRuntime, image_kind, node_kind, python_kind


@pytest.fixture(scope="session")
def python_runtime(tmp_path_factory: pytest.TempPathFactory) -> Kind:
    """The runtime of Python, run by Debian's Python if it is there; SANDPOST_TEST_PYTHON names another."""
    debian = "/usr/bin/python3.11"
    chosen = os.environ.get("SANDPOST_TEST_PYTHON") or (debian if os.path.exists(debian) else sys.executable)
    return python_kind(chosen, tmp_path_factory.mktemp("shipped") / "python")


def _starter(kind: Kind, tmp_path: Path, always: Mapping[str, str] | None = None) -> Iterator[StartRuntime]:
    started: list[Runtime] = []

    def start(env: dict[str, str] | None = None, *, frames: bool = True) -> Runtime:
        folder = tmp_path / str(len(started))
        folder.mkdir(exist_ok=True)
        runtime = Runtime(kind, folder, {**(always or {}), **(env or {})}, frames=frames)
        started.append(runtime)
        return runtime

    yield start
    for runtime in started:
        runtime.stop()


@pytest.fixture
def start_runtime(tmp_path: Path) -> Iterator[StartRuntime]:
    """Start runtimes of JavaScript with further environment; they are stopped at the end."""
    yield from _starter(node_kind(node_binary()), tmp_path)


@pytest.fixture
def runtime(start_runtime: StartRuntime) -> Runtime:
    """A runtime of JavaScript with its defaults."""
    return start_runtime()


@pytest.fixture(params=["mono", pytest.param("coreclr", marks=pytest.mark.long)])
def clr(request: pytest.FixtureRequest) -> str:
    """Which .NET Edge.js uses."""
    return str(request.param)


@pytest.fixture
def start_edge(clr: str, tmp_path: Path) -> Iterator[StartRuntime]:
    """Start runtimes of JavaScript within the image with further environment; they are stopped at the end."""
    wanted = clr == "coreclr"
    yield from _starter(image_kind(image_root(coreclr=wanted)), tmp_path, {"EDGE_USE_CORECLR": "1"} if wanted else {})


@pytest.fixture
def edge(start_edge: StartRuntime) -> Runtime:
    """A runtime of JavaScript within the image, where Edge.js is, with its defaults."""
    return start_edge()


@pytest.fixture
def start_python(python_runtime: Kind, tmp_path: Path) -> Iterator[StartRuntime]:
    """Start runtimes of Python with further environment; they are stopped at the end."""
    yield from _starter(python_runtime, tmp_path)


@pytest.fixture
def python(start_python: StartRuntime) -> Runtime:
    """A runtime of Python with its defaults."""
    return start_python()
