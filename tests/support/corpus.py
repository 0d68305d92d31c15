"""Corpora of bytes: heads that must be refused (`tests/proxy/http1/corpus`), and files of hexadecimal lines."""

from collections.abc import Sequence
from pathlib import Path

from hypothesis import strategies as st

_CORPUS = Path(__file__).parents[1] / "proxy" / "http1" / "corpus"


def cases(folder: str) -> list[tuple[str, bytes, str]]:
    """Return name, bytes and the words that the refusal contains, of `requests` or `responses`."""
    rules = dict(line.split(": ", 1) for line in (_CORPUS / folder / "rules.txt").read_text().splitlines())
    return [(name, (_CORPUS / folder / f"{name}.http").read_bytes(), rules[name]) for name in sorted(rules)]


def lines(path: Path) -> list[bytes]:
    """Return the bytes of each line of a file; what follows # says whose they are or what is wrong with them."""
    parted = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [bytes.fromhex(line) for line in parted if line]


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """Draw one of `seeds` with a few of its bytes cut out, put in or changed."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 4))):
        at, gone = draw(st.integers(0, len(data))), draw(st.integers(0, 4))
        data = data[:at] + draw(st.binary(max_size=4)) + data[at + gone :]
    return data
