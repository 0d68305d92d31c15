"""The languages that programs are written in: their names, and the runtime that each runs on. Pure.

A further language is a row of `LANGUAGES`.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Language:
    """A language that runs here."""

    name: str
    """As the pragma `language=`, errors and the names of kept programs have it."""
    runtime: str
    """The folder of its runtime in the image."""
    content_type: str
    """What says it on the wire to a runtime."""
    types: frozenset[str]
    """Its names in content types `text/NAME`, `application/NAME` and the same with `x-NAME`."""
    aliases: frozenset[str] = frozenset()
    """Further names that a pragma may have for it."""


JAVASCRIPT = Language(
    "javascript",
    "node",
    "application/javascript",
    types=frozenset({"javascript", "ecmascript", "jscript"}),
    aliases=frozenset({"js"}),
)
"""What a program is that says nothing of its language."""

LANGUAGES = (
    JAVASCRIPT,
    Language(
        "typescript",
        "node",
        "application/typescript",
        types=frozenset({"typescript"}),
        aliases=frozenset({"ts"}),
    ),
    Language(
        "python",
        "python",
        "text/x-python",
        types=frozenset({"python"}),
        aliases=frozenset({"py", "python3"}),
    ),
    Language(
        "csharp",
        "node",
        "text/x-csharp",
        types=frozenset({"csharp"}),
        aliases=frozenset({"cs", "c#"}),
    ),
)

NAMES = tuple(language.name for language in LANGUAGES)

_FOREIGN = {
    "livescript": "livescript",
    "coffeescript": "coffeescript",
    "jsx": "jsx",
    "tsx": "tsx",
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
"""Languages that do not run here, by their names in content types; a name that has a row above is not looked up."""
_TAILS = ("-src", "-source", "-script", "-code")
_NO_LANGUAGE = frozenset({"text/x-markdown", "text/x-log", "text/x-web-markdown", "text/x-component"})

_BY_TYPE = {name: language for language in LANGUAGES for name in language.types}
_BY_NAME = {name: language for language in LANGUAGES for name in (language.name, *language.aliases)}


def by_name(name: str) -> Language | None:
    """Return the language that a pragma calls `name`, in any case; None if none that runs here is called so."""
    return _BY_NAME.get(name.lower())


def by_content_type(content_type: str) -> Language | str | None:
    """Return the language that a Content-Type names: the name alone if it does not run here, None if none is named."""
    kind = content_type.partition(";")[0].strip().lower()
    top, _, name = kind.partition("/")
    if top not in {"text", "application"}:
        return None
    experimental = name.startswith("x-")
    name = name.removeprefix("x-")
    for tail in _TAILS:
        name = name.removesuffix(tail)
    known = _BY_TYPE.get(name) or _FOREIGN.get(name)
    if known is None and top == "text" and experimental and kind not in _NO_LANGUAGE:
        return name
    return known
