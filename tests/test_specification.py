"""SPECIFICATION.md names a test for each promise: every name must be that of a test, every id must be unique.

SECURITY.md says what stands, and by which promises.
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "SPECIFICATION.md"
SECURITY = ROOT / "SECURITY.md"
ROW = re.compile(r"^\| (P-\d{3,4}) \| (.+) \| (.+) \|$", re.MULTILINE)
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def names_in(path: Path) -> set[str]:
    """Names of the tests in a file, read without importing it; a state machine's is the name it is bound to."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {name for name in names if name.startswith(("test_", "Test"))}


def test_every_promise_names_tests_that_exist() -> None:
    known: dict[str, set[str]] = {}
    missing = []
    for promise, _, cell in ROW.findall(PAGE.read_text()):
        named = TEST.findall(cell)
        assert named, f"{promise} names no test"
        assert TEST.sub("", cell).strip(" ,") == "", f"{promise}: {cell} is more than names of tests"
        for file, name in named:
            path = ROOT / file
            if file not in known:
                known[file] = names_in(path) if path.exists() else set()
            if name not in known[file]:
                missing.append(f"{promise}: {file}::{name}")
    assert not missing, "\n".join(missing)


def test_ids_are_unique_and_every_row_has_one() -> None:
    text = PAGE.read_text()
    ids = [promise for promise, _, _ in ROW.findall(text)]
    assert len(ids) > 100
    assert len(ids) == len(set(ids)), [promise for promise in ids if ids.count(promise) > 1]
    rows = [line for line in text.splitlines() if line.startswith("| P-")]
    assert len(rows) == len(ids), [line for line in rows if not ROW.match(line)]


def test_what_stands_names_its_promises_and_they_are_there() -> None:
    known = {promise for promise, _, _ in ROW.findall(PAGE.read_text())}
    text = SECURITY.read_text()
    assert set(re.findall(r"P-\d+", text)) <= known
    stands = text.split("## What stands\n")[1].split("\n## ")[0]
    _, *bullets = re.split(r"^- ", stands, flags=re.MULTILINE)
    assert len(bullets) > 10
    for bullet in bullets:
        assert re.search(r"\n  \(P-\d{3}[^()]*\)\s*\Z", bullet), f"no promise is named: {bullet[:60]}"
