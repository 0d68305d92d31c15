"""Makes bytes that a stranger wrote safe to show: on a terminal, in a browser, in a line of a file. Pure."""

import re

_COLOUR = re.compile(r"\x1b\[[0-9;:]{0,64}m")
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls, C0 but tab and newline, DEL, C1
    "\u2028\u2029"  # ends of line for some readers and not for others
    "\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks that turn the direction of what follows
    "\ufeff]"
)
_PICTURES = {code: chr(0x2400 + code) for code in range(0x20)} | {0x7F: "\u2421"}


def safe_text(raw: bytes) -> str:
    """Return `raw` as text that acts on no terminal and forges no line.

    Invalid UTF-8 becomes U+FFFD; colours are left out; other control characters become their pictures (U+2400
    and on), C1 controls and invisible marks of direction U+FFFD. Tabs and newlines stay.
    """
    text = raw.decode("utf-8", "replace")
    if _UNSAFE.search(text) is None:
        return text
    return _UNSAFE.sub(_picture, _COLOUR.sub("", text))


def _picture(match: re.Match[str]) -> str:
    return _PICTURES.get(ord(match[0]), "\ufffd")
