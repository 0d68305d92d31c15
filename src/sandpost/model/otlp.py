"""Headers that a receiver of OTLP wants to see with each request. Pure."""

import re

from sandpost.model.errors import ConfigError

_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e]*?)[ \t]*", re.ASCII)


def headers(text: str) -> dict[str, str]:
    """Return the headers of a file that has one a line, `name: value`. `ConfigError`, which shows no value."""
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ConfigError(f"line {number} of logs.otlp.headers_file is no header: write `name: value`")
        found[match[1].lower()] = match[2]
    return found
