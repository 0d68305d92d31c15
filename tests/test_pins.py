"""What is fetched for an installation is this very release of a package, and these very files."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PIN = re.compile(r"(?P<name>[a-z0-9-]+)==[\w.]+(?P<hashes>(?: --hash=sha256:[0-9a-f]{64})+)")


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "requirements-go.txt"])
def test_every_package_is_pinned_with_the_hashes_of_its_files(name: str) -> None:
    text = re.sub(r"\\\n *", "", (ROOT / name).read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    packages = [line for line in lines if line != "-r requirements.txt"]
    assert packages
    assert [line for line in packages if not PIN.fullmatch(line)] == []
    names = [line.partition("==")[0] for line in packages]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("script", ["install", "build-go"])
def test_the_scripts_take_no_package_without_them(script: str) -> None:
    text = (ROOT / "scripts" / script).read_text().replace("\\\n", " ")
    installs = [line for line in text.splitlines() if "-m pip install" in line]
    assert installs
    # This checkout itself is not fetched.
    assert [line for line in installs if "--require-hashes" not in line and not line.endswith(" -e .")] == []
