"""What the body of a POST says as a program: its language and its name. Pure.

The body is code whatever its content type says (curl sends a form type): a type of a language chooses it, any
other type leaves the choice to a pragma in a comment on the first line, else it is JavaScript.
"""

import hashlib
import re

from sandpost.model.errors import InvalidCode, UnsupportedLanguage

LANGUAGES = ("javascript",)
"""What runs here, as content types and the pragma `language=` call it, in any case."""

_NAMES = {
    "javascript": "javascript",
    "ecmascript": "javascript",
    "jscript": "javascript",
    "livescript": "livescript",
    "coffeescript": "coffeescript",
    "typescript": "typescript",
    "jsx": "jsx",
    "tsx": "tsx",
    "python": "python",
    "csharp": "csharp",
    "fsharp": "fsharp",
    "ruby": "ruby",
    "perl": "perl",
    "php": "php",
    "httpd-php": "php",
    "sh": "shell",
    "csh": "shell",
    "bash": "shell",
    "shellscript": "shell",
    "powershell": "powershell",
    "lua": "lua",
    "wasm": "webassembly",
    "java-archive": "java",
    "java": "java",
    "kotlin": "kotlin",
    "scala": "scala",
    "groovy": "groovy",
    "clojure": "clojure",
    "golang": "go",
    "go": "go",
    "rust": "rust",
    "swift": "swift",
    "dart": "dart",
    "elixir": "elixir",
    "erlang": "erlang",
    "haskell": "haskell",
}
"""Languages by their names in types `text/NAME`, `application/NAME` and `application/x-NAME`."""
_TAILS = ("-src", "-source", "-script", "-code")
_NO_LANGUAGE = frozenset({"text/x-markdown", "text/x-log", "text/x-web-markdown", "text/x-component"})
_PRAGMA = re.compile(rb"[ \t]*(?://+|#+|/\*+|--)[ \t]*(?:#[ \t]*)?sandpost(?::[ \t]*|[ \t]+)([^\r\n]*)")
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
    top, _, name = kind.partition("/")
    if top not in {"text", "application"}:
        return None
    experimental = name.startswith("x-")
    name = name.removeprefix("x-")
    for tail in _TAILS:
        name = name.removesuffix(tail)
    known = _NAMES.get(name)
    if known is None and top == "text" and experimental and kind not in _NO_LANGUAGE:
        return name
    return known


def check_language(language: str | None) -> None:
    """Raise `UnsupportedLanguage` unless `language` is None or runs here."""
    if language is not None and language.lower() not in LANGUAGES:
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
