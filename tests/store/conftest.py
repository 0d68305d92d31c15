"""Stores in folders that other users may pass through, and work done as such a user."""

import json
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

API_UID = 700_001
READER_UID = 700_002
STRANGER_UID = 700_009
GID = 700_000


@pytest.fixture
def state_dir() -> Iterator[str]:
    path = tempfile.mkdtemp(prefix="sandpost-test-store-", dir="/tmp")
    os.chmod(path, 0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def store_path(state_dir: str) -> str:
    return os.path.join(state_dir, "store", "sandpost.db")


@pytest.fixture
def as_user() -> Callable[[int, int, Callable[[], Any]], Any]:
    return run_as


def run_as(uid: int, gid: int, work: Callable[[], Any]) -> Any:
    """Run `work` in a child process of `uid` and `gid`; return what it returned, as JSON carries it."""
    assert os.geteuid() == 0, "run these tests as root: they look at the store as several users"
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(read_end)
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
            os.write(write_end, json.dumps(work()).encode())
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        answer = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, f"the child of uid {uid} ended with {status}"
    return json.loads(answer)
