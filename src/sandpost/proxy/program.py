"""What the body of a POST says as a program: its language, modules and name. Pure; nothing else decides of them.

The body is code whatever its content type says (curl sends a form type): a type of a language chooses it, any
other type leaves the choice to a pragma in a comment on the first line, else it is JavaScript.
"""

import difflib
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sandpost.model import choices
from sandpost.model.errors import InvalidCode, UnsupportedLanguage, shown
from sandpost.model.languages import JAVASCRIPT, LANGUAGES, NAMES, Language, by_content_type, by_name
from sandpost.model.runtimes import RUNTIMES

KEYS = ("language", "modules")
"""What a pragma can say."""

_BEGINS = re.compile(rb"[ \t]*(?://|#|/\*|--)")
_COMMENT = re.compile(
    rb"[ \t]*(//+|#+|/\*+|--)[ \t]*(?:#[ \t]*)?sandpost([ \t]*:[ \t]*|[ \t]+)([^\r\n]*)", re.IGNORECASE
)
# What may be meant as one: a word like the name and a key, with a colon or next to nothing between them.
_ALMOST = re.compile(
    r"[ \t]*(?://|#|/\*|--)\W{0,8}((\w[\w-]{4,8}\w|sand post)(?:\s*:.*\b|\W{0,8}\b)(language|modules)\s*=)",
    re.IGNORECASE,
)
_PAIR = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*)=(\S+)")
_MAX_PRAGMA = 2048
_BOMS = (
    (b"\xef\xbb\xbf", "a byte order mark"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
)


@dataclass(frozen=True, slots=True)
class Program:
    """A program: its bytes and its language, and the id that both make."""

    id: str
    language: Language
    code: bytes
    modules: str = ""
    """The set of modules that its bytes choose (`model.choices`)."""
    made: bytes = b""
    """What sandboxes of its tenant have made of it (docs/runtime.md, `made`): bytes that mean nothing to a proxy."""

    @property
    def own_set(self) -> str:
        """What of that its sandbox must be of; empty where programs of a sandbox may have different ones."""
        return self.modules if RUNTIMES[self.language.runtime].one_set else ""

    @property
    def makes(self) -> bool:
        """Whether a sandbox may make something of it that is worth keeping: it may have C# in it."""
        return self.language.name == "csharp" or (self.language.runtime == "node" and b"edge" in self.code)


def language_of(content_type: str) -> Language | None:
    """Return the language that a Content-Type chooses, None if it chooses none; refuse one that does not run."""
    found = by_content_type(content_type)
    if isinstance(found, str):
        raise _unsupported(found)
    return found


def check_encoding(content_encoding: str) -> None:
    """Raise `UnsupportedLanguage` for a program that comes compressed."""
    if content_encoding.strip().lower() not in {"", "identity"}:
        raise UnsupportedLanguage("a program is not taken compressed: send it without content-encoding")


def pragma(code: bytes) -> dict[str, str]:
    """Return the pairs of the first line's pragma, such as `//#sandpost language=python`; empty without one.

    With a colon behind the name a comment is a pragma; without one it is if its first word is a pair, so that
    `// sandpost runs this` stays a comment. Raises `InvalidCode` for a pragma that says what there is not, and for
    what is almost one.
    """
    if _BEGINS.match(code, 0, _MAX_PRAGMA) is None:
        return {}
    match = _COMMENT.match(code, 0, _MAX_PRAGMA)
    if match is None:
        _check_spelling(code)
        return {}
    said = match[3].decode("utf-8", "replace")
    words = (said.partition("*/")[0] if match[1].startswith(b"/*") else said).split()
    if b":" not in match[2] and not (words and _PAIR.fullmatch(words[0])):
        _check_spelling(code)
        return {}
    if len(match[0]) == _MAX_PRAGMA and code[_MAX_PRAGMA : _MAX_PRAGMA + 1].strip(b"\r\n"):
        raise InvalidCode(f"the pragma in the first line has more than {_MAX_PRAGMA} bytes: say less there")
    found: dict[str, str] = {}
    for word in words:
        pair = _PAIR.fullmatch(word)
        if pair is None:
            raise InvalidCode(
                f"the pragma in the first line has `{shown(word, 40)}`: write `sandpost: key=value`, such as "
                "`language=typescript`"
            )
        key = pair[1].lower()
        if key not in KEYS:
            raise InvalidCode(
                f"the pragma in the first line has the key `{shown(pair[1], 40)}`{_meant(key, KEYS)}: "
                f"there is {', '.join(KEYS)}",
                keys=list(KEYS),
            )
        if found.setdefault(key, pair[2]) != pair[2]:
            raise InvalidCode(f"the pragma in the first line has `{key}` twice: say it once")
    return found


def _check_spelling(code: bytes) -> None:
    """Raise `InvalidCode` for a first line, a comment, that would be a pragma if a name or a colon were spelt right.

    Its program would else run as JavaScript, and its author read a syntax error about something else.
    """
    line = re.split(rb"[\r\n]|\*/", code[:_MAX_PRAGMA], maxsplit=1)[0]
    match = _ALMOST.match(line.decode("utf-8", "replace"))
    # Two letters more, fewer, others or changed about, all are as alike as this.
    if match is not None and difflib.get_close_matches(match[2].lower(), ("sandpost",), 1, 0.75):
        raise InvalidCode(
            f"the first line has `{shown(match[1], 60)}`, which is almost a pragma: write "
            f"`sandpost: {match[3].lower()}=..`, or begin the program with another line if it is none"
        )


def examine(code: bytes, typed: Language | None) -> Program:
    """Return the program that `code` is, or raise why it cannot be one. `typed`: what its content type chose."""
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
    said = pragma(code)
    written = _written(said)
    if typed is not None and written is not None and typed is not written:
        raise InvalidCode(
            f"the content type says {typed.name}, the pragma in the first line {written.name}: let one of them say "
            "it, or both the same"
        )
    language = typed or written or JAVASCRIPT
    by_bytes = language is (written or JAVASCRIPT)
    code_hash = hashlib.sha256(code).hexdigest() if by_bytes else _typed_id(language, code)
    return Program(code_hash, language, code, modules=_modules(said, language))


def kept(code_hash: str, language: Language, code: bytes) -> Program | None:
    """Return a program of which id and language are known; None if `code` is not that (any more)."""
    if code_hash not in {hashlib.sha256(code).hexdigest(), _typed_id(language, code)}:
        return None
    try:
        return Program(code_hash, language, code, modules=_modules(pragma(code), language))
    except InvalidCode:
        # A release that knew more has kept it.
        return None


def _typed_id(language: Language, code: bytes) -> str:
    """Name a program whose language its bytes do not tell: the same bytes in two languages are two programs."""
    return hashlib.sha256(b"%b\0%b" % (language.name.encode(), code)).hexdigest()


def _modules(said: Mapping[str, str], language: Language) -> str:
    text = said.get("modules")
    return "" if text is None else choices.chosen(text, RUNTIMES[language.runtime].registry)


def _written(said: Mapping[str, str]) -> Language | None:
    """Return the language that the program's own bytes name."""
    name = said.get("language")
    if name is None:
        return None
    language = by_name(name)
    if language is None:
        raise _unsupported(name)
    return language


def _unsupported(name: str) -> UnsupportedLanguage:
    types = [language.content_type for language in LANGUAGES]
    return UnsupportedLanguage(
        f"no runtime here runs `{shown(name, 40)}`{_meant(name.lower(), NAMES)}: send {_either(NAMES)} "
        f"(content type {_either(types)}, or one that names no language)",
        languages=list(NAMES),
    )


def _either(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _meant(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word[:40], known, 1)
    return f" (did you mean `{near[0]}`?)" if near else ""
