"""What the engine tells the runtime, by environment (docs/runtime.md, "Process")."""

from os import environ


def _natural(name: str, fallback: int) -> int:
    text = environ.get(name, "")
    if not text:
        return fallback
    if not (text.isascii() and text.isdecimal()):
        raise SystemExit(f"{name} must be a whole number, not `{text}`")
    return int(text)


PORT = _natural("SANDPOST_PORT", 8000)
READY = _natural("SANDPOST_READY", -1)
PORT_FILE = environ.get("SANDPOST_PORT_FILE", "")
MODULES = environ.get("SANDPOST_MODULES") or "/modules"
PROGRAMS = _natural("SANDPOST_PROGRAMS", 256) or 1
PROGRAM_BYTES = _natural("SANDPOST_PROGRAM_BYTES", 16 * 1024 * 1024)
