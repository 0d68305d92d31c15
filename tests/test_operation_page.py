"""docs/operation.md names every figure that the code has, and none that it has not."""

import re
from pathlib import Path

from sandpost.model.limits import Limits

ROOT = Path(__file__).resolve().parents[1]
FIGURE = re.compile(r"sandpost_[a-z_]+")


def test_every_figure_is_on_the_page_and_no_other() -> None:
    in_code: set[str] = set()
    for path in (ROOT / "src").rglob("*.py"):
        in_code |= set(re.findall(r"\"(sandpost_[a-z_]+)\"", path.read_text()))
    page = (ROOT / "docs" / "operation.md").read_text()
    on_page = set(FIGURE.findall(page[page.index("## Metrics") :]))
    assert in_code == on_page


def test_every_limit_is_on_the_page() -> None:
    page = (ROOT / "docs" / "operation.md").read_text()
    missing = [name for name in Limits.__struct_fields__ if not re.search(rf"[`.]{name}\b", page)]
    assert missing == []
