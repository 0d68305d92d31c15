"""What the body of a POST says as a program: its language and its name. Pure.

The body is code whatever its content type says (curl sends a form type): a type of a language chooses it, any
other type leaves the choice to a pragma in a comment on the first line, else it is JavaScript.
"""

import hashlib
import re

from sandpost.model.errors import InvalidCode, UnsupportedLanguage

LANGUAGES = ("javascript",)
"""What runs here, as content types and the pragma `language=` call it."""

_TYPES = {
    "application/javascript": "javascript",
    "application/x-javascript": "javascript",
    "application/ecmascript": "javascript",
    "application/x-ecmascript": "javascript",
    "text/javascript": "javascript",
    "text/x-javascript": "javascript",
    "text/ecmascript": "javascript",
    "text/x-ecmascript": "javascript",
    "text/jscript": "javascript",
    "text/livescript": "livescript",
    "text/coffeescript": "coffeescript",
    "text/typescript": "typescript",
    "text/jsx": "jsx",
    "text/tsx": "tsx",
    "text/python": "python",
    "text/csharp": "csharp",
    "application/typescript": "typescript",
    "application/x-typescript": "typescript",
    "application/python": "python",
    "application/x-python": "python",
    "application/x-python-code": "python",
    "application/x-csharp": "csharp",
    "application/x-ruby": "ruby",
    "application/x-perl": "perl",
    "application/x-php": "php",
    "application/x-httpd-php": "php",
    "application/x-sh": "shell",
    "application/x-csh": "shell",
    "application/x-lua": "lua",
    "application/wasm": "webassembly",
    "application/java-archive": "java",
    "application/x-java": "java",
}
_NO_LANGUAGE = frozenset({"text/x-markdown", "text/x-log", "text/x-web-markdown", "text/x-component"})
_PRAGMA = re.compile(rb"[ \t]*(?://+|#+|/\*+|--)[ \t]*(?:#[ \t]*)?sandpost\b:?[ \t]+([^\r\n]*)")
_PAIR = re.compile(rb"([A-Za-z_][A-Za-z0-9_-]*)=(\S+)")
_BOMS = (
    (b"\xef\xbb\xbf", "a byte order mark"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
)


def language_of_type(content_type: str) -> str | None:
    """Return the language that a Content-Type names, None if it names none."""
    kind = content_type.partition(";")[0].strip().lower()
    known = _TYPES.get(kind)
    if known is not None:
        return known
    if kind.startswith("text/x-") and kind not in _NO_LANGUAGE:
        return kind[len("text/x-") :].removesuffix("-src").removesuffix("-source").removesuffix("-script")
    return None


def check_language(language: str | None) -> None:
    """Raise `UnsupportedLanguage` unless `language` is None or runs here."""
    if language is not None and language not in LANGUAGES:
        shown = ascii(language[:40])[1:-1]
        raise UnsupportedLanguage(
            f"no runtime here runs `{shown}`: send {' or '.join(LANGUAGES)} (content type application/javascript, "
            "or none)",
            languages=list(LANGUAGES),
        )


def check_encoding(content_encoding: str) -> None:
    """Raise `UnsupportedLanguage` for a program that comes compressed."""
    if content_encoding.strip().lower() not in {"", "identity"}:
        raise UnsupportedLanguage("a program is not taken compressed: send it without content-encoding")


def pragma(code: bytes) -> dict[str, str]:
    """Return the pairs of the first line's pragma, such as `//#sandpost language=python`; empty without one."""
    match = _PRAGMA.match(code[:1024])
    if match is None:
        return {}
    return {name.decode().lower(): value.decode("ascii", "replace") for name, value in _PAIR.findall(match[1])}


def examine(code: bytes, *, typed: bool) -> str:
    """Return the SHA-256 of `code` in hexadecimal, or raise why it cannot be a program.

    `typed`: a content type chose the language already, so that a pragma does not.
    """
    if not code:
        raise InvalidCode("the body is empty: POST a program such as `return function (cb) { cb(null, 1) }`")
    for mark, name in _BOMS:
        if code.startswith(mark):
            raise InvalidCode(f"the program begins with {name}: save it as UTF-8 without a byte order mark")
    try:
        code.decode()
    except UnicodeDecodeError as error:
        raise InvalidCode(f"the program is not UTF-8 (byte {error.start}): save it as UTF-8") from None
    if code.count(b"\0", 0, 4096) > min(len(code), 4096) // 4:
        raise InvalidCode("the program looks like UTF-16: save it as UTF-8 without a byte order mark")
    if not typed:
        check_language(pragma(code).get("language"))
    return hashlib.sha256(code).hexdigest()
