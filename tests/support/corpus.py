"""The corpus of heads that must be refused (`tests/proxy/http1/corpus`), for those who send it through more than a parser."""

from pathlib import Path

_CORPUS = Path(__file__).parents[1] / "proxy" / "http1" / "corpus"


def cases(folder: str) -> list[tuple[str, bytes, str]]:
    """Return name, bytes and the words that the refusal contains, of `requests` or `responses`."""
    rules = dict(line.split(": ", 1) for line in (_CORPUS / folder / "rules.txt").read_text().splitlines())
    return [(name, (_CORPUS / folder / f"{name}.http").read_bytes(), rules[name]) for name in sorted(rules)]
