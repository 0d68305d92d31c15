"""Which images go, and which stay: with small folders in the place of images."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sandpost.image import use, workplace
from sandpost.model.errors import HostUnfit

OURS, THEIRS, FORMER, LATE = ("0" * 31 + digit for digit in "1234")
LONG_AGO = time.time() - 2 * use.UNUSED_FOR


@pytest.fixture
def images() -> Iterator[Path]:
    # Sandboxes' users pass it: not below pytest's own folder.
    with tempfile.TemporaryDirectory(prefix="sandpost-image-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def image(images: Path, digest: str, layers: Sequence[str] | None = (), *, wanted: float = LONG_AGO) -> Path:
    rootfs = images / digest / "rootfs"
    rootfs.mkdir(parents=True)
    (images / digest / "manifest.json").write_text(json.dumps({} if layers is None else {"layers": layers}))
    os.utime(images / digest, (wanted, wanted))
    return rootfs


def layer(images: Path, key: str, *, made: float = LONG_AGO) -> str:
    (images / ".base" / key / "tree").mkdir(parents=True)
    os.utime(images / ".base" / key, (made, made))
    return key


def names(images: Path) -> set[str]:
    return {name for name in os.listdir(images) if not name.startswith(".lock")}


def test_images_that_nobody_uses_go_and_others_stay(images: Path) -> None:
    for digest in (OURS, THEIRS, FORMER):
        image(images, digest)
    image(images, LATE, wanted=time.time())
    held = use.hold(str(images), THEIRS)
    assert use.prune(str(images), {OURS}) == [FORMER]
    assert names(images) == {OURS, THEIRS, LATE}
    os.close(held)
    # It was used a moment ago, whenever it was wanted: the release before is still to be had.
    assert use.prune(str(images), {OURS}) == []
    assert use.prune(str(images), {OURS}, unused_for=-1) == [THEIRS, LATE]
    assert names(images) == {OURS}


def test_an_image_under_a_running_sandbox_stays(images: Path) -> None:
    rootfs = image(images, FORMER)
    inside = "import os, sys; os.chroot(sys.argv[1]); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", inside, rootfs], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as sandbox:
        assert sandbox.stdout is not None
        assert sandbox.stdout.readline() == b"\n"
        assert use.prune(str(images), {OURS}) == []
    os.utime(rootfs.parent, (LONG_AGO, LONG_AGO))
    assert use.prune(str(images), {OURS}) == [FORMER]


def test_an_image_that_a_start_wants_stays_until_it_is_held(images: Path) -> None:
    image(images, FORMER)
    assert use.want(str(images), FORMER)
    assert use.prune(str(images), ()) == []
    os.close(use.keep(str(images), FORMER))
    assert not use.want(str(images), LATE)
    with pytest.raises(HostUnfit, match=f"no image {LATE}"):
        use.keep(str(images), LATE)


def test_layers_go_with_the_last_image_that_is_made_of_them(images: Path) -> None:
    base, csharp, alone = (layer(images, key) for key in ("base", "csharp", "alone"))
    fresh = layer(images, "fresh", made=time.time())
    image(images, OURS, [base])
    image(images, FORMER, [base, csharp])
    held = use.hold(str(images), FORMER)
    assert use.prune(str(images), {OURS}) == [f".base/{alone}"]
    os.close(held)
    os.utime(images / FORMER, (LONG_AGO, LONG_AGO))
    assert use.prune(str(images), {OURS}) == [FORMER, f".base/{csharp}"]
    assert set(os.listdir(images / ".base")) == {base, fresh}


def test_no_layer_goes_while_an_image_does_not_say_what_it_is_made_of(images: Path) -> None:
    layer(images, "base")
    image(images, OURS, None)
    assert use.prune(str(images), {OURS}) == []
    assert os.listdir(images / ".base") == ["base"]


def test_what_is_no_image_stays_and_what_a_killed_build_left_goes(images: Path) -> None:
    for name in (".cache", ".building-1", "mine"):
        (images / name / "rootfs").mkdir(parents=True)
        os.utime(images / name, (LONG_AGO, LONG_AGO))
    assert use.prune(str(images), ()) == []
    assert names(images) == {".cache", "mine"}


def test_nothing_goes_while_somebody_builds(images: Path) -> None:
    image(images, FORMER)
    (images / ".building-1").mkdir()
    with workplace.locked(str(images)):
        assert use.prune(str(images), ()) == []
    assert names(images) == {FORMER, ".building-1"}


def test_the_program_that_does_it_says_which(images: Path) -> None:
    image(images, OURS)
    image(images, FORMER)
    command = [sys.executable, "-m", "sandpost.image", str(images), OURS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert FORMER in done.stderr
    assert names(images) == {OURS}


def test_what_cannot_be_looked_at_is_said_in_a_line(images: Path) -> None:
    command = [sys.executable, "-m", "sandpost.image", str(images / "none"), OURS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "cannot be looked for" in done.stderr
    assert "Traceback" not in done.stderr
